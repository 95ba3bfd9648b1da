"""Sources of videos as numbers: in a large manifest those of one in memory, wherever it is cut."""

from pathlib import Path

import numpy as np
import pytest

from engine.data.manifests.joining import write_large
from engine.data.manifests.large_manifest import open_large
from engine.data.manifests.large_part import SOURCE
from engine.data.manifests.manifest import Manifest
from engine.data.sets.holding_out import _sources
from tests.rows import row


def numbered(values: np.ndarray) -> list[int]:
    """Each value by its first place."""
    return [values.tolist().index(value) for value in values.tolist()]


@pytest.mark.parametrize("seed", range(12))
def test_rows_of_groups_are_of_one_source_as_in_memory(seed, tmp_path, monkeypatch):
    """Classes, groups and files drawn, so that groups share files, also with groups of other classes and other files of rows."""
    monkeypatch.setattr("engine.data.manifests.joining.PART_ROWS", 15)
    rng = np.random.default_rng(seed)
    rows = [
        row(
            f"{i}.mp4",
            f"class {rng.integers(5)}",
            group=f"g{rng.integers(6)}",
            content_hash=int(rng.integers(1, 12 + 20 * seed)),
        )
        for i in range(60)
    ]
    manifest = Manifest.from_rows(rows, Path("/v"))
    write_large([manifest], tmp_path / "large")
    found = np.concatenate([part.table.column(SOURCE).to_numpy() for part in open_large(tmp_path / "large").parts])
    in_memory = _sources(manifest, manifest.strings("group").tolist(), join_copies=True)
    assert numbered(found) == numbered(np.array(in_memory))


def test_rows_without_a_group_are_of_the_source_of_their_contents(tmp_path):
    rows = [row(f"{i}.mp4", f"class {i % 3}", group="", content_hash=100 + i // 2) for i in range(20)]
    write_large([Manifest.from_rows(rows, tmp_path)], tmp_path / "large")
    assert open_large(tmp_path / "large").parts[0].table.column(SOURCE).to_pylist() == [100 + i // 2 for i in range(20)]
