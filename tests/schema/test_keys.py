"""What the keys of a config say of themselves, read off two configs."""

import dataclasses
import re

import pytest

from engine.config import Config
from engine.schema.files import apply_override
from engine.schema.help import sections
from engine.schema.keys import changes, decisive, idle
from engine.schema.parser import Meaning, parse, to_tree
from engine.tasks.catalogue import TASKS

TREE = {"data": {"train": [{"manifest": "a"}], "tests": [{"manifest": "b"}]}, "procedural": {"seed": 1}}
SPEED = {
    "data.decode_threads=3", "data.decode_processes=true", "data.prefetch_batches=9", "train.gc_every_steps=7",
    "train.channels_last=false", "train.checkpoint_activations=true", "train.compile=yes", "evaluate.batch_size=3",
    "train.compile_mode=max-autotune", "model.form=flat", "run.deterministic=true", "run.cpu_threads=2",
    "run.folder=elsewhere", "checkpoint.keep=9", "checkpoint.every_steps=3", "log.every_steps=1", "log.report=false",
}  # fmt: skip


def config(*overrides: str) -> Config:
    tree = to_tree(parse(Config, TREE))
    for override in overrides:
        apply_override(tree, override)
    return parse(Config, tree)


@pytest.mark.parametrize("override", sorted(SPEED))
def test_speed_and_what_is_kept_decide_nothing(override):
    assert config(override) != config()
    assert decisive(config(override)) == decisive(config())


def test_what_cannot_matter_decides_nothing():
    assert set(idle(config("loss.scale=3", "train.momentum=0.5"))) == set(idle(config()))
    assert decisive(config("loss.scale=3", "train.momentum=0.5", "data.tests.0.weight=2")) == decisive(config())
    assert decisive(config("loss.scale=3", "loss.name=aurl")).loss.scale == 3


@pytest.mark.parametrize(
    ("override", "is_fixed", "told"),
    [
        ("run.seed=1", True, "0 -> 1"),
        ("train.batch_size=3", True, "22 -> 3"),
        ("train.optimizer=sgd", True, "adam -> sgd"),
        ("model.width=8", True, "64 -> 8"),
        ("procedural.seed=2", True, "1 -> 2"),
        ("procedural.folder=x", False, "runs/procedural -> x"),
        ("procedural=null", True, "a section -> none"),
        ("data.validation.seed=3", True, "0 -> 3"),
        ("data.train.0.video_share=0.5", True, "1.0 -> 0.5"),
        ("data.train.0.manifest=moved", False, "a -> moved"),
        ("data.train=[{manifest: a}, {manifest: c}]", True, "1 of them -> 2 of them"),
        ("data.tests.0.splits=[x]", False, "[] -> ['x']"),
        ("data.tests=[]", False, "1 of them -> []"),
        ("train.lr=0.5", False, "0.001 -> 0.5"),
        ("train.epochs=3", False, "150 -> 3"),
        ("train.schedule=constant", False, "milestones -> constant"),
        ("train.init_from=x", False, "none -> x"),
    ],
)
def test_a_change_is_named_and_may_be_fixed(override, is_fixed, told):
    (change,) = changes(config(), config(override), fixed=("model",))
    assert (change.name, change.is_fixed) == (override.partition("=")[0], is_fixed)
    assert change.told(" -> ") == told


def test_every_need_names_a_key_and_values_that_it_may_have():
    known, count = sections(Config), 0
    for cls in (Config, *known.values()):
        for field in dataclasses.fields(cls):
            assert set(field.metadata) <= {"help", *Meaning.__annotations__}, field.name
            for need in filter(None, field.metadata.get("needs", "").split(" or ")):
                key, _, values = re.fullmatch(r"([\w.]+)(!?=)?(.*)", need).groups()
                section, _, last = key.rpartition(".")
                (named,) = (
                    each for each in dataclasses.fields(known[section] if section else cls) if each.name == last
                )
                choices = TASKS if key == "task" else named.metadata.get("choices") or ()
                assert set(values.split("|")) <= {*choices, str(named.default), ""}, need
                count += 1
    assert count > 30
