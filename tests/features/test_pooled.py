"""Features by a pool are those of one process; a video that ends its process costs itself, not its neighbours."""

import os
from functools import partial

import numpy as np
import pytest

from engine.cluster.pool import LocalPool
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.features.cache import FeatureCache
from engine.features.extract import Work, extract
from engine.features.windows import WindowGrid
from tests.features.small_set import LENGTHS, FrameReader, expected, write_set

GRID, WORK = WindowGrid(8, 4), Work(batch_size=3, num_threads=2)


class Fragile(FrameReader):
    """Ends its process at frame 20 of a video, which the longer ones have."""

    def __call__(self, frames):
        features = super().__call__(frames)
        if (features[:, :-1] >= 38).any():
            os._exit(7)
        return features


class Other(FrameReader):
    digest = "of other weights"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return Manifest.load(write_set(tmp_path_factory.mktemp("videos")))


def test_the_features_and_the_journal_are_those_of_one_process(manifest, tmp_path):
    extract(manifest, FrameReader(), tmp_path / "alone", GRID, WORK)
    report = extract(manifest, FrameReader(), tmp_path / "pooled", GRID, WORK, (LocalPool(1), FrameReader))
    one, other = (FeatureCache(tmp_path / name, manifest=manifest) for name in ("alone", "pooled"))
    for path in one.videos:
        assert np.array_equal(one[path].features, other[path].features)
        assert np.array_equal(one[path].start_s, other[path].start_s)
        assert one[path].duration_s == other[path].duration_s
    assert (report.num_new, report.num_windows) == (len(LENGTHS), sum(len(expected(n)) for n in LENGTHS.values()))
    assert report.decode_s > 0
    again = extract(manifest, FrameReader(), tmp_path / "pooled", GRID, WORK, (LocalPool(1), partial(os._exit, 1)))
    assert again.num_new == 0


def test_a_crash_costs_one_video(manifest, tmp_path):
    report = extract(manifest, FrameReader(), tmp_path / "out", GRID, WORK, (LocalPool(1), Fragile))
    assert [(file["path"], "exit code 7" in file["text"]) for file in report.files] == [("shown/d.webm", True)]
    cache = FeatureCache(tmp_path / "out")
    assert sorted(cache.videos) == [f"shown/{name}" for name in LENGTHS if name != "d.webm"]
    assert np.array_equal(cache["shown/c.mkv"].features, expected(LENGTHS["c.mkv"]))


def test_other_weights_on_a_node_are_refused(manifest, tmp_path):
    with pytest.raises(InputError, match="other weights under the same name"):
        extract(manifest, FrameReader(), tmp_path / "out", GRID, WORK, (LocalPool(0), Other))
