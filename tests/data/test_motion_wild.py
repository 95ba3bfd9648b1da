"""Motion of files as found in the wild, entered anywhere, held against the vectors of one pass by FFmpeg without threads."""

import av
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.geometry import crop_window, snippet_frames
from engine.data.motion import VECTOR_CODECS, clip_cells
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.vectors import MotionTrack
from tests.data.videos import describe, pack_rows

CLIP = ClipFormat(num_frames=4, stride=2, short_side=112, crop=100, motion=True)
FEW = 2e7  # pixels of all frames together, of the files that are not slow


def files_with_vectors(shared_data, are_large):
    for path, row in pack_rows(shared_data, max_frames=999):
        count = float(row["frames"] or 0)
        is_large = count * float(row["w"] or 0) * float(row["h"] or 0) > FEW
        if not row["why"].startswith("MUST FAIL") and count and is_large == are_large:
            with av.open(str(path)) as container:
                first = next(container.decode(video=0))  # a stream may change its size on the way
            video = describe(path, width=first.width, height=first.height)
            if video.codec in VECTOR_CODECS:
                yield video


def grids_from_the_start(video):
    """The grids of all frames, in one pass that seeks nothing; and the last frame that had vectors, -1 for none."""
    track, grids, last = MotionTrack(video.codec, range(video.file_frames)), [], -1
    with av.open(str(video.path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"
        stream.codec_context.options = {"flags2": "+export_mvs"}
        for number, frame in enumerate(container.decode(stream)):
            last = number if frame.side_data.get("MOTION_VECTORS") is not None else last
            track.see(number, frame)
            grids += (grid for _, grid in track.ready())
    return [*grids, *(grid for _, grid in track.ready(at_end=True))], last


@pytest.mark.parametrize(("are_large", "num_files"), [(False, 27), pytest.param(True, 15, marks=pytest.mark.slow)])
def test_vectors_are_those_of_one_pass_without_threads(shared_data, are_large, num_files):
    checked = 0
    for video in files_with_vectors(shared_data, are_large):
        grids, last = grids_from_the_start(video)
        starts = sorted({int(start) for start in np.linspace(0, max(0, video.num_frames - 1), 6)})
        requests = [SnippetRequest(video, start, 0.3, 0.6, bool(start % 2)) for start in starts]
        expected = [
            np.concatenate([
                clip_cells(grids[number][0][None], grids[number][1], crop_window(request, CLIP), CLIP.crop)
                for number in snippet_frames(video, request.start, CLIP)
            ])
            for request in requests
        ]  # fmt: skip
        for asked in (slice(None), slice(-1, None), slice(2, 3)):
            decoder = PyAVDecoder(CLIP, torch.device("cpu"), 1)
            found = decoder.decode(requests[asked])
            decoder.close()
            assert not found.failures, (video.path.name, found.failures)
            for request, motion, wanted in zip(requests[asked], found.motion.numpy(), expected[asked], strict=True):
                for number, cells, right in zip(
                    snippet_frames(video, request.start, CLIP), motion, wanted, strict=True
                ):
                    assert np.array_equal(cells, right), (video.path.name, number)
        checked += last >= 0
    assert checked >= num_files
