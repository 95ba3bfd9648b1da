"""A run knows its videos again."""

from pathlib import Path

import numpy as np

from engine.data.manifests.manifest import Manifest
from engine.data.sets.footage import Footage
from tests.rows import row


def manifest(*rows: dict) -> Manifest:
    return Manifest.from_rows(list(rows), Path("/v"))


def test_remembered_rows_are_found_by_other_names_and_in_turn():
    rows = [
        row(f"{name}.mp4", "x", content_hash=number) for name, number in (("a", 1), ("b", 2), ("copy", 2), ("c", 3))
    ]
    then = manifest(*rows)
    footage = Footage.of(then, np.array([0, 1, 0, 1]))
    assert footage.find(then).tolist() == [0, 1, 2, 3]
    now = manifest(rows[3], row("new.mp4", "x", content_hash=4), rows[2], rows[1] | {"path": "renamed.mp4"})
    assert footage.find(now).tolist() == [-1, 2, 3, 0]
    assert footage.difference(Footage.of(now, np.zeros(4))) == (1, 1)
    again = Footage.from_state({"videos": footage.to_state()})
    assert all(np.array_equal(getattr(again, name), value) for name, value in vars(footage).items())
    assert Footage.from_state({}) is None
