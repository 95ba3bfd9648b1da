"""What was found out about each file, kept as it is found: a run that is killed goes on where it was.

One JSON line per file, only ever appended; the last line wins. A record holds as long as the file has the same
size and modification time.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from engine.data.pyav.probe import ProbeResult
from engine.errors import InputError
from engine.files.json_lines import JsonLines, read_json_lines, understood
from engine.files.locks import try_lock
from engine.processes.process_pool import Lost

VERSION = 4  # raised when a change of the probe makes old records wrong


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells that a file is still the same."""

    num_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileState":
        """The state of a file now; -1 where it cannot be looked at (whoever opens it will say why)."""
        try:
            info = path.stat()
        except OSError:
            return cls(-1, -1)
        return cls(info.st_size, info.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a file cannot be used: a kind of the probe's reasons, and a sentence."""

    kind: str
    text: str

    @classmethod
    def of(cls, lost: Lost) -> "Failure":
        """Of a file whose process died or was stopped."""
        return cls("too-slow" if lost.is_timeout else "crashed", lost.text)


@dataclass(frozen=True, slots=True)
class Record:
    """A file, as it was, what the probe found, and the hash of its contents (None where it cannot be used)."""

    state: FileState
    found: ProbeResult | Failure
    content_hash: int | None


class Journal:
    """The journal beside a manifest; a context manager.

    Attributes:
        records: what is known of each file.

    Raises:
        InputError: its place cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = _read(path) or {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lines = JsonLines(path)
        except OSError as error:
            raise InputError(f"cannot write '{path}': {error.strerror}") from error

    def lock(self) -> None:
        """Keep other processes from adding to it, until it is closed; before the first `add`. What they have added is known then.

        Raises:
            InputError: another process adds to it, or it cannot be written.
        """
        if not try_lock(self._lines.file):
            raise InputError(f"another process is writing '{self.path}': wait for it or stop it")
        records = _read(self.path)
        self.records = records or {}
        if records is None:
            try:
                self._lines.restart({"journal": VERSION})
            except OSError as error:
                raise InputError(f"cannot write '{self.path}': {error.strerror}") from error

    def add(self, path: str, record: Record) -> None:
        """Keep a record; it is with the operating system when this returns."""
        kind = "failure" if isinstance(record.found, Failure) else "probe"
        line = {
            "path": path,
            "bytes": record.state.num_bytes,
            "mtime_ns": record.state.mtime_ns,
            "content_hash": record.content_hash,
            kind: asdict(record.found),
        }
        self._lines.append(line)
        self.records[path] = record

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.close()


def _read(path: Path) -> dict[str, Record] | None:
    """The records of a journal; None where there is none of this version."""
    lines = read_json_lines(path)
    if next(lines, {}).get("journal") != VERSION:
        return None
    return dict(understood(lines, _record))  # a second head is passed over


def _record(value: Mapping) -> tuple[str, Record]:
    state = FileState(value["bytes"], value["mtime_ns"])
    if "failure" in value:
        return value["path"], Record(state, Failure(**value["failure"]), None)
    facts = value["probe"]
    lists = {name: tuple(found) for name, found in facts.items() if isinstance(found, list)}
    return value["path"], Record(state, ProbeResult(**{**facts, **lists}), value.get("content_hash"))
