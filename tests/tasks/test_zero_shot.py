"""Zero-shot recognition as a task: its class vectors are made once, its control differs in nothing but them."""

import warnings
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from engine.config import Config, load_config, save_config
from engine.data.batch import ClipBatch
from engine.data.config import ClassSplitConfig, SourceConfig
from engine.data.manifests.manifest import Manifest
from engine.data.sets.sources import DataSet
from engine.models import flat
from engine.models.image_weights import imagenet_names
from engine.processes.distributed import Ranks
from engine.processes.preemption import StopVote
from engine.semantics.averaged_words import AveragedWords
from engine.semantics.classes import KeptVectors, build_class_embeddings
from engine.semantics.config import OverlapConfig, WordsConfig, WordSourceConfig
from engine.tasks.zero_shot.control import control_config, random_vectors
from engine.tasks.zero_shot.known import Known
from engine.train import train
from engine.training.build import build_run
from tests import jobs
from tests.rows import row

CPU = Ranks(torch.device("cpu"))


def test_class_vectors_of_a_set_are_made_once_in_a_run(videos, tmp_path, monkeypatch):
    """Whatever asks for them: the check for overlap, the loss, four evaluations, the report."""
    asked, embed = Counter(), AveragedWords.embed

    def count(source, names):
        asked[tuple(names)] += 1
        return embed(source, names)

    monkeypatch.setattr(AveragedWords, "embed", count)
    path = jobs.write_config(
        tmp_path / "config.yaml", videos, tmp_path / "run",
        data={
            "train": [{"manifest": str(videos), "splits": ["train"]}], "decode_threads": 1,
            "tests": [{"manifest": str(videos), "splits": ["unseen"], "name": "combinations"}],
            "validation": {"video_share": 0.25, "num_classes": 2},
        },
        evaluate={"every_epochs": 1, "num_snippets": 1}, log={"report": True},
    )  # fmt: skip
    outcome = train(load_config(path, []), CPU, StopVote())
    assert outcome.page.findings[0].nearest_seen  # the report has asked too
    assert sorted(map(len, asked)) == [2, 3, 4, 6]  # held out, test, training, and all of training against the test
    assert set(asked.values()) == {1}


def test_first_snippets_of_names_in_any_script_are_shown_without_a_warning(videos, tmp_path):
    path = jobs.write_config(tmp_path / "config.yaml", videos, tmp_path / "run")
    run = build_run(load_config(path, []), CPU, StopVote())
    classes = run.task.sets.classes
    names = ["滑雪 ℊ", *classes.names[1:]]  # the ℊ is in STIX, which comes with matplotlib, not in its own font
    run.task.sets = replace(run.task.sets, classes=replace(classes, names=names))
    none = torch.zeros(1, dtype=torch.int64)
    batch = ClipBatch(torch.zeros(1, 4, 24, 24, 3, dtype=torch.uint8), none, none, none)
    with warnings.catch_warnings(), SummaryWriter(str(tmp_path / "run" / "tensorboard")) as writer:
        warnings.filterwarnings("error", "Glyph .* missing")
        run.task.show_first(run, batch, SimpleNamespace(writer=writer))


def test_vectors_that_a_killed_start_has_shown_are_shown_anew_without_a_warning(videos, tmp_path, capsys):
    path = jobs.write_config(tmp_path / "config.yaml", videos, tmp_path / "run")
    run = build_run(load_config(path, []), CPU, StopVote())
    for _ in range(2):  # no checkpoint lies between them
        with SummaryWriter(str(tmp_path / "run" / "tensorboard")) as writer:
            run.task.show_first(run, [], SimpleNamespace(writer=writer))
    assert "warning" not in "".join(capsys.readouterr())
    (shown,) = (tmp_path / "run" / "tensorboard").glob("*/class_vectors/tensors.tsv")
    assert len(shown.read_text().splitlines()) == len(run.task.sets.train.classes)
    assert "class_vectors" in (tmp_path / "run" / "tensorboard" / "projector_config.pbtxt").read_text()


def test_kept_vectors_are_those_of_their_words():
    names, words = ["riding a horse", "playing the piano"], WordsConfig()
    kept = KeptVectors(words)
    first = build_class_embeddings(names, kept)
    assert torch.equal(first.vectors, build_class_embeddings(names, words).vectors)
    assert build_class_embeddings(tuple(names), kept) is first
    assert build_class_embeddings(names[:1], kept).names == ("riding a horse",)


def test_the_control_is_the_same_run_towards_random_vectors():
    config = Config()
    assert control_config(config, reached=None) is None  # run.control is off
    control = random_vectors(config, 50)
    assert (control.words.source, control.words.dim, control.run.folder) == ("random", 50, "runs/unnamed/control")
    assert control.train.exclude_overlap.words == config.words  # so that it trains on the same classes
    assert (control.model, control.data, control.loss, control.clip) == (
        config.model, config.data, config.loss, config.clip,
    )  # fmt: skip


def split_config(folder: Path, *splits: int, seed: int = 5) -> Config:
    """A run whose sources split the classes by these seeds."""
    halves = [ClassSplitConfig(seed=split, num_train=2) for split in splits]
    sources = [SourceConfig(manifest="m", class_split=half, part="train") for half in halves]
    config = Config()
    return replace(
        config, run=replace(config.run, folder=str(folder), seed=seed), data=replace(config.data, train=sources)
    )


def test_controls_of_other_class_splits_draw_other_vectors(tmp_path):
    def vectors(*splits: int, seed: int = 5) -> torch.Tensor:
        words = random_vectors(split_config(tmp_path, *splits, seed=seed), 50).words
        return build_class_embeddings(["a class"], words).vectors[0]

    others = [vectors(), vectors(0), vectors(1), vectors(0, 1), vectors(0, seed=6)]
    cosines = torch.stack(others) @ torch.stack(others).T
    assert (cosines - torch.eye(5)).abs().max() < 0.5
    assert torch.equal(vectors(1), vectors(1, 1))  # training and test set of one split
    assert random_vectors(split_config(tmp_path), 50).words.seed == 5  # no split: the seed of the run, as ever


def test_a_control_that_has_begun_keeps_its_vectors(tmp_path):
    config = split_config(tmp_path, 3)
    begun = random_vectors(config, 50)
    (tmp_path / "control").mkdir()
    save_config(begun, tmp_path / "control" / "config.yaml")
    assert random_vectors(config, 50) == begun
    of_before = replace(begun, words=replace(begun.words, seed=config.run.seed))  # the same for every split
    save_config(of_before, tmp_path / "control" / "config.yaml")
    assert random_vectors(config, 50) == of_before != begun


def test_a_control_begins_by_itself_where_its_run_began_at_a_checkpoint():
    config = Config()
    config = replace(config, run=replace(config.run, resume="runs/other/checkpoints/step_00000012.pt"))
    assert random_vectors(config, 50).run.resume == "auto"


def test_clips_come_as_the_model_takes_them_where_it_is(videos, tmp_path, monkeypatch):
    """On a GPU the stem takes filled channels, and the model is built on the CPU."""
    path = jobs.write_config(
        tmp_path / "config.yaml",
        videos,
        tmp_path / "run",
        model={"backbone": "r2plus1d_18", "width": 4, "form": "flat"},
    )
    run = build_run(load_config(path, []), CPU, StopVote())
    batch = ClipBatch(torch.zeros(2, 4, 24, 24, 3, dtype=torch.uint8), *(torch.zeros(2, dtype=torch.int64),) * 3)

    def taken() -> tuple[int, ...]:
        return run.task.points(lambda clips, visible: clips, batch).shape

    assert taken() == (2, 3, 4, 24, 24)
    monkeypatch.setitem(flat._MULTIPLE, "cpu", 8)  # the CPU stands for a GPU
    assert run.model.backbone.clip_channels == 8
    assert taken() == (2, 8, 4, 24, 24)
    assert run.task.loss(run.model, batch).isfinite()


def test_a_class_near_a_trained_one_is_not_unseen_whatever_the_weights_names_are():
    """ImageNet's names hold words without vectors; those of the training have them all."""
    test = SimpleNamespace(name="t", classes=("horse riding", "guitar playing", "archery", "great white shark"))
    training = ("training", ("riding a horse", "playing guitar"))
    known = partial(Known, files=None, overlap=OverlapConfig(), words=KeptVectors(WordsConfig()))
    seen = ["horse riding", "guitar playing"]
    assert known([training, ("pretrained weights", ())]).classes_of(test) == seen
    assert known([training, ("pretrained weights", imagenet_names())]).classes_of(test) == [*seen, "great white shark"]


def test_a_class_near_a_trained_one_is_found_by_two_sources_too():
    words = WordsConfig(source="glove", centre="no", also=WordSourceConfig())
    known = Known([("pretrained weights", imagenet_names())], None, OverlapConfig(tau=0.3), KeptVectors(words))
    assert "violin playing" in known.classes_of(SimpleNamespace(name="t", classes=("violin playing", "zipping up")))


def test_names_that_vectors_could_not_be_found_for_are_told(tmp_path):
    """They were compared letter by letter alone."""
    rows = [row("a.mp4", "walk"), row("b.mp4", "run")]
    data = DataSet("t", Manifest.from_rows(rows, tmp_path))
    np.savez(tmp_path / "own.npz", names=np.array(data.classes), vectors=np.eye(len(data.classes)))
    words = KeptVectors(WordsConfig(source="npz", path=str(tmp_path / "own.npz")))
    classes = [("training", data.classes[:1]), ("pretrained weights", ["qwertzing"])]
    seen = Known(classes, None, OverlapConfig(), words).look(data)
    told, found = seen.warnings()
    assert told.startswith("'t': the classes of pretrained weights could not be compared by vectors: no vector for")
    assert seen.classes == [data.classes[0]] and "trained on 1 of these classes" in found


def test_a_class_is_trained_on_in_another_form_of_its_verb_too():
    """Though their vectors are far apart: "riding" counts as "rid" there, as in the authors' code."""
    training = ("training", ("riding a bike", "golfing", "singing", "playing darts"))
    known = Known([training], None, OverlapConfig(), KeptVectors(WordsConfig()))
    test = SimpleNamespace(name="t", classes=("ride_bike", "ride_horse", "golf", "Sing", "play_darts", "throw darts"))
    assert known.classes_of(test) == ["ride_bike", "golf", "Sing", "play_darts"]
