"""The one error a user is meant to read, and how a command line shows it."""

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class InputError(Exception):
    """Something the user gave (config key, path, class name, video, checkpoint) cannot be used.

    The message names the thing, says why, and says how to mend it. Command lines print it without a
    traceback and exit with status 2; anything else that escapes is a defect of this project.
    """


def run_command(command: Callable[..., T], *arguments: Any) -> T:
    """Run a command line's `command`; show an `InputError` as one line on stderr and exit with status 2."""
    try:
        return command(*arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        _tell_torchrun(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.exit(130)


def _tell_torchrun(message: str) -> None:
    """torchrun ends its own report on a rank that failed with this, in place of advice on tracebacks."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": message, "timestamp": int(time.time())}))
