"""A config told to its user: in short within --help, a section whole with --section."""

import dataclasses
import re

from engine.config import Config
from engine.schema.help import describe, outline, sections


def test_a_type_that_comes_again_is_told_once():
    known = sections(Config)
    assert list(known)[:4] == ["run", "procedural", "data", "data.train.N"]
    assert "words" in known and "train.exclude_overlap" in known
    assert not {"data.tests.N", "words.also", "train.exclude_overlap.words"} & set(known)
    assert len(set(known.values())) == len(known)


def test_the_outline_names_every_key_once_with_its_default():
    text = outline(Config)
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert blocks.pop(0).startswith("task=zero_shot: what is trained")
    assert [block.split(":")[0] for block in blocks] == list(sections(Config))
    for block, cls in zip(blocks, sections(Config).values(), strict=True):
        named = re.findall(r"(?:^|\s)(\w+)(?==|: \.\.\.)", block.partition("\n")[2])
        assert sorted(named) == sorted(field.name for field in dataclasses.fields(cls))
    assert "milestones=[60, 120]" in text and "manifest=(required)" in text and "lr=0.001" in text


def test_a_section_is_told_whole_with_what_lies_within_it():
    text = describe(Config, "data")
    for part in ("data", "data.train.N", "data.train.N.class_split", "data.validation", "data.remote"):
        for field in dataclasses.fields(sections(Config)[part]):
            key = f"{part}.{field.name}"
            assert (key in ("data.validation", "data.remote")) != (f"  {key} =" in text), key
    assert dataclasses.fields(sections(Config)["clip"])[0].metadata["help"] in describe(Config, "clip")
    assert "clip.crop = 112\n      pixels of the square crop" in describe(Config, "clip")
    assert "[r2plus1d_18 | r3d_18 | mc3_18 | c3d | vit_tiny | vit_small | vit_base | timm:*]" in describe(
        Config, "model"
    )
    assert "all from one model; keys: data.train.N\n" in text
    assert "model." not in describe(Config, "run") and "keys: words" in describe(Config, "words")
    assert describe(Config, "data.validation") in text


def test_every_section_together_tells_every_key():
    text = "\n".join(describe(Config, name) for name in sections(Config) if "." not in name)
    told = re.findall(r"^  (\S+) =", text, flags=re.MULTILINE)
    assert len(told) == len(set(told))
    every = {f"{name}.{field.name}" for name, cls in sections(Config).items() for field in dataclasses.fields(cls)}
    assert every - set(told) == {
        "data.validation",
        "data.remote",
        "model.tokens",
        "train.exclude_overlap",
    }  # these are told as sections
