"""The DALI decoder on its real CPU graph (and, marked `gpu`, on NVDEC): frames, geometry, failures."""

import importlib
import re
from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from tests.data.videos import describe, hide_frames, numbers, remux, write_numbered
from tests.environment import no_more_files

CPU = torch.device("cpu")
SQUARE = {"size": (128, 128)}  # whole frames fit the crop, so that their numbers can be read
WHOLE = ClipFormat(num_frames=6, short_side=64, crop=64)
UNEVEN_MS = np.cumsum(np.random.RandomState(0).randint(10, 90, 40)).tolist()

FILES = {
    "vp9.webm": {},
    "vp9.mkv": {"gop": 100},
    "vp9.mp4": {},
    "vp8.webm": {"codec": "libvpx"},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "mjpeg.mov": {"codec": "mjpeg", "pixel_format": "yuvj422p"},
    "uneven.webm": {"pts_ms": UNEVEN_MS},
    "uneven.mp4": {"pts_ms": UNEVEN_MS},
    "late.webm": {"pts_ms": [2000 + 40 * i for i in range(40)]},
    "late.mp4": {"pts_ms": [2000 + 40 * i for i in range(40)]},
    "colour_444.webm": {"pixel_format": "yuv444p"},
    "odd.webm": {"size": (129, 129)},
    "odd_444.webm": {"size": (129, 129), "pixel_format": "yuv444p"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dali")


@pytest.fixture(scope="module")
def plain(folder):
    return describe(write_numbered(folder / "plain.webm", **SQUARE))


@pytest.fixture(scope="module")
def decoder(dali):
    decoder = dali.DaliDecoder(WHOLE, CPU, 1, 4)
    yield decoder
    decoder.close()


def whole(video, start, flip=False):
    return SnippetRequest(video, start, 0.5, 0.5, flip)


def shown(decoder, video, *starts):
    """The numbers of the frames of snippets at these starts."""
    decoded = decoder.decode([whole(video, start) for start in starts])
    assert not decoded.failures
    return [numbers(clip.cpu().numpy()) for clip in decoded.frames]


@pytest.mark.parametrize("name", FILES)
def test_frames_are_those_asked_for(decoder, folder, name):
    video = describe(write_numbered(folder / name, **(SQUARE | FILES[name])))
    assert video.num_frames == 40
    for start, frames in zip((0, 11, 34), shown(decoder, video, 0, 11, 34), strict=True):
        assert frames == list(range(start, start + 6))


@pytest.mark.parametrize("suffix", ["webm", "mkv"])
def test_frames_never_shown_are_not_counted(decoder, folder, suffix):
    keys = write_numbered(folder / f"keys.{suffix}", num_frames=38, gop=0, **SQUARE)
    path = hide_frames(keys, folder / f"hidden.{suffix}", every=4)
    with av.open(str(path)) as container:
        ends = [bytes(packet)[-1] for packet in container.demux(video=0) if packet.size]
    assert sum(end & 0xE7 == 0xC1 for end in ends) == 9  # superframes of two frames (VP9 specification, annex B)
    video = describe(path)
    assert video.num_frames == 29
    assert shown(decoder, video, 1, 23) == [[1, 2, 4, 5, 6, 8], [30, 32, 33, 34, 36, 37]]


def test_edit_list_hides_its_frames(decoder, folder):
    cut = describe(remux(write_numbered(folder / "long.mp4", **SQUARE), folder / "cut.mp4", first_pts=-5))
    assert cut.num_frames == 35
    assert shown(decoder, cut, 0, 20) == [[5, 6, 7, 8, 9, 10], [25, 26, 27, 28, 29, 30]]


def test_stride_segment_and_repeat_past_the_end(dali, plain):
    clip = replace(WHOLE, num_frames=4, stride=3)
    decoder = dali.DaliDecoder(clip, CPU, 1, 4)
    assert shown(decoder, plain, 2, 35) == [[2, 5, 8, 11], [35, 38, 39, 39]]
    segment = replace(plain, first_frame=10, num_frames=8)
    assert shown(decoder, segment, 0, 3) == [[10, 13, 16, 17], [13, 16, 17, 17]]
    decoder.close()


def test_video_shorter_than_a_snippet(decoder, folder):
    video = describe(write_numbered(folder / "short.webm", num_frames=3, **SQUARE))
    assert shown(decoder, video, 0) == [[0, 1, 2, 2, 2, 2]]


def test_batches_of_any_size_keep_their_order(decoder, plain, folder):
    other = describe(write_numbered(folder / "other.avi", "mjpeg", pixel_format="yuvj420p", size=(256, 256)))
    for count in (1, 3, 4, 9):  # the last is more than DALI's largest batch
        requests = [whole((plain, other)[i % 2], i) for i in range(count)]
        decoded = decoder.decode(requests)
        assert decoded.frames.shape == (count, 6, 64, 64, 3)
        assert decoded.frames.dtype == torch.uint8
        assert decoded.frames.is_contiguous()
        assert [numbers(clip.numpy())[0] for clip in decoded.frames] == list(range(count))
    assert decoder.decode([]).frames.shape == (0, 6, 64, 64, 3)


def test_earlier_clips_outlive_later_batches(decoder, plain):
    first = decoder.decode([whole(plain, 0)]).frames
    before = first.clone()
    for start in (5, 9, 20):
        decoder.decode([whole(plain, start)] * 4)
    assert torch.equal(first, before)


def test_flip_mirrors_the_displayed_frame(decoder, plain):
    for rotation in (0, 90, 180, 270):
        video = replace(plain, rotation=rotation)
        straight, mirrored = decoder.decode([whole(video, 4), whole(video, 4, flip=True)]).frames
        assert torch.equal(mirrored, straight.flip(dims=[2]))
        assert not torch.equal(mirrored, straight)


def test_rotation_turns_clockwise(decoder, plain):
    upright, right, down, left = decoder.decode(
        [whole(replace(plain, rotation=rotation), 4) for rotation in (0, 90, 180, 270)]
    ).frames
    assert torch.equal(right[:, :, -1], upright[:, 0])  # the top row has become the right column
    assert torch.equal(down, upright.flip(dims=[1, 2]))
    assert torch.equal(left[:, :, 0].flip(dims=[1]), upright[:, 0])


def test_crop_is_cut_at_whole_pixels_of_the_scaled_frame(dali, folder):
    video = describe(write_numbered(folder / "wide.webm", size=(200, 120)))
    full = dali.DaliDecoder(ClipFormat(num_frames=2, short_side=60, crop=60), CPU, 1, 4)
    part = dali.DaliDecoder(ClipFormat(num_frames=2, short_side=60, crop=40), CPU, 1, 4)
    left, right = full.decode([SnippetRequest(video, 0, 0, x, False) for x in (0.0, 1.0)]).frames
    scaled = torch.cat([left[:, :, :40], right], dim=2)  # 100 x 60: the right square begins at 40
    for y, x in ((0.0, 0.0), (0.3, 0.77), (1.0, 1.0)):
        top, start = round(y * 20), round(x * 60)
        (clip,) = part.decode([SnippetRequest(video, 0, y, x, False)]).frames
        assert (clip.int() - scaled[:, top : top + 40, start : start + 40].int()).abs().max() <= 1
    full.close()
    part.close()


BAD = {
    "missing": (lambda v: {"path": v.path.with_name("gone.webm")}, "cannot be read: No such file"),
    "changed size": (lambda v: {"file_bytes": v.file_bytes + 1}, "bytes, but had .* when it was indexed"),
    "too few frames": (lambda v: {"num_frames": 90, "file_frames": 90}, "it has 40 frames where the manifest says 90"),
    "other size": (lambda v: {"width": 64}, "it is 128x128 where the manifest says 64x128"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_sample_is_named_and_the_good_ones_are_decoded(decoder, plain, kind):
    changes, reason = BAD[kind]
    bad = whole(replace(plain, **changes(plain)), 39 if kind == "too few frames" else 0)
    requests = [whole(plain, 3), bad, whole(plain, 7), whole(plain, 8), whole(plain, 9)]
    decoded = decoder.decode(requests)
    assert list(decoded.failures) == [1]
    assert re.search(reason, decoded.failures[1])
    assert [numbers(decoded.frames[index].numpy())[0] for index in (0, 2, 3, 4)] == [3, 7, 8, 9]
    assert shown(decoder, plain, 12) == [[12, 13, 14, 15, 16, 17]]  # and it goes on


def test_codec_that_dali_has_not_is_named_and_what_may_decode_it(decoder, plain, folder):
    video = describe(write_numbered(folder / "h264.mp4", "libx264", **SQUARE))
    decoded = decoder.decode([whole(plain, 3), whole(video, 0)])
    assert list(decoded.failures) == [1]
    assert re.search(r"^DALI cannot decode it \(.+\); data.decoder=pyav may$", decoded.failures[1])
    assert numbers(decoded.frames[0].numpy())[0] == 3


def test_broken_content_costs_rebuilds_which_are_counted(dali, plain, folder):
    junk = folder / "junk.webm"
    junk.write_bytes(b"not a video " * 500)
    broken = replace(plain, path=junk, file_bytes=6000)
    decoder = dali.DaliDecoder(WHOLE, CPU, 2, 8)
    requests = [whole(broken if index in (2, 5) else plain, index) for index in range(8)]
    decoded = decoder.decode(requests)
    assert sorted(decoded.failures) == [2, 5]
    assert all("DALI cannot decode it" in reason for reason in decoded.failures.values())
    good = [index for index in range(8) if index not in (2, 5)]
    assert [numbers(decoded.frames[index].numpy())[0] for index in good] == good
    assert 3 <= decoder.num_rebuilds <= 7  # one for the batch, one for each half, quarter and sample at fault
    rebuilds = decoder.num_rebuilds
    assert not decoder.decode(requests[:2]).failures
    assert decoder.num_rebuilds == rebuilds
    decoder.close()


def test_a_batch_is_decoded_in_parts_of_bytes_as_it_is_in_one(dali, plain, folder, monkeypatch):
    batches = importlib.import_module("engine.data.dali.batches")
    large = describe(write_numbered(folder / "large.avi", "mjpeg", pixel_format="yuvj420p", size=(512, 512)))
    gone = replace(plain, path=plain.path.with_name("gone.webm"))
    requests = [whole((plain, large, gone)[index % 3], index) for index in range(9)]
    whole_one, parted = (dali.DaliDecoder(WHOLE, CPU, 2, 16) for _ in range(2))
    expected = whole_one.decode(requests)
    cost = batches.held_bytes(large, 6)
    assert cost == large.file_bytes + 14 * 3 * 512 * 512
    monkeypatch.setattr(batches, "PART_BYTES", cost + batches.held_bytes(plain, 6))
    read, loaded = [], parted._load
    parted._load = lambda part: read.append([request.video.path.name for request in part]) or loaded(part)
    found = parted.decode(requests)
    small = ["gone.webm"] * 3 + ["plain.webm"] * 3  # together, then each large one alone
    assert read == [small, *[["large.avi"]] * 3]
    assert found.failures.keys() == expected.failures.keys() == {2, 5, 8}
    good = [0, 1, 3, 4, 6, 7]
    assert torch.equal(found.frames[good], expected.frames[good])
    for decoder in (whole_one, parted):
        decoder.close()


def test_parts_hold_no_more_than_they_may(dali):
    split_parts = importlib.import_module("engine.data.dali.batches").split_parts
    assert split_parts([], 4, 10) == []
    assert split_parts([3, 3, 3, 3, 3], 4, 100) == [[0, 1, 2, 3], [4]]
    assert split_parts([3, 3, 3, 3, 3], 4, 9) == [[0, 1, 2], [3, 4]]
    assert split_parts([30, 1, 30, 30, 1, 1], 4, 10) == [[0], [1], [2], [3], [4, 5]]  # one alone may be more


def test_only_bad_samples(decoder, plain):
    gone = replace(plain, path=plain.path.with_name("gone.webm"))
    decoded = decoder.decode([whole(gone, 0), whole(gone, 1)])
    assert sorted(decoded.failures) == [0, 1]
    assert decoded.frames.shape == (2, 6, 64, 64, 3)


def test_too_few_open_files_is_no_fault_of_the_video(decoder, plain):
    shown(decoder, plain, 3)
    with no_more_files(), pytest.raises(OSError, match="Too many open files"):
        decoder.decode([whole(plain, 3)])


def test_hidden_frames_in_packets_of_their_own(dali, shared_data):
    video = describe(shared_data / "decode_pack" / "androidx__media__roadtrip-vp92-10bit.webm")
    assert video.num_frames == 72  # in 80 packets
    decoder = dali.DaliDecoder(WHOLE, CPU, 1, 4)
    late, last = decoder.decode([whole(video, 60), whole(video, 66)]).frames
    everything = dali.DaliDecoder(replace(WHOLE, num_frames=72), CPU, 1, 1)
    (all_frames,) = everything.decode([whole(video, 0)]).frames
    assert torch.equal(torch.cat([late, last]), all_frames[60:])
    assert len(all_frames.flatten(1).unique(dim=0)) == 72
    decoder.close()
    everything.close()


@pytest.mark.gpu
@pytest.mark.nvdec
@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "hevc.mp4"])
def test_nvdec_frames_are_those_asked_for(dali, folder, name):
    codec = {"h264": "libx264", "hevc": "libx265"}[name.split(".")[0]]
    options = {"bf": "3"} if codec == "libx264" else {"x265-params": "bframes=3:log-level=none"}
    video = describe(write_numbered(folder / name, codec, size=(256, 256), options=options))
    decoder = dali.DaliDecoder(WHOLE, torch.device("cuda"), 4, 4)
    assert shown(decoder, video, 0, 11, 34, 37) == [
        list(range(6)), list(range(11, 17)), list(range(34, 40)), [37, 38, 39, 39, 39, 39],
    ]  # fmt: skip
    decoder.close()


@pytest.mark.gpu
@pytest.mark.nvdec
def test_nvdec_clips_stay_on_the_gpu_and_may_be_used_at_once(dali, folder):
    video = describe(write_numbered(folder / "gpu.mp4", "libx264", size=(256, 256)))
    decoder = dali.DaliDecoder(WHOLE, torch.device("cuda"), 4, 8)
    sums = []
    for start in range(20):
        frames = decoder.decode([whole(video, start)] * 8).frames
        assert frames.is_cuda
        sums.append(frames.float().mean(dim=(1, 2, 3, 4)))  # queued before the next batch reuses memory
    for start, values in enumerate(sums):
        expected = decoder.decode([whole(video, start)]).frames.float().mean()
        assert torch.allclose(values, expected.expand(8))
    decoder.close()


@pytest.mark.gpu
@pytest.mark.nvdec
def test_nvdec_goes_on_after_a_bad_sample(dali, folder):
    video = describe(write_numbered(folder / "good.mp4", "libx264", size=(256, 256)))
    data = write_numbered(folder / "whole.mkv", "libx264", size=(256, 256)).read_bytes()
    head = data[: data.index(b"\x1f\x43\xb6\x75")]  # up to the first cluster: it says what is in it, and nothing is
    junk = folder / "junk.mkv"
    junk.write_bytes(head + bytes(5000))
    broken = replace(video, path=junk, file_bytes=len(head) + 5000)
    odd = replace(video, width=255)  # a row that is wrong of a file that is sound
    decoder = dali.DaliDecoder(WHOLE, torch.device("cuda"), 4, 8)
    decoded = decoder.decode([whole(video, 1), whole(broken, 0), whole(odd, 0), whole(video, 2)])
    assert sorted(decoded.failures) == [1, 2]
    assert "DALI cannot decode it" in decoded.failures[1]
    assert "odd size" in decoded.failures[2]
    assert decoder.num_rebuilds >= 1
    assert [numbers(decoded.frames[index].cpu().numpy())[0] for index in (0, 3)] == [1, 2]
    assert shown(decoder, video, 12) == [[12, 13, 14, 15, 16, 17]]
    decoder.close()
