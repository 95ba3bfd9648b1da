"""Name -> head. A new head is a file and a line here.

Object heads stand on what an installed network was trained to name: they take features of such a network alone.
"""

from collections.abc import Callable, Mapping

from engine.heads.action2vec import Action2VecHead
from engine.heads.after_url import AfterUrlHead
from engine.heads.head import Head
from engine.heads.linear import LinearHead
from engine.heads.objects import KnownObjects, ObjectsHead, ObjectsRidgeHead, StandardisedObjectsHead
from engine.heads.ridge import RidgeHead
from engine.heads.tarn import TarnHead

HEADS: Mapping[str, Callable[[], Head]] = {
    "linear": lambda: LinearHead("squared"),
    "ridge": RidgeHead,
    "aurl": lambda: LinearHead("aurl"),
    "action2vec": Action2VecHead,
    "tarn": TarnHead,
    "after_url": AfterUrlHead,
}

WORD_HEADS = frozenset({"tarn"})  # read the words of a class one by one: `engine.heads.classes.has_words`

OBJECT_HEADS: Mapping[str, Callable[[KnownObjects], Head]] = {
    "objects": ObjectsHead,
    "objects_standardised": StandardisedObjectsHead,
    "objects_ridge": ObjectsRidgeHead,
}
