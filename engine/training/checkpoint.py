"""Checkpoints: written whole or not at all, read without running anything that is in them.

A run folder's `checkpoints/` holds `step_00001234.pt` (the newest few, to resume from) and `best.pt`
(the best on held-out training data, to use). All are dictionaries of tensors, numbers and text, so
`torch.load(..., weights_only=True)` reads them.
"""

import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from engine.config import Config
from engine.errors import InputError, mend
from engine.files.addresses import url_of
from engine.files.atomic_file import LEFTOVERS, atomic_write
from engine.schema.parser import parse

FORMAT_VERSION = 1
# What torch.load raises of a file that it cannot read. Of those that torch wrote before 1.6 it checks next to nothing itself.
DAMAGE = (
    OSError, EOFError, UnpicklingError, struct.error,
    RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
)  # fmt: skip
_BLOCK = 2**22  # bytes read at a time
_PLACE = re.compile(r"^\[enforce fail at [^\]]*\] ?(\. )?")  # before the reason, in torch's reader of archives
LOSS_PART = "loss"  # what a loss trains of its own (AURL's class centres) is a part of the model by this name
_REQUIRED = ("format", "model", "config", "step", "epoch", "position")  # whatever was trained; a task adds its own


class UnreachableCheckpoint(InputError):
    """A disk, a missing right or its later format keeps a checkpoint from being read: it may be whole, and keeps its place."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path`: complete on disk before the name appears, so a kill leaves the old file.

    Raises:
        InputError: it cannot be written (a full disk, a lost mount); what was there before is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, durable=True) as partial, partial.open("wb") as file:
            torch.save({"format": FORMAT_VERSION, **state}, file)
    except (OSError, RuntimeError) as error:
        # torch's writer stumbles over the short file and raises its own error on top of the disk's.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise InputError(f"checkpoint '{path}' could not be written ({cause.strerror}){mend(cause)}") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary that `save_checkpoint` wrote, on the CPU.

    Raises:
        InputError: no file, truncated, or not a checkpoint of this project.
        UnreachableCheckpoint: the file cannot be read, whatever is in it, or a later version has written it.
    """
    try:
        is_there = path.is_file()
    except OSError as error:
        raise _unreachable(path, error) from error
    if not is_there:
        raise InputError(f"no checkpoint at '{path}'")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        _read_through(path)
        # Some of torch's own are whole paragraphs, or say nothing of the file.
        text = _PLACE.sub("", str(error).strip())
        reason = (
            text.splitlines()[0].partition(". ")[0]
            if text and not isinstance(error, LookupError)
            else type(error).__name__
        )
        raise InputError(f"checkpoint '{path}' cannot be read ({reason}): it is truncated or no checkpoint") from error
    check_fields(state, _REQUIRED, path)
    if not isinstance(state["config"], dict):
        raise InputError(f"'{path}' is not a checkpoint of this project: its config is no config")
    if state["format"] != FORMAT_VERSION:
        raise UnreachableCheckpoint(
            f"checkpoint '{path}' has format {state['format']}, this version reads {FORMAT_VERSION}: go on with a later one"
        )
    return state


def _read_through(path: Path) -> None:
    """Tell a disk's error from damage, which torch's reader does not."""
    try:
        with path.open("rb", buffering=0) as file:
            while file.read(_BLOCK):
                pass
    except OSError as error:
        raise _unreachable(path, error) from error


def _unreachable(path: Path, error: OSError) -> UnreachableCheckpoint:
    return UnreachableCheckpoint(f"checkpoint '{path}' cannot be read ({error.strerror}){mend(error)}")


def saved_config(state: dict[str, Any], path: Path) -> Config:
    """The config of a checkpoint that was read from `path`; keys that came later have their default.

    Raises:
        InputError: a later version has written it.
    """
    try:
        return parse(Config, state["config"])
    except InputError as error:
        raise InputError(f"checkpoint '{path}' is of another version, its config is not understood: {error}") from error


def check_fields(state: Any, fields: Sequence[str], path: Path) -> None:
    """Refuse a checkpoint that lacks one of these fields."""
    missing = [key for key in fields if not isinstance(state, dict) or key not in state]
    if missing:
        raise InputError(f"'{path}' is not a checkpoint of this project: it has no {', '.join(missing)}")


def network_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model's tensors without those that only its loss has: the classes of another run, or none at all, need not fit."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith(f"{LOSS_PART}.")}


def list_checkpoints(run_folder: Path) -> list[Path]:
    """The checkpoints to resume from, newest first.

    Raises:
        UnreachableCheckpoint: their folder cannot be read.
    """
    folder, found = run_folder / "checkpoints", []
    try:
        found = [path for path in folder.iterdir() if re.fullmatch(r"step_\d+\.pt", path.name)]
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise _unreachable(folder, error) from error
    return sorted(found, key=step_of, reverse=True)


def newest_checkpoint(run_folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest readable checkpoint of a run, and a line for each newer one that had to be passed over.

    Raises:
        InputError: there are checkpoints, and none can be read.
        UnreachableCheckpoint: as `read_checkpoint`; an older one would take the place of one that may be whole.
    """
    passed_over = []
    for path in list_checkpoints(run_folder):
        try:
            return read_checkpoint(path), passed_over
        except UnreachableCheckpoint:
            raise
        except InputError as error:
            passed_over.append(str(error))
    if passed_over:  # beginning anew would bury what may still be saved
        raise InputError(
            f"no checkpoint of '{run_folder}' can be read; move them away to begin anew: {'; '.join(passed_over)}"
        )
    return None, passed_over


def best_checkpoint(run_folder: Path) -> Path:
    """Where a run keeps the best so far."""
    return run_folder / "checkpoints" / "best.pt"


def step_checkpoint(run_folder: Path, step: int) -> Path:
    """Where a run keeps its state after a step, to resume from."""
    return run_folder / "checkpoints" / f"step_{step:08d}.pt"


def step_of(path: Path) -> int:
    """The step of such a file."""
    return int(path.stem.removeprefix("step_"))


def set_aside(checkpoints: Iterable[Path]) -> None:
    """Rename those that exist: nothing takes them for checkpoints of the run any more, and nothing deletes them."""
    for path in checkpoints:
        if path.is_file():
            path.replace(path.with_name(f"{path.name}.aside"))


def drop_old_checkpoints(run_folder: Path, keep: int) -> None:
    """Delete all but the `keep` newest checkpoints (never `best.pt`)."""
    left_by_a_kill = (run_folder / "checkpoints").glob(LEFTOVERS)
    for path in [*list_checkpoints(run_folder)[keep:], *left_by_a_kill]:
        path.unlink(missing_ok=True)


def checkpoint_file(path: Path) -> Path:
    """A checkpoint file as it is; for a run folder its best checkpoint, or the newest if there is no best.

    Raises:
        InputError: the folder holds none; or it is an address, of which none is read.
    """
    if url := url_of(path):
        raise InputError(f"'{url}' is in object storage: checkpoints are read from files, copy it and name the copy")
    if not path.is_dir():
        return path
    best = best_checkpoint(path)
    if best.is_file():
        return best
    newest = list_checkpoints(path)
    if not newest:
        raise InputError(
            f"run folder '{path}' holds no checkpoint (looked for checkpoints/best.pt and step_*.pt){_if_exported(path)}"
        )
    return newest[0]


def _if_exported(path: Path) -> str:
    """How to go on with a folder that tools/export.py has written; empty for any other."""
    names = ("model.pt2", "model.onnx", "model.safetensors")
    if not (path / "classes.npz").is_file() or not any((path / name).is_file() for name in names):
        return ""
    return ": it is an exported model, which is used as its README.md says; name the run that it was exported from"
