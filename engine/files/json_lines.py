"""Files of JSON objects, one a line, only ever appended to: what a kill tears is the last line, and that one is ignored."""

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import writing

T = TypeVar("T")


class JsonLines:
    """A file to append to, made if there is none (its folder must be there). `close` it.

    Args:
        allow_nan: NaN and infinity are written as Python reads them; else they are refused.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, *, allow_nan: bool = False) -> None:
        # Unbuffered: what a full disk refused would otherwise be tried, and fail, again with each line.
        self.file, self._allow_nan = path.open("ab+", buffering=0), allow_nan
        self._may_be_torn = True

    def append(self, value: Mapping[str, Any]) -> None:
        """Add an object; it is with the operating system when this returns.

        Raises:
            ValueError: NaN or infinity is in it, which JSON has no word for.
            OSError: it was not written, or only a part of it, which the next line does not go on from.
        """
        line = (json.dumps(value, allow_nan=self._allow_nan) + "\n").encode("ascii")
        if self._may_be_torn and self.file.seek(0, os.SEEK_END):
            self.file.seek(-1, os.SEEK_END)
            if self.file.read(1) != b"\n":
                line = b"\n" + line  # what follows starts on a line of its own
        self._may_be_torn = True
        with writing(Path(self.file.name)):
            written = self.file.write(line)
        if written != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.file.name)
        self._may_be_torn = False

    def restart(self, head: Mapping[str, Any]) -> None:
        """Forget all lines and begin with this one."""
        self.file.truncate(0)
        self.append(head)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def append_json_line(path: Path, value: Mapping[str, Any]) -> None:
    """Add one object to a file."""
    lines = JsonLines(path)
    try:
        lines.append(value)
    finally:
        lines.close()


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file but for a line that a kill tore; none if there is no file."""
    return (value for _, value in numbered_json_lines(path))


def understood(values: Iterable[dict[str, Any]], read: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """What `read` makes of each object. One that it cannot take apart (a disk has changed a letter of it) is passed over as a torn
    line is: what it tells of is done again."""
    for value in values:
        try:
            made = read(value)
        except (LookupError, TypeError, ValueError, AttributeError):
            continue
        yield made


def numbered_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """`read_json_lines`, each object with the number of its line, from 1."""
    if not path.is_file():
        return
    with path.open(encoding="ascii", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("}\n"):  # torn, or the empty line that versions of before wrote when they went on
                continue
            try:
                value = json.loads(line)
            except ValueError:
                continue
            yield number, value
