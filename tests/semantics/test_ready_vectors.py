"""Ready class vectors from .npz files."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import InputError
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig
from tests.semantics.shared_files import class_list, shared


def save_npz(path: Path, **arrays: object) -> WordsConfig:
    np.savez(path, **{key: np.asarray(value) for key, value in arrays.items()})
    return WordsConfig(source="npz", path=str(path))


EYE = np.eye(4, dtype=np.float32) * [[2], [3], [4], [5]]


def test_npz_finds_classes_however_they_are_spelt(tmp_path):
    config = save_npz(tmp_path / "c.npz", names=["Brush Hair", "Weight Lifting", "jump", "Walk Dog"], vectors=EYE)
    result = build_class_embeddings(["jump", "brush_hair", "BrushHair", "CleanAndJerk", "WalkingWithDog"], config)
    torch.testing.assert_close(result.vectors, torch.eye(4)[[2, 0, 0, 1, 3]])
    assert result.words[3] == ("Weight Lifting",)
    assert "'c.npz'" in result.description
    assert "4 classes, 4 dimensions, not centred" in result.description
    given = dataclasses.replace(config, replace={"hop": "jump"})
    torch.testing.assert_close(build_class_embeddings(["hop"], given).vectors, torch.eye(4)[[2]])


def test_npz_says_which_classes_are_missing_or_ambiguous(tmp_path):
    config = save_npz(tmp_path / "c.npz", names=["Sit up", "situp", "jumping high", "surf"], vectors=EYE)
    with pytest.raises(
        InputError,
        match=r"no vector for these classes \(2\) in .*\n.*'jumping hih' \(near: jumping high\)\n.*'yodel' \(nothing near\)",
    ):
        build_class_embeddings(["jumping hih", "surf", "yodel"], config)
    with pytest.raises(InputError, match=r"class 'SitUp' may be 'Sit up', 'situp'.*words\.replace"):
        build_class_embeddings(["SitUp"], config)
    torch.testing.assert_close(build_class_embeddings(["situp"], config).vectors, torch.eye(4)[[1]])


def test_npz_with_several_sets_takes_the_one_that_holds_the_classes(tmp_path):
    sets = {
        "ucf_names": ["Jump", "Surf"],
        "ucf_vectors": EYE[:2],
        "hmdb_names": ["jump", "wave"],
        "hmdb_vectors": EYE[2:],
    }
    config = save_npz(tmp_path / "c.npz", **sets)
    torch.testing.assert_close(build_class_embeddings(["jump", "surf"], config).vectors, torch.eye(4)[:2])
    torch.testing.assert_close(build_class_embeddings(["jump", "wave"], config).vectors, torch.eye(4)[2:])
    with pytest.raises(InputError, match=r"sets ucf and hmdb .* pick one with words\.path: .*c\.npz:ucf"):
        build_class_embeddings(["JUMP"], config)
    picked = dataclasses.replace(config, path=f"{config.path}:hmdb")
    torch.testing.assert_close(build_class_embeddings(["JUMP"], picked).vectors, torch.eye(4)[[2]])
    unnamed = save_npz(tmp_path / "d.npz", names=["jump"], vectors=EYE[:1], x_names=["jump"], x_vectors=EYE[1:2])
    with pytest.raises(InputError, match=r"sets without a name and x .* pick one with words\.path: .*d\.npz:x$"):
        build_class_embeddings(["jump"], unnamed)
    with pytest.raises(InputError, match=r"no set 'ucf102': it has ucf, hmdb"):
        build_class_embeddings(["jump"], dataclasses.replace(config, path=f"{config.path}:ucf102"))


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"labels": ["a"], "vectors": EYE[:1]}, "it needs 'names' and 'vectors'"),
        ({"names": ["a", "b"], "vectors": EYE}, "2 names need float vectors"),
        ({"names": [1, 2], "vectors": EYE[:2]}, "must be a row of text"),
        ({"names": np.array(["a", "b"], dtype=object), "vectors": EYE[:2]}, "cannot be read .*dtype=str"),
        ({"names": ["a", "b"], "vectors": EYE[:2] * 0}, "'a' is zero or not finite"),
        ({"names": ["a", "b"], "vectors": EYE[:2] * np.nan}, "'a' is zero or not finite"),
        ({"names": [b"b", "café".encode("latin-1")], "vectors": EYE[:2]}, r"no vector for these classes \(1\)"),
    ],
)
def test_npz_that_does_not_fit(tmp_path, arrays, reason):
    config = save_npz(tmp_path / "c.npz", **arrays)
    with pytest.raises(InputError, match=reason):
        build_class_embeddings(["a"], config)


def test_npz_that_is_none(tmp_path):
    (tmp_path / "c.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match=r"c\.npz' cannot be read"):
        build_class_embeddings(["a"], WordsConfig(source="npz", path=str(tmp_path / "c.npz")))
    np.savez_compressed(tmp_path / "e.npz", names=["a"], vectors=np.random.default_rng(0).random((1, 4096)))
    content = bytearray((tmp_path / "e.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "e.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"e\.npz' cannot be read"):
        build_class_embeddings(["a"], WordsConfig(source="npz", path=str(tmp_path / "e.npz")))
    with pytest.raises(InputError, match="no file at"):
        build_class_embeddings(["a"], WordsConfig(source="npz", path=str(tmp_path / "d.npz")))


def test_ready_fasttext_vectors_of_all_ucf101_classes():
    config = WordsConfig(source="npz", path=str(shared("word_vectors/class_embeddings_fasttext_wiki300.npz")))
    result = build_class_embeddings(class_list("mmaction2__ucf101_label_map.txt"), config)
    assert result.vectors.shape == (101, 300)
    assert "set ucf" in result.description
    assert result.words[result.names.index("CleanAndJerk")] == ("Weight Lifting",)
    cosines = result.vectors @ result.vectors[result.names.index("PlayingViolin")]
    top = [result.names[place] for place in cosines.topk(4).indices.tolist()[1:]]
    assert all(name.startswith("Playing") for name in top)


def test_ready_kinetics_vectors():
    config = WordsConfig(source="npz", path=str(shared("word_vectors/class_embeddings_kinetics620_glove42b_300.npz")))
    result = build_class_embeddings(class_list("mmaction2__kinetics_label_map_k400.txt"), config)
    assert result.vectors.shape == (400, 300)
