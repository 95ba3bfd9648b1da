"""What a manifest's rows are, told by the contents of their files and not by their names.

manifest ──▶ file identities (contents) ──▶ footage (file, segment) ──▶ row identities (file, segment, class) ──▶ digest
"""

import hashlib
from pathlib import Path

import numpy as np

from engine.data.manifests.manifest import Manifest
from engine.data.sampling.keyed import mixed
from engine.data.store.index import StoreIndex, split_stored_name
from engine.errors import InputError, SourceGone


def file_identities(manifest: Manifest) -> np.ndarray:
    """int64 [V]: what tells the file of each row from others: its contents.

    Where a manifest does not know them: of a store the checksum of the stored video, else where the file lies and its size.
    """
    known = manifest.table.column("content_hash")
    identities = known.fill_null(0).to_numpy().copy()
    unknown = np.flatnonzero(known.is_null().to_numpy())
    if not len(unknown):
        return identities
    part = manifest.table.select(["path", "file_bytes"]).take(unknown)
    root, indices = str(manifest.root.absolute()), {}
    for place, path, size in zip(unknown, *(column.to_pylist() for column in part.columns), strict=True):
        name = f"{root.rstrip('/')}/{path}" if not path.startswith("/") else path
        identities[place] = digest_of(_stored_bytes(name, indices) or f"file {size} {name}")
    return identities


def _stored_bytes(name: str, indices: dict[str, StoreIndex | None]) -> str | None:
    """What a store's index says of a video's bytes; None for a plain file, or without the index."""
    stored = split_stored_name(name)
    if stored is None:
        return None
    folder, number = stored
    if folder not in indices:
        indices[folder] = None
        try:
            indices[folder] = StoreIndex(Path(folder))
        except SourceGone:
            raise
        except InputError:
            pass
    index = indices[folder]
    if index is None or number >= len(index):
        return None
    entry = index[number]
    return f"store {entry.crc32} {entry.num_bytes} {entry.num_frames} {entry.width} {entry.height}"


def rows_of_files(manifest: Manifest, files: np.ndarray) -> np.ndarray:
    """int64, ascending: the rows whose files have one of these contents; of a large manifest those whose contents it tells."""
    if not len(files):
        return np.zeros(0, np.int64)
    if not manifest.is_large:
        return np.flatnonzero(np.isin(file_identities(manifest), files))
    may_be, low = np.zeros(2**20, bool), 2**20 - 1  # by the lowest bits, which rules out most rows at once
    may_be[files & low] = True
    found = []
    for first, contents in manifest.known_contents():
        places = np.flatnonzero(may_be[contents & low])
        found.append(first + places[np.isin(contents[places], files) & (contents[places] != 0)])
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def digest(manifest: Manifest) -> str:
    """Of all rows in any order: equal for the same videos, segments and classes."""
    rows = np.sort(row_identities(manifest, file_identities(manifest)))
    return hashlib.blake2b(rows.astype("<i8").tobytes(), digest_size=8).hexdigest()


def row_identities(manifest: Manifest, files: np.ndarray) -> np.ndarray:
    """int64 [V]: file, segment and class of each row; equal for what shows the same under the same name of a class."""
    of_class = np.array([digest_of(name) for name in manifest.classes], np.int64)
    return mixed(footage_identities(manifest, files), of_class[manifest.class_index])


def footage_identities(manifest: Manifest, files: np.ndarray) -> np.ndarray:
    """int64 [V]: file and segment of each row; equal for what shows the same.

    A segment is named by its seconds, which a store and another frame count leave as they are, else by its frames.
    """
    column = {
        name: manifest.table.column(name).to_numpy()
        for name in ("first_frame", "num_frames", "file_frames", "segment_start", "segment_end")
    }
    in_seconds = ~(np.isnan(column["segment_start"]) & np.isnan(column["segment_end"]))
    is_whole = ~in_seconds & (column["first_frame"] == 0) & (column["num_frames"] == column["file_frames"])
    found = files
    for frames, seconds in (("first_frame", "segment_start"), ("num_frames", "segment_end")):
        bits = column[seconds].astype(np.float32).view(np.int32).astype(np.int64)
        place = np.where(in_seconds, bits + 1, -1 - column[frames].astype(np.int64))
        found = mixed(found, np.where(is_whole, 0, place))
    return found


def digest_of(text: str) -> int:
    """A text as a number of 64 bits."""
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little", signed=True
    )
