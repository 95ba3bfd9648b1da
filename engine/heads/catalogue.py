"""Name -> head. A new head is a file and a line here."""

from collections.abc import Callable, Mapping

from engine.heads.action2vec import Action2VecHead
from engine.heads.after_url import AfterUrlHead
from engine.heads.head import Head
from engine.heads.linear import LinearHead
from engine.heads.names import NamesHead
from engine.heads.ridge import RidgeHead
from engine.heads.tarn import TarnHead

HEADS: Mapping[str, Callable[[], Head]] = {
    "linear": lambda: LinearHead("squared"),
    "ridge": RidgeHead,
    "aurl": lambda: LinearHead("aurl"),
    "action2vec": Action2VecHead,
    "tarn": TarnHead,
    "after_url": AfterUrlHead,
    "names": lambda: NamesHead(standardised=False),
    "names_standardised": lambda: NamesHead(standardised=True),
}
UNTRAINED = ("names", "names_standardised")  # of features of `--model installed` alone
