"""Files of JSON objects, one a line, only ever appended to: what a kill tears is the last line, and that one is ignored."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class JsonLines:
    """A file to append to, made if there is none (its folder must be there). `close` it.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab+")
        self._may_be_torn = True

    def append(self, value: Mapping[str, Any]) -> None:
        """Add an object; it is with the operating system when this returns.

        Raises:
            ValueError: NaN or infinity is in it, which JSON has no word for.
        """
        line = json.dumps(value, allow_nan=False) + "\n"
        if self._may_be_torn and self.file.seek(0, os.SEEK_END):
            self.file.seek(-1, os.SEEK_END)
            if self.file.read() != b"\n":
                self.file.write(b"\n")  # what follows starts on a line of its own
        self._may_be_torn = False
        self.file.write(line.encode("ascii"))
        self.file.flush()

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
    if not path.is_file():
        return
    with path.open(encoding="ascii", errors="replace") as file:
        for line in file:
            if not line.endswith("}\n"):  # torn, or the empty line that versions of before wrote when they went on
                continue
            try:
                value = json.loads(line)
            except ValueError:
                continue
            yield value
