"""The loader: full batches, the same snippets over any ranks and resumes, bad samples replaced and counted."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, DecodedClips, VideoDecoder
from engine.data.config import DataConfig
from engine.data.loading.loader import ClipLoader, StreamPlan
from engine.data.manifests.manifest import Manifest
from engine.data.sampling.plans import PLANS, Draw
from engine.data.sampling.sampler import stream_slice
from engine.data.sampling.weights import RowWeights
from engine.errors import InputError
from tests.rows import row

CLIP = ClipFormat(num_frames=4, short_side=8, crop=8)


class NumberDecoder(VideoDecoder):
    """Paints each snippet with its video's number; videos in `bad` cannot be decoded."""

    name = "numbers"

    def __init__(self, bad=()):
        self.bad, self.closed = set(bad), False

    def decode(self, requests):
        frames = torch.zeros(len(requests), 4, 8, 8, 3, dtype=torch.uint8)
        failures = {}
        for index, request in enumerate(requests):
            number = int(request.video.path.stem)
            frames[index] = number
            if number in self.bad:
                failures[index] = "broken on purpose"
        return DecodedClips(frames, failures)

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True, params=PLANS)
def plan(request, monkeypatch):
    """All holds for both plans: what `load` takes."""
    monkeypatch.setattr(sys.modules[__name__], "PLAN", request.param)


PLAN = 1


def load(num_steps, *, batch_size=4, rank=0, world_size=1, bad=(), epoch=0, position=0, **data):
    manifest = Manifest.from_rows([row(f"{i}.mp4", f"c{i % 3}", num_frames=10 + i) for i in range(10)], Path("/v"))
    loader = ClipLoader(
        manifest,
        np.arange(3),
        NumberDecoder(bad),
        CLIP,
        StreamPlan(0, batch_size, rank, world_size, flip=True, plan=PLAN),
        DataConfig(**data),
        epoch=epoch,
        position=position,
    )
    try:
        return [next(loader) for _ in range(num_steps)]
    finally:
        loader.close()
        assert loader.decoder.closed


def videos(batches):
    return torch.cat([batch.video for batch in batches]).tolist()


def test_batches_are_full_labelled_and_cover_each_epoch_once():
    batches = load(5)
    assert all(batch.frames.shape == (4, 4, 8, 8, 3) and batch.frames.is_contiguous() for batch in batches)
    seen = videos(batches)
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    for batch in batches:
        assert batch.frames[:, 0, 0, 0, 0].tolist() == batch.video.tolist()
        assert batch.class_index.tolist() == [number % 3 for number in batch.video.tolist()]


def test_same_snippets_over_any_number_of_ranks():
    whole = load(6)
    for world_size in (2, 4):
        parts = [load(6, rank=rank, world_size=world_size) for rank in range(world_size)]
        for step, batch in enumerate(whole):
            mine = sorted(
                (v, s)
                for part in parts
                for v, s in zip(part[step].video.tolist(), part[step].start.tolist(), strict=True)
            )
            assert mine == sorted(zip(batch.video.tolist(), batch.start.tolist(), strict=True))


def test_resuming_from_two_integers_continues_the_stream():
    whole = load(6)
    epoch, position = divmod(3 * 4, 10)
    assert videos(load(3, epoch=epoch, position=position)) == videos(whole[3:])


def test_bad_samples_are_replaced_from_the_same_epoch_and_named():
    batches = load(5, bad={7}, max_bad_share=0.5)
    failures = [failure for batch in batches for failure in batch.failures]
    assert len(failures) >= 2  # once in each of two epochs, and when it was drawn as a stand-in
    assert {(failure.path.name, failure.reason) for failure in failures} == {("7.mp4", "broken on purpose")}
    seen = videos(batches)
    assert 7 not in seen
    assert len(seen) == 20
    good = load(5)
    changed = [i for i, (a, b) in enumerate(zip(seen, videos(good), strict=True)) if a != b]
    assert [videos(good)[i] for i in changed] == [7, 7]  # all other positions are as without the failure
    assert all(batch.frames[:, 0, 0, 0, 0].tolist() == batch.video.tolist() for batch in batches)
    assert videos(load(5, bad={7}, max_bad_share=0.5)) == seen


def test_too_many_bad_samples_stop_with_a_clear_error():
    with pytest.raises(
        InputError, match=r"could not be decoded, more than data.max_bad_share = 0.1 .*broken on purpose"
    ):
        load(10, bad={1, 2, 3}, max_bad_share=0.1)


def test_a_bad_stand_in_does_not_count_as_another_sample():
    bad = {1, 2, 3, 4, 5, 6}
    batches = load(5, bad=bad, max_bad_share=0.7)
    assert sum(batch.num_replaced for batch in batches) == 2 * len(bad) < sum(len(batch.failures) for batch in batches)
    with pytest.raises(InputError, match=r"^\d+ of 12 samples could not be decoded"):
        load(5, bad=bad, max_bad_share=0.5)


def test_a_data_set_that_is_not_there_stops_at_once():
    with pytest.raises(InputError, match="10 samples in a row could not be decoded"):
        load(1, bad=set(range(10)), max_bad_share=1.0)


def test_batch_must_divide_over_ranks():
    with pytest.raises(InputError, match=r"train.batch_size 5 does not divide over 2 ranks"):
        StreamPlan(0, 5, 0, 2, flip=True)


def test_cap_on_an_epoch():
    seen = videos(load(3, clips_per_epoch=6))
    assert len(set(seen[:6])) == len(set(seen[6:])) == 6
    assert np.array(seen).max() <= 9


class Remembers(NumberDecoder):
    def decode(self, requests):
        self.__dict__.setdefault("asked", []).extend(requests)
        return super().decode(requests)


@pytest.mark.parametrize("version", PLANS)
@pytest.mark.parametrize("flip", [True, False])
def test_what_is_decoded_is_what_is_planned(version, flip):
    """Start, crop and mirror image of each snippet, with a stride and the weights of two sets; mirrored only where asked for."""
    manifest = Manifest.from_rows([row(f"{i}.mp4", "c", num_frames=20 + i) for i in range(10)], Path("/v"))
    clip = ClipFormat(num_frames=4, short_side=8, crop=8, stride=3)
    weights = RowWeights.of_sets([(2.0, 4), (1.0, 6)])
    decoder = Remembers()
    loader = ClipLoader(manifest, np.zeros(1, np.int64), decoder, clip, StreamPlan(5, 7, 0, 1, flip=flip, plan=version),
                        DataConfig(), weights=weights)  # fmt: skip
    try:
        batches = [next(loader) for _ in range(3)]
    finally:
        loader.close()
    plan = PLANS[version](manifest, weights, Draw(5, clip.span, flip, None))
    assert loader.epoch_size == plan.epoch_size == 14
    wanted = plan.at(*stream_slice(0, 0, 21, plan.epoch_size))
    found = decoder.asked[:21]
    assert [int(request.video.path.stem) for request in found] == wanted.video.tolist()
    for name in ("start", "crop_y", "crop_x", "flip"):
        values = [getattr(request, name) for request in found]
        assert values == getattr(wanted, name).tolist(), name
        assert len(set(values)) > 1 or (name == "flip" and not flip)
    assert [start for batch in batches for start in batch.start.tolist()] == wanted.start.tolist()
