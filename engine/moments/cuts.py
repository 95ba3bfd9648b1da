"""Found moments as small files of their own, with names that tell what they are."""

import re
from collections.abc import Mapping
from pathlib import Path

from engine.data.pyav.excerpt import write_excerpt
from engine.data.pyav.files import Unusable
from engine.data.store.index import split_stored_name
from engine.errors import InputError
from engine.features.reading import TimedVideo
from engine.moments.objects import FoundMoment

_BYTES = 80  # of a query or a video's name in a file name


def clock(seconds: float) -> str:
    """h:mm:ss.s"""
    tenths = round(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def clocks(moment: FoundMoment) -> tuple[str, str]:
    """When it starts and ends, by `clock`. What is shorter than that tells (of a file whose time stamps are all the same) has the
    next tenth for its end, and not its start."""
    start, end = clock(moment.start_s), clock(moment.end_s)
    return start, clock(moment.start_s + 0.1) if start == end else end


def cut_moment(moment: FoundMoment, rank: int, footage: Mapping[str, TimedVideo], folder: Path) -> Path:
    """Save a moment in `folder` under a name that is not taken; returns its path.

    Args:
        rank: among the query's moments.
        footage: by the moment's video.

    Raises:
        InputError: it cannot be read or written.
    """
    name = cut_name(moment, rank)
    path, count = folder / f"{name}.mp4", 1
    while path.exists():
        count += 1
        path = folder / f"{name}_{count}.mp4"
    try:
        write_excerpt(*footage[moment.video], moment.start_s, moment.end_s, path)
    except Unusable as error:
        raise InputError(f"{moment.video}: {clock(moment.start_s)} cannot be cut out: {error}") from error
    return path


def cut_name(moment: FoundMoment, rank: int) -> str:
    """QUERY_RANK_VIDEO_START-END, of letters, digits and a few signs that every file system takes."""
    video = moment.video.rpartition("#")[0] if split_stored_name(moment.video) else moment.video
    times = "-".join(clocks(moment)).replace(":", ".")
    return f"{_plain(moment.query)}_{rank:02d}_{_plain(Path(video).stem)}_{times}"


def _plain(text: str) -> str:
    safe = re.sub(r"[^\w.]+", "-", re.sub("[\ud800-\udfff]", "", text)).strip("-._")
    return safe.encode()[:_BYTES].decode(errors="ignore") or "moment"
