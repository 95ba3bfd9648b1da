"""From the folder of a data set, in any of the usual layouts, to the list of its labelled videos.

    folder       CLASS/video, or SPLIT/CLASS/video
    ucf101       UCF101 as distributed, with its official lists if they are there
    hmdb51       HMDB51 as distributed, with its official lists
    kinetics     Kinetics-400/600/700: CSV (label, youtube_id, time_start, time_end, split) and files
    activitynet  ActivityNet: JSON of labelled segments and files
    csv          any CSV or TSV of path,label[,split][,group]
    images       still pictures: CLASS/picture, or SPLIT/CLASS/picture
    sun397       still pictures of SUN397 as distributed: a/abbey/picture

Listed files that are not there are problems of the listing, not errors.
"""

from pathlib import Path

from engine.data.layouts.activitynet import find_json, is_activitynet_json, read_activitynet
from engine.data.layouts.folders import TABLE_SUFFIXES, lists_videos, read_folders, read_table
from engine.data.layouts.hmdb51 import find_lists, read_hmdb51
from engine.data.layouts.images import image_folder, is_sun397, read_images, read_sun397
from engine.data.layouts.kinetics import find_csvs, is_kinetics_csv, read_kinetics
from engine.data.layouts.listing import LISTING_REASONS, Entry, Listing, Problem, VideoFolder
from engine.data.layouts.ucf101 import is_ucf101, read_ucf101
from engine.errors import InputError

__all__ = ["LAYOUTS", "LISTING_REASONS", "Entry", "Listing", "Problem", "detect_layout", "read_layout"]

LAYOUTS = ("folder", "ucf101", "hmdb51", "kinetics", "activitynet", "csv", "images", "sun397")


def read_layout(
    layout: str, root: Path, *, annotations: Path | None = None, split_number: int | None = None
) -> Listing:
    """List a data set.

    Args:
        layout: one of `LAYOUTS`, or "auto".
        root: its folder.
        annotations: the layout's own list, or the folder of its lists, where it is not in or beside the root.
        split_number: which official split (UCF101, HMDB51); None takes the first.

    Raises:
        InputError: what was given is not such a data set.
    """
    if not root.is_dir():
        raise InputError(f"'{root}' is not a folder")
    if annotations is not None and not annotations.exists():
        raise InputError(f"no annotations at '{annotations}'")
    folder, notes = VideoFolder(root), []
    if layout == "auto":
        layout, reason = detect_layout(folder, annotations)
        notes = [f"layout {layout}: {reason}"]
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout '{layout}': it may be auto, {', '.join(LAYOUTS)}")
    if split_number is not None and layout not in ("ucf101", "hmdb51"):
        raise InputError(f"--split-number is for ucf101 and hmdb51: layout {layout} has no numbered splits")
    listing = _read(layout, folder, annotations, split_number)
    listing.notes = notes + listing.notes
    listing.drop_duplicates()
    return listing


def _read(layout: str, folder: VideoFolder, annotations: Path | None, split_number: int | None) -> Listing:
    if layout in ("ucf101", "hmdb51"):
        if annotations is not None and not annotations.is_dir():
            raise InputError(
                f"--annotations of layout {layout} must be the folder of its lists, not the file '{annotations}'"
            )
        return (read_ucf101 if layout == "ucf101" else read_hmdb51)(folder, annotations, split_number)
    if layout == "kinetics":
        return read_kinetics(folder, annotations)
    if layout == "activitynet":
        return read_activitynet(folder, annotations)
    if layout == "csv":
        return read_table(folder.root, annotations or _only_table(folder.root))
    if annotations is not None:
        raise InputError(f"layout {layout} takes its classes from the folders: what is '{annotations}' for?")
    if layout in ("images", "sun397"):
        return (read_images if layout == "images" else read_sun397)(image_folder(folder.root))
    return read_folders(folder)


def detect_layout(folder: VideoFolder, annotations: Path | None = None) -> tuple[str, str]:
    """The layout of a folder, and why it was chosen.

    Raises:
        InputError: the annotations are of no known layout.
    """
    if annotations is not None:
        return _detect_by(annotations)
    if (source := find_json(folder.root)) is not None:
        return "activitynet", f"{source.name} is ActivityNet's"
    if tables := find_csvs(folder.root):
        return "kinetics", f"{tables[0].name} has the columns of Kinetics"
    if is_ucf101(folder.paths):
        return "ucf101", "the files are named v_CLASS_gGG_cCC"
    if (lists := find_lists(folder)) is not None:
        return "hmdb51", f"'{lists.name}' holds official lists of these classes"
    if len(tables := _tables(folder.root)) == 1 and lists_videos(tables[0], folder.root):
        return "csv", f"{tables[0].name} lists files that are there"
    if not folder.paths and (pictures := image_folder(folder.root).paths):
        if is_sun397(pictures):
            return "sun397", "pictures and no videos, in folders LETTER/CLASS"
        return "images", "pictures and no videos, so the folders name the classes"
    return "folder", "no known lists, so the folders name the classes"


def _detect_by(annotations: Path) -> tuple[str, str]:
    if annotations.is_dir():
        if next(annotations.glob("trainlist0*.txt"), None):
            return "ucf101", f"'{annotations.name}' holds trainlist0N.txt"
        if next(annotations.glob("*_test_split?.txt"), None):
            return "hmdb51", f"'{annotations.name}' holds *_test_splitN.txt"
        if find_csvs(annotations):
            return "kinetics", f"'{annotations.name}' holds CSVs of Kinetics"
    elif annotations.suffix.lower() == ".json" and is_activitynet_json(annotations):
        return "activitynet", f"{annotations.name} has a database of videos"
    elif annotations.suffix.lower() in TABLE_SUFFIXES:
        if is_kinetics_csv(annotations):
            return "kinetics", f"{annotations.name} has the columns of Kinetics"
        return "csv", f"{annotations.name} is a table"
    raise InputError(f"'{annotations}' belongs to no known layout: name one with --layout ({', '.join(LAYOUTS)})")


def _tables(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if path.suffix.lower() in (".csv", ".tsv")]


def _only_table(root: Path) -> Path:
    tables = _tables(root)
    if len(tables) != 1:
        found = f"{len(tables)} tables" if tables else "no .csv or .tsv"
        raise InputError(f"{found} in '{root}': say which lists the videos with --annotations FILE")
    return tables[0]
