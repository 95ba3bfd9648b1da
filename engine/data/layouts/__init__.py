"""From the folder of a data set, in any of the usual layouts, to the list of its labelled videos.

    folder       CLASS/video, or SPLIT/CLASS/video
    ucf101       UCF101 as distributed, with its official lists if they are there
    hmdb51       HMDB51 as distributed, with its official lists
    kinetics     Kinetics-400/600/700: CSV (label, youtube_id, time_start, time_end, split) and files
    activitynet  ActivityNet: JSON of labelled segments and files
    something    Something-Something: JSON of id and template, and files
    csv          any CSV or TSV of path,label[,split][,group]; mmaction2's and SlowFast's `path label`
    images       still pictures: CLASS/picture, or SPLIT/CLASS/picture
    sun397       still pictures of SUN397 as distributed: a/abbey/picture

Listed files that are not there are problems of the listing, not errors. Every file below the folder and every row of a
list is an entry, a problem or unused, with its reason; what was guessed is in the notes, with the option that overrides it.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from engine.data.layouts.activitynet import ACTIVITYNET
from engine.data.layouts.class_names import name_classes, warn_of_folders, warn_of_names
from engine.data.layouts.folders import FOLDER
from engine.data.layouts.hmdb51 import HMDB51
from engine.data.layouts.images import IMAGES, SUN397, looks_like_frames
from engine.data.layouts.kinetics import KINETICS
from engine.data.layouts.layout import Given, Layout
from engine.data.layouts.listing import LISTING_REASONS, Entry, Listing, Problem, printable
from engine.data.layouts.something import SOMETHING
from engine.data.layouts.table import TABLE
from engine.data.layouts.tables import TABLE_SUFFIXES, can_be_read, no_table
from engine.data.layouts.ucf101 import UCF101
from engine.data.layouts.walk import VideoFolder
from engine.errors import InputError
from engine.files.addresses import url_of
from engine.terminal.wording import counted

__all__ = ["LAYOUTS", "LISTING_REASONS", "Entry", "Listing", "Problem", "detect_layout", "read_layout"]

# In the order in which a folder is asked whether it is one: the last takes any.
LAYOUTS = {
    layout.name: layout for layout in (ACTIVITYNET, SOMETHING, KINETICS, UCF101, HMDB51, TABLE, SUN397, IMAGES, FOLDER)
}
_SHOWN = 8  # names in a note


def read_layout(
    layout: str,
    root: Path,
    *,
    annotations: Path | None = None,
    split_number: int | None = None,
    splits: Sequence[str] | None = None,
    class_names: Path | None = None,
) -> Listing:
    """List a data set.

    Args:
        layout: one of `LAYOUTS`, or "auto".
        root: its folder.
        annotations: the layout's own list, or the folder of its lists, where it is not in or beside the root.
        split_number: which official split (UCF101, HMDB51); None takes the first.
        splits: the top folders that are splits (folder, images); empty if none is; None to tell them by their names.
        class_names: file of the names behind numeric labels; None to look for one beside the lists.

    Raises:
        InputError: what was given is not such a data set.
    """
    if url := url_of(root):
        raise InputError(
            f"'{url}': videos are indexed where they are files: copy the folder here, index it, and give the store that "
            "tools/ingest.py makes of it to the others"
        )
    if not root.is_dir():
        raise InputError(f"'{root}' is not a folder")
    for path, what in ((annotations, "annotations"), (class_names, "class names")):
        if path is not None and not path.exists():
            raise InputError(f"no {what} at '{path}'")
    folder, notes = VideoFolder(root), []
    if layout == "auto":
        if splits is not None:
            raise InputError("--splits needs --layout folder or --layout images")
        layout, reason = detect_layout(folder, annotations)
        notes = [f"layout {layout}: {reason} (--layout takes another)"]
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout '{layout}': it may be auto, {', '.join(LAYOUTS)}")
    kind, given = LAYOUTS[layout], Given(annotations, split_number, splits)
    _check(kind, given)
    listing = kind.read(folder, given)
    _complete(listing, folder, annotations, class_names)
    listing.notes = [printable(note) for note in notes + listing.notes]
    return listing


def _check(layout: Layout, given: Given) -> None:
    """Raises `InputError` where something was said that the layout has no use for."""
    name, annotations = layout.name, given.annotations
    if given.split_number is not None and not layout.official_splits:
        takers = " and ".join(each.name for each in LAYOUTS.values() if each.official_splits)
        raise InputError(f"--split-number is for {takers}: layout {name} has no numbered splits")
    if given.splits is not None and not layout.folder_splits:
        takers = " and ".join(each.name for each in LAYOUTS.values() if each.folder_splits)
        raise InputError(f"--splits is for {takers}: layout {name} has its splits from lists")
    if annotations is not None and layout.annotations == "none":
        raise InputError(f"layout {name} takes its classes from the folders: what is '{annotations}' for?")
    if annotations is not None and layout.annotations == "folder" and not annotations.is_dir():
        raise InputError(
            f"--annotations of layout {name} must be the folder of its lists, not the file '{annotations}'"
        )


def _complete(listing: Listing, folder: VideoFolder, annotations: Path | None, class_names: Path | None) -> None:
    """What every layout needs: names for numbers, no row twice, a reason for each file, and what was found, in lines."""
    folders = [folder.root, folder.root.absolute().parent, *(path.parent for path in listing.lists)]
    listing.decode_names()
    name_classes(listing, class_names, [*folders, annotations] if annotations and annotations.is_dir() else folders)
    listing.drop_duplicates()
    used = {path.resolve() for path in listing.lists}
    others = [other for other in folder.others if (folder.root / other.path).resolve() not in used]
    videos = folder.paths
    pictures = [Problem(path, "unused", "a picture (--layout images)") for path in folder.pictures]
    if LAYOUTS[listing.layout].is_stills:
        videos = folder.pictures
        pictures = [Problem(path, "unused", "a video (--layout folder)") for path in folder.paths]
        if looks_like_frames(folder.pictures):
            listing.notes.append(
                "warning: the pictures are numbered like frames of videos (img_00001.jpg), and each is taken as a still picture "
                "of its own: index the videos themselves"
            )
    elif len(pictures) > len(videos):
        listing.notes.append(
            f"warning: more pictures ({len(pictures)}) than videos ({len(videos)}): --layout images takes the pictures"
        )
    closed = [other.path for other in others if _may_be_list(other.path) and not can_be_read(folder.root / other.path)]
    if closed:
        listing.notes.append(
            f"warning: {counted(len(closed), 'file')} may not be read, lists of this data set perhaps: {_some(closed)}"
        )
    labelled = listing.labelled
    named = {path for entry in labelled for path in (entry.path, *entry.copies)}
    named |= {problem.path for problem in listing.problems}
    listing.problems += folder.problems
    counts = Counter(entry.split for entry in labelled if entry.split)
    if counts:
        listing.notes.append("splits: " + _some([f"{name} ({count:,})" for name, count in sorted(counts.items())]))
    names = sorted({entry.class_name for entry in labelled})
    listing.notes.append(f"{counted(len(names), 'class')}: {_some(names)}")
    listing.notes += warn_of_names(names) + warn_of_folders(listing.entries)
    listing.explain_rest(videos, [*others, *(each for each in pictures if each.path not in named)])


def _may_be_list(path: str) -> bool:
    """Whether layouts look for lists under such a name."""
    return path.count("/") < 2 and PurePosixPath(path).suffix.lower() in (".json", *TABLE_SUFFIXES)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)


def detect_layout(folder: VideoFolder, annotations: Path | None = None) -> tuple[str, str]:
    """The layout of a folder, and why it was chosen.

    Raises:
        InputError: the annotations are of no known layout.
    """
    for layout in LAYOUTS.values():
        if annotations is None:
            reason = layout.fits(folder)
        else:
            may_be = layout.annotations == "any" or (layout.annotations == "folder" and annotations.is_dir())
            reason = layout.annotates(folder, annotations) if may_be else None
        if reason is not None:
            return layout.name, reason
    what = no_table(annotations) if annotations.is_file() else ""
    told = f" ({what})" * bool(what)
    raise InputError(
        f"'{annotations}'{told} belongs to no known layout: read are CSV and TSV of path,label, the CSV of Kinetics, and the JSON "
        f"of ActivityNet and of Something-Something; write it as CSV, or name its layout with --layout ({', '.join(LAYOUTS)})"
    )
