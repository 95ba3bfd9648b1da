"""Name -> head. A new head is a file and a line here."""

from collections.abc import Callable, Mapping

from engine.heads.head import Head
from engine.heads.linear import LinearHead
from engine.heads.ridge import RidgeHead

HEADS: Mapping[str, Callable[[], Head]] = {
    "linear": lambda: LinearHead("squared"),
    "ridge": RidgeHead,
    "aurl": lambda: LinearHead("aurl"),
}
