"""What features depend on of the files of a manifest: their contents, when their frames are shown, and how they are turned."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from engine.data.manifests.manifest import Manifest
from engine.data.pyav.times import Timeline

_FALLBACK_RATE = 25.0  # frames a second, where nothing tells it


class Identity(NamedTuple):
    """What tells that a file is the same, and the manifest says the same of its windows.

    content_hash: None: not known. shown: digest of when its frames are shown and how they are turned; None: not noted (by versions
    of before), and then not compared.
    """

    file_bytes: int
    content_hash: int | None
    file_frames: int
    shown: int | None

    def is_same(self, now: "Identity") -> bool:
        """Whether a file of this identity, as kept, is what a manifest lists now."""
        return self[:3] == now[:3] and self.shown in (None, now.shown)


def timelines(manifest: Manifest, rows: Sequence[int] | None = None) -> list[Timeline]:
    """The times of the frames of rows' files, of all rows by default; where none are noted (older manifests, and stores with one
    rate for all) the rate is constant.
    """
    table = manifest.table.select(["timed_frames", "frame_times", "file_frames", "fps"])
    table = table if rows is None else table.take(pa.array(rows, pa.int64()))
    return [
        Timeline(tuple(frames), tuple(seconds))
        if frames
        else Timeline((0, count), (0.0, count / (rate or _FALLBACK_RATE)))
        for frames, seconds, count, rate in zip(*(column.to_pylist() for column in table.columns), strict=True)
    ]


def showing(timeline: Timeline, rotation: int) -> int:
    """64 bits of when frames are shown and how they are turned: with the file, what decides its windows and their pictures."""
    text = f"{rotation} {timeline.frames} {timeline.seconds}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def identities(manifest: Manifest) -> dict[str, Identity]:
    """Path -> what tells that the file is the same, once for each file of a manifest, in its order."""
    names = ("file_bytes", "content_hash", "file_frames")
    columns = [manifest.table.column(name).to_pylist() for name in (*names, "rotation")]
    rows = zip(manifest.paths, timelines(manifest), *columns, strict=True)
    return {path: Identity(*file, showing(timeline, rotation)) for path, timeline, *file, rotation in rows}


def videos_digest(wanted: dict[str, Identity]) -> str:
    """64 bits of the files of a manifest, whatever their order."""
    return hashlib.blake2b(json.dumps(sorted(wanted.items())).encode(), digest_size=8).hexdigest()
