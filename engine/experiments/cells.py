"""A cell: one training run of an experiment, in a folder of its own that is named by what it is.

Two cells are the same if everything that decides their result is the same (`decides` in `engine/schema/parser.py`): the folder, the
speed, what is logged and how often is saved do not. So experiments share cells, and what is finished is not run again.
A run that a cell begins from counts by what it is, not by its path.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.errors import InputError
from engine.results.record import FILE
from engine.schema.files import read_yaml
from engine.schema.keys import decisive, default, with_keys
from engine.schema.parser import parse

_CONFIG = "config.yaml"
_DIGITS = 10  # of a digest, in a folder's name


@dataclass(frozen=True)
class Cell:
    """A training run.

    name: readable, for the folder and for progress. config: resolved; its run.folder does not count.
    start: the cell whose weights it starts from, in place of the config's train.init_from.
    """

    name: str
    config: Config
    start: "Cell | None" = None

    @cached_property
    def meaning(self) -> Config:
        """The config with what does not decide the result at its default, and runs that it begins from as their digests."""
        if self.start is None:
            return _meaning(self.config)
        return _meaning(with_keys(self.config, {"train.init_from": self.start.digest}))

    @cached_property
    def digest(self) -> str:
        """Of what differs from the defaults, so that a key that a later version adds changes nothing."""
        return _digest(self.meaning)

    def folder(self, out: Path) -> Path:
        """Where it is, or will be: one folder for all experiments under `out`, whatever name they call it by."""
        if known := sorted((out / "cells").glob(f"*-{self.digest}")):
            return known[0]
        readable = re.sub(r"[^\w.+-]+", "_", self.name)
        return _named_before(out / "cells").get(self.digest, out / "cells" / f"{readable}-{self.digest}")

    def located(self, out: Path) -> Config:
        """The config to run it with."""
        start = str(self.start.folder(out)) if self.start else self.config.train.init_from
        return with_keys(self.config, {"run.folder": str(self.folder(out)), "train.init_from": start})


@functools.cache
def _named_before(cells: Path) -> dict[str, Path]:
    """The folders of cells by the digests of their configs: a version that counted other keys named them otherwise.

    Not of those that began from a run outside: it may have gone on since, so their names alone tell what it was.
    """
    found = {}
    for path in sorted(cells.glob("*/config.yaml")):
        with contextlib.suppress(InputError):  # whoever means this one is told when it is read
            if not _begins_outside(cells, path.parent):
                found[_digest(meaning_of_run(path.parent))] = path.parent
    return found


def _begins_outside(cells: Path, folder: Path) -> bool:
    config = read_run_config(folder)
    runs = (_run_named(named, folder) for named in (config.model.weights, config.train.init_from))
    return any(run is not None and run.resolve().parent != cells.resolve() for run in runs)


def is_finished(cell: Cell, folder: Path) -> bool:
    """Whether `folder` holds the whole result of this cell.

    Raises:
        InputError: it holds another run, or one of other videos than the training sets list now; or as `same_run`.
    """
    if not (folder / _CONFIG).is_file():
        return False
    if not same_run(cell, folder):
        raise InputError(
            f"'{folder}' holds a run with another config than cell '{cell.name}' (compare its config.yaml): move it away"
        )
    needed = [FILE, *([f"control/{FILE}"] if cell.config.run.control else [])]
    if not all((folder / name).is_file() for name in needed):
        return False
    _check_videos(cell, folder)
    return True


def why_untold(cell: Cell, out: Path) -> str | None:
    """Why nothing tells whether the folder of a cell, or of one that it starts from, holds it; None where that is told."""
    folder = cell.folder(out)
    try:
        if (folder / _CONFIG).is_file():
            same_run(cell, folder)
    except InputError as error:
        return str(error)
    return why_untold(cell.start, out) if cell.start else None


def _check_videos(cell: Cell, folder: Path) -> None:
    """Refuse a cell that was trained on other videos than its sets list now, or that starts from such a cell."""
    from engine.experiments import changed  # it imports torch, and programs that only compare runs do not

    if why := changed.changed_videos(folder, cell.config):
        raise InputError(
            f"'{folder}' holds cell '{cell.name}' trained on other videos than its training sets list now: {why}; name another "
            "--out, put the manifest back, or move that folder away to train it again"
        )
    begun_from = _run_named(read_run_config(folder).train.init_from, folder) if cell.start else None
    if cell.start and begun_from:
        _check_videos(cell.start, begun_from)


def same_run(cell: Cell, folder: Path) -> bool:
    """Whether a run folder was made with a config that means the same as the cell's.

    Raises:
        InputError: nothing tells: its config, or that of a run that it began from, cannot be read, or the cell's start is gone.
    """
    try:
        config = read_run_config(folder)
        meaning = _meaning(config, folder)
    except InputError as error:
        raise InputError(f"{error}; mend that, or move that folder away to train its cell again") from error
    start = config.train.init_from
    if cell.start and start and not _is_there(start, folder):
        raise InputError(
            f"'{folder}' holds cell '{cell.name}', but its start '{start}' is gone: put that back, or move this folder away to "
            "train both again"
        )
    return meaning == cell.meaning


def meaning_of_run(folder: Path) -> Config:
    """What the config of a run folder means, as `Cell.meaning`."""
    return _meaning(read_run_config(folder), folder)


def _weights_digest(folder: Path) -> str:
    """Of a run folder whose weights are begun from: its config's meaning, and their step."""
    # It imports torch, and programs that only compare runs do not.
    from engine.training.checkpoint import checkpoint_file

    file = checkpoint_file(folder)
    return f"{_digest(meaning_of_run(folder))} at step {_step(file, file.stat().st_mtime_ns)}"


@functools.cache
def _step(checkpoint: Path, written: int) -> int:
    from engine.training.checkpoint import read_checkpoint

    return read_checkpoint(checkpoint)["step"]


def read_run_config(folder: Path) -> Config:
    """The config of a run folder; keys that came later have their default.

    Raises:
        InputError: no config there, or not one of this version.
    """
    path = folder / _CONFIG
    tree = read_yaml(path)
    if not tree:
        raise InputError(f"{path} is empty: it is not what a run writes")
    try:
        return parse(Config, tree)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _places(named: str, folder: Path | None) -> list[Path]:
    """Where a run may be that a config names.

    Args:
        folder: of the run whose config it is. The path may be relative to where that one was started, and a cell, which is
            named by its digest, may have been moved together with it.
    """
    places = [Path(named)]
    if folder is not None:
        places += [base / named for base in folder.resolve().parents]
        if re.search(rf"-[0-9a-f]{{{_DIGITS}}}$", places[0].name):
            places.append(folder.parent / places[0].name)
    return places


def _run_named(named: str | None, folder: Path | None) -> Path | None:
    """The run folder of that name, if it is one."""
    places = _places(named, folder) if named is not None else ()
    return next((place for place in places if (place / _CONFIG).is_file()), None)


def _is_there(named: str, folder: Path) -> bool:
    """Whether there is a run folder, or a file of weights, of that name."""
    return _run_named(named, folder) is not None or any(place.is_file() for place in _places(named, folder))


def _digest(meaning: Config) -> str:
    text = json.dumps(differences(meaning), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:_DIGITS]


def _meaning(config: Config, folder: Path | None = None) -> Config:
    begins: dict[str, str] = {}
    if (start := _run_named(config.train.init_from, folder)) is not None:
        begins["train.init_from"] = _digest(meaning_of_run(start))
    if (weights := _run_named(config.model.weights, folder)) is not None:
        begins["model.weights"] = _weights_digest(weights)
    # A config that wants no test set and one that does not speak of any ask for the same training.
    return with_keys(decisive(config), {**begins, "data.tests": config.data.tests or None})


def differences(section: Any) -> dict[str, Any]:
    """The keys of a config, or of a section of it, that are not at their default, nested."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if value != default(field):
            found[field.name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return differences(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value
