"""The one error a user is meant to read, and how a command line shows it."""

import errno
import gc
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from engine.terminal.called import as_called
from engine.terminal.screen import lenient_screen, plain

T = TypeVar("T")
# What a machine refuses a program that is sound, and the mend.
_REFUSALS = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "choose another folder",
    errno.EACCES: "choose another place, or ask for the right to it",
    errno.EPERM: "choose another place, or ask for the right to it",
    errno.EMFILE: "raise the limit on open files (ulimit -n 4096)",
    errno.ENFILE: "the whole machine has too many open files: end other programs",
    errno.EIO: "look at that disk",
    errno.ESTALE: "look at that disk",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "a folder lies where a file is to be written: move it away",
    errno.EAGAIN: "raise the limit on processes (ulimit -u; a container's pids.max)",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_THREAD = "can't start new thread"  # Python's word for EAGAIN
_LESS_MEMORY = "take smaller batches; what else takes less stands under Memory in docs/troubleshooting.md"
_AFTER_RANK_0_S = 3.0
_was_interrupted = [False]


class InputError(Exception):
    """Something the user gave (config key, path, class name, video, checkpoint) cannot be used.

    The message names the thing, says why, and says how to mend it. Command lines print it without a
    traceback and exit with status 2; anything else that escapes is a defect of this project.

    is_of_this_rank: whether no other rank will tell the same.
    """

    is_of_this_rank = False


class SourceGone(InputError):
    """An object store that has not answered for as long as it may, refuses, or has another object now. No video is to blame."""


def read_command(parse: Callable[..., T], *arguments: Any) -> T:
    """`run_command` of what reads a command line, before the imports of what it asks for.

    From here to the next `run_command` no garbage is collected: Python would look through all that is being imported again and
    again, a fifth of the time that it takes.
    """
    read = run_command(parse, *arguments)
    gc.disable()
    return read


def run_command(command: Callable[..., T], *arguments: Any) -> T:
    """Run a command line's `command`, whatever becomes of what it prints (`engine.terminal.screen`).

    An `InputError`, or what the machine refuses (a full disk, no right to a file, too few open files or processes, too little
    memory), is one line on stderr and exit status 2; Ctrl-C is exit status 130.
    """
    if not gc.isenabled():  # since `read_command`: what is imported stays, and no collection looks through it
        gc.freeze()
        gc.enable()
    _was_interrupted[0] = False
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    with lenient_screen():
        try:
            return command(*arguments)
        except InputError as error:
            _end(str(error), error.is_of_this_rank)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            _end(f"{told(error)}{mend(error)}")
        except (MemoryError, RuntimeError) as error:
            if lack := _lack_of_memory(error):
                _end(f"{lack}: {_LESS_MEMORY}", is_of_this_rank=True)
            if str(error) != _NO_THREAD:
                raise
            _end(f"{_NO_THREAD}: {_REFUSALS[errno.EAGAIN]}")
        except KeyboardInterrupt:
            if is_rank_0():
                print("interrupted", file=sys.stderr, flush=True)
            sys.exit(130)


def is_interrupted() -> bool:
    """Whether Ctrl-C has ended the command, whose threads may not know it yet."""
    return _was_interrupted[0]


def _interrupt(number: int, frame: FrameType | None) -> None:
    _was_interrupted[0] = True
    signal.default_int_handler(number, frame)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Where a file is written: what a full disk or a limit refuses names it. A write knows no name."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL and error.filename is None:
            error.filename = str(path)
        raise


def told(error: OSError) -> str:
    """An error of the operating system with the file that it is about (of two the new name), without its number."""
    reason, file = error.strerror or str(error), error.filename2 or error.filename
    return f"{reason}: '{os.fsdecode(file)}'" if isinstance(file, str | bytes) else reason


def misfit(error: Exception) -> str:
    """Why contents are not what they should be, by what was met in taking them apart."""
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


def mend(error: OSError) -> str:
    """What to do about an error of the operating system, behind a colon; nothing where that is not known."""
    return f": {_REFUSALS[error.errno]}" if error.errno in _REFUSALS else ""


def _lack_of_memory(error: Exception) -> str | None:
    """What a machine or a GPU without enough memory says, in a line; None of any other error. torch need not be imported."""
    said = str(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU: figures first, then advice
        return " ".join(re.split(r"(?<=\.)\s+(?=[A-Z])", said)[:3]).rstrip(".")
    if isinstance(error, MemoryError):
        return f"out of memory: {said}" if said else "out of memory"
    found = re.search(r"can't allocate memory.*allocate (\d+) bytes", said, re.DOTALL)  # torch's, of the machine
    if found:
        return f"out of memory: {int(found[1]) / 1e9:,.1f} GB were asked for at once"
    return None


def _end(message: str, is_of_this_rank: bool = False) -> NoReturn:
    """Exit status 2. All ranks mostly meet the same mistake: rank 0 tells it, the others if they are left to."""
    if not (is_of_this_rank or is_rank_0()):
        time.sleep(_AFTER_RANK_0_S)
    line = plain(f"error: {as_called(message)}")
    print(line, file=sys.stderr, flush=True)
    _tell_torchrun(line)
    sys.exit(2)


def is_rank_0() -> bool:
    """Whether this process is the one of a run's ranks that speaks for all; without torchrun it is."""
    return (os.environ.get("RANK") or "0") == "0"


def _tell_torchrun(message: str) -> None:
    """torchrun ends its own report on a rank that failed with this, in place of advice on tracebacks."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        detail = {"py_callstack": message, "timestamp": str(int(time.time()))}
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": {"message": message, "extraInfo": detail}}), encoding="ascii")
