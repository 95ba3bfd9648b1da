"""The motion of clips lies where the thing that moves is: by geometry alone, and read off real files and stores."""

import dataclasses
import gc
import itertools

import av
import cv2
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.decoders import refuse_motionless
from engine.data.geometry import crop_window
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.motion import VECTOR_CODECS, clip_cells, grid_size, quantise, restore
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.pyav.processes import ProcessDecoder
from engine.data.pyav.snippets import cut
from engine.errors import InputError
from tests.data.moving import FORMS, SIDE, draw_moving, write_moving
from tests.data.videos import describe

CPU = torch.device("cpu")
CLIP = ClipFormat(num_frames=32, short_side=176, crop=176, motion=True)
ROTATIONS = (0, 90, 180, 270)


@pytest.fixture(scope="module")
def numbered_file(tmp_path_factory):
    """A still file that stands for any: geometry is told from a manifest's row alone."""
    path = tmp_path_factory.mktemp("any") / "any.mp4"
    write_video(path, [np.zeros((64, 64, 3), np.uint8)] * 2)
    return describe(path)


def decoded(clip, requests, build=PyAVDecoder):
    decoder = build(clip, CPU, 1)
    clips = decoder.decode(requests)
    decoder.close()
    assert not clips.failures, clips.failures
    return clips


def share_on_thing(motion, places):
    """Share of frames, shown whole, whose fastest cell touches the thing."""
    hits = []
    for cells, (x, y) in zip(motion, places, strict=True):
        row, column = np.unravel_index(cells.argmax(), cells.shape)
        hits.append(x - 16 < column * 16 < x + SIDE and y - 16 < row * 16 < y + SIDE)
    return float(np.mean(hits))


@pytest.mark.parametrize("size", [(170, 128), (97, 131), (33, 64)], ids=str)
def test_cells_are_means_over_the_pixels_that_they_cover(numbered_file, size):
    rows, columns = grid_size(*size)
    grid = np.random.default_rng(0).uniform(0, 9, (1, rows, columns)).astype(np.float32)
    pixels = np.kron(grid[0], np.ones((16, 16), np.float32))[: size[1], : size[0]]
    for rotation, flip, crop, short in itertools.product(ROTATIONS, (False, True), (64, 50, 33), (64, 200)):
        clip = ClipFormat(short_side=short, crop=crop)
        video = dataclasses.replace(numbered_file, width=size[0], height=size[1], rotation=rotation)
        window = crop_window(SnippetRequest(video, 0, 0.2, 0.9, flip), clip)
        fine = cv2.resize(pixels, (window.width * 8, window.height * 8), interpolation=cv2.INTER_NEAREST_EXACT)
        fine_window = dataclasses.replace(window, top=window.top * 8, left=window.left * 8)
        square = np.empty((crop * 8, crop * 8), np.float32)
        cut(fine, fine_window, square)  # the very function that cuts the pixels
        scale = np.sqrt(window.width * window.height / (size[0] * size[1]))
        edges = [*range(0, crop, 16), crop]
        expected = [[square[8 * a : 8 * b, 8 * c : 8 * d].mean() for c, d in itertools.pairwise(edges)]
                    for a, b in itertools.pairwise(edges)]  # fmt: skip
        found = clip_cells(grid, size, window, crop)
        assert found.shape == (1, -(-crop // 16), -(-crop // 16))
        np.testing.assert_allclose(found[0], np.minimum(4 * scale * np.array(expected), 255), atol=1.2)


def test_speeds_are_kept_in_quarter_pixels():
    speeds = np.array([0.0, 0.1, 0.25, 3.0, 63.75, 1000.0], np.float32)
    assert quantise(speeds).tolist() == [0, 0, 1, 12, 255, 255]
    assert restore(quantise(speeds)).tolist() == [0, 0, 0.25, 3.0, 63.75, 63.75]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("pan", "least"), [(0.0, 0.95), (3.0, 0.9)], ids=["still camera", "pan"])
def test_the_fastest_cell_is_on_the_thing(tmp_path, form, pan, least):
    shares = []
    for seed in range(3):
        moving = draw_moving(seed, pan=pan)
        video = describe(write_moving(tmp_path, form, moving, name=str(seed)))
        clips = decoded(CLIP, [SnippetRequest(video, 0, 0.5, 0.5, False)])
        assert clips.motion.shape == (1, *CLIP.motion_shape) and clips.motion.dtype == torch.uint8
        shares.append(share_on_thing(clips.motion[0].numpy(), moving.places))
    # B-frames of MPEG-4 have no vectors but the next frame's, in which the thing has gone on.
    assert np.mean(shares) >= (0.85 if pan and form == "mpeg4 with B-frames" else least), shares


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_motion_goes_where_the_pixels_go(tmp_path, rotation):
    """An orange disc over grey waves: found in the clip by its colour, and by its motion."""
    size, frames = (181, 141), []
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    waves = (128 + 60 * np.sin(x / 7) * np.cos(y / 9))[..., None].repeat(3, axis=2)
    for number in range(12):
        frame = waves.copy()
        disc = np.hypot(x - 40 - 5 * number, y - 45 - 3 * number) < 20
        frame[disc] = np.stack([200 + 40 * np.sin(x + number), 110 + 30 * np.cos(y), 0 * x], axis=-1)[disc]
        frames.append(frame.clip(0, 255).astype(np.uint8))
    path = tmp_path / "disc.mp4"
    write_video(path, frames, rotation=rotation, pixel_format="yuv444p", gop=6)
    video = describe(path, rotation=rotation)
    hits = []
    for short, crop, flip, place in itertools.product((96, 141), (96, 77), (False, True), (0.0, 0.6)):
        clip = ClipFormat(num_frames=5, stride=2, short_side=short, crop=crop, motion=True)
        clips = decoded(clip, [SnippetRequest(video, 1, place, 1 - place, flip)])
        for frame, cells in zip(clips.frames[0].numpy().astype(int), clips.motion[0].numpy(), strict=True):
            orange = frame[..., 0] - frame[..., 2] > 80
            if orange.sum() < 200:  # it is outside, or nearly
                continue
            row, column = np.unravel_index(cells.argmax(), cells.shape)
            hits.append(orange[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16].any())
    assert len(hits) > 40 and np.mean(hits) >= 0.95, (len(hits), np.mean(hits))


def test_a_frame_has_the_same_motion_in_whatever_snippet_it_comes(tmp_path):
    for form in FORMS:
        moving = draw_moving(1, pan=2.0)
        video = describe(write_moving(tmp_path, form, moving))
        whole = decoded(CLIP, [SnippetRequest(video, 0, 0.5, 0.5, False)]).motion[0]
        clip = dataclasses.replace(CLIP, num_frames=4, stride=2)
        starts = (0, 1, 5, 12, 15, 20, 30)
        requests = [SnippetRequest(video, start, 0.5, 0.5, False) for start in starts]
        together = decoded(clip, requests).motion
        for start, motion, request in zip(starts, together, requests, strict=True):
            expected = whole[[min(start + 2 * index, 31) for index in range(4)]]
            assert torch.equal(motion, expected), (form, start)
            assert torch.equal(decoded(clip, [request]).motion[0], expected), (form, start)
        assert whole.any(dim=(1, 2)).all()  # key frames too


def test_processes_give_what_threads_give(tmp_path):
    video = describe(write_moving(tmp_path, "h264", draw_moving(0)))
    requests = [SnippetRequest(video, start, 0.5, 0.5, bool(start % 2)) for start in (0, 3, 9, 20, 27)]
    clip = ClipFormat(num_frames=5, short_side=100, crop=90, motion=True)
    one = decoded(clip, requests)
    two = decoded(clip, requests, lambda *arguments: ProcessDecoder(*arguments, 2))
    assert torch.equal(one.motion, two.motion) and torch.equal(one.frames, two.frames)
    off = decoded(dataclasses.replace(clip, motion=False), requests)
    assert off.motion is None and torch.equal(off.frames, one.frames)


def test_codecs_without_vectors_are_refused_by_name(tmp_path):
    for name, codec in (("a/h264.mp4", "libx264"), ("a/vp9.webm", "libvpx-vp9"), ("b/hevc.mp4", "libx265")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_video(tmp_path / name, [np.full((144, 144, 3), 9 * k, np.uint8) for k in range(4)], codec=codec)
    write_video(tmp_path / "b/jpeg.avi", [np.zeros((64, 64, 3), np.uint8)] * 4, codec="mjpeg", pixel_format="yuvj420p")
    index_folder(tmp_path, tmp_path / "m.parquet")
    manifest = Manifest.load(tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"1 hevc, of which .*; 1 mjpeg.*; 1 vp9, .*ingest.py --motion"):
        refuse_motionless([manifest])
    refuse_motionless([manifest.select(np.array([path.endswith("h264.mp4") for path in manifest.paths]))])


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("mpeg1video", ".mkv"), ("flv", ".flv"), ("msmpeg4v2", ".avi"), ("msmpeg4", ".avi"), ("wmv1", ".avi"), ("wmv2", ".avi"),
     ("rv10", ".rm"), ("rv20", ".rm"), ("h263", ".3gp")],
)  # fmt: skip
def test_every_codec_that_is_taken_gives_vectors(tmp_path, codec, suffix):
    moving = draw_moving(2, size=(176, 144), num_frames=8)
    path = tmp_path / f"x{suffix}"
    write_video(path, moving.frames, codec=codec)
    video = describe(path)
    clip = dataclasses.replace(CLIP, num_frames=8, short_side=144, crop=144)
    assert video.codec in VECTOR_CODECS
    assert decoded(clip, [SnippetRequest(video, 0, 0.5, 0.5, False)]).motion.any(dim=(2, 3)).all()


def test_no_frame_with_vectors_waits_for_the_garbage_collector(tmp_path):
    write_video(tmp_path / "a.mp4", draw_moving(0, size=(64, 64), num_frames=20).frames, pixel_format="yuv420p")
    requests = [SnippetRequest(describe(tmp_path / "a.mp4"), 0, 0.5, 0.5, False)]
    clip = dataclasses.replace(CLIP, num_frames=16, short_side=64, crop=64)
    decoded(clip, requests)
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
        decoded(clip, requests)
        assert sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects()) == before
    finally:
        gc.enable()
