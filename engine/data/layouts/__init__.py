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
from pathlib import Path

from engine.data.layouts.activitynet import find_json, is_activitynet_json, read_activitynet
from engine.data.layouts.class_names import name_classes, warn_of_folders, warn_of_names
from engine.data.layouts.folders import read_folders
from engine.data.layouts.hmdb51 import find_lists, read_hmdb51
from engine.data.layouts.images import is_sun397, looks_like_frames, read_images, read_sun397
from engine.data.layouts.kinetics import find_csvs, is_kinetics_csv, read_kinetics
from engine.data.layouts.listing import LISTING_REASONS, Entry, Listing, Problem, counted, printable
from engine.data.layouts.something import find_something, is_something_json, read_something
from engine.data.layouts.table import TABLE_SUFFIXES, find_lists_beside, find_tables, listing_tables, read_tables
from engine.data.layouts.ucf101 import is_ucf101, read_ucf101
from engine.data.layouts.walk import VideoFolder
from engine.errors import InputError

__all__ = ["LAYOUTS", "LISTING_REASONS", "Entry", "Listing", "Problem", "detect_layout", "read_layout"]

LAYOUTS = ("folder", "ucf101", "hmdb51", "kinetics", "activitynet", "something", "csv", "images", "sun397")
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
    if split_number is not None and layout not in ("ucf101", "hmdb51"):
        raise InputError(f"--split-number is for ucf101 and hmdb51: layout {layout} has no numbered splits")
    if splits is not None and layout not in ("folder", "images"):
        raise InputError(f"--splits is for folder and images: layout {layout} has its splits from lists")
    listing = _read(layout, folder, annotations, split_number, splits)
    _complete(listing, folder, annotations, class_names)
    listing.notes = [printable(note) for note in notes + listing.notes]
    return listing


def _complete(listing: Listing, folder: VideoFolder, annotations: Path | None, class_names: Path | None) -> None:
    """What every layout needs: names for numbers, no row twice, a reason for each file, and what was found, in lines."""
    folders = [folder.root, folder.root.absolute().parent, *(path.parent for path in listing.lists)]
    listing.decode_names()
    name_classes(listing, class_names, [*folders, annotations] if annotations and annotations.is_dir() else folders)
    listing.drop_duplicates()
    used = {path.resolve() for path in listing.lists}
    others = [other for other in folder.others if (folder.root / other.path).resolve() not in used]
    is_stills = listing.layout in ("images", "sun397")
    videos = folder.paths
    pictures = [Problem(path, "unused", "a picture (--layout images)") for path in folder.pictures]
    if is_stills:
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
    named = {entry.path for entry in listing.entries} | {problem.path for problem in listing.problems}
    listing.problems += folder.problems
    counts = Counter(entry.split for entry in listing.entries if entry.split)
    if counts:
        listing.notes.append("splits: " + _some([f"{name} ({count:,})" for name, count in sorted(counts.items())]))
    names = sorted({entry.class_name for entry in listing.entries})
    listing.notes.append(f"{counted(len(names), 'class')}: {_some(names)}")
    listing.notes += warn_of_names(names) + warn_of_folders(listing.entries)
    listing.explain_rest(videos, [*others, *(each for each in pictures if each.path not in named)])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)


def _read(
    layout: str, folder: VideoFolder, annotations: Path | None, split_number: int | None, splits: Sequence[str] | None
) -> Listing:
    if layout in ("ucf101", "hmdb51"):
        if annotations is not None and not annotations.is_dir():
            raise InputError(
                f"--annotations of layout {layout} must be the folder of its lists, not the file '{annotations}'"
            )
        return (read_ucf101 if layout == "ucf101" else read_hmdb51)(folder, annotations, split_number)
    if layout in ("kinetics", "activitynet", "something"):
        read = {"kinetics": read_kinetics, "activitynet": read_activitynet, "something": read_something}[layout]
        return read(folder, annotations)
    if layout == "csv":
        return read_tables(folder, _chosen_tables(folder, annotations))
    if annotations is not None:
        raise InputError(f"layout {layout} takes its classes from the folders: what is '{annotations}' for?")
    if layout == "sun397":
        return read_sun397(folder)
    return read_images(folder, splits) if layout == "images" else read_folders(folder.root, folder.paths, splits)


def detect_layout(folder: VideoFolder, annotations: Path | None = None) -> tuple[str, str]:
    """The layout of a folder, and why it was chosen.

    Raises:
        InputError: the annotations are of no known layout.
    """
    if annotations is not None:
        return _detect_by(folder, annotations)
    if (source := find_json(folder.root)) is not None:
        return "activitynet", f"{source.name} is ActivityNet's"
    if lists := find_something(folder.root):
        return "something", f"{lists[0].name} lists videos by id and template"
    if tables := find_csvs(folder.root):
        return "kinetics", f"{tables[0].name} has the columns of Kinetics"
    if is_ucf101(folder.paths):
        return "ucf101", "the files are named v_CLASS_gGG_cCC"
    if (lists := find_lists(folder)) is not None:
        return "hmdb51", f"'{lists.name}' holds official lists of these classes"
    if tables := find_lists_beside(folder):
        return "csv", f"listed with labels in {', '.join(table.name for table in tables)}"
    if not folder.paths and folder.pictures:
        if is_sun397(folder.pictures):
            return "sun397", "pictures and no videos, in folders LETTER/CLASS"
        return "images", "pictures and no videos, so the folders name the classes"
    return "folder", "no known lists, so the folders name the classes"


def _detect_by(folder: VideoFolder, annotations: Path) -> tuple[str, str]:
    if annotations.is_dir():
        if next(annotations.glob("trainlist0*.txt"), None):
            return "ucf101", f"'{annotations.name}' holds trainlist0N.txt"
        if next(annotations.glob("*_test_split?.txt"), None):
            return "hmdb51", f"'{annotations.name}' holds *_test_splitN.txt"
        if find_csvs(annotations):
            return "kinetics", f"'{annotations.name}' holds CSVs of Kinetics"
        if find_something(annotations):
            return "something", f"'{annotations.name}' holds lists of id and template"
        if listing_tables(folder, find_tables(annotations)):
            return "csv", f"'{annotations.name}' holds tables of files that are there"
    elif annotations.suffix.lower() == ".json" and is_activitynet_json(annotations):
        return "activitynet", f"{annotations.name} has a database of videos"
    elif annotations.suffix.lower() == ".json" and is_something_json(annotations):
        return "something", f"{annotations.name} lists videos by id and template"
    elif annotations.suffix.lower() in TABLE_SUFFIXES:
        if is_kinetics_csv(annotations):
            return "kinetics", f"{annotations.name} has the columns of Kinetics"
        return "csv", f"{annotations.name} is a table"
    raise InputError(f"'{annotations}' belongs to no known layout: name one with --layout ({', '.join(LAYOUTS)})")


def _chosen_tables(folder: VideoFolder, annotations: Path | None) -> list[Path]:
    """The user's table, or those of a folder that list its videos."""
    if annotations is not None and annotations.is_file():
        return [annotations]
    where = annotations or folder.root
    tables = find_tables(where)
    if chosen := listing_tables(folder, tables) if annotations else find_lists_beside(folder):
        return chosen
    plain = [path for path in tables if path.suffix.lower() in (".csv", ".tsv")]
    if len(plain) != 1:
        found = f"{len(plain)} tables" if plain else "no .csv or .tsv"
        raise InputError(f"{found} in '{where}': say which lists the videos with --annotations FILE")
    return plain
