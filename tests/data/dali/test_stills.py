"""Stills by DALI against stills by PIL: the same squares and, within the stated bounds, the same pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from engine.data import decoders
from engine.data.batch import ClipFormat, CropMotion, SnippetRequest
from engine.data.decoders import build_decoder, choose_decoder
from engine.data.indexing.dataset import IndexSettings, index_dataset
from engine.data.layouts import read_layout
from engine.data.manifests.manifest import Manifest
from engine.data.routing import RoutedDecoder
from engine.data.stills import StillDecoder

CPU = torch.device("cpu")
CLIP = ClipFormat(num_frames=5, short_side=64, crop=48, min_still_crop=0.5)
MOTIONS = [CropMotion(1.0, 0.0, 0.0, 0.0, 1.0, 0.5), CropMotion(0.2, 0.31, 0.77, 0.9, 0.6, 0.1), None]
# Mean difference, and the largest within the outermost ring, for which PIL also looks past the square. A JPEG that PIL
# decodes at a half or a quarter of its size is not scaled by one filter.
WHOLE, REDUCED = (0.5, 2), (1.5, 20)


def scene(width, height):
    """A picture with soft and hard structure in all colours."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin(x / 9 + y / 23), 128 + 90 * np.cos(x / 31 - y / 7), (x * 255 // width + y) % 256]
    pixels = np.stack(waves, axis=-1).astype(np.uint8)
    pixels[height // 4 : height // 3, width // 5 : width // 2] = (250, 20, 30)
    return Image.fromarray(pixels)


KINDS = {
    "plain.jpg": lambda: (scene(90, 70), {"quality": 92}, WHOLE),
    "tall_444.jpg": lambda: (scene(75, 111), {"quality": 95, "subsampling": 0}, WHOLE),
    "grey.jpg": lambda: (scene(90, 70).convert("L"), {}, WHOLE),
    "cmyk.jpg": lambda: (scene(90, 70).convert("CMYK"), {}, WHOLE),
    "progressive.jpg": lambda: (scene(91, 71), {"progressive": True}, WHOLE),
    "large.jpg": lambda: (scene(640, 480), {"quality": 92}, REDUCED),
    "plain.png": lambda: (scene(120, 80), {}, WHOLE),
    "large.png": lambda: (scene(640, 480), {}, WHOLE),
    "small.png": lambda: (scene(30, 25), {}, WHOLE),
    "plain.webp": lambda: (scene(90, 70), {"quality": 90}, WHOLE),
    "plain.bmp": lambda: (scene(90, 70), {}, WHOLE),
    "turned_right.jpg": lambda: (scene(90, 70), {"exif": orientation(6)}, WHOLE),
    "turned_over.jpg": lambda: (scene(90, 70), {"exif": orientation(3)}, WHOLE),
    "turned_left.jpg": lambda: (scene(70, 90), {"exif": orientation(8)}, WHOLE),
}


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def index(root):
    index_dataset(read_layout("images", root), root, root / "manifest.parquet", IndexSettings())
    return Manifest.load(root / "manifest.parquet")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    root = tmp_path_factory.mktemp("stills")
    (root / "a").mkdir()
    for name, make in KINDS.items():
        picture, options, _ = make()
        picture.save(root / "a" / name, **options)
    return index(root)


@pytest.fixture(scope="module")
def pair(dali):
    from engine.data.dali.stills import DaliStillDecoder

    both = StillDecoder(CLIP, CPU, 1), DaliStillDecoder(CLIP, CPU, 1, 64)
    yield both
    for decoder in both:
        decoder.close()


def requests(video):
    return [SnippetRequest(video, 0, 0.3, 0.8, flip, motion) for motion in MOTIONS for flip in (False, True)]


def compare(one, other, asked, bounds):
    first, second = one.decode(asked), other.decode(asked)
    assert not first.failures
    assert not second.failures
    assert first.frames.shape == second.frames.shape == (len(asked), 5, 48, 48, 3)
    assert second.frames.is_contiguous()
    assert first.frames.float().std() > 20  # there is a picture to agree on
    difference = (first.frames.cpu().int() - second.frames.cpu().int()).abs()
    assert difference.float().mean() < bounds[0]
    assert difference[..., 1:-1, 1:-1, :].max() <= bounds[1]
    assert (difference <= 8).float().mean() >= 0.999


@pytest.mark.parametrize("name", KINDS)
def test_pixels_agree_with_pil(pair, manifest, name):
    video = next(v for v in map(manifest.video, range(len(manifest))) if v.path.name == name)
    compare(*pair, requests(video), KINDS[name]()[2])


def test_a_batch_of_all_kinds_keeps_its_order_and_motions_differ(pair, manifest):
    asked = [request for row in range(len(manifest)) for request in requests(manifest.video(row))]
    compare(*pair, asked, (0.5, 20))
    frames = pair[1].decode(asked[:3]).frames
    assert torch.equal(frames[1], frames[0].flip(dims=[2]))
    assert (frames[0].int() - frames[2].int()).abs().float().mean() > 10


def test_what_dali_is_not_given_comes_from_pil_in_its_place(pair, tmp_path):
    """Kinds by kinds: tests/data/test_still_kinds.py."""
    (tmp_path / "a").mkdir()
    scene(90, 70).save(tmp_path / "a" / "plain.png")
    scene(90, 70).convert("RGBA").save(tmp_path / "a" / "transparent.png")
    manifest = index(tmp_path)
    asked = [request for row in (1, 0, 1) for request in requests(manifest.video(row))]
    both = RoutedDecoder([pair[0]], [pair[1], pair[0]]).decode(asked)
    assert not both.failures
    assert sorted(pair[1].decode(asked).failures) == [*range(6), *range(12, 18)]
    assert (both.frames.int() - pair[0].decode(asked).frames.int())[:, :, 1:-1, 1:-1].abs().max() <= 2


def test_pixels_agree_on_real_pictures(pair, shared_data, tmp_path):
    classes = sorted((shared_data / "images" / "stanford40").iterdir())[:3]
    (tmp_path / "real").mkdir()
    for number, path in enumerate(path for folder in classes for path in sorted(folder.glob("*.jpg"))[:4]):
        (tmp_path / "real" / f"{number}.jpg").write_bytes(path.read_bytes())
    manifest = index(tmp_path)
    assert len(manifest) >= 4
    compare(*pair, [request for row in range(len(manifest)) for request in requests(manifest.video(row))], WHOLE)


def test_bad_pictures_are_named_and_the_others_are_decoded(pair, manifest, tmp_path):
    video = next(v for v in map(manifest.video, range(len(manifest))) if v.path.name == "plain.jpg")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(video.path.read_bytes()[:300] + bytes(video.file_bytes - 300))
    bad = [
        replace(video, path=tmp_path / "gone.jpg"),
        replace(video, file_bytes=1),
        replace(video, width=91),
        replace(video, path=broken, content_hash=None),
        replace(video, path=broken),
    ]
    found = pair[1].decode([SnippetRequest(each, 0, 0.3, 0.8, False) for each in (video, *bad, video)])
    assert sorted(found.failures) == [1, 2, 3, 4, 5]
    reasons = (
        "No such file",
        "but had",
        "90x70",
        "cannot decode this jpeg",
        "the file has changed since it was indexed",
    )
    for index, words in enumerate(reasons, 1):
        assert words in found.failures[index]
    expected = pair[0].decode([SnippetRequest(video, 0, 0.3, 0.8, False)]).frames[0].int()
    for index in (0, 6):
        assert (found.frames[index].int() - expected)[:, 1:-1, 1:-1].abs().max() <= 2


def test_no_video_is_for_pyav_where_all_are_stills(manifest, monkeypatch):
    monkeypatch.setattr(decoders, "dali_problem", lambda device: None)
    choice = choose_decoder("auto", torch.device("cuda", 0), [manifest])
    assert choice.name == "dali"
    assert "pyav alone" not in choice.why  # a still is none of the videos


@pytest.mark.gpu
@pytest.mark.nvdec
def test_stills_on_a_gpu_agree_with_pil(dali, manifest):
    decoder = build_decoder("dali", CLIP, torch.device("cuda"), 4, 64)
    assert list(decoder.decoders) == ["dali", "pyav", "dali stills", "stills"]
    asked = [request for row in range(len(manifest)) for request in requests(manifest.video(row))]
    first, second = StillDecoder(CLIP, CPU, 1).decode(asked), decoder.decode(asked)
    assert not second.failures
    assert second.frames.is_cuda
    assert decoder.routes.clips == {"dali stills": len(asked)}  # none was left to PIL
    # nvJPEG rounds the inverse transform in its own way.
    difference = (first.frames.int() - second.frames.cpu().int()).abs()
    assert difference.float().mean() < 1
    assert (difference <= 8).float().mean() > 0.99
    decoder.close()
