"""Videos are known by their contents, under any name and in any order, raw and stored."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.data.manifests.contents import file_identities, footage_identities, row_identities
from engine.data.manifests.manifest import Manifest, concatenate
from engine.data.manifests.manifest_table import SCHEMA
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from tests.data.videos import numbered_frame
from tests.rows import row

HASHES = {name: hash_ for hash_, name in enumerate("abcdef", start=-3)}


def manifest(*rows: dict, root: str = "/v") -> Manifest:
    return Manifest.from_rows(list(rows), Path(root))


def test_a_file_is_known_by_its_contents_alone():
    one = manifest(row("a.mp4", "x", content_hash=7), row("b.mp4", "x", content_hash=8))
    other = manifest(row("n/b.mp4", "y", content_hash=8), row("a.mp4", "x", content_hash=9), root="/w")
    first, second = file_identities(one), file_identities(other)
    assert first[1] == second[0] and len({*first, *second}) == 3


def test_without_contents_a_file_is_known_by_its_place_and_size():
    here = manifest(row("a.mp4", "x"), row("b.mp4", "x"))
    assert len(set(file_identities(here))) == 2
    assert np.array_equal(file_identities(here), file_identities(concatenate([here])))
    assert file_identities(manifest(row("a.mp4", "x", file_bytes=998)))[0] != file_identities(here)[0]
    assert file_identities(manifest(row("a.mp4", "x"), root="/w"))[0] != file_identities(here)[0]


def test_rows_are_told_apart_by_file_segment_and_class():
    rows = [
        row("a", "x", content_hash=1), row("a", "y", content_hash=1), row("b", "x", content_hash=2),
        row("a", "x", content_hash=1, first_frame=5, num_frames=10), row("a", "x", content_hash=1, first_frame=10, num_frames=5),
        row("a", "x", content_hash=1, segment_start=1.0, segment_end=2.0),
        row("a", "x", content_hash=1, segment_start=1.0, segment_end=2.5),
        row("a", "x", content_hash=1, segment_start=0.0, segment_end=2.0),
    ]  # fmt: skip
    found = manifest(*rows)
    assert len(set(row_identities(found, file_identities(found)).tolist())) == len(rows)
    assert len(set(footage_identities(found, file_identities(found)).tolist())) == len(rows) - 1  # of two classes
    other_rate = manifest(
        row("z", "x", content_hash=1, segment_start=1.0, segment_end=2.0, first_frame=9, file_frames=7)
    )
    assert (
        row_identities(other_rate, file_identities(other_rate))[0] == row_identities(found, file_identities(found))[5]
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A manifest of three real videos and the store made of them."""
    from engine.data.indexing.dataset import index_folder
    from engine.data.pyav.encode import write_video

    root = tmp_path_factory.mktemp("stored")
    for count, name in enumerate(("a/x.mp4", "a/y.mp4", "b/z.mp4"), start=8):
        (root / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / "raw" / name, (numbered_frame(number, 128, 128) for number in range(count)))
    index_folder(root / "raw", root / "raw.parquet")
    raw = Manifest.load(root / "raw.parquet")
    for name, source in (("store", raw), ("turned", raw.select(np.array([2, 1, 0])))):
        ingest(source, root / name, StoreSettings(short_side=64), WorkSettings())
    return raw, *(Manifest.load(root / name / "manifest.parquet") for name in ("store", "turned"))


def test_a_video_is_the_same_raw_and_in_any_store(stored):
    raw, store, turned = ((found, file_identities(found)) for found in stored)
    assert np.array_equal(row_identities(*raw), row_identities(*store))
    assert np.array_equal(row_identities(*raw)[::-1], row_identities(*turned))


def test_a_store_that_does_not_know_its_originals_is_known_by_its_checksums(stored):
    """As those that were made before their manifests told the contents of the originals."""
    place = SCHEMA.get_field_index("content_hash")
    unknown = pa.nulls(3, pa.int64())
    store, turned = (Manifest(m.table.set_column(place, SCHEMA.field(place), unknown), m.root) for m in stored[1:])
    assert len(set(file_identities(store).tolist())) == 3
    assert np.array_equal(file_identities(store)[::-1], file_identities(turned))  # other numbers, in another folder
    gone = Manifest(store.table, Path("/nowhere"))
    assert len(set(file_identities(gone).tolist())) == 3
