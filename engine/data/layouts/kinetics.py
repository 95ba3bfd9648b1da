"""Kinetics-400, -600 and -700: CSV of label, youtube_id, time_start, time_end, split."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.data.layouts.layout import Given, Layout
from engine.data.layouts.listing import Entry, Listing, Problem, by_stem, files_near
from engine.data.layouts.tables import SEPARATORS, TABLE_SUFFIXES, Row, if_readable, no_label, read_text, rows_of
from engine.data.layouts.walk import VideoFolder
from engine.errors import InputError
from engine.terminal.wording import counted

COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
_HEADER_BYTES = 1000


def _is_kinetics_csv(path: Path) -> bool:
    """Whether the file's first line names the columns of Kinetics."""
    return _separator(read_text(path, _HEADER_BYTES)) is not None


def _find_csvs(root: Path, is_its: Callable[[Path], bool] = _is_kinetics_csv) -> list[Path]:
    """CSV files of Kinetics in the root or one folder below."""
    return [*filter(is_its, files_near(root, ".csv"))]


def read_kinetics(folder: VideoFolder, given: Given) -> Listing:
    """Every row of the CSV (or of all CSVs of a folder) whose file is there.

    Looked for, anywhere under the root: ID_SSSSSS_EEEEEE.* (the clip, start and end in seconds, six digits)
    and ID.* (the clip, or the whole source; the file's duration tells). Where one name is there more
    than once, the file in a folder named replacement* is taken, else the one whose folders name the split and the
    label; where that cannot be used the next one is.
    """
    tables = _tables(folder.root, given.annotations)
    listing = Listing("kinetics", notes=[f"labels from {', '.join(path.name for path in tables)}"], lists=tables)
    stems = by_stem(folder.paths)
    rows = [row for table in tables for row in _rows(table, listing)]
    counts = Counter(row[1] for row in rows)
    for label, youtube_id, start, end, split in rows:
        clip = f"{youtube_id}_{start:06.0f}_{end:06.0f}"
        name = clip if clip in stems else youtube_id
        if name not in stems:
            listing.problems.append(Problem(clip, "missing", f"no {clip}.* and no {youtube_id}.* ({label}, {split})"))
            continue
        group = youtube_id if counts[youtube_id] > 1 else ""
        segment = {} if name == clip else {"segment_start": start, "segment_end": end, "may_be_cut": True}
        best, others = _best(stems[name], split, label)
        entry = Entry(best[0], label, split, group, **segment)
        if len(best) > 1:
            listing.add_one_of(name, best + others, entry)
        else:
            listing.entries.append(dataclasses.replace(entry, copies=tuple(others)))
    _say_copies(listing)
    listing.notes += _warn_of_sources(listing.entries)
    unread = [path.name for index in {table.parent for table in tables} for path in _without_labels(index)]
    if unread:
        listing.notes.append(f"{', '.join(unread)} name no labels, or not all columns of Kinetics: not read")
    if not listing.entries and not listing.undecided:
        bad = [problem.text for problem in listing.problems if problem.kind in ("bad-row", "bad-segment")]
        raise InputError(
            f"none of the {len(rows)} videos of {', '.join(str(path) for path in tables)} is under '{folder.root}' "
            "(looked for ID_SSSSSS_EEEEEE.* and ID.*, at any depth)" + "".join(f"; {text}" for text in bad[:3])
        )
    return listing


def _without_labels(folder: Path) -> list[Path]:
    """Lists of Kinetics that cannot be read: those of the test set."""
    heads = {path: read_text(path, _HEADER_BYTES) for path in sorted(folder.glob("*.csv")) if path.is_file()}
    return [path for path, head in heads.items() if "youtube_id" in head.lower() and _separator(head) is None]


def _say_copies(listing: Listing) -> None:
    replaced = [entry.path for entry in listing.entries if _is_replacement(entry.path)]
    if replaced:
        listing.notes.append(
            f"{counted(len(replaced), 'clip')} taken from a folder of replacements: {', '.join(replaced[:3])}"
        )
    with_copies = [entry for entry in listing.entries if entry.copies]
    if with_copies:
        shown = ", ".join(f"{entry.path} (not {entry.copies[0]})" for entry in with_copies[:3])
        listing.notes.append(f"{counted(len(with_copies), 'clip')} with copies; taken: {shown}")


def _warn_of_sources(entries: Sequence[Entry]) -> list[str]:
    """A warning of YouTube videos that several splits have clips of, in files of their own (one file is told when indexed)."""
    sources: dict[str, dict[str, str]] = {}
    for entry in entries:
        if entry.group and entry.split:
            sources.setdefault(entry.group, {}).setdefault(entry.split, entry.path)
    shared = [clips for clips in sources.values() if len(set(clips.values())) > 1]
    if not shared:
        return []
    shown = "; ".join(", ".join(f"{path} ({split})" for split, path in clips.items()) for clips in shared[:3])
    return [
        f"warning: {counted(len(shared), 'YouTube video')} with clips in several splits: {shown}"
        + "; ..." * (len(shared) > 3)
    ]


def _tables(root: Path, annotations: Path | None) -> list[Path]:
    if annotations is not None and annotations.is_file():
        if not _is_kinetics_csv(annotations):
            raise InputError(f"'{annotations}' is no list of Kinetics: its first line must name {', '.join(COLUMNS)}")
        return [annotations]
    tables = _find_csvs(annotations or root)
    if not tables:
        raise InputError(
            f"no CSV with the columns {', '.join(COLUMNS)} in '{annotations or root}': give Kinetics' list with --annotations"
        )
    return tables


def _separator(text: str) -> str | None:
    """What separates the columns, if the first row names those of Kinetics."""
    first = text.lstrip("\r\n").partition("\n")[0]
    for separator in SEPARATORS[:-1]:
        rows = rows_of(first, separator)
        if rows and set(COLUMNS) <= {value.lower() for value in rows[0].values}:
            return separator
    return None


def _rows(table: Path, listing: Listing) -> list[tuple[str, str, float, float, str]]:
    """(label, youtube_id, start, end, split) of the rows that can be read; the others become problems."""
    text = read_text(table)
    header, *lines = rows_of(text, _separator(text) or ",")
    indices = [[value.lower() for value in header.values].index(name) for name in COLUMNS]
    rows = []
    for row in lines:
        values = [row.values[index] if index < len(row.values) else "" for index in indices]
        kind, reason, start, end = _check(row, values)
        if reason:
            problem = f"{table}, line {row.line}: {reason}"
            listing.problems.append(Problem(values[1] or f"{table.name}:{row.line}", kind, problem))
        else:
            rows.append((values[0], values[1], start, end, values[4]))
    return rows


def _check(row: Row, values: list[str]) -> tuple[str, str, float, float]:
    """(kind of problem, what is wrong with a row, start, end); the reason is "" where nothing is."""
    reason = row.error or no_label(values[0]) or no_label(values[1])
    if not reason and not (values[0] and values[1]):
        reason = "no label or no youtube_id"
    try:
        start, end = float(values[2]), float(values[3])
    except ValueError:
        start = end = math.nan
    if not reason and not (math.isfinite(start) and math.isfinite(end)):
        reason = f"time_start '{values[2]}' and time_end '{values[3]}' must be seconds"
    if not reason and not 0 <= start < end:
        wrong = "before it starts" if end < start else "when it starts" if end == start else "but starts before 0"
        return "bad-segment", f"the clip of '{values[0]}' ends ({end:g} s) {wrong} ({start:g} s)", start, end
    return "bad-row", reason, start, end


def _best(paths: list[str], split: str, label: str) -> tuple[list[str], list[str]]:
    """The files whose folders fit the row best, and the others, the better ones first."""
    wanted = {_plain(split), _plain(label)}
    scores = {
        path: (_is_replacement(path), len(wanted & {_plain(folder) for folder in path.split("/")[:-1]}))
        for path in paths
    }
    ranked = sorted(paths, key=lambda path: scores[path], reverse=True)  # stable: by name among equals
    num_best = sum(score == scores[ranked[0]] for score in scores.values())
    return ranked[:num_best], ranked[num_best:]


def _is_replacement(path: str) -> bool:
    """Kinetics' archives bring sound copies of corrupt clips in replacement/replacement_for_corrupted_k400/."""
    return any(folder.lower().startswith("replacement") for folder in path.split("/")[:-1])


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").replace("validate", "val").replace("validation", "val")


def _fits(folder: VideoFolder) -> str | None:
    tables = _find_csvs(folder.root, if_readable(_is_kinetics_csv))
    return f"{tables[0].name} has the columns of Kinetics" if tables else None


def _annotates(folder: VideoFolder, annotations: Path) -> str | None:
    if annotations.is_dir():
        return f"'{annotations.name}' holds CSVs of Kinetics" if _find_csvs(annotations) else None
    is_its = annotations.suffix.lower() in TABLE_SUFFIXES and _is_kinetics_csv(annotations)
    return f"{annotations.name} has the columns of Kinetics" if is_its else None


KINETICS = Layout("kinetics", read_kinetics, _fits, _annotates)
