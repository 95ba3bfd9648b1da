"""The columns of a list by the names in its header: which mean what, and which are not read."""

import math
import re
from collections.abc import Mapping, Sequence

from engine.data.layouts.folders import split_words
from engine.data.layouts.tables import Row

COLUMNS = {
    "path": (
        *(
            "path",
            "file",
            "filename",
            "file_name",
            "filepath",
            "file_path",
            "video",
            "video_path",
            "video_name",
            "clip",
        ),
        *("clip_path", "clip_name", "video_id", "videoid", "clip_id", "id"),
    ),
    "label": (
        *("class_name", "label_name", "label_text", "label", "class", "category", "action", "activity", "template"),
        *("labels", "label_id", "class_id", "target"),
    ),
    "split": ("split", "subset", "partition"),
    "group": ("group",),
    "start": ("start", "segment_start", "time_start", "start_time"),
    "end": ("end", "segment_end", "time_end", "end_time"),
}
# Taken where their values are what such a column holds: `type` may be anything.
_BY_VALUES = {
    "split": ("data_split", "dataset_split", "set", "type", "phase", "fold", "usage"),
    "start": (
        *("begin", "t_start", "t_begin", "begin_time", "time_begin", "segment_begin", "clip_start", "start_timestamp"),
        *("start_s", "start_sec", "start_secs", "start_second", "start_seconds", "start_time_s", "start_time_sec"),
        *("begin_s", "begin_sec", "begin_secs", "begin_second", "begin_seconds", "start_time_seconds"),
    ),
    "end": (
        *(
            "stop",
            "t_end",
            "t_stop",
            "stop_time",
            "time_stop",
            "segment_stop",
            "clip_end",
            "end_timestamp",
            "stop_timestamp",
        ),
        *("end_s", "end_sec", "end_secs", "end_second", "end_seconds", "end_time_s", "end_time_sec"),
        *("stop_s", "stop_sec", "stop_secs", "stop_second", "stop_seconds", "end_time_seconds"),
    ),
}
_CLOCK = re.compile(r"(?:(\d+):(?=[0-5]?\d:))?(\d+):([0-5]?\d(?:\.\d*)?)")
_LONGEST_S = 1e9  # larger are dates, in seconds since 1970
# What the ends of a segment, or its start and length, are named by in any unit: start_frame, frameEnd, begin_ms, n_frames.
_ENDS = {
    **dict.fromkeys(("start", "starting", "begin", "beginning", "first"), "start"),
    **dict.fromkeys(("end", "ending", "stop", "last"), "end"),
    **dict.fromkeys(("duration", "length", "count", "num", "n"), "length"),
}
_OF_FRAMES = frozenset({"first", "last", "count", "num", "n"})  # name other things where the frames are not named
_UNITS = {
    **dict.fromkeys(("frame", "frames", "idx", "index", "pts"), "frames"),
    **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(
        ("t", "time", "timestamp", "s", "sec", "secs", "second", "seconds", "segment", "clip", "_"), "time"
    ),
}
_WORD = re.compile("|".join(sorted([*_ENDS, *_UNITS], key=len, reverse=True)))


def header_columns(values: Sequence[str]) -> dict[str, int] | None:
    """Column -> place, if the first row of a table is a header."""
    found = _places(values, COLUMNS)
    return found if "path" in found and "label" in found else None


def is_column(name: str) -> bool:
    """Whether a header may name a column so."""
    return any(not _forms(name).isdisjoint(spellings) for spellings in COLUMNS.values())


def others_by_values(header: Sequence[str], rows: Sequence[Row], columns: dict[str, int]) -> dict[str, int]:
    """Column -> place of those that `columns` lacks, by other usual names and by what they hold.

    Of start and end both, or none.
    """
    found: dict[str, int] = {}
    for column, spellings in _BY_VALUES.items():
        if column not in columns:
            is_its = _are_splits if column == "split" else _are_times
            named = ["" if _forms(name).isdisjoint(spellings) else name for name in header]
            fitting = [name if name and is_its(_values(rows, place)) else "" for place, name in enumerate(named)]
            found |= _places(fitting, {column: spellings})
    has_ends = {"start", "end"} <= columns.keys() | found.keys()
    return {column: place for column, place in found.items() if column == "split" or has_ends}


def unread(header: Sequence[str], columns: dict[str, int]) -> list[str]:
    """Names of columns that are not read."""
    return [name for place, name in enumerate(header) if name and place not in columns.values()]


def segments_unread(header: Sequence[str], rows: Sequence[Row], columns: dict[str, int]) -> str:
    """Why the segments of a table cannot be read: its columns of their ends are in no known unit; "" where they can."""
    if {"start", "end"} <= columns.keys():
        return ""
    found = {place: _end_and_unit(_plain(name)) for place, name in enumerate(header) if place not in columns.values()}
    pairs = [
        (start, other)
        for start, (first, unit) in found.items()
        for other, (second, its_unit) in found.items()
        if first == "start" and second in ("end", "length") and unit == its_unit
        if _are_segments(rows, start, other, second)
    ]
    edges = sorted({place for pair in pairs for place in pair})
    if not edges:
        return ""
    named = ", ".join(header[place] for place in edges)
    return (
        f"the segments of {named} are not read, and would become whole videos: give columns start and end in "
        "seconds (frames divided by the frames per second), or take these columns out to mean whole videos"
    )


def seconds(text: str) -> float | None:
    """A time in seconds, or as [h:]mm:ss[.f]; NaN for no text; None for what is no time."""
    if not text:
        return math.nan
    if clock := _CLOCK.fullmatch(text):
        hours, minutes, rest = clock.groups()
        return 3600 * int(hours or 0) + 60 * int(minutes) + float(rest)
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _end_and_unit(name: str) -> tuple[str, str]:
    """Which end of a segment ("start", "end"), or its "length", a column's name tells, and the unit; ("", "") for any other."""
    words = _WORD.findall(name)
    ends = {_ENDS[word] for word in words if word in _ENDS}
    units = {_UNITS[word] for word in words if word in _UNITS} - {"time"} or {"time"}
    if "".join(words) != name or len(ends) != 1 or len(units) != 1:
        return "", ""
    end, unit = ends.pop(), units.pop()
    return (end, unit) if unit == "frames" or _OF_FRAMES.isdisjoint(words) else ("", "")


def _are_segments(rows: Sequence[Row], start: int, other: int, end: str) -> bool:
    """Whether two columns hold starts and ends (or, with `end` "length", starts and lengths) of parts of videos."""
    filled = [
        row.values for row in rows if max(start, other) < len(row.values) and row.values[start] and row.values[other]
    ]
    pairs = [(_number(values[start]), _number(values[other])) for values in filled]
    if end == "length":  # of whole videos, where each starts at 0
        return any(begin > 0 for begin, _ in pairs) and 2 * sum(length > 0 for _, length in pairs) > len(pairs)
    return 2 * sum(max(begin, 0) < stop < _LONGEST_S for begin, stop in pairs) > len(pairs)


def _number(text: str) -> float:
    """A time, also below 0; NaN for what is none."""
    value = seconds(text.removeprefix("-"))
    return math.nan if value is None else -value if text.startswith("-") else value


def _places(header: Sequence[str], spellings: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Column -> place of the first of its spellings that the header has."""
    places: dict[str, int] = {}
    for place, name in enumerate(header):
        for form in _forms(name):
            places.setdefault(form, place)
    found = {column: next(filter(places.__contains__, usual), None) for column, usual in spellings.items()}
    return {column: places[name] for column, name in found.items() if name is not None}


def _forms(name: str) -> set[str]:
    """A column's name as its spellings are written, also where its capitals begin no words: SubSet is sub_set and subset."""
    return {_plain(name), _plain(name.lower())}


def _plain(name: str) -> str:
    """A column's name in words: "Start (s)", startS, start-s are start_s."""
    return re.sub(r"\W+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)).strip("_").lower()


def _values(rows: Sequence[Row], place: int) -> list[str]:
    """What a column holds, without its empty cells."""
    return [row.values[place] for row in rows if place < len(row.values) and row.values[place]]


def _are_times(values: Sequence[str]) -> bool:
    """Whether most are numbers, and not most below 0: a few others are rows that are wrong."""
    numbers = [*map(_number, values)]
    num_times, num_negative = (sum(map(is_one, numbers)) for is_one in (lambda n: abs(n) < _LONGEST_S, lambda n: n < 0))
    return num_times > len(numbers) / 2 >= num_negative


def _are_splits(values: Sequence[str]) -> bool:
    names = set(values)
    return bool(names) and len(split_words(names)) == len(names)
