"""How the programs are called: by their paths in a checkout, by the command `unseen` where that has started this one."""

import os
import re

PROGRAMS = (
    "train", "predict", "evaluate", "index_dataset", "ingest", "extract_features", "fit_head", "refit_head", "export",
    "find_moments", "index_moments", "class_overlap", "compare_runs", "doctor",
)  # fmt: skip
_VARIABLE = "UNSEEN_COMMAND"  # in the environment: ranks and workers tell of programs too
_NAME = rf"({'|'.join(PROGRAMS)})\.py\b"
_BY_PATH = re.compile(rf"(?<![\w/.-])(?:python tools/|tools/|(?:python|torchrun) engine/){_NAME}")
_PROG = re.compile(rf"^(?:torchrun engine/)?{_NAME}")


def start_by_command() -> None:
    """From here on the programs of this process, and those that it starts, are parts of the command `unseen`."""
    os.environ[_VARIABLE] = "1"


def as_called(text: str) -> str:
    """A text for the user in which each program is named as it is called here: `unseen predict` for python tools/predict.py."""
    return _BY_PATH.sub(r"unseen \1", text) if _VARIABLE in os.environ else text


def prog_as_called(prog: str) -> str:
    """The same for what a parser calls its program."""
    return _PROG.sub(r"unseen \1", prog) if _VARIABLE in os.environ else prog
