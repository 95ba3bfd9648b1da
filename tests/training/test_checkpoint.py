"""Checkpoints: whole or not there, safe to read, and the model comes back bit for bit."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.config import Config
from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.models.config import ModelConfig
from engine.models.embedder import build_embedder
from engine.schema.parser import to_tree
from engine.tasks.zero_shot.trained import load_for_inference
from engine.training.checkpoint import (
    UnreachableCheckpoint,
    checkpoint_file,
    drop_old_checkpoints,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)

MODEL = ModelConfig(backbone="r3d_18", width=4)


def state(step: int = 3) -> dict:
    torch.manual_seed(step)
    model = build_embedder(MODEL, ClipFormat(4, 1, 16, 16), 7)
    config = to_tree(Config(model=MODEL))
    return {
        "model": model.state_dict(), "config": config, "train_classes": ["a", "b"], "embed_dim": 7,
        "step": step, "epoch": 1, "position": 2,
    }  # fmt: skip


def test_model_comes_back_bit_for_bit(tmp_path):
    saved = state()
    save_checkpoint(tmp_path / "checkpoints" / "step_00000003.pt", saved)
    drawn = torch.get_rng_state()
    loaded = load_for_inference(tmp_path, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert (loaded.step, loaded.epoch, loaded.train_classes) == (3, 1, ("a", "b"))
    assert not loaded.model.training
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, saved["model"][name]), name


def test_run_folder_gives_best_else_newest(tmp_path):
    folder = tmp_path / "checkpoints"
    with pytest.raises(InputError, match="holds no checkpoint"):
        checkpoint_file(tmp_path)
    for step in (2, 10, 9):
        save_checkpoint(folder / f"step_{step:08d}.pt", state(step))
    assert [path.stem for path in list_checkpoints(tmp_path)] == ["step_00000010", "step_00000009", "step_00000002"]
    assert checkpoint_file(tmp_path).stem == "step_00000010"
    save_checkpoint(folder / "best.pt", state())
    assert checkpoint_file(tmp_path).stem == "best"
    drop_old_checkpoints(tmp_path, keep=1)
    assert sorted(path.name for path in folder.iterdir()) == ["best.pt", "step_00000010.pt"]


def test_what_a_kill_left_half_written_goes_with_the_old_checkpoints(tmp_path):
    """It has another name each time, so nothing would write over it; it counts as no checkpoint."""
    save_checkpoint(tmp_path / "checkpoints" / "step_00000002.pt", state(2))
    for name in (".step_00000001.partial-0badcafe.pt", ".best.partial-0badcafe.pt"):
        (tmp_path / "checkpoints" / name).write_bytes(b"half")
    assert len(list_checkpoints(tmp_path)) == 1
    drop_old_checkpoints(tmp_path, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000002.pt"]


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """And its name before anything older is deleted: a power cut leaves one that is whole."""
    path, synced = tmp_path / "best.pt", []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append((os.fstat(handle).st_ino, path.exists())))
    save_checkpoint(path, state())
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_truncated_newest_is_passed_over_with_its_reason(tmp_path):
    folder = tmp_path / "checkpoints"
    for step in (1, 2):
        save_checkpoint(folder / f"step_{step:08d}.pt", state(step))
    newest = folder / "step_00000002.pt"
    newest.write_bytes(newest.read_bytes()[:-2000])
    found, passed_over = newest_checkpoint(tmp_path)
    assert found["step"] == 1
    assert len(passed_over) == 1
    assert "step_00000002.pt' cannot be read" in passed_over[0]


def unreadable(path):
    """A file that opens and whose bytes the kernel refuses (EIO), as a failing disk does."""
    path.unlink(missing_ok=True)
    path.symlink_to("/proc/self/mem")


def test_a_disk_that_fails_is_not_taken_for_a_damaged_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    for step in (1, 2):
        save_checkpoint(folder / f"step_{step:08d}.pt", state(step))
    unreadable(folder / "step_00000002.pt")
    with pytest.raises(
        UnreachableCheckpoint, match=r"step_00000002.pt' cannot be read \(Input/output error\): look at"
    ):
        newest_checkpoint(tmp_path)


def test_a_checkpoint_of_a_later_version_is_not_passed_over(tmp_path):
    """Training would go on from an older one, and in time delete the newer."""
    save_checkpoint(tmp_path / "checkpoints" / "step_00000001.pt", state(1))
    torch.save({**state(2), "format": 2}, tmp_path / "checkpoints" / "step_00000002.pt")
    with pytest.raises(
        UnreachableCheckpoint, match=r"step_00000002.pt' has format 2, this version reads 1: go on with"
    ):
        newest_checkpoint(tmp_path)


def test_an_error_of_the_disk_that_torch_meets_midway_is_told_as_such(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("PytorchStreamReader failed reading file data/0")

    path = tmp_path / "x.pt"
    unreadable(path)
    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(UnreachableCheckpoint):
        read_checkpoint(path)
    path.unlink()
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="it is truncated or no checkpoint"):
        read_checkpoint(path)


def test_torchs_advice_for_another_kind_of_file_is_not_passed_on(tmp_path):
    """It advises weights_only=False, which runs what is in the file."""
    (tmp_path / "results.json").write_text('{"step": 3}')
    with pytest.raises(InputError, match=r"results.json' cannot be read \([^.]*\): it is truncated or no checkpoint$"):
        read_checkpoint(tmp_path / "results.json")


def test_an_archive_of_something_else_is_refused_with_a_reason(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(InputError, match=r"cannot be read \(\w[^\[\]]*\): it is truncated or no checkpoint$"):
        read_checkpoint(tmp_path / "x.npz")


def test_a_file_of_an_older_torch_is_refused_wherever_it_is_damaged(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"format": 1, "model": {"w": torch.zeros(2, 3)}}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for place in range(1, len(whole)):
        for content in (whole[:place], whole[:place] + b"\x85" + whole[place + 1 :]):
            path.write_bytes(content)
            with pytest.raises(InputError, match=r"is truncated or no checkpoint|is not a checkpoint of this project"):
                read_checkpoint(path)


def test_a_folder_of_checkpoints_that_cannot_be_listed_is_no_new_beginning(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "checkpoints" / "step_00000001.pt", state(1))

    def fails(_):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(Path, "iterdir", fails)
    with pytest.raises(UnreachableCheckpoint, match="Stale file handle"):
        newest_checkpoint(tmp_path)


def test_only_a_full_disk_is_told_to_make_room(tmp_path, monkeypatch):
    for number, says in ((errno.ENOSPC, "No space left on device\\): make room"), (errno.ENOENT, "directory\\)$")):

        def fails(*_, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(torch, "save", fails)
        with pytest.raises(InputError, match=says):
            save_checkpoint(tmp_path / "x.pt", state())


class Bomb:
    def __reduce__(self):
        return (print, ("a checkpoint ran code",))


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"not a checkpoint at all" * 50), "cannot be read"),
        (lambda path: path.write_bytes(pickle.dumps({"model": Bomb()})), "cannot be read"),
        (lambda path: torch.save({"format": 1, "model": Bomb()}, path), "cannot be read"),
        (
            lambda path: torch.save({"state_dict": {}}, path),
            "is not a checkpoint of this project: it has no format, model",
        ),
        (lambda path: torch.save([1, 2], path), "is not a checkpoint of this project"),
        (lambda path: torch.save({**state(), "format": 99}, path), "has format 99, this version reads 1"),
        (lambda path: torch.save({**state(), "format": 1, "config": "x"}, path), "its config is no config"),
    ],
)
def test_foreign_files_are_refused_and_run_nothing(tmp_path, capsys, write, says):
    path = tmp_path / "x.pt"
    write(path)
    with pytest.raises(InputError, match=says):
        read_checkpoint(path)
    assert "ran code" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"width": 8}, "holds other weights than its config describes .r3d_18, width 8.: Error"),
        ({"colour": 1}, "is of another version, its config is not understood: unknown key 'model.colour'"),
    ],
)
def test_weights_and_config_that_do_not_fit_are_one_line(tmp_path, change, says):
    made = state()
    made["config"] = {**made["config"], "model": {**made["config"]["model"], **change}}
    save_checkpoint(tmp_path / "x.pt", made)
    with pytest.raises(InputError, match=rf"x.pt' {says}") as caught:
        load_for_inference(tmp_path / "x.pt", torch.device("cpu"))
    assert "\n" not in str(caught.value)


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint at '.*gone.pt'"):
        read_checkpoint(tmp_path / "gone.pt")
    with pytest.raises(InputError, match=r"^'s3://bucket/run' is in object storage: .* copy it and name the copy"):
        load_for_inference(Path("s3://bucket/run"), torch.device("cpu"))


WRITER = """
import sys, torch
from pathlib import Path
from engine.training.checkpoint import save_checkpoint
folder = Path(sys.argv[1])
for step in range(10**6):
    state = {"model": {"w": torch.full((2_000_000,), float(step))}, "config": {}, "train_classes": [], "embed_dim": 1,
             "step": step, "epoch": 0, "position": 0}
    save_checkpoint(folder / "best.pt", state)
    print(step, flush=True)
"""


def test_kill_9_while_writing_leaves_a_whole_checkpoint(tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    written = -1
    for line in writer.stdout:
        written = int(line)
        if written == 3:
            break
    time.sleep(0.011)  # somewhere inside the next write
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    found = read_checkpoint(tmp_path / "best.pt")
    assert found["step"] >= written
    assert torch.equal(found["model"]["w"], torch.full((2_000_000,), float(found["step"])))
