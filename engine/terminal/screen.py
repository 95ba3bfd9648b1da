"""The screen: what cannot be printed costs lines there, and never the work or its exit status.

A reader that has gone (`| head -1`), a full disk behind `>`, a closed terminal, an encoding without the letter.
"""

import codecs
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

_SIGNS = {"±": "+-", "✓": "x", "–": "-", "…": "...", "→": "->"}  # of our own tables


def plain(text: str) -> str:
    """Text without control characters and lone surrogates (they are shown as \\x1b, \\udce9): a file's name must not steer
    the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _spelt_out(error: UnicodeError) -> tuple[str, int]:
    """For `str.encode`: what stands for the letters that an encoding lacks."""
    letters = error.object[error.start : error.end]
    return "".join(_SIGNS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in letters), error.end


codecs.register_error("spelt out", _spelt_out)


class Screen:
    """stdout or stderr for programs to print to; everything but writing is the stream's own.

    failure: why lines were lost, None if none were.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: Exception | None = None

    def write(self, text: str) -> int:
        """Print the text if that can be done; what the encoding lacks is spelt out, as \\xe9."""
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                self._stream.write(text.encode(encoding, "spelt out").decode(encoding))
        except (OSError, ValueError, RuntimeError) as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Print what is still waiting."""
        try:
            self._stream.flush()
        except (OSError, ValueError, RuntimeError) as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        if isinstance(error, RuntimeError):  # a signal came in the middle of another line: this one alone is lost
            return
        self.failure = error
        with suppress(OSError, ValueError):  # of a stream that is no file, or closed
            number = self._stream.fileno()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)  # what is printed later, here or by others, goes nowhere
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lenient_screen() -> Iterator[None]:
    """Inside, nothing that is printed can fail, by whomever it is."""
    _open_closed()
    before = sys.stdout, sys.stderr
    for stream in before:
        with suppress(OSError, ValueError):
            os.set_blocking(stream.fileno(), True)  # else a slow reader is an error
    sys.stdout, sys.stderr = inside = Screen(before[0]), Screen(before[1])
    try:
        yield
        inside[0].flush()
        if inside[0].failure is not None and not isinstance(inside[0].failure, BrokenPipeError):
            print(
                f"not everything could be printed ({inside[0].failure}); the work is done all the same", file=inside[1]
            )
    finally:
        for screen in inside:
            screen.flush()
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """Put /dev/null in the place of closed streams (`>&-`).

    The next file that is opened would take the number of one, and would get what FFmpeg prints.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # the lowest free number is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process
