"""Several decoders behind one contract: who gets what, what is tried again, and that the clips are those of PyAV alone."""

import contextlib
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.config import Config
from engine.data import routing
from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, VideoDecoder
from engine.data.config import DataConfig
from engine.data.decoders import DecoderChoice
from engine.data.indexing.dataset import index_folder
from engine.data.loading.ahead import decode_in_order
from engine.data.loading.loader import ClipLoader, StreamPlan
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.decode import PyAVDecoder
from engine.data.routing import MANY_FAILURES, RoutedDecoder, Routes
from engine.data.shares import MeasuredShare, Share
from engine.tasks.decoding import Decoding
from tests.data.videos import numbers, write_numbered

CPU = torch.device("cpu")
CLIP = ClipFormat(num_frames=6, short_side=64, crop=64)
SQUARE = {"size": (128, 128)}
KINDS = {  # file -> how it is encoded; the first three are those of DALI's CPU backend
    "a.webm": {},
    "b.webm": {"codec": "libvpx"},
    "c.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "d.mp4": {"codec": "libx264"},
    "e.avi": {"codec": "libx264"},
    "f.mp4": {"codec": "mpeg4"},
    "g.mkv": {"codec": "libx264", "pixel_format": "yuv420p10le"},
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """One class of a video of each kind, indexed."""
    root = tmp_path_factory.mktemp("routing")
    (root / "x").mkdir()
    for name, kind in KINDS.items():
        write_numbered(root / "x" / name, **(SQUARE | kind))
    index_folder(root, root / "m.parquet")
    return Manifest.load(root / "m.parquet")


def request(video, start, flip=False):
    return SnippetRequest(video, start, 0.5, 0.5, flip)


def batch_of(manifest):
    """Two snippets of each video, the videos in turn."""
    return [request(manifest.video(row), start, flip=start == 9) for start in (2, 9) for row in range(len(manifest))]


def dali_rule(video):
    """What DALI's CPU backend decodes."""
    return None if video.codec in ("vp8", "vp9", "mjpeg") else f"codec {video.codec}"


def generous_rule(video):
    """Gives DALI on the CPU also the H.264 that it must fail."""
    return None if video.codec == "h264" else dali_rule(video)


def beside_pyav(dali, routes):
    """DALI on its CPU backend with PyAV beside it, as on a GPU."""
    return RoutedDecoder([dali.DaliDecoder(CLIP, CPU, 1, 14), PyAVDecoder(CLIP, CPU, 2)], [], routes)


def test_a_batch_of_mixed_codecs_is_what_pyav_alone_decodes(dali, manifest):
    asked = batch_of(manifest)
    routes = Routes(dali_rule)
    decoder, alone = beside_pyav(dali, routes), PyAVDecoder(CLIP, CPU, 2)
    found, expected = decoder.decode(asked), alone.decode(asked)
    for each in (decoder, alone):
        each.close()
    assert found.failures == expected.failures == {}
    assert routes.clips == {"dali": 6, "pyav": 8}
    assert found.frames.shape == (14, 6, 64, 64, 3)
    assert found.frames.is_contiguous()
    for row, each in enumerate(asked):
        one, other = found.frames[row], expected.frames[row]
        assert one.float().std() > 20
        if dali_rule(each.video) is None:  # of another decoder: the parity of both
            assert (one.int() - other.int()).abs().float().mean() < 0.5
            assert not each.flip or numbers(one.numpy()[:, :, ::-1]) == list(range(9, 15))
            assert each.flip or numbers(one.numpy()) == list(range(2, 8))
        else:
            assert torch.equal(one, other)


def test_what_dali_fails_goes_to_pyav_before_it_is_replaced_and_is_not_tried_again(dali, manifest):
    good, wrong, mpeg4 = manifest.video(0), manifest.video(3), manifest.video(5)
    gone = replace(good, path=good.path.with_name("gone.webm"))
    routes = Routes(generous_rule)
    decoder = beside_pyav(dali, routes)
    for attempt in range(2):
        found = decoder.decode([request(good, 1), request(wrong, 3), request(gone, 0), request(mpeg4, 5)])
        assert found.failures == {2: "the file is missing"}
        assert [numbers(found.frames[row].numpy())[0] for row in (0, 1, 3)] == [1, 3, 5]
        assert (routes.num_given, routes.num_failed) == (3 + attempt, 2)
    assert routes.last_failure.startswith(f"{gone.path}: the file cannot be read")
    assert routes.clips == {"dali": 2, "pyav": 4}
    decoder.close()
    again = Routes(generous_rule, remember=False)  # a resumed run must decode what the whole one did
    decoder = beside_pyav(dali, again)
    for _ in range(2):
        assert decoder.decode([request(wrong, 3)]).failures == {}
    assert again.num_failed == 2
    decoder.close()


def test_training_sees_the_same_snippets_whoever_decodes_them(dali, manifest):
    def load(decoder):
        stream, data = StreamPlan(3, 4, 0, 1, True), DataConfig(max_bad_share=0.0)
        loader = ClipLoader(manifest, np.arange(len(manifest.classes)), decoder, CLIP, stream, data)
        batches = [next(loader) for _ in range(5)]
        loader.close()
        return batches

    for one, other in zip(load(beside_pyav(dali, Routes(generous_rule))), load(PyAVDecoder(CLIP, CPU, 1)), strict=True):
        assert one.failures == other.failures == []
        assert torch.equal(one.video, other.video)
        assert torch.equal(one.start, other.start)
        assert (one.frames.int() - other.frames.int()).abs().float().mean() < 0.5


class Fake(VideoDecoder):
    """Gives clips of its mark; some it fails. `rate`: clips a second, if it takes time."""

    def __init__(self, name, mark, fails=lambda request: False, rate=None):
        self.name, self.mark, self.fails, self.rate = name, mark, fails, rate
        self.batches, self.is_closed = [], False

    def decode(self, requests):
        self.batches.append(list(requests))
        if self.rate:
            time.sleep(len(requests) / self.rate)
        frames = torch.full((len(requests), 2, 4, 4, 3), self.mark, dtype=torch.uint8)
        frames[:, 0, 0, 0, 0] = torch.tensor([each.start for each in requests], dtype=torch.uint8)
        failures = {row: f"{self.name} cannot" for row, each in enumerate(requests) if self.fails(each)}
        return DecodedClips(frames, failures)

    def close(self):
        self.is_closed = True


@pytest.fixture
def videos(manifest):
    """Sixteen videos that differ by their path."""
    video = manifest.video(0)
    return [replace(video, path=video.path.with_name(f"{number}.webm")) for number in range(16)]


def routed(first, second, routes):
    return RoutedDecoder([first, second], [Fake("stills", 7)], routes)


@pytest.mark.parametrize(("share", "expected"), [(1.0, 16), (0.0, 0), (0.5, 8), (0.25, 4), (0.3, 5)])
def test_a_share_is_spread_over_the_batch_and_no_row_is_moved(videos, share, expected):
    first, second = Fake("first", 1), Fake("second", 2)
    decoder = routed(first, second, Routes(lambda video: None, Share(share)))
    found = decoder.decode([request(video, index) for index, video in enumerate(videos)])
    marks = found.frames[:, 1, 1, 1, 1].numpy()
    assert (marks == 1).sum() == expected
    assert set(marks) <= {1, 2}
    assert found.frames[:, 0, 0, 0, 0].tolist() == list(range(16))
    if 0 < share < 1:  # not all at one end
        assert set(marks[:8]) == set(marks[8:]) == {1, 2}
    for _ in range(4):  # what one batch could not be given is made up for in the next
        decoder.decode([request(video, 0) for video in videos[:3]])
    given = sum(map(len, first.batches))
    assert abs(given - share * 28) <= 1
    decoder.close()
    assert first.is_closed
    assert second.is_closed


def test_snippets_of_a_file_stay_together(videos):
    first, second = Fake("first", 1), Fake("second", 2)
    decoder = routed(first, second, Routes(lambda video: None, Share(0.5)))
    found = decoder.decode([request(video, 0) for _ in range(4) for video in videos[:4]])
    marks = found.frames[:, 1, 1, 1, 1].reshape(4, 4)
    assert (marks == marks[:1]).all()
    assert sorted(marks[0].tolist()) == [1, 1, 2, 2]
    decoder.close()


def test_videos_stills_and_second_tries_come_back_in_their_rows(videos):
    still = replace(videos[0], codec="image/png")
    first = Fake("first", 1, fails=lambda each: each.start in (3, 5))
    second = Fake("second", 2, fails=lambda each: each.start in (5, 6))
    rule = lambda video: "odd name" if video.path.stem in ("4", "6") else None  # noqa: E731
    decoder = routed(first, second, Routes(rule))
    asked = [request(video, index) for index, video in enumerate(videos[:8])] + [request(still, 8)]
    found = decoder.decode(asked)
    assert found.failures == {5: "second cannot", 6: "second cannot"}
    good = [0, 1, 2, 3, 4, 7, 8]
    assert found.frames[good, 1, 1, 1, 1].tolist() == [1, 1, 1, 2, 2, 1, 7]
    assert found.frames[good, 0, 0, 0, 0].tolist() == good
    assert decoder.decode([]).frames.shape == (0, 2, 4, 4, 3)
    decoder.close()


def test_videos_and_stills_that_fail_together_are_tried_again_each_by_their_own(videos):
    still = replace(videos[0], codec="image/png")
    first, second = Fake("first", 1, fails=lambda each: True), Fake("second", 2)
    stills = [Fake("stills on a gpu", 7, fails=lambda each: True), Fake("stills", 8)]
    decoder = RoutedDecoder([first, second], stills, Routes(lambda video: None))
    found = decoder.decode([request(still if index % 2 else video, index) for index, video in enumerate(videos[:4])])
    assert found.failures == {} and found.frames[:, 1, 1, 1, 1].tolist() == [2, 8, 2, 8]
    assert found.frames[:, 0, 0, 0, 0].tolist() == [0, 1, 2, 3]
    decoder.close()


def test_motion_of_a_second_try_stands_beside_its_frames(videos):
    class Moving(Fake):
        def decode(self, requests):
            found = super().decode(requests)
            return replace(found, motion=torch.full((len(requests), 2, 1, 1), self.mark, dtype=torch.uint8))

    first, second = Moving("first", 1, fails=lambda each: each.start == 2), Moving("second", 2)
    decoder = RoutedDecoder([first, second], [], Routes(lambda video: None), motion_shape=(2, 1, 1))
    found = decoder.decode([request(video, index) for index, video in enumerate(videos[:4])])
    assert found.motion.flatten(1).tolist() == [[1, 1], [1, 1], [2, 2], [1, 1]]
    decoder.close()


def test_a_share_is_measured_over_all_parts_of_a_batch_by_one_decoder_at_a_time(videos):
    """The next begins where the one before is closed; a part that waits for another counts from that one's end."""
    share = MeasuredShare("first", "second")
    ended, end_part = [], share.end_part
    share.end_part = lambda turn, *part: (ended.append((turn.num_left, *part)), end_part(turn, *part))
    decoder = routed(Fake("first", 1, rate=20), Fake("second", 2), Routes(lambda video: None, share))
    other = routed(Fake("first", 1), Fake("second", 2), decoder.routes)
    began = time.perf_counter()
    for wait in [decoder.submit([request(video, 0) for video in videos[:4]]) for _ in range(2)]:
        wait()
    lasted = time.perf_counter() - began
    assert not share.claim()
    for each in (other, decoder):
        each.close()
    assert share.claim()
    assert sorted(left for left, *_ in ended) == [1, 1, 2, 2]
    assert [clips for _, name, clips, _ in ended if name == "first"] == [2, 2]
    assert 0.2 <= sum(seconds for _, name, _, seconds in ended if name == "first") <= lasted


class _OnGpu(torch.Tensor):
    """Says that it is on a GPU, and keeps on which stream each call was queued."""

    is_cuda, queued, stream = True, [], "the step's"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in ("new_zeros", "new_empty", "__setitem__"):
            cls.queued.append((name, cls.stream))
        return super().__torch_function__(func, types, args, kwargs or {})

    def record_stream(self, stream):
        self.queued.append(("record_stream", stream))


class _Stream:
    def __init__(self, device):
        self.device = device

    def synchronize(self):
        _OnGpu.queued.append(("synchronize", "own"))


@contextlib.contextmanager
def _on_stream(stream):
    _OnGpu.stream = "own"
    yield
    _OnGpu.stream = "the step's"


def test_on_a_gpu_motion_that_is_0_is_made_on_the_stream_that_reads_it(monkeypatch):
    """What is queued on the step's stream is done no sooner than the step, and nothing else waits for it."""
    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the step's")
    monkeypatch.setattr(routing, "on_stream", _on_stream)
    monkeypatch.setattr(_OnGpu, "queued", [])
    decoder = RoutedDecoder([Fake("pyav", 1)], [Fake("stills", 7)], motion_shape=(2, 1, 1))
    frames, motion = (torch.ones(2, *size, dtype=torch.uint8).as_subclass(_OnGpu) for size in ((2, 4, 4, 3), (2, 1, 1)))
    parts = [([0, 2], DecodedClips(frames, {}, motion)), ([1, 3], DecodedClips(frames, {}))]
    assert decoder._motion(4, parts).flatten(1).tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]
    calls = [name for name, _ in _OnGpu.queued]
    own = ["new_zeros", "synchronize", "record_stream", "new_empty", "__setitem__", "__setitem__", "synchronize"]
    assert calls == [*own, "record_stream"]
    assert {stream for name, stream in _OnGpu.queued if name != "record_stream"} == {"own"}
    assert decoder._motion(2, [([0, 1], DecodedClips(frames, {}))]).flatten(1).tolist() == [[0, 0], [0, 0]]
    decoder.close()


@pytest.mark.gpu
def test_on_a_gpu_motion_of_stills_is_0_while_a_step_is_long():
    gpu = torch.device("cuda", 0)
    decoder = RoutedDecoder([Fake("pyav", 1)], [Fake("stills", 7)], motion_shape=(16, 7, 7))
    frames, motion = (torch.ones(64, *size, dtype=torch.uint8, device=gpu) for size in ((1, 1, 1, 3), (16, 7, 7)))
    del motion  # its memory, which is not 0, is handed out again
    torch.cuda.synchronize(gpu)
    parts = [([*range(rows, 128, 2)], DecodedClips(frames, {})) for rows in (0, 1)]
    torch.cuda._sleep(2_000_000_000)  # about a second
    found = decoder._motion(128, parts)
    side = torch.cuda.Stream(gpu)
    with torch.cuda.stream(side):
        assert not found.any().item()
    decoder.close()


def test_an_accelerator_that_fails_most_is_given_no_more_and_the_log_says_so(videos):
    first, second = Fake("dali", 1, fails=lambda each: True), Fake("pyav", 2)
    routes = Routes(lambda video: None, Share(1.0), remember=False)
    decoder = routed(first, second, routes)
    for _ in range(10):
        assert decoder.decode([request(video, 0) for video in videos]).failures == {}
    decoder.close()
    assert sum(map(len, first.batches)) == MANY_FAILURES
    decoding = Decoding(Config(), CPU, DecoderChoice("dali", "asked for", routes))
    assert decoding.news(sums=True) == [
        f"decoder: dali failed 64 of 64 clips and is given no more in this run; the last: {videos[-1].path}: dali cannot",
        f"decoder: clips so far: dali 0, pyav 160; dali failed 64, the last: {videos[-1].path}: dali cannot",
    ]
    assert decoding.news(sums=False) == []


def test_few_failures_among_many_clips_change_nothing(videos):
    first, second = Fake("dali", 1, fails=lambda each: each.start % 4 == 0), Fake("pyav", 2)
    decoder = routed(first, second, Routes(lambda video: None, remember=False))
    for _ in range(20):
        decoder.decode([request(video, index) for index, video in enumerate(videos)])
    assert sum(map(len, first.batches)) == 320
    assert not decoder.routes.share.news
    decoder.close()


@pytest.mark.slow  # not for its length: it needs a machine with nothing else to do (test_shares.py has a clock of its own)
@pytest.mark.parametrize(("rates", "value"), [((4000, 400), 1.0), ((400, 4000), 0.0), ((800, 800), 0.5)])
def test_the_choice_by_rates_with_threads_and_a_loader_s_pace(videos, rates, value):
    first, second = (Fake(name, mark, rate=rate) for name, mark, rate in zip("ab", (1, 2), rates, strict=True))
    routes = Routes(lambda video: None, MeasuredShare("a", "b", probe_s=0.1))
    decoder, other = routed(first, second, routes), routed(Fake("a", 1), Fake("b", 2), routes)
    other.decode([request(video, 0) for video in videos])  # an evaluation beside it measures nothing
    batches = ([request(video, index) for index, video in enumerate(videos)] for _ in range(200))
    for count, found in enumerate(decode_in_order(decoder, batches)):  # noqa: B007
        assert found.failures == {}
        assert found.frames[:, 0, 0, 0, 0].tolist() == list(range(16))  # what measures is as good as any
        if routes.share.is_settled:
            break
    assert 2 < count < 150
    assert routes.share.value == pytest.approx(value, abs=0.12)
    (line,) = routes.share.news
    assert "chosen: " + {1.0: "a", 0.0: "b", 0.5: "both go on"}[value] in line
    decoder.close()
    other.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wait-")]


def test_it_closes_with_batches_begun_and_an_error_reaches_who_waits(videos):
    first, second = Fake("first", 1, rate=100), Fake("second", 2, rate=100)
    decoder = routed(first, second, Routes(lambda video: None, MeasuredShare("first", "second")))
    waits = [decoder.submit([request(video, 0) for video in videos]) for _ in range(3)]
    decoder.close()
    assert first.is_closed
    assert waits[0]().failures == {}

    def fail(requests):
        raise RuntimeError("no memory")

    broken = Fake("first", 1)
    broken.decode = fail
    decoder = routed(broken, Fake("second", 2), Routes(lambda video: None))
    with pytest.raises(RuntimeError, match="no memory"):
        decoder.decode([request(videos[0], 0)])
    decoder.close()
