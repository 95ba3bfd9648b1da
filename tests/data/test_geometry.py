"""The crop rule in stored coordinates, held against the plain way: turn the whole frame, then cut."""

import math
from pathlib import Path

import numpy as np
import pytest

from engine.data.batch import ClipFormat, SnippetRequest, Video
from engine.data.geometry import crop_window, scaled_size, snippet_frames
from engine.data.sampling.sampler import plan_epoch

CLIP = ClipFormat(num_frames=4, stride=1, short_side=16, crop=13)


def video(**values):
    facts = {
        "path": Path("v.mp4"), "num_frames": 30, "first_frame": 0, "file_frames": 30, "width": 32, "height": 18, "rotation": 0,
        "codec": "h264", "file_bytes": 1, "key_frames": (), "key_pts": (),
    }  # fmt: skip
    return Video(**{**facts, **values})


def offset(place: float, room: int) -> int:
    """`room` + 1 offsets share the places from 0 to 1 evenly; in the middle the even one of two that are as near."""
    return round(room / 2) if place == 0.5 else min(math.floor(place * (room + 1)), room)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(32, 18), (18, 32), (20, 20), (161, 121)])
@pytest.mark.parametrize("flip", [False, True])
def test_window_is_the_crop_of_the_displayed_frame(rotation, size, flip):
    source = video(width=size[0], height=size[1], rotation=rotation)
    width, height = scaled_size(*size, CLIP.short_side)
    stored = np.arange(height * width).reshape(height, width)  # every pixel knows where it came from
    displayed = np.rot90(stored, -rotation // 90)  # numpy turns counter-clockwise
    for crop_y, crop_x in [(0, 0), (0.5, 0.5), (1, 1), (0, 1), (1, 0), (0.3, 0.8), (0.999, 0.001)]:
        top = offset(crop_y, displayed.shape[0] - CLIP.crop)
        left = offset(crop_x, displayed.shape[1] - CLIP.crop)
        expected = displayed[top : top + CLIP.crop, left : left + CLIP.crop]
        expected = expected[:, ::-1] if flip else expected

        window = crop_window(SnippetRequest(source, 0, crop_y, crop_x, flip), CLIP)
        assert (window.height, window.width) == stored.shape
        square = stored[window.top : window.top + CLIP.crop, window.left : window.left + CLIP.crop]
        square = np.rot90(square, -window.quarter_turns)
        found = square[:, ::-1] if window.flip else square
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("height", [16, 17, 18, 19, 25])
def test_random_crops_lie_at_every_offset_equally_often_the_edges_too(height):
    clip = ClipFormat(num_frames=1, short_side=16, crop=13)
    source = video(width=16, height=height)
    room = height - 13
    places = (np.arange(1000 * (room + 1)) + 0.5) / (1000 * (room + 1))
    tops = [crop_window(SnippetRequest(source, 0, place, 0.5, False), clip).top for place in places.tolist()]
    assert np.bincount(tops).tolist() == [1000] * (room + 1)
    largest = float(np.nextafter(np.float32(1), np.float32(0)))  # that the sampler draws
    ends = [crop_window(SnippetRequest(source, 0, place, place, False), clip) for place in (0.0, largest, 1.0)]
    assert [(window.top, window.left) for window in ends] == [(0, 0), (room, 3), (room, 3)]
    assert crop_window(SnippetRequest(source, 0, 0.5, 0.5, False), clip).top == round(room / 2)  # as in evaluation ever


def test_the_sampler_s_own_draws_are_uniform_over_offsets_by_a_chi_square_test():
    plan, source = plan_epoch(np.full(22_000, 20), seed=5, epoch=2), video(width=36, height=26)
    clip = ClipFormat(num_frames=1, short_side=26, crop=16)  # rooms of 10 and 20
    windows = [
        crop_window(SnippetRequest(source, 0, float(y), float(x), False), clip)
        for y, x in zip(plan.crop_y, plan.crop_x, strict=True)
    ]
    for offsets, room, limit in (
        ([window.top for window in windows], 10, 29.6),  # chi-square of 10 and 20 degrees of freedom is above this
        ([window.left for window in windows], 20, 45.3),  # once in a thousand
    ):
        counts, expected = np.bincount(offsets), len(windows) / (room + 1)
        assert len(counts) == room + 1
        assert ((counts - expected) ** 2 / expected).sum() < limit  # edges of half a share: above 500


def test_rotation_is_clockwise():
    window = crop_window(
        SnippetRequest(video(width=16, height=16, rotation=90), 0, 0, 0, False), ClipFormat(1, 1, 16, 16)
    )
    stored = np.zeros((16, 16), int)
    stored[0, 15] = 1  # top right
    assert np.rot90(stored, -window.quarter_turns)[15, 15] == 1  # is at the bottom right after a clockwise turn


@pytest.mark.parametrize("short_side", [16, 112, 128, 256])
def test_shorter_side_is_exact_and_the_shape_is_kept(short_side):
    for width, height in [(320, 240), (1920, 1080), (1080, 1920), (161, 121), (5, 7), (3000, 10), (1, 1)]:
        scaled = scaled_size(width, height, short_side)
        assert min(scaled) == short_side
        assert scaled_size(height, width, short_side) == scaled[::-1]
        longer = max(width, height) * short_side / min(width, height)
        assert abs(max(scaled) - longer) <= 0.5


def test_a_frame_of_the_right_size_is_left_alone():
    assert scaled_size(171, 128, 128) == (171, 128)


def test_snippet_frames_count_from_the_row_and_repeat_its_last_frame():
    row = video(first_frame=100, num_frames=20, file_frames=500)
    clip = ClipFormat(num_frames=5, stride=3, short_side=16, crop=16)
    assert snippet_frames(row, 0, clip) == [100, 103, 106, 109, 112]
    assert snippet_frames(row, 7, clip) == [107, 110, 113, 116, 119]
    assert snippet_frames(row, 12, clip) == [112, 115, 118, 119, 119]
    assert snippet_frames(video(num_frames=2, first_frame=9), 0, CLIP) == [9, 10, 10, 10]
    assert snippet_frames(video(num_frames=1), 0, CLIP) == [0, 0, 0, 0]


def test_span_reaches_from_the_first_to_the_last_frame():
    clip = ClipFormat(num_frames=5, stride=3)
    frames = snippet_frames(video(num_frames=100), 0, clip)
    assert frames[-1] - frames[0] + 1 == clip.span
