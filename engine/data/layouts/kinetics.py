"""Kinetics-400, -600 and -700: CSV of label, youtube_id, time_start, time_end, split."""

import csv
from collections import Counter
from pathlib import Path

from engine.data.layouts.listing import Entry, Listing, Problem, VideoFolder, by_stem, read_lines
from engine.errors import InputError

COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")


def is_kinetics_csv(path: Path) -> bool:
    """Whether the file's first line names the columns of Kinetics."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return set(COLUMNS) <= set(_split_header(file.readline(1000)))


def find_csvs(root: Path) -> list[Path]:
    """CSV files of Kinetics in the root or one folder below."""
    return [path for path in sorted([*root.glob("*.csv"), *root.glob("*/*.csv")]) if is_kinetics_csv(path)]


def read_kinetics(folder: VideoFolder, annotations: Path | None) -> Listing:
    """Every row of the CSV (or of all CSVs of a folder) whose file is there.

    Looked for, anywhere under the root: ID_SSSSSS_EEEEEE.* (the clip, start and end in seconds, six digits)
    and ID.* (the clip, or the whole source; the file's duration tells). Where one name is there more
    than once, the file whose folders name the split and the label is taken.
    """
    tables = _tables(folder.root, annotations)
    listing = Listing("kinetics", notes=[f"labels from {', '.join(path.name for path in tables)}"])
    stems = by_stem(folder.paths)
    rows = [row for table in tables for row in _rows(table)]
    counts = Counter(youtube_id for _, youtube_id, _, _, _ in rows)
    for label, youtube_id, start, end, split in rows:
        clip = f"{youtube_id}_{start:06.0f}_{end:06.0f}"
        name = clip if clip in stems else youtube_id
        fitting = _best(stems.get(name, []), split, label)
        if len(fitting) == 1:
            group = youtube_id if counts[youtube_id] > 1 else ""
            segment = {} if name == clip else {"segment_start": start, "segment_end": end, "may_be_cut": True}
            listing.entries.append(Entry(fitting[0], label, split, group, **segment))
        elif fitting:
            listing.problems.append(Problem(name, "ambiguous", f"{len(fitting)} files: {', '.join(fitting[:3])}"))
        else:
            listing.problems.append(Problem(clip, "missing", f"no {clip}.* and no {youtube_id}.* ({label}, {split})"))
    if not listing.entries:
        raise InputError(
            f"none of the {len(rows)} videos of {', '.join(str(path) for path in tables)} is under '{folder.root}' "
            "(looked for ID_SSSSSS_EEEEEE.* and ID.*, at any depth)"
        )
    return listing


def _tables(root: Path, annotations: Path | None) -> list[Path]:
    if annotations is not None and annotations.is_file():
        if not is_kinetics_csv(annotations):
            raise InputError(f"'{annotations}' is no list of Kinetics: its first line must name {', '.join(COLUMNS)}")
        return [annotations]
    tables = find_csvs(annotations or root)
    if not tables:
        raise InputError(
            f"no CSV with the columns {', '.join(COLUMNS)} in '{annotations or root}': give Kinetics' list with --annotations"
        )
    return tables


def _split_header(line: str) -> list[str]:
    return [name.strip().lower() for name in line.split(",")]


def _rows(table: Path) -> list[tuple[str, str, float, float, str]]:
    lines = read_lines(table)
    reader = csv.DictReader(lines[1:], fieldnames=_split_header(lines[0]))
    rows = []
    for row in reader:
        where = f"{table}, line {reader.line_num + 1}"
        values = [(row[name] or "").strip() for name in COLUMNS]
        if not values[0] or not values[1]:
            raise InputError(f"{where}: no label or no youtube_id")
        try:
            start, end = float(values[2]), float(values[3])
        except ValueError:
            raise InputError(f"{where}: time_start '{values[2]}' and time_end '{values[3]}' must be seconds") from None
        if not 0 <= start < end:
            raise InputError(f"{where}: the clip ends ({end:g} s) before it starts ({start:g} s)")
        rows.append((values[0], values[1], start, end, values[4]))
    return rows


def _best(paths: list[str], split: str, label: str) -> list[str]:
    """The files whose folders fit the row best."""
    if len(paths) < 2:
        return paths
    wanted = {_plain(split), _plain(label)}
    scores = [len(wanted & {_plain(folder) for folder in path.split("/")[:-1]}) for path in paths]
    return [path for path, score in zip(paths, scores, strict=True) if score == max(scores)]


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").replace("validate", "val").replace("validation", "val")
