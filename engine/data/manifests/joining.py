"""Manifests one after the other: in memory, where one of them is large, or written as a large one (`tools/join_manifests.py`)."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from engine.data.manifests.contents import file_identities, row_identities
from engine.data.manifests.large_manifest import PATTERN, LargeManifest
from engine.data.manifests.large_part import FORMAT, SOURCE, Part
from engine.data.manifests.manifest import Manifest, concatenate
from engine.data.manifests.manifest_table import METADATA_KEY, SCHEMA
from engine.data.manifests.video_sources import common_keys, file_keys, joined, source_keys
from engine.errors import InputError
from engine.files.atomic_file import atomic_write

PART_ROWS = 2**20  # of a file


def join(manifests: Sequence[Manifest]) -> Manifest:
    """Several manifests as one; in memory unless one of them is large."""
    if not any(manifest.is_large for manifest in manifests):
        return concatenate(manifests)
    parts = [
        part
        for manifest in manifests
        for part in (manifest.parts if isinstance(manifest, LargeManifest) else [part_of(manifest)])
    ]
    return LargeManifest(parts, None)


def part_of(manifest: Manifest) -> Part:
    """A manifest in memory as rows of a large one."""
    return _part_of(manifest)[0]


def _part_of(manifest: Manifest) -> tuple[Part, np.ndarray]:
    """The same, and its pairs of `file_keys`, of keys before they are joined: elsewhere they may be joined with others."""
    names = [name for name in SCHEMA.names if manifest.table.column(name).null_count < len(manifest)]
    columns = {name: manifest.table.column(name).combine_chunks() for name in names}
    for name, column in columns.items():
        if pa.types.is_dictionary(column.type):  # without names that no row has
            columns[name] = column.cast(pa.string()).dictionary_encode()
    files = file_identities(manifest)
    keys = source_keys(manifest, files)
    pairs = file_keys(files, keys)
    keys = joined(keys, common_keys([pairs]))
    columns[SOURCE] = pa.array(keys)
    examples, kind = manifest.kinds()
    kinds = tuple(zip(examples.tolist(), np.bincount(kind).tolist(), strict=True))
    digest = _digest(row_identities(manifest, files), *([] if np.array_equal(keys, files) else [keys]))
    table, root = pa.table(columns), manifest.root.absolute()
    return Part(table, root, manifest.source or root, digest, kinds), pairs


def _digest(*columns: np.ndarray) -> int:
    """64 bits of columns of int64."""
    values = np.concatenate(columns).astype("<i8")
    return int.from_bytes(hashlib.blake2b(values.tobytes(), digest_size=8).digest(), "little", signed=True)


def write_large(manifests: Iterable[Manifest], folder: Path) -> int:
    """Write manifests, in their order, as a large one: `folder` is there whole or not at all. Returns the number of rows.

    Each is in memory by itself; each may be large.

    Raises:
        InputError: there is something at `folder`.
    """
    if folder.exists():
        raise InputError(f"'{folder}' is there already: name another --out, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    total, pairs = 0, []
    with atomic_write(folder) as partial:
        partial.mkdir()
        for number, manifest in enumerate(_cut(manifests)):
            part, found = _part_of(manifest)
            home, root = folder.resolve(), str(part.root)
            if part.root.is_relative_to(home.parent):  # then they may be moved together
                root = os.path.relpath(part.root, home)
            notes = {"version": FORMAT, "root": root, "digest": part.digest, "kinds": part.kinds}
            _write(part.table, notes, partial / PATTERN.replace("*", f"{number:05d}"))
            total += len(part.table)
            pairs.append(found)
        _join_sources(sorted(partial.glob(PATTERN)), common_keys(pairs))
    return total


def _write(table: pa.Table, notes: Mapping[str, object], path: Path) -> None:
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(notes).encode()})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=len(table))


def _join_sources(paths: Sequence[Path], common: dict[int, int]) -> None:
    """Write files again that have rows of sources which have a file in common with one of another file of rows."""
    for path in paths if common else ():
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        place, keys = table.schema.get_field_index(SOURCE), table.column(SOURCE).to_numpy()
        found = joined(keys, common)
        if not np.array_equal(found, keys):
            notes = json.loads(table.schema.metadata[METADATA_KEY])
            notes["digest"] = _digest(np.array([notes["digest"]]), found)
            _write(table.set_column(place, SOURCE, pa.array(found)), notes, path)


def _cut(manifests: Iterable[Manifest]) -> Iterator[Manifest]:
    """The same rows as manifests of `PART_ROWS`; each of one root."""
    for root, group in itertools.groupby(_in_memory(manifests), key=lambda manifest: manifest.root.absolute()):
        waiting = None
        for manifest in group:
            tables = [manifest.table] if waiting is None else [waiting, manifest.table]
            waiting = pa.concat_tables(tables).unify_dictionaries()
            while len(waiting) >= PART_ROWS:
                yield Manifest(waiting.slice(0, PART_ROWS).combine_chunks(), root)
                waiting = waiting.slice(PART_ROWS)
        if len(waiting):
            yield Manifest(waiting.combine_chunks(), root)


def _in_memory(manifests: Iterable[Manifest]) -> Iterator[Manifest]:
    for manifest in manifests:
        if isinstance(manifest, LargeManifest):
            yield from (part.loaded() for part in manifest.parts)
        else:
            yield manifest
