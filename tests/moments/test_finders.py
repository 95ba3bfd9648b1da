"""Who finds moments: a trained run over an index, its candidates, and what it refuses."""

import shutil

import numpy as np
import pytest
import torch

from engine.data.pyav.encode import write_video
from engine.errors import InputError
from engine.moments import finders, index
from engine.moments.finders import TrainedFinder
from engine.moments.index import open_index
from engine.moments.segments import cut_segments
from engine.moments.word_space import WordSpace
from tests.data.videos import numbered_frame
from tests.moments.small_finder import GRID, write_moment_run

CPU = torch.device("cpu")
QUERY = "a ball falls after the fish circles"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Three videos, a run, and the index of the videos."""
    root = tmp_path_factory.mktemp("finders")
    (root / "set").mkdir()
    for name, length in (("a.mp4", 30), ("b.mp4", 150), ("c.mp4", 61)):
        write_video(root / "set" / name, (numbered_frame(k, 48, 48) for k in range(length)))
    finder = TrainedFinder(write_moment_run(root), None, CPU)
    return root, finder, open_index([root / "set"], root / "index", finder.kind)


def test_moments_lie_in_the_videos_and_each_video_keeps_the_models_order(home):
    _, finder, found = home
    assert found.cache.stamp.grid == GRID
    moments = finder.find(found.cache, found.videos, QUERY, 20)
    assert {moment.video for moment in moments} == set(found.videos)
    for video in found.videos:
        mine = [moment for moment in moments if moment.video == video]
        assert len(mine) > 1 and [m.score for m in mine] == sorted((m.score for m in mine), reverse=True)
        duration = found.cache[video].duration_s
        assert all(0 <= m.start_s < m.end_s <= duration + 1e-9 for m in mine)
        direct = finder._search.find(found.cache[video], [QUERY], 20)[0]
        assert [(m.start_s, m.end_s) for m in mine] == [tuple(pair) for pair in direct[: len(mine), :2].tolist()]
    assert finder.find(found.cache, found.videos, QUERY, 3) == moments[:3]
    assert {m.video for m in moments[:3]} == set(found.videos)  # each video's best come first
    alone = finder.find(found.cache, found.videos[:1], QUERY, 2)
    assert {m.video for m in alone} == {found.videos[0]}


def test_a_curve_is_a_probability_over_the_whole_video(home):
    _, finder, found = home
    for video in found.videos:
        curve = finder.curve(found.cache, found.videos, video, QUERY)
        assert len(curve.edges) == len(curve.values) + 1 and (curve.values >= 0).all() and (curve.values <= 1).all()
        assert curve.edges[0] == 0 and curve.edges[-1] == pytest.approx(found.cache[video].duration_s)
        other = finder.curve(found.cache, found.videos, video, "house")
        assert not np.allclose(curve.values, other.values)


def test_parts_of_a_long_video_share_their_curve(home):
    """What lies in one part alone is that part's; what two share, their mean."""
    _, finder, found = home
    segments = cut_segments(found.cache[max(found.videos, key=lambda video: found.cache[video].duration_s)])
    assert len(segments) > 24  # of 16 a part, half of them shared
    tokens = finder._search.queries.tokens(QUERY)
    whole = finder._search.relevance(segments, tokens)
    first, second = (finder._search.relevance(segments.part(*part), tokens) for part in ((0, 16), (8, 24)))
    assert np.allclose(whole[:8], first[:8], atol=1e-6)
    assert np.allclose(whole[8:16], (first[8:] + second[:8]) / 2, atol=1e-6)


def test_of_many_videos_those_with_the_nearest_windows_are_looked_at(home, monkeypatch):
    _, finder, found = home
    monkeypatch.setattr(finders, "MAX_K", 2)
    asked = []
    monkeypatch.setattr(finders, "nearest_videos", lambda windows, videos, vector: asked.append(windows) or videos[:1])
    moments = finder.find(found.cache, found.videos, QUERY, 5)
    assert {m.video for m in moments} == {found.videos[0]}
    space: WordSpace = finder._space
    assert np.array_equal(asked[0].features, space.points(found.cache.features)) and asked[0].features.shape[1] == 50
    kept = list(found.cache.folder.glob("points-*.npy"))
    assert len(kept) == 1
    written = kept[0].stat().st_mtime_ns
    space.windows(found.cache)
    assert kept[0].stat().st_mtime_ns == written  # projected once
    points = space.points(found.cache.features)
    for damaged in (kept[0].read_bytes()[:100], kept[0].read_bytes().replace(b"(", b"[", 1)):
        kept[0].write_bytes(damaged)
        assert np.array_equal(space.windows(found.cache).features, points)
    with torch.no_grad():
        space._model.linear.bias.add_(1)
    space.windows(found.cache)
    assert [path.name for path in found.cache.folder.glob("points-*.npy")] != [kept[0].name]


def test_without_a_space_in_common_every_video_is_looked_at(home, tmp_path, monkeypatch):
    root, _, _ = home
    finder = TrainedFinder(write_moment_run(tmp_path, is_word_space=False), None, CPU)
    assert finder._space is None
    found = open_index([root / "set"], tmp_path / "index", finder.kind)
    monkeypatch.setattr(finders, "MAX_K", 2)
    assert {m.video for m in finder.find(found.cache, found.videos, QUERY, 9)} == set(found.videos)


def test_the_network_of_the_features_is_looked_for_and_must_be_the_same(home, tmp_path):
    root, _, _ = home
    run = shutil.copytree(root / "moments", tmp_path / "alone" / "moments")
    lost = TrainedFinder(run, None, CPU)
    with pytest.raises(
        InputError, match=r"of network/best\.pt \(step 7\), digest .* is not at hand: name its run with --encoder"
    ):
        open_index([root / "set"], tmp_path / "index", lost.kind)
    assert open_index([], root / "index", lost.kind).videos  # nothing is to be extracted
    named = TrainedFinder(run, str(root / "network"), CPU)
    assert open_index([root / "set"], tmp_path / "index", named.kind).videos
    write_moment_run(tmp_path / "wide", is_word_space=False)
    shutil.copytree(tmp_path / "wide" / "network", tmp_path / "alone" / "network")  # of the same name
    other = tmp_path / "alone" / "network" / "checkpoints" / "best.pt"
    state = torch.load(other, weights_only=True)
    state["model"] = {name: value + 1 for name, value in state["model"].items()}
    torch.save(state, other)
    with pytest.raises(InputError, match=r"^--encoder is 'nowhere': there is no run folder or checkpoint file"):
        TrainedFinder(run, "nowhere", CPU)
    with pytest.raises(InputError, match=r"--encoder '.*network' is network/best\.pt .* was trained with features of"):
        TrainedFinder(run, str(other.parent.parent), CPU)
    assert TrainedFinder(run, None, CPU)._network is None


def test_an_index_of_other_windows_is_refused(home, monkeypatch):
    root, finder, _ = home
    with pytest.raises(InputError, match=r"of windows 8 frames every 4 \(now 0\.5 seconds every 0\.5\)"):
        open_index([], root / "index", index.FeatureKind(finder.kind.digest, finder.kind.encoder))
