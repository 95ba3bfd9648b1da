"""ActivityNet: one JSON file of labelled segments, and the untrimmed videos."""

import json
import math
from pathlib import Path
from typing import Any

from engine.data.layouts.listing import Entry, Listing, Problem, VideoFolder, by_stem
from engine.errors import InputError


def is_activitynet_json(path: Path) -> bool:
    """Whether it looks like ActivityNet's file (the beginning is enough: it is large)."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return '"database"' in file.read(1 << 16)


def find_json(root: Path) -> Path | None:
    """ActivityNet's file in the root or one folder below."""
    paths = sorted([*root.glob("*.json"), *root.glob("*/*.json")])
    return next((path for path in paths if is_activitynet_json(path)), None)


def read_activitynet(folder: VideoFolder, annotations: Path | None) -> Listing:
    """One entry per labelled segment; files are v_ID.* or ID.*, anywhere under the root.

    The group is the video, so that segments of one video stay together; the split is its subset. Videos
    without annotations (the testing subset) are left out.
    """
    source = annotations or find_json(folder.root)
    if source is None or not source.is_file():
        raise InputError(f"no ActivityNet JSON in '{annotations or folder.root}': give it with --annotations FILE")
    database = _read_database(source)
    listing = Listing("activitynet")
    stems = by_stem(folder.paths)
    num_unlabelled = 0
    for video_id, video in database.items():
        segments = _segments(video, f"{source}, video '{video_id}'")
        if not segments:
            num_unlabelled += 1
            continue
        paths = stems.get(f"v_{video_id}") or stems.get(video_id) or []
        if not paths:
            listing.problems.append(Problem(video_id, "missing", f"no v_{video_id}.* and no {video_id}.*"))
        elif len(paths) > 1:
            listing.problems.append(Problem(video_id, "ambiguous", f"{len(paths)} files: {', '.join(paths[:3])}"))
        else:
            _add_segments(listing, paths[0], video_id, str(video.get("subset", "")), segments)
    listing.notes.append(f"segments from {source.name}, {num_unlabelled} videos without labels left out")
    if not listing.entries:
        raise InputError(
            f"none of the labelled videos of '{source}' is under '{folder.root}' (looked for v_ID.* and ID.*)"
        )
    return listing


def _add_segments(
    listing: Listing, path: str, video_id: str, subset: str, segments: list[tuple[str, float, float]]
) -> None:
    for label, start, end in segments:
        if end > start:
            listing.entries.append(Entry(path, label, subset, video_id, start, end))
        else:
            listing.problems.append(Problem(path, "bad-segment", f"'{label}' from {start:g} s to {end:g} s"))


def _read_database(source: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read '{source}': {error}") from error
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict) or not all(isinstance(video, dict) for video in database.values()):
        raise InputError(f"'{source}' is no ActivityNet file: it has no \"database\" of videos by their id")
    return database


def _segments(video: dict[str, Any], where: str) -> list[tuple[str, float, float]]:
    """(label, start, end) of each annotation; seconds, the start not below 0."""
    segments = []
    for annotation in video.get("annotations") or []:
        try:
            start, end = (float(value) for value in annotation["segment"])
            label = annotation["label"]
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{where}: {annotation!r} is not a label and a segment of two numbers") from None
        if not isinstance(label, str) or not math.isfinite(start) or not math.isfinite(end):
            raise InputError(f"{where}: {annotation!r} is not a label and a segment of two numbers")
        segments.append((label, max(start, 0.0), end))
    return segments
