"""A snippet is the same whether its frames are gathered or converted one by one, in whatever form and order they come."""

import av
import numpy as np
import pytest

from engine.data.geometry import CropWindow
from engine.data.pyav.convert import FrameConverter
from engine.data.pyav.planar import plane_rows
from engine.data.pyav.snippets import SnippetWriter, cut


def noise(generator, width, height, name="yuv420p"):
    frame = av.VideoFrame(width, height, name)
    for plane in frame.planes:
        plane_rows(plane)[:] = generator.integers(0, 256, plane_rows(plane).shape)
    return frame


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("quarter_turns", [0, 1])
@pytest.mark.parametrize("forms", [["yuv420p"], ["yuv420p", "yuvj420p"], ["yuv444p", "yuv420p"], ["larger", "yuv420p"]])
def test_gathered_and_single_frames_agree(forms, quarter_turns, flip):
    generator, convert = np.random.default_rng(7), FrameConverter()
    window = CropWindow(40, 60, 3, 7, quarter_turns, flip)
    size = {"larger": (120, 80, "yuv420p")}
    frames = [noise(generator, *size.get(form, (60, 40, form))) for form in forms * 3]
    clip = np.zeros((len(frames), 32, 32, 3), np.uint8)
    writer = SnippetWriter(clip, window, convert)
    for index in generator.permutation(len(frames)).tolist():
        writer.put(index, frames[index], {})
    expected = np.zeros_like(clip)
    for square, frame in zip(expected, frames, strict=True):
        cut(convert(frame, 60, 40), window, square)
    assert expected.std() > 20
    assert np.array_equal(clip, expected)
    if flip:
        straight = np.zeros_like(expected[0])
        cut(convert(frames[0], 60, 40), CropWindow(40, 60, 3, 7, quarter_turns, False), straight)
        assert np.array_equal(straight[:, ::-1], clip[0])
