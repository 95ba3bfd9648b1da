"""The PyAV decoder on files as found in the wild, held against one uninterrupted pass through each."""

import av
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest, Video
from engine.data.geometry import crop_window, snippet_frames
from engine.data.pyav.convert import FrameConverter
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.snippets import cut
from tests.data.videos import pack_rows

CLIP = ClipFormat(num_frames=4, stride=1, short_side=64, crop=56)


@pytest.fixture
def decoder():
    decoder = PyAVDecoder(CLIP, torch.device("cpu"), 1)
    yield decoder
    decoder.close()


LARGE = 3e8  # pixels of all frames together


def good_files(shared_data, are_large):
    """(path, frames) of the files of the pack that decode, without two of six minutes each."""
    for path, row in pack_rows(shared_data, max_frames=9_999):
        if not row["why"].startswith("MUST FAIL"):
            count = int(float(row["frames"]))
            if (count * float(row["w"]) * float(row["h"]) > LARGE) == are_large:
                yield path, count


# The large ones are VP8 and MPEG-4, of which there are smaller ones.
@pytest.mark.parametrize(("are_large", "num_files"), [(False, 73), pytest.param(True, 2, marks=pytest.mark.slow)])
def test_files_from_the_wild_agree_with_decoding_from_the_start(shared_data, decoder, are_large, num_files):
    checked = 0
    for path, count in good_files(shared_data, are_large):
        starts = sorted({int(start) for start in np.linspace(0, max(0, count - 4), 5)})
        wanted = {number for start in starts for number in range(start, min(start + 4, count))}
        video, kept = decode_from_the_start(path, wanted)
        assert video.num_frames == count, path.name
        requests = [SnippetRequest(video, start, 0.3, 0.6, False) for start in starts]
        expected = [
            [by_hand(kept[number], request) for number in snippet_frames(video, request.start, CLIP)]
            for request in requests
        ]
        for found in (decoder.decode(requests), decoder.decode(requests[-1:])):
            assert not found.failures, path.name
            assert np.array_equal(found.frames.numpy(), np.array(expected[-len(found.frames) :])), path.name
        checked += 1
    assert checked == num_files


def decode_from_the_start(path, wanted):
    """What counting one uninterrupted pass finds: the facts of the file and the wanted frames."""
    keys, kept, size, number = [], {}, None, -1
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.thread_type = 2, "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            size = size or (frame.width, frame.height)
            if frame.key_frame and frame.pts is not None:
                keys.append((number, frame.pts))
            if number in wanted:
                kept[number] = frame
    frames, pts = zip(*keys, strict=True) if keys else ((), ())
    return Video(path, number + 1, 0, number + 1, *size, 90, "", path.stat().st_size, frames, pts), kept


def by_hand(frame, request):
    window = crop_window(request, CLIP)
    square = np.empty((CLIP.crop, CLIP.crop, 3), np.uint8)
    cut(FrameConverter()(frame, window.width, window.height), window, square)
    return square
