"""The columns of a manifest: their types, what a file of them must hold, and one row of them as a video."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.data.batch import Video
from engine.errors import InputError
from engine.files.addresses import shown
from engine.semantics.words import composed

FORMAT_VERSION = 1
METADATA_KEY = b"unseen"
_NAMES = pa.dictionary(pa.int32(), pa.string())

SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # relative to the root, as `path_as_text` writes it
        ("class_name", _NAMES),
        ("split", _NAMES),  # "train", "test", "train1" ...; "" where the layout has none
        ("group", _NAMES),  # videos cut from one source share a group; "" where unknown
        ("num_frames", pa.int32()),  # of this row (segment or file)
        ("first_frame", pa.int32()),
        ("file_frames", pa.int32()),
        ("fps", pa.float32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("rotation", pa.int16()),
        ("codec", _NAMES),
        ("pixel_format", _NAMES),
        ("duration", pa.float32()),  # seconds, of the file
        ("segment_start", pa.float32()),  # seconds; NaN where the row is the whole file
        ("segment_end", pa.float32()),
        ("file_bytes", pa.int64()),
        ("key_frames", pa.list_(pa.int32())),
        ("key_pts", pa.list_(pa.int64())),
        ("mtime_ns", pa.int64()),  # of the file when it was indexed; null where the file is not checked by contents
        ("content_hash", pa.int64()),  # of the file, in a store of the file it was made of; null where not known
        # When frames are shown: at these and at the end, seconds after the container's start. See `Timeline`.
        ("timed_frames", pa.list_(pa.int32())),
        ("frame_times", pa.list_(pa.float64())),  # those between lie on straight lines
        ("oddity", _NAMES),  # why only FFmpeg is sure to show what was indexed, in few words; "" where others do too
    ]
)
LATER = ("mtime_ns", "content_hash", "timed_frames", "frame_times", "oddity")  # not in manifests of before: null
VIDEO_COLUMNS = (
    "path", "num_frames", "first_frame", "file_frames", "width", "height", "rotation", "codec", "pixel_format",
    "file_bytes", "key_frames", "key_pts", "mtime_ns", "content_hash", "oddity",
)  # fmt: skip


def path_as_text(path: str) -> str:
    """A path as Parquet can hold it, whose text is UTF-8: a byte that is none becomes NUL, which no path has, and two digits."""
    return re.sub("[\udc80-\udcff]", lambda found: f"\0{ord(found[0]) - 0xDC00:02x}", path)


def path_of_text(text: str) -> str:
    """The path that `path_as_text` was given."""
    return re.sub("\0(..)", lambda found: chr(0xDC00 + int(found[1], 16)), text) if "\0" in text else text


def table_of(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """Rows keyed by the column names of `SCHEMA`; those of `LATER` may be missing."""
    columns = {name: [row.get(name) if name in LATER else row[name] for row in rows] for name in SCHEMA.names}
    columns["path"] = [path_as_text(path) for path in columns["path"]]
    arrays = [pa.array(columns[f.name], type=pa.string() if f.type == _NAMES else f.type) for f in SCHEMA]
    arrays = [a.dictionary_encode() if f.type == _NAMES else a for a, f in zip(arrays, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def composed_names(table: pa.Table) -> pa.Table:
    """The table with class names as `composed` has them."""
    names = table.column("class_name").combine_chunks()
    spelt = names.dictionary.to_pylist()
    if all(map(str.isascii, spelt)) or spelt == (alike := [composed(name) for name in spelt]):
        return table
    names = pa.array(alike, pa.string()).take(names.indices).dictionary_encode()
    return table.set_column(table.schema.get_field_index("class_name"), SCHEMA.field("class_name"), names)


def checked_table(table: pa.Table, path: Path) -> tuple[pa.Table, Path]:
    """The table of a file in the types of `SCHEMA`, and the root that the file names.

    Raises:
        InputError: `path` is a Parquet file of something else, or lists nothing.
    """
    try:
        notes = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
        reason = "" if notes.get("version") == FORMAT_VERSION else "another tool or version wrote it"
        root = Path(notes.get("root", ""))
        missing = [name for name in SCHEMA.names if name not in (*table.schema.names, *LATER)]
        if missing:
            reason = f"columns missing: {', '.join(missing)}"
        else:
            for name in LATER:
                if name not in table.schema.names:
                    table = table.append_column(name, pa.nulls(len(table)))
            table = table.select(SCHEMA.names).cast(SCHEMA)
            _check_values(table)
            empty = [name for name in SCHEMA.names if name not in LATER and table.column(name).null_count]
            reason = reason or (f"values missing in: {', '.join(empty)}" if empty else "")
    except (ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        reason = f"{error}"
    if reason:
        raise InputError(
            f"'{shown(path)}' is not a manifest of version {FORMAT_VERSION} ({reason}): index the data set again"
        )
    if not table.num_rows:
        raise InputError(f"manifest '{shown(path)}' lists no video: index the data set again")
    return table, root


def _check_values(table: pa.Table) -> None:
    """Raises ValueError: a text is not UTF-8, a list ends beyond its values."""
    for name in table.column_names:
        try:
            table.column(name).validate(full=True)
        except pa.ArrowInvalid as error:
            raise ValueError(f"damaged values in {name}: {error}") from error


def video_of(columns: Mapping[str, pa.Array], root: Path, row: int) -> Video:
    """One row of a manifest's columns; those of `LATER` may be missing."""
    return video_with({name: columns[name][row].as_py() for name in VIDEO_COLUMNS if name in columns}, root)


def video_with(values: dict[str, Any], root: Path) -> Video:
    """The video of which `values` are those of `VIDEO_COLUMNS`; the dictionary is used up."""
    path = root / path_of_text(values.pop("path"))
    keys = {name: tuple(values.pop(name)) for name in ("key_frames", "key_pts")}
    return Video(path=path, **values, **keys)
