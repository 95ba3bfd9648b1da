"""What a layout is: how a data set of that kind is told, and how its videos are listed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.data.layouts.listing import Listing
from engine.data.layouts.walk import VideoFolder


@dataclass(frozen=True)
class Given:
    """What the user said beside the folder.

    Attributes:
        annotations: the layout's own list, or the folder of its lists.
        split_number: which official split; None takes the first.
        splits: the top folders that are splits; empty if none is; None to tell them by their names.
    """

    annotations: Path | None = None
    split_number: int | None = None
    splits: Sequence[str] | None = None


@dataclass(frozen=True)
class Layout:
    """One kind of data set. Its file in this folder holds one, and `LAYOUTS` in `__init__.py` lists them.

    Attributes:
        name: what --layout calls it.
        read: the folder and what was said beside it -> its listing; raises `InputError` where it is no such data set.
        fits: why a folder is taken for one where nothing was said, as a line for the user; None if it is none.
        annotates: the same for annotations that were named.
        annotations: what may be named as such: a list or a folder of them, only a folder, or nothing.
        official_splits: whether its splits have numbers (--split-number).
        folder_splits: whether its top folders may be splits (--splits).
        is_stills: whether it lists pictures in place of videos.
    """

    name: str
    read: Callable[[VideoFolder, Given], Listing]
    fits: Callable[[VideoFolder], str | None]
    annotates: Callable[[VideoFolder, Path], str | None] = lambda folder, annotations: None
    annotations: Literal["any", "folder", "none"] = "any"
    official_splits: bool = False
    folder_splits: bool = False
    is_stills: bool = False
