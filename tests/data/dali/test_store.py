"""DALI fed from a snippet store: only the groups that are needed, and the frames that were asked for.

DALI's CPU backend has no H.264. Everything but NVDEC is run here nevertheless: stores of VP9 and JPEG frames, written
and read by the store's own code, go through the same graph; and what is fed for H.264 is decoded by PyAV instead.
"""

import functools
import io
import math
import zlib

import av
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.config import DataConfig
from engine.data.dali import bitstreams
from engine.data.dali.bitstreams import BitstreamError, StoredCodec, load_gops, to_ivf
from engine.data.dali.matroska import to_matroska
from engine.data.geometry import crop_window, snippet_frames
from engine.data.indexing.dataset import index_folder
from engine.data.indexing.journal import FileState
from engine.data.loading.loader import ClipLoader, StreamPlan
from engine.data.manifests.manifest import Manifest, concatenate
from engine.data.motion import clip_cells, grid_size, restore
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.pyav.gops import split_frames
from engine.data.pyav.normalise import NormalisedVideo
from engine.data.store.index import StoreSettings, stored_path
from engine.data.store.ingest import WorkSettings, ingest
from engine.data.store.motion import WithStoredMotion
from engine.data.store.reader import find_entry
from engine.data.store.writer import StoreWriter
from tests.data.videos import describe, numbered_frame, numbers, write_numbered
from tests.rows import row

CPU = torch.device("cpu")
GOP = 8
LENGTHS = (45, 16, 3, 1)
CLIP = ClipFormat(num_frames=6, short_side=64, crop=64)
DELIMITER = b"\x00\x00\x00\x01\x09"  # what tells the frames of these stores apart too
CODECS = {  # encoder, suffix, what wraps its frames for DALI: both that stores use
    "vp9": ("libvpx-vp9", "webm", functools.partial(to_matroska, codec_id="V_VP9")),
    "mjpeg": ("mjpeg", "avi", functools.partial(to_ivf, fourcc=b"MJPG")),
}


def split_marked(data):
    return [coded.removeprefix(DELIMITER) for coded in split_frames(data)]


def write_other_store(folder, codec, sizes, *, num_lines_hidden=0):
    """A store of frames of another codec: its manifest, and the plain files of the very same coded frames.

    num_lines_hidden: rows and columns at the end of each coded frame that the store does not count.
    """
    encoder, suffix, _ = CODECS[codec]
    rows, files, names = [], [], [f"{count}.{suffix}" for count in LENGTHS]
    with StoreWriter(folder, StoreSettings(gop=GOP), 60_000) as writer:
        for number, (name, count, size) in enumerate(zip(names, LENGTHS, sizes, strict=True)):
            pixel_format = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
            form = {"size": size, "num_frames": count, "gop": GOP, "pixel_format": pixel_format}
            files.append(describe(write_numbered(folder / name, encoder, **form)))
            with av.open(str(folder / name)) as container:
                marked = [DELIMITER + bytes(packet) for packet in container.demux(video=0) if packet.size]
            groups = [b"".join(marked[first : first + GOP]) for first in range(0, count, GOP)]
            data, (width, height) = b"".join(groups), (side - num_lines_hidden for side in size)
            motion = np.arange(count * math.prod(grid_size(width, height)), dtype=np.uint8).tobytes()
            stored = NormalisedVideo(
                data, tuple(map(len, groups)), count, width, height, 25.0, zlib.crc32(data), motion
            )
            writer.add(name, FileState(1, 1), stored)
            facts = {"num_frames": count, "file_frames": count, "width": width, "height": height}
            facts |= {"codec": codec, "file_bytes": len(data), "key_frames": [], "key_pts": []}
            rows.append(row(stored_path(number, name), "x", **facts))
        writer.finish(names)
    return Manifest.from_rows(rows, folder), files


def plain(codec, hidden=0):
    return StoredCodec(split_marked, lambda width, height: (width + hidden, height + hidden), CODECS[codec][2])


@pytest.fixture(scope="module", params=CODECS)
def other(request, tmp_path_factory):
    """A store of videos in a codec that DALI decodes on the CPU, and their plain files."""
    sizes = [(128, 160), *[(128, 128)] * 3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bitstreams.STORED_CODECS, request.param, plain(request.param))
        yield write_other_store(tmp_path_factory.mktemp(request.param), request.param, sizes)


@pytest.mark.parametrize("stride", [1, 3, 11])
def test_frames_and_pixels_are_those_of_the_stored_bytes(dali, other, stride):
    manifest, files = other
    clip = ClipFormat(num_frames=4, stride=stride, short_side=64, crop=56)
    decoder, pyav = dali.DaliDecoder(clip, CPU, 1, 64), PyAVDecoder(clip, CPU, 1)
    for index, file in enumerate(files):
        video = manifest.video(index)
        starts = sorted({*range(min(video.num_frames, GOP + 2)), max(0, video.num_frames - 2), video.num_frames - 1})
        found, expected = (
            of.decode([SnippetRequest(which, start, 0.3, 0.8, bool(start % 2)) for start in starts])
            for of, which in ((decoder, video), (pyav, file))
        )
        assert not found.failures and not expected.failures
        difference = (found.frames.int() - expected.frames.int()).abs()
        assert difference.float().mean(dim=(1, 2, 3, 4)).max() < 0.5
        assert (difference <= 8).float().mean() > 0.99
    decoder.close()
    pyav.close()


def test_motion_of_the_frames_comes_from_the_store(dali, other):
    clip = ClipFormat(num_frames=4, stride=3, short_side=64, crop=56, motion=True)
    decoder, plain = WithStoredMotion(dali.DaliDecoder(clip, CPU, 1, 8), clip, CPU), dali.DaliDecoder(clip, CPU, 1, 8)
    asked = [
        SnippetRequest(other[0].video(index), start, 0.3, 0.8, bool(start % 2)) for index in (0, 1) for start in (0, 7)
    ]
    found = decoder.decode(asked)
    assert not found.failures and torch.equal(found.frames, plain.decode(asked).frames)
    for motion, request in zip(found.motion.numpy(), asked, strict=True):
        size = (request.video.width, request.video.height)
        rows, columns = grid_size(*size)
        kept = np.arange(request.video.file_frames * rows * columns, dtype=np.uint8).reshape(-1, rows, columns)
        numbers = snippet_frames(request.video, request.start, clip)
        assert np.array_equal(motion, clip_cells(restore(kept[numbers]), size, crop_window(request, clip), clip.crop))
    decoder.close()
    plain.close()


def test_what_is_coded_beyond_the_frame_is_not_shown(dali, tmp_path, monkeypatch):
    monkeypatch.setitem(bitstreams.STORED_CODECS, "mjpeg", plain("mjpeg", 8))
    manifest, files = write_other_store(tmp_path, "mjpeg", [(160, 128)] * 4, num_lines_hidden=8)
    assert (manifest.video(0).width, manifest.video(0).height) == (152, 120)
    decoder = dali.DaliDecoder(ClipFormat(num_frames=4, short_side=120, crop=100), CPU, 1, 8)
    whole = PyAVDecoder(ClipFormat(num_frames=4, short_side=128, crop=128), CPU, 1)
    left_half, right_half = (
        whole.decode([SnippetRequest(files[0], 11, 0, x, False)]).frames[0].int() for x in (0.0, 1.0)
    )
    coded = torch.cat([left_half, right_half[:, :, -32:]], dim=2)
    for y, x in ((0.0, 0.0), (0.4, 0.6), (1.0, 1.0)):
        (found,) = decoder.decode([SnippetRequest(manifest.video(0), 11, y, x, False)]).frames
        top, left = round(y * 20), round(x * 52)
        assert (found.int() - coded[:, top : top + 100, left : left + 100]).abs().float().mean() < 0.5
    decoder.close()
    whole.close()


def test_frame_numbers_at_borders_of_groups_and_at_the_end(dali, other):
    manifest, _ = other
    decoder = dali.DaliDecoder(CLIP, CPU, 1, 128)
    for video in (manifest.video(1), manifest.video(2), manifest.video(3)):
        found = decoder.decode([SnippetRequest(video, start, 0, 0, False) for start in range(video.num_frames)])
        assert not found.failures
        last = video.num_frames - 1
        assert [numbers(clip) for clip in found.frames.numpy()] == [
            np.minimum(start + np.arange(6), last).tolist() for start in range(video.num_frames)
        ]
    decoder.close()


def test_stored_and_plain_videos_in_one_batch_and_a_damaged_one_is_named(dali, other, tmp_path):
    video = other[0].video(1)
    gone = Manifest.from_rows([row("store.index/a#0", "x", codec=video.codec)], tmp_path).video(0)
    asked = [SnippetRequest(each, 0, 0, 0, False) for each in (video, gone, video)]
    decoder = dali.DaliDecoder(CLIP, CPU, 2, 8)
    found = decoder.decode(asked)
    assert sorted(found.failures) == [1]
    assert "there is no snippet store" in found.failures[1]
    assert [numbers(found.frames[index].numpy())[0] for index in (0, 2)] == [0, 0]
    assert decoder.num_rebuilds == 0
    decoder.close()


def test_a_batch_is_handed_over_without_a_copy_and_stays(dali, other):
    manifest, _ = other
    decoder = dali.DaliDecoder(CLIP, CPU, 1, 4)
    decoder.decode([SnippetRequest(manifest.video(1), 0, 0, 0, False)])
    outputs = []
    run = decoder._runner._pipeline.run
    decoder._runner._pipeline.run = lambda **inputs: outputs.append(run(**inputs)) or outputs[-1]
    kept = [
        decoder.decode([SnippetRequest(manifest.video(1), start + k, 0, 0, False) for k in range(4)]).frames
        for start in range(6)
    ]
    assert [frames.data_ptr() for frames in kept] == [clips.as_tensor().data_ptr() for clips, _ in outputs]
    outputs.clear()
    for _ in range(3):
        decoder.decode([SnippetRequest(manifest.video(2), 0, 0, 0, False)] * 4)
    for start, frames in enumerate(kept):
        assert frames.is_contiguous()
        assert [numbers(clip)[0] for clip in frames.numpy()] == list(range(start, start + 4))
    decoder.close()


def test_training_batches_from_a_store_are_the_same_after_a_resume_and_replace_what_is_gone(dali, other, tmp_path):
    manifest, _ = other
    gone = Manifest.from_rows([row("store.index/a#0", "x", codec="vp9", num_frames=45, file_frames=45)], tmp_path)
    both = concatenate([manifest, gone])
    stream, data = StreamPlan(3, 4, 0, 1, True), DataConfig(max_bad_share=0.9)

    def load(steps, **position):
        decoder = dali.DaliDecoder(CLIP, CPU, 1, 4)
        loader = ClipLoader(both, np.arange(len(both.classes)), decoder, CLIP, stream, data, **position)
        batches = [next(loader) for _ in range(steps)]
        loader.close()
        return batches

    whole, resumed = load(6), load(3, epoch=2, position=2)  # epochs of five videos
    assert {failure.path for batch in whole for failure in batch.failures} == {gone.video(0).path}
    assert 4 not in torch.cat([batch.video for batch in whole]).tolist()
    for batch, again in zip(whole[3:], resumed, strict=True):
        assert torch.equal(batch.frames, again.frames)
    for batch in whole:
        for clip, index, start in zip(batch.frames.numpy(), batch.video.tolist(), batch.start.tolist(), strict=True):
            shown, mirrored = numbers(clip), numbers(clip[:, :, ::-1])
            last = both.video(index).num_frames - 1
            if index:  # the first is not square, so its stripe of bits is cut
                assert np.minimum(start + np.arange(6), last).tolist() in (shown, mirrored)


def ingested(root, codec):
    """A store as `tools/ingest.py` makes it; the first video is square, the others are coded with cropping."""
    (root / "raw" / "x").mkdir(parents=True)
    for number, count in enumerate(LENGTHS):
        size = (170, 128) if number else (128, 128)
        write_video(
            root / "raw" / "x" / f"{number}.mp4", (numbered_frame(frame, *size) for frame in range(count)), gop=30
        )
    index_folder(root / "raw", root / "raw.parquet")
    settings = StoreSettings(short_side=128, gop=GOP, preset="veryfast", codec=codec)
    ingest(Manifest.load(root / "raw.parquet"), root / "store", settings, WorkSettings())
    return Manifest.load(root / "store" / "manifest.parquet")


@pytest.fixture(scope="module")
def h264(tmp_path_factory):
    return ingested(tmp_path_factory.mktemp("h264"), "h264")


@pytest.fixture(scope="module", params=["h264", "hevc"])
def coded(request, tmp_path_factory):
    """A store of each codec that stores have."""
    return ingested(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("wanted", [[0], [5, 6, 7, 8, 9], [15, 15], [13, 15], [2, 14]])
@pytest.mark.parametrize("num_frames", [16, 45])
def test_what_is_fed_decodes_to_the_frames_and_holds_no_more(coded, wanted, num_frames):
    wanted = sorted({number + num_frames - 16 for number in wanted})
    video = next(v for v in map(coded.video, range(len(coded))) if v.num_frames == num_frames)
    reader, entry = find_entry(video)
    with av.open(io.BytesIO(reader.read(entry, 0, len(entry.group_end) - 1)), format=video.codec) as container:
        expected = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    data, indices, size = load_gops(video, wanted)
    least = {"h264": 0, "hevc": 144}[video.codec]  # of either side, for NVDEC
    assert size == {45: (max(128, least), max(128, least)), 16: (176, max(128, least))}[num_frames]
    with av.open(io.BytesIO(data.tobytes())) as container:
        assert container.format.name == {"h264": "ivf", "hevc": "matroska,webm"}[video.codec]
        context = container.streams.video[0].codec_context
        assert (context.codec.canonical_name, context.width, context.height) == (video.codec, *size)
        frames = list(container.decode(video=0))
    assert [frame.pts for frame in frames] == list(range(len(frames)))  # a stamp for each, in the order of showing
    assert {(frame.width, frame.height) for frame in frames} == {size}  # nothing is cropped in the stream
    assert indices[-1] == len(frames) - 1  # nothing after the last one wanted
    assert len(frames) <= wanted[-1] - wanted[0] // GOP * GOP + 1
    for index, number in zip(indices, wanted, strict=True):
        shown = frames[index].to_ndarray(format="gray")[: video.height, : video.width]
        assert np.array_equal(shown, expected[number])


def test_a_group_that_lacks_frames_is_named(h264, monkeypatch):
    short = StoredCodec(lambda data: split_frames(data)[:-1], lambda *size: size, CODECS["mjpeg"][2])
    monkeypatch.setitem(bitstreams.STORED_CODECS, "h264", short)
    with pytest.raises(BitstreamError, match=r"frame 0 is not in its group: see tools/ingest.py --verify"):
        load_gops(next(v for v in map(h264.video, range(len(h264))) if v.num_frames == 1), [0])


@pytest.mark.gpu
@pytest.mark.nvdec
def test_nvdec_reads_stores_like_pyav(dali, coded):
    gpu, clip = torch.device("cuda"), ClipFormat(num_frames=6, short_side=64, crop=56)
    one, other = PyAVDecoder(clip, gpu, 2), dali.DaliDecoder(clip, gpu, 8, 16)
    for index in range(len(coded)):
        video = coded.video(index)
        starts = sorted({*range(min(video.num_frames, 12)), video.num_frames - 1})
        asked = [SnippetRequest(video, start, 0.3, 0.8, bool(start % 2)) for start in starts]
        first, second = one.decode(asked), other.decode(asked)
        assert not first.failures and not second.failures
        difference = (first.frames.int() - second.frames.int()).abs().flatten(1)
        assert difference.float().mean(dim=1).max() < 2
        assert (difference <= 8).float().mean(dim=1).min() >= 0.99
    one.close()
    other.close()


@pytest.mark.gpu
@pytest.mark.nvdec
def test_nvdec_counts_frames_of_stores(dali, coded):
    decoder = dali.DaliDecoder(CLIP, torch.device("cuda"), 8, 64)
    video = next(v for v in map(coded.video, range(len(coded))) if v.num_frames == 45)
    found = decoder.decode([SnippetRequest(video, start, 0, 0, False) for start in range(45)])
    assert not found.failures
    expected = [np.minimum(start + np.arange(6), 44).tolist() for start in range(45)]
    assert [numbers(clip) for clip in found.frames.cpu().numpy()] == expected
    decoder.close()


@pytest.mark.gpu
@pytest.mark.nvdec
def test_lent_gpu_memory_is_not_written_while_torch_still_works_on_it(dali, h264):
    decoder = dali.DaliDecoder(CLIP, torch.device("cuda"), 8, 8)
    video = next(v for v in map(h264.video, range(len(h264))) if v.num_frames == 45)
    sums = []
    for start in range(30):
        frames = decoder.decode([SnippetRequest(video, start, 0, 0, False)] * 8).frames
        assert type(frames) is torch.Tensor and frames.is_cuda
        torch.cuda._sleep(20_000_000)  # the sum waits behind this; by then the next batches are decoded
        sums.append(frames.double().sum(dim=(1, 2, 3, 4)))
        del frames
    for start, values in enumerate(sums):
        expected = decoder.decode([SnippetRequest(video, start, 0, 0, False)]).frames.double().sum()
        assert torch.equal(values, expected.expand(8))
    decoder.close()
