"""Published features in their usual files, with the windows that the user says."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.errors import InputError
from engine.features.published import PublishedFeatures, open_features


def made(num_windows, width=6, seed=0):
    return np.random.default_rng(seed).normal(size=(num_windows, width)).astype(np.float32)


def write_files(folder):
    (folder / "part").mkdir(parents=True)
    np.save(folder / "one.npy", made(5))
    np.savez(folder / "two.npz", feat=made(3), fps=np.array(25.0))
    torch.save(torch.from_numpy(made(4)).bfloat16(), folder / "part" / "three.pt")
    torch.save({"features": torch.from_numpy(made(2)), "other": torch.zeros(3, 3)}, folder / "four.pt")
    np.save(folder / "five.npy", made(4).reshape(4, 1, 1, 6).astype(np.float64))
    np.save(folder / "six.npy", made(1).reshape(1, 1, 6))
    (folder / "README.txt").write_text("no features")


def test_files_of_all_kinds(tmp_path):
    write_files(tmp_path)
    features = PublishedFeatures(tmp_path, 2.0, 1.5, {"one": 7.0, "four": 2.2})
    assert features.videos == ("five", "four", "one", "six", "three", "two")
    assert "one" in features and "seven" not in features
    for name, count in {"one": 5, "two": 3, "four": 2, "five": 4, "six": 1}.items():
        found = features[name]
        assert np.array_equal(found.features, made(count))
        assert found.features.dtype == np.float32
        assert np.array_equal(found.start_s, 1.5 * np.arange(count))
    assert np.allclose(features["three"].features, made(4), atol=0.02)
    assert isinstance(features["one"].features, np.memmap)
    assert features["one"].end_s.tolist() == [2, 3.5, 5, 6.5, 7]
    assert features["one"].duration_s == 7
    assert features["four"].end_s.tolist() == [2, 2.2]
    assert features["two"].duration_s == 5.0


def test_windows_behind_the_end_of_the_video_are_left_out(tmp_path):
    np.save(tmp_path / "one.npy", made(5))
    found = PublishedFeatures(tmp_path, 1.0, 1.0, {"one": 2.5})["one"]
    assert len(found.features) == 3
    assert found.end_s.tolist() == [1, 2, 2.5]
    with pytest.raises(InputError, match="it is said to last 0 s"):
        PublishedFeatures(tmp_path, 1.0, 1.0, {"one": 0.0})["one"]


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["v_one"] = made(5)
        file["v_two/c3d_features"] = made(3)
        file["v_bad/a"] = file["v_bad/b"] = made(3)
    features = open_features(tmp_path / "f.h5", window_s=1.0, hop_s=0.5)
    assert features.videos == ("v_bad", "v_one", "v_two")
    assert np.array_equal(features["v_one"].features, made(5))
    assert np.array_equal(features["v_two"].features, made(3))
    with pytest.raises(InputError, match=r"features of 'v_bad' in .* it holds a, b"):
        features["v_bad"]
    (tmp_path / "g.hdf5").write_text("no HDF5")
    with pytest.raises(InputError, match=r"g.hdf5' cannot be read"):
        open_features(tmp_path / "g.hdf5", window_s=1.0, hop_s=0.5)


def test_a_link_to_what_is_not_there_is_told(tmp_path, monkeypatch):
    """As h5py has it: the name is listed, and opening it is a KeyError."""

    class Linked(dict):
        def __getitem__(self, name: str) -> np.ndarray:
            raise KeyError("Unable to synchronously open object (component not found)")

    pretended = SimpleNamespace(File=lambda *_: Linked(v_gone=None), Dataset=np.ndarray)
    monkeypatch.setitem(sys.modules, "h5py", pretended)
    with pytest.raises(InputError, match=r"features of 'v_gone' in '.*f\.h5' cannot be read: .*component not found"):
        PublishedFeatures(tmp_path / "f.h5", 1.0, 1.0)["v_gone"]


def test_hdf5_without_h5py_says_what_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"f.h5' needs h5py: pip install h5py"):
        PublishedFeatures(tmp_path / "f.h5", 1.0, 1.0)


class Evil:
    """What a pickle that runs a program looks like."""

    def __reduce__(self):
        return (print, ("it ran",))


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (
            lambda path: np.save(path.with_suffix(".npy"), made(3)[:, 0]),
            r"are float32 \[3\]: floats \[windows, numbers\]",
        ),
        (lambda path: np.save(path.with_suffix(".npy"), np.zeros((0, 6), np.float32)), r"are float32 \[0, 6\]"),
        (lambda path: np.save(path.with_suffix(".npy"), np.zeros((3, 6), int)), r"are int64 \[3, 6\]"),
        (lambda path: np.save(path.with_suffix(".npy"), made(3) * np.nan), "are not all finite"),
        (lambda path: np.save(path.with_suffix(".npy"), np.array([{}] * 3)), "cannot be read"),
        (lambda path: path.with_suffix(".npy").write_bytes(b"\x93NUMPY"), "cannot be read"),
        (lambda path: path.with_suffix(".npz").write_bytes(b"PK"), "cannot be read"),
        (lambda path: np.savez(path.with_suffix(".npz"), a=made(3), b=made(3)), "it holds a, b: one array"),
        (lambda path: torch.save(Evil(), path.with_suffix(".pt")), "cannot be read"),
        (lambda path: torch.save([1.0, 2.0], path.with_suffix(".pt")), r"are float32 \[2\]"),
        (
            lambda path: np.save(path.with_suffix(".npy"), made(3, width=7)),
            "have 7 numbers, those of 'a' 6: of two models",
        ),
    ],
)
def test_what_are_no_features_is_told_with_the_file(tmp_path, write, told, capfd):
    np.save(tmp_path / "a.npy", made(2))
    write(tmp_path / "bad")
    features = PublishedFeatures(tmp_path, 1.0, 1.0)
    assert len(features["a"].features) == 2
    with pytest.raises(InputError, match=told) as error:
        features["bad"]
    assert "bad" in str(error.value)
    assert "it ran" not in capfd.readouterr().out


def test_what_cannot_be_opened_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no features in"):
        PublishedFeatures(tmp_path / "empty", 1.0, 1.0)
    with pytest.raises(InputError, match="no features in"):
        PublishedFeatures(tmp_path / "nothing", 1.0, 1.0)
    write_files(tmp_path / "set")
    with pytest.raises(InputError, match="their hop is 0 s: it must be more than 0"):
        PublishedFeatures(tmp_path / "set", 1.0, 0.0)
    with pytest.raises(InputError, match="published features need the seconds of their window and hop"):
        open_features(tmp_path / "set")
    with pytest.raises(InputError, match="nothing of 'seven' among 6 videos"):
        PublishedFeatures(tmp_path / "set", 1.0, 1.0)["seven"]
    np.save(tmp_path / "set" / "part" / "one.npy", made(5))
    with pytest.raises(InputError, match="two files of one video"):
        PublishedFeatures(tmp_path / "set", 1.0, 1.0)


def test_a_cache_is_opened_without_being_told_its_windows(tmp_path):
    (tmp_path / "journal.jsonl").write_text("")
    with pytest.raises(InputError, match="has not come to its end"):
        open_features(tmp_path)
