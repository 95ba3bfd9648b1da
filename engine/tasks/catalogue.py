"""The tasks by the names that configs call them by: the one place that knows them all."""

import difflib

from engine.errors import InputError
from engine.tasks.masked.task import Masked
from engine.tasks.moments.task import Moments
from engine.tasks.task import Task
from engine.tasks.zero_shot.task import ZeroShot

TASKS: dict[str, type[Task]] = {"zero_shot": ZeroShot, "moments": Moments, "masked": Masked}


def find_task(name: str) -> type[Task]:
    """The task that the config's key `task` names.

    Raises:
        InputError: there is none of that name.
    """
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise InputError(f"'task' is {name!r}: {hint}it may be {', '.join(TASKS)}")
    return TASKS[name]
