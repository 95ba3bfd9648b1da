"""Published files of moments, and one's own CSV, as `Noted` rows: nothing is judged here but the form.

    Charades-STA            text lines `VIDEO start end##sentence`, seconds
    ActivityNet Captions    JSON {VIDEO: {duration, timestamps, sentences}}, seconds
    TACoS                   the same with fps and num_frames, timestamps in frames
    QVHighlights            JSON lines (or a JSON list) of {vid, query, duration, relevant_windows}: several windows a query
    own                     CSV or TSV with the columns video, start, end, query (a header may order them otherwise); a time is
                            seconds or h:mm:ss.s; rows of one video and one query are the windows of one moment

Which it is the content tells.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from engine.data.layouts.finder import nfc
from engine.errors import InputError
from engine.moments.cells import read_cells

_COLUMNS = ("video", "start", "end", "query")


@dataclass(frozen=True)
class Noted:
    """A query as a file has it.

    place: file and line (or video) for people. windows: (start, end) in seconds, NaN where it is no time.
    duration: of the video, seconds; NaN: the file does not say. said: of each window its place and how the file has it; none:
    the seconds at `place`.
    """

    place: str
    video: str
    query: str
    windows: Sequence[tuple[float, float]]
    duration: float = math.nan
    said: Sequence[tuple[str, str]] = field(default=(), compare=False)


@dataclass(frozen=True)
class Unreadable:
    """A row that has not the form of its file."""

    place: str
    reason: str


Row = Noted | Unreadable


def read_moments(path: Path) -> list[Row]:
    """All rows of a file, in its order.

    Raises:
        InputError: no such file, not text, or of none of the forms above.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"annotations '{path}' cannot be read: {error}") from error
    lines = text.split("\n")  # nothing else ends a line: a query may hold U+2028
    first = next((line.strip() for line in lines if line.strip()), "")
    if not first:
        raise InputError(f"annotations '{path}' are empty")
    if first[0] in "{[":
        return [_whole(row) for row in _json(path, text, lines)]
    if "##" in first:
        return [_charades_line(f"{path.name}:{n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    return _table(path, text, next((line for line in lines if line.strip(" ,;\t")), first))


def seconds(value: Any) -> float:
    """A number of seconds, or text as 12.5, 1:02.5 or 1:00:02.5; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        if not isinstance(value, str):
            return float(value)
        parts = [float(part) for part in value.strip().split(":")]
    except (ValueError, OverflowError):  # an OverflowError: a number of hundreds of digits
        return math.nan
    if len(parts) > 3 or (len(parts) > 1 and min(parts) < 0):
        return math.nan
    return sum(part * 60**place for place, part in enumerate(reversed(parts)))


def _charades_line(place: str, line: str) -> Row:
    head, mark, query = line.partition("##")
    words = head.rsplit(maxsplit=2)
    if not mark or len(words) != 3:
        return Unreadable(place, f"not of the form VIDEO start end##sentence: {line[:80]!r}")
    return Noted(place, words[0], query, _windows([words[1:]]), said=_said([words[1:]], place))


def _json(path: Path, text: str, lines: Sequence[str]) -> Iterator[Row]:
    try:
        whole = json.loads(text, object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict) and "query" not in whole:
        for video, entry in whole.pairs:
            yield from _video_entry(f"{path.name}: {video}", video, entry)
    elif whole is not None:
        for number, entry in enumerate(whole if isinstance(whole, list) else [whole], 1):
            yield _query_entry(f"{path.name}: entry {number}", entry)
    else:
        entries = [(number, line, _parsed(line)) for number, line in enumerate(lines, 1) if line.strip()]
        if not any(isinstance(entry, dict) for _, _, entry in entries):
            raise InputError(f"annotations '{path}' are neither JSON nor lines of it: is the file whole?")
        for number, line, entry in entries:
            place = f"{path.name}:{number}"
            yield Unreadable(place, f"no JSON: {line[:80]!r}") if entry is None else _query_entry(place, entry)


def _whole(row: Row) -> Row:
    r"""The row, unless its text has half of a character, which JSON can say (\ud83d) and no file of text can hold."""
    if isinstance(row, Noted) and re.search("[\ud800-\udfff]", row.video + row.query):
        return Unreadable(row.place, f"half of a character: {row.video!r:.40}, {row.query!r:.80}")
    return row


class _Object(dict):
    """An object of JSON. pairs: its keys and values, a key that stands twice too."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _video_entry(place: str, video: str, entry: Any) -> Iterator[Row]:
    """The queries of one video, ActivityNet Captions' or TACoS'."""
    try:
        spans, sentences = entry["timestamps"], entry["sentences"]
        is_frames = "duration" not in entry
        unit = 1 / seconds(entry["fps"]) if is_frames else 1.0
        duration = seconds(entry["num_frames"]) * unit if is_frames else seconds(entry["duration"])
    except (KeyError, TypeError, ZeroDivisionError) as error:
        yield Unreadable(place, f"needs timestamps and sentences, and a duration or fps and num_frames: {error!r}")
        return
    if not math.isfinite(unit):
        yield Unreadable(place, f"fps is no number: {entry['fps']!r:.40}")
        return
    if not isinstance(spans, list) or not isinstance(sentences, list):
        yield Unreadable(place, f"timestamps and sentences are no lists: {spans!r:.40} and {sentences!r:.40}")
        return
    count = max(len(spans), len(sentences))
    for number in range(count):
        where = f"{place}, sentence {number + 1}"
        if number >= min(len(spans), len(sentences)):
            yield Unreadable(
                where, f"{len(spans)} timestamps and {len(sentences)} sentences: this one has no other half"
            )
            continue
        windows = [(start * unit, end * unit) for start, end in _windows([spans[number]])]
        yield Noted(where, video, _text(sentences[number]), windows, duration, _said([spans[number]], where))


def _query_entry(place: str, entry: Any) -> Row:
    """One query of QVHighlights, with all its windows."""
    if (
        not isinstance(entry, Mapping)
        or not {"query", "relevant_windows"} <= entry.keys()
        or not _text(entry.get("vid"))
    ):
        return Unreadable(place, "needs vid, query and relevant_windows (a test set without answers has none)")
    windows = entry["relevant_windows"]
    if not isinstance(windows, list):
        return Unreadable(place, f"relevant_windows is no list: {windows!r:.80}")
    duration = seconds(entry.get("duration"))
    said = _said(windows, place)
    return Noted(place, _text(entry["vid"]), _text(entry["query"]), _windows(windows), duration, said)


def _windows(values: Sequence[Any]) -> list[tuple[float, float]]:
    pairs = [value if isinstance(value, list) and len(value) == 2 else (None, None) for value in values]
    return [(seconds(start), seconds(end)) for start, end in pairs]


def _said(values: Sequence[Any], place: str) -> list[tuple[str, str]]:
    """Of each window the place, and how it stands there."""
    is_pair = [isinstance(value, list) and len(value) == 2 for value in values]
    return [
        (place, f"{value[0]!r:.40} to {value[1]!r:.40}" if pair else f"{value!r:.80}")
        for value, pair in zip(values, is_pair, strict=True)
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _delimiter(line: str) -> str:
    """What the cells of a table are divided by, told by a line of it: a query may have more commas than there are cells."""
    by_count = sorted(",\t;", key=line.count, reverse=True)
    for delimiter in by_count:
        cells = next(csv.reader([line], delimiter=delimiter))
        is_header = set(_COLUMNS) <= {cell.strip().lower() for cell in cells}
        if is_header or (len(cells) > 3 and all(math.isfinite(seconds(cell)) for cell in cells[1:3])):
            return delimiter
    return by_count[0]


@dataclass(frozen=True)
class _Columns:
    """Where a table's rows have what. width: how many cells a row has."""

    delimiter: str
    order: Mapping[str, int]
    width: int
    has_header: bool

    @classmethod
    def of(cls, line: str) -> "_Columns":
        """As the first line that is not blank tells them; without a header video, start, end, query."""
        delimiter = _delimiter(line)
        names = [cell.strip().lower() for cell in next(csv.reader([line], delimiter=delimiter))]
        if not set(_COLUMNS) <= set(names):
            return cls(delimiter, {name: place for place, name in enumerate(_COLUMNS)}, len(_COLUMNS), False)
        width = max(place for place, name in enumerate(names, 1) if name)
        return cls(delimiter, {name: names.index(name) for name in _COLUMNS}, width, True)

    def is_row(self, line: str) -> bool:
        """Whether a line is a row by itself."""
        cells = line.split(self.delimiter)
        times = [cells[self.order[name]] for name in ("start", "end") if len(cells) > max(self.order.values())]
        return bool(times) and all(math.isfinite(seconds(time)) for time in times)

    def used(self, cells: list[str]) -> list[str]:
        """A row's cells without the blank ones beyond the last column."""
        while len(cells) > self.width and not cells[-1].strip():
            cells = cells[:-1]
        return cells

    def named(self, cells: list[str]) -> dict[str, str] | str:
        """A row's cells by their columns, or why it is none. Cells beyond the last column are of a query that stands in it."""
        last, cells = self.width - 1, self.used(cells)
        if len(cells) > self.width and self.order["query"] == last and self.delimiter not in cells[last]:
            cells = [*cells[:last], self.delimiter.join(cells[last:])]
        if len(cells) > self.width:
            return (
                f"{len(cells)} cells in {self.width} columns: where the query has a {self.delimiter!r}, quote the query"
            )
        if len(cells) <= max(self.order.values()):
            return f"{len(cells)} columns: it needs {', '.join(self.order)}"
        return {name: cells[place] for name, place in self.order.items()}


def _refuse_unnamed(path: Path, columns: _Columns, rows: Sequence[list[str]]) -> None:
    """Where all rows have as many cells too many, these may be columns without a name or parts of queries."""
    counts = {len(columns.used(cells)) for cells in rows}
    if len(rows) > 1 and len(counts) == 1 and min(counts) > columns.width == columns.order["query"] + 1:
        mark = columns.delimiter
        raise InputError(
            f"annotations '{path}': each row has {min(counts)} cells, and {columns.width} columns are known: name the others in "
            f"the first line ({mark.join(_COLUMNS)}{mark}...), or quote queries that have a {mark!r}"
        )


def _table(path: Path, text: str, first: str) -> list[Row]:
    """CSV or TSV, with a header or video, start, end, query in this order; `first`: its first line that is not blank."""
    try:
        columns = _Columns.of(first)
    except csv.Error as error:
        raise InputError(f"annotations '{path}', its first line: {error}") from error
    rows: list[Row] = []
    of_query: dict[tuple[str, str], tuple[list[tuple[float, float]], list[tuple[str, str]]]] = {}
    lines = [*islice(read_cells(text, columns.delimiter, columns.is_row), columns.has_header, None)]
    _refuse_unnamed(path, columns, [cells for _, cells in lines if not isinstance(cells, str)])
    for number, cells in lines:
        place = f"{path.name}:{number}"
        row = cells if isinstance(cells, str) else columns.named(cells)
        if isinstance(row, str):
            rows.append(Unreadable(place, row))
            continue
        video, query = row["video"].strip(), " ".join(row["query"].split())
        key = nfc(video), query
        if key not in of_query:
            windows, said = of_query[key] = [], []
            rows.append(Noted(place, video, query, windows, said=said))
        windows, said = of_query[key]
        windows.append((seconds(row["start"]), seconds(row["end"])))
        said += _said([[row["start"].strip(), row["end"].strip()]], place)
    if not of_query:
        raise InputError(
            f"annotations '{path}' have no row of video,start,end,query, and are of no other known form "
            "(Charades-STA, ActivityNet Captions, TACoS, QVHighlights)"
        )
    return rows
