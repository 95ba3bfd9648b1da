"""Still pictures, for Ken Burns pretraining: a folder per class, or SUN397 as distributed."""

import re
from collections import Counter
from collections.abc import Sequence

from engine.data.layouts.folders import list_folders
from engine.data.layouts.layout import Given, Layout
from engine.data.layouts.listing import IMAGE_SUFFIXES, Entry, Listing, Problem
from engine.data.layouts.walk import VideoFolder
from engine.errors import InputError

_FRAME = re.compile(r"(?:^|/)(?:img|image|frame|flow_[xy])_?\d{4,}\.\w+$", re.IGNORECASE)
_LETTER = re.compile(r"[a-z]")


def read_images(folder: VideoFolder, given: Given) -> Listing:
    """CLASS/picture, or SPLIT/CLASS/picture, as `list_folders` has it for videos."""
    if not folder.pictures:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"no pictures in '{folder.root}': it needs a folder per class with {kinds} files in it")
    listing = list_folders(folder.root, folder.pictures, given.splits)
    listing.layout = "images"
    return listing


def looks_like_frames(paths: Sequence[str]) -> bool:
    """Whether nearly all pictures are named by a number that runs through their folder, as frames of a video are."""
    runs = Counter(path.rpartition("/")[0] for path in paths if _FRAME.search(path))
    return sum(runs.values()) > 0.9 * len(paths) and sum(runs.values()) > 4 * len(runs)


def read_sun397(folder: VideoFolder, given: Given) -> Listing:
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


def _fits(folder: VideoFolder) -> str | None:
    is_its = not folder.paths and folder.pictures
    return "pictures and no videos, so the folders name the classes" if is_its else None


def _fits_sun397(folder: VideoFolder) -> str | None:
    """All pictures lie two folders deep or deeper, in folders named by one letter (a/abbey/sun_x.jpg)."""
    if folder.paths or not folder.pictures:
        return None
    if not all(path.count("/") >= 2 and _LETTER.fullmatch(path.split("/")[0]) for path in folder.pictures):
        return None
    return "pictures and no videos, in folders LETTER/CLASS"


IMAGES = Layout("images", read_images, _fits, annotations="none", folder_splits=True, is_stills=True)
SUN397 = Layout("sun397", read_sun397, _fits_sun397, annotations="none", is_stills=True)
