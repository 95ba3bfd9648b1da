"""ActivityNet: one JSON file of labelled segments, and the untrimmed videos."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.data.layouts.layout import Given, Layout
from engine.data.layouts.listing import Entry, Listing, Problem, by_stem, files_near
from engine.data.layouts.tables import if_readable, read_json, read_text
from engine.data.layouts.walk import VideoFolder
from engine.errors import InputError

_HEAD_BYTES = 1 << 16
_SHOWN = 200  # characters of what is no segment


def _is_activitynet_json(path: Path) -> bool:
    """Whether it looks like ActivityNet's file (the beginning is enough: it is large)."""
    return '"database"' in read_text(path, _HEAD_BYTES)


def _find_json(root: Path) -> Path | None:
    """ActivityNet's file in the root or one folder below."""
    return next(filter(if_readable(_is_activitynet_json), files_near(root, ".json")), None)


def read_activitynet(folder: VideoFolder, given: Given) -> Listing:
    """One entry per labelled segment; files are v_ID.* or ID.*, anywhere under the root.

    The group is the video, so that segments of one video stay together; the split is its subset. Videos
    without annotations (the testing subset) are left out.
    """
    source = given.annotations or _find_json(folder.root)
    if source is None or not source.is_file():
        raise InputError(
            f"no ActivityNet JSON in '{given.annotations or folder.root}': give it with --annotations FILE"
        )
    listing = Listing("activitynet", lists=[source])
    stems = by_stem(folder.paths)
    num_unlabelled = 0
    for video_id, video in _read_database(source).items():
        where = f"{source}, video '{video_id}'"
        if not isinstance(video, dict):
            listing.problems.append(Problem(video_id, "bad-row", f"{where}: {video!r} is no video with annotations"))
            continue
        if not video.get("annotations"):
            num_unlabelled += 1
            continue
        paths = stems.get(f"v_{video_id}") or stems.get(video_id) or []
        if not paths:
            listing.problems.append(Problem(video_id, "missing", f"no v_{video_id}.* and no {video_id}.*"))
        for label, start, end in _segments(listing, video["annotations"], paths[0] if paths else video_id, where):
            entry = Entry(paths[0] if paths else "", label, str(video.get("subset") or ""), video_id, start, end)
            if len(paths) > 1:
                listing.add_one_of(video_id, paths, entry)
            elif paths:
                listing.entries.append(entry)
    listing.notes.append(f"segments from {source.name}, {num_unlabelled} videos without labels left out")
    if not listing.entries and not listing.undecided:
        bad = [problem.text for problem in listing.problems if problem.kind in ("bad-row", "bad-segment")]
        raise InputError(
            f"none of the labelled videos of '{source}' is under '{folder.root}' (looked for v_ID.* and ID.*)"
            + "".join(f"; {text}" for text in bad[:3])
        )
    return listing


def _read_database(source: Path) -> dict[str, Any]:
    content = read_json(source)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise InputError(f"'{source}' is no ActivityNet file: it has no \"database\" of videos by their id")
    return database


def _segments(listing: Listing, annotations: Any, what: str, where: str) -> Iterator[tuple[str, float, float]]:
    """(label, start, end) of each annotation, seconds, the start not below 0; those that are none become problems."""
    for annotation in annotations if isinstance(annotations, list) else [annotations]:
        try:
            start, end = (float(value) for value in annotation["segment"])
            label = annotation["label"]
            label = str(label) if isinstance(label, int) else label
        except (KeyError, OverflowError, TypeError, ValueError):
            start = end = math.nan
            label = None
        if not isinstance(label, str) or not label.strip() or not math.isfinite(start) or not math.isfinite(end):
            text = f"{where}: {repr(annotation)[:_SHOWN]} is not a label and a segment of two numbers"
            listing.problems.append(Problem(what, "bad-row", text))
        elif end <= max(start, 0.0):
            text = f"'{label}' from {start:g} s to {end:g} s"
            listing.problems.append(Problem(what, "bad-segment", text))
        else:
            yield label, max(start, 0.0), end


def _fits(folder: VideoFolder) -> str | None:
    source = _find_json(folder.root)
    return f"{source.name} is ActivityNet's" if source else None


def _annotates(folder: VideoFolder, annotations: Path) -> str | None:
    is_its = annotations.suffix.lower() == ".json" and annotations.is_file() and _is_activitynet_json(annotations)
    return f"{annotations.name} has a database of videos" if is_its else None


ACTIVITYNET = Layout("activitynet", read_activitynet, _fits, _annotates)
