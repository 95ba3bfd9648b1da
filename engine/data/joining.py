"""Manifests one after the other: in memory, where one of them is large, or written as a large one (`tools/join_manifests.py`)."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from engine.atomic_file import atomic_write
from engine.data.footage import digest_of, file_identities, row_identities
from engine.data.large_manifest import PATTERN, LargeManifest
from engine.data.large_part import FORMAT, SOURCE, Part
from engine.data.manifest import METADATA_KEY, SCHEMA, Manifest, concatenate
from engine.errors import InputError

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
    names = [name for name in SCHEMA.names if manifest.table.column(name).null_count < len(manifest)]
    columns = {name: manifest.table.column(name).combine_chunks() for name in names}
    for name, column in columns.items():
        if pa.types.is_dictionary(column.type):  # without names that no row has
            columns[name] = column.cast(pa.string()).dictionary_encode()
    files = file_identities(manifest)
    columns[SOURCE] = pa.array(_sources(columns["group"], files))
    examples, kind = manifest.kinds()
    kinds = tuple(zip(examples.tolist(), np.bincount(kind).tolist(), strict=True))
    digest = hashlib.blake2b(row_identities(manifest, files).astype("<i8").tobytes(), digest_size=8).digest()
    table, root = pa.table(columns), manifest.root.absolute()
    return Part(table, root, manifest.source or root, int.from_bytes(digest, "little", signed=True), kinds)


def _sources(group: pa.DictionaryArray, files: np.ndarray) -> np.ndarray:
    """int64 [V]: the group of each row, or where it has none the contents of its file."""
    of_group = np.array([digest_of(f"group {name}") if name else 0 for name in group.dictionary.to_pylist()], np.int64)
    found = of_group[group.indices.to_numpy()]
    return np.where(found == 0, files, found)


def write_large(manifests: Iterable[Manifest], folder: Path) -> int:
    """Write manifests, in their order, as a large one: `folder` is there whole or not at all. Returns the number of rows.

    Each is in memory by itself; each may be large.

    Raises:
        InputError: there is something at `folder`.
    """
    if folder.exists():
        raise InputError(f"'{folder}' is there already: name another --out, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    total = 0
    with atomic_write(folder) as partial:
        partial.mkdir()
        for number, manifest in enumerate(_cut(manifests)):
            part = part_of(manifest)
            home, root = folder.resolve(), str(part.root)
            if part.root.is_relative_to(home.parent):  # then they may be moved together
                root = os.path.relpath(part.root, home)
            notes = {"version": FORMAT, "root": root, "digest": part.digest, "kinds": part.kinds}
            table = part.table.replace_schema_metadata({METADATA_KEY: json.dumps(notes).encode()})
            file = partial / PATTERN.replace("*", f"{number:05d}")
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=len(table))
            total += len(table)
    return total


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
