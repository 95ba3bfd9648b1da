"""Still pictures, for Ken Burns pretraining: a folder per class, or SUN397 as distributed."""

import re
from collections import Counter
from collections.abc import Sequence

from engine.data.layouts.folders import read_folders
from engine.data.layouts.listing import IMAGE_SUFFIXES, Entry, Listing, Problem
from engine.data.layouts.walk import VideoFolder
from engine.errors import InputError

_FRAME = re.compile(r"(?:^|/)(?:img|image|frame|flow_[xy])_?\d{4,}\.\w+$", re.IGNORECASE)
_LETTER = re.compile(r"[a-z]")


def is_sun397(paths: list[str]) -> bool:
    """Whether all files lie two folders deep or deeper, in folders named by one letter (a/abbey/sun_x.jpg)."""
    return bool(paths) and all(path.count("/") >= 2 and _LETTER.fullmatch(path.split("/")[0]) for path in paths)


def read_images(folder: VideoFolder, splits: Sequence[str] | None = None) -> Listing:
    """CLASS/picture, or SPLIT/CLASS/picture, as `read_folders` has it for videos."""
    if not folder.pictures:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"no pictures in '{folder.root}': it needs a folder per class with {kinds} files in it")
    listing = read_folders(folder.root, folder.pictures, splits)
    listing.layout = "images"
    return listing


def looks_like_frames(paths: Sequence[str]) -> bool:
    """Whether nearly all pictures are named by a number that runs through their folder, as frames of a video are."""
    runs = Counter(path.rpartition("/")[0] for path in paths if _FRAME.search(path))
    return sum(runs.values()) > 0.9 * len(paths) and sum(runs.values()) > 4 * len(runs)


def read_sun397(folder: VideoFolder) -> Listing:
    """LETTER/CLASS/picture or LETTER/CLASS/PLACE/picture: the class is called /a/abbey, /a/apartment_building/outdoor.

    So the list of classes that comes with SUN397 spells them, and the word rules know them by it.
    """
    listing = Listing("sun397")
    for path in folder.pictures:
        *folders, _ = path.split("/")
        if len(folders) < 2 or not _LETTER.fullmatch(folders[0]):
            listing.problems.append(Problem(path, "no-class", "it lies in no folder LETTER/CLASS"))
            continue
        listing.entries.append(Entry(path, "/" + "/".join(folders)))
    if not listing.entries:
        raise InputError(
            f"no picture in '{folder.root}' lies in folders LETTER/CLASS, as those of SUN397 do (a/abbey/)"
        )
    return listing
