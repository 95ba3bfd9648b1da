"""The videos of the quickstart: queries that mean one place, tests that ask for what no training video shows."""

import dataclasses
import itertools

import numpy as np
import pytest

from engine.config import load_config
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.moments.annotations import Annotations
from engine.moments.config import DrawnMomentsConfig
from engine.moments.drawn import FPS, plan_moments, write_drawn_moments
from tests.environment import ROOT


def test_drawn_moments_are_unambiguous_and_tests_ask_for_unseen_combinations():
    quickstart = load_config(ROOT / "configs" / "moments_quickstart.yaml", [])
    encoder = load_config(ROOT / quickstart.moments.encoder, [])
    drawn = quickstart.moments.drawn
    assert [getattr(drawn, name) for name in ("things", "movements", "num_unseen", "seed")] == [
        getattr(encoder.procedural, name) for name in ("things", "movements", "num_unseen", "seed")
    ]  # so that the network has not seen them either
    videos = plan_moments(drawn)
    train = {" ".join(action) for video in videos if video.split == "train" for action in video.actions}
    assert len(train) == 24
    for video in videos:
        names = [" ".join(action) for action in video.actions]
        assert 3 <= len(names) <= 6 and 1 <= len(video.queries) <= 4 and len(video.frames) == len(names)
        assert all(one != other for one, other in itertools.pairwise(names))
        for query, place in video.queries:
            words = query.split(" the ")
            fits = [k for k, name in enumerate(names) if query.startswith(name)]
            if len(words) == 2:
                step = -1 if " after" in query else 1
                thing, verb = words[1].split()
                beside = {k: names[k + step].split() if 0 <= k + step < len(names) else ["", ""] for k in fits}
                fits = [k for k in fits if beside[k][0] == thing and beside[k][1][:4] == verb[:4]]
            assert fits == [place]
            assert (names[place] in train) == (video.split == "train")
    assert plan_moments(drawn) == videos != plan_moments(dataclasses.replace(drawn, seed=1))
    twice = [video for video in videos if len(set(video.actions)) < len(video.actions)]
    assert 0.3 < len(twice) / len(videos) < 0.7


def test_moments_are_where_they_were_drawn(tmp_path):
    config = DrawnMomentsConfig(
        folder=str(tmp_path), things=["ball", "star"], movements=["falling", "circling", "growing"], num_unseen=2, videos=2,
        tests=1, max_actions=4, min_frames=6, max_frames=9, size=32,
    )  # fmt: skip
    path, table = write_drawn_moments(config)
    manifest, moments, planned = Manifest.load(path), Annotations.load(table), plan_moments(config)
    assert manifest.num_frames.tolist() == [sum(video.frames) for video in planned]
    assert [(video, query) for video, query in zip(moments.videos, moments.queries, strict=True)] == [
        (video.path, query) for video in planned for query, _ in video.queries
    ]
    expected = [np.cumsum([0, *v.frames])[[place, place + 1]] / FPS for v in planned for _, place in v.queries]
    np.testing.assert_allclose([window[0] for window in moments.windows], expected)
    assert all(
        window[0, 1] <= duration + 0.01 for window, duration in zip(moments.windows, moments.durations, strict=True)
    )
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.mp4")}
    write_drawn_moments(config)
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.mp4")} and len(before) == 3


def test_what_cannot_be_drawn_is_told():
    few = DrawnMomentsConfig(things=["ball", "star"], movements=["falling", "circling"], num_unseen=1)
    for config, told in (
        (few, "fewer than max_actions 6"),
        (
            dataclasses.replace(few, things=["bal"]),
            r"moments\.drawn\.things: nothing here draws 'bal': did you mean 'ball'",
        ),
        (dataclasses.replace(few, num_unseen=3), "would never be trained"),
    ):
        with pytest.raises(InputError, match=told):
            plan_moments(config)
    with pytest.raises(ValueError, match="size 33 is odd: a video's side needs an even number of pixels"):
        DrawnMomentsConfig(size=33)
