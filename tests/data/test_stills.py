"""Stills as snippets: which pixels they show, in the same batches as videos, indexed, replaced, resumed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.data.batch import ClipFormat, CropMotion, SnippetRequest, Video
from engine.data.config import DataConfig
from engine.data.decoders import build_decoder, choose_decoder
from engine.data.geometry import still_squares
from engine.data.indexing.dataset import IndexSettings, index_dataset
from engine.data.layouts import read_layout
from engine.data.loading.loader import ClipLoader, StreamPlan
from engine.data.manifests.manifest import Manifest, concatenate
from engine.data.nvdec import unfit_videos
from engine.data.pyav.probe import ProbeError
from engine.data.sampling.weights import RowWeights
from engine.data.stills import StillDecoder, probe_still
from engine.errors import InputError
from tests.encoded import fade, manifest_of, write_colors

CLIP = ClipFormat(num_frames=5, short_side=32, crop=24, min_still_crop=0.5)
CPU = torch.device("cpu")


def gradient(width: int, height: int) -> np.ndarray:
    """A picture in which red says how far right and green how far down: 0 at the first edge, 250 at the last."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[..., 0] = np.rint((np.arange(width) + 0.5) / width * 250)
    picture[..., 1] = np.rint((np.arange(height) + 0.5) / height * 250)[:, None]
    return picture


def write_still(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def index(root: Path, layout: str = "auto") -> Manifest:
    index_dataset(read_layout(layout, root), root, root / "manifest.parquet", IndexSettings())
    return Manifest.load(root / "manifest.parquet")


def edges(frame: np.ndarray) -> tuple[float, float, float, float]:
    """Where a frame of `gradient` begins and ends, as shares of the picture: left, right, top, bottom."""
    across, down = frame[..., 0].mean(axis=0) / 250, frame[..., 1].mean(axis=1) / 250
    half_x, half_y = (across[-1] - across[0]) / (len(across) - 1) / 2, (down[-1] - down[0]) / (len(down) - 1) / 2
    return across[0] - half_x, across[-1] + half_x, down[0] - half_y, down[-1] + half_y


@pytest.mark.parametrize("size", [(200, 100), (60, 90)])
def test_frames_show_the_squares_between_start_and_end(tmp_path, size):
    write_still(tmp_path / "a" / "x.png", gradient(*size))
    video = index(tmp_path).video(0)
    motion = CropMotion(start_size=1.0, start_y=0.0, start_x=0.0, end_size=0.0, end_y=1.0, end_x=0.5)
    decoded = StillDecoder(CLIP, CPU, 1).decode([SnippetRequest(video, 0, 0.5, 0.5, flip=False, motion=motion)])
    assert not decoded.failures
    width, height = size
    short = min(size)
    for number, frame in enumerate(decoded.frames[0].numpy()):
        share = number / 4
        side = short * (1 - 0.5 * share)
        left, top = share * 0.5 * (width - short / 2), share * (height - short / 2)
        wanted = (left / width, (left + side) / width, top / height, (top + side) / height)
        assert edges(frame) == pytest.approx(wanted, abs=0.012)


def test_a_mirrored_snippet_and_one_without_motion(tmp_path):
    write_still(tmp_path / "a" / "x.png", gradient(120, 60))
    video = index(tmp_path).video(0)
    decoder = StillDecoder(CLIP, CPU, 1)
    motion = CropMotion(0.3, 0.1, 0.9, 0.8, 0.5, 0.2)
    plain, mirrored, still = (
        decoder.decode([SnippetRequest(video, 0, 0.5, 0.5, flip, part)]).frames[0]
        for flip, part in ((False, motion), (True, motion), (False, None))
    )
    assert torch.equal(mirrored, plain.flip(2))
    assert all(torch.equal(frame, still[0]) for frame in still)
    assert edges(still[0].numpy()) == pytest.approx((0.25, 0.75, 0, 1), abs=0.01)


def test_squares_stay_inside_for_any_draw():
    generator = np.random.default_rng(0)
    manifest_like = {"first_frame": 0, "num_frames": 1, "file_frames": 1, "codec": "image/png", "file_bytes": 1,
                     "key_frames": (), "key_pts": (), "path": Path("x")}  # fmt: skip
    for _ in range(200):
        width, height = generator.integers(20, 500, 2).tolist()
        video = Video(width=width, height=height, rotation=int(generator.choice([0, 90])), **manifest_like)
        motion = CropMotion(*generator.random(6).tolist())
        squares = np.array(still_squares(SnippetRequest(video, 0, 0.5, 0.5, False, motion), CLIP))
        assert squares.shape == (5, 3)
        shown_width, shown_height = video.displayed_size
        assert (squares[:, :2] >= -1e-9).all()
        assert (squares[:, 0] + squares[:, 2] <= shown_height + 1e-6).all()
        assert (squares[:, 1] + squares[:, 2] <= shown_width + 1e-6).all()
        assert (squares[:, 2] >= 0.5 * min(width, height) - 1e-9).all()
        assert np.abs(np.diff(squares, 2, axis=0)).max() < 1e-6  # linear


def test_a_large_jpeg_read_small_and_a_turned_one_show_the_same(tmp_path):
    picture = gradient(640, 480)
    write_still(tmp_path / "a" / "large.jpg", picture, quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise for display
    write_still(tmp_path / "a" / "turned.jpg", np.rot90(picture), quality=95, exif=exif)
    write_still(tmp_path / "a" / "whole.png", picture)
    manifest = index(tmp_path)
    by_name = {manifest.video(row).path.stem: manifest.video(row) for row in range(3)}
    assert (by_name["turned"].rotation, by_name["turned"].displayed_size) == (90, (640, 480))
    motion = CropMotion(0.2, 0.3, 0.4, 0.9, 0.6, 0.1)
    requests = [SnippetRequest(by_name[n], 0, 0, 0, False, motion) for n in ("whole", "large", "turned")]
    frames = StillDecoder(CLIP, CPU, 2).decode(requests).frames.float()
    assert (frames[0] - frames[1]).abs().mean() < 1.5
    assert (frames[0] - frames[2]).abs().mean() < 1.5


def test_bad_pictures_are_named_and_never_raise(tmp_path):
    good = write_still(tmp_path / "a" / "good.jpg", gradient(64, 64))
    manifest = index(tmp_path)
    video = manifest.video(0)
    decoder = StillDecoder(CLIP, CPU, 1)
    request = SnippetRequest(video, 0, 0.5, 0.5, False)
    content = good.read_bytes()
    good.write_bytes(content + b"x")
    assert "index it again" in decoder.decode([request]).failures[0]
    good.write_bytes(content[:200] + bytes(len(content) - 200))
    assert decoder.decode([request]).failures == {0: "the file has changed since it was indexed: index it again"}
    damaged = SnippetRequest(replace(video, content_hash=None), 0, 0.5, 0.5, False)
    assert decoder.decode([damaged]).failures[0].startswith("PIL: ")
    good.unlink()
    assert decoder.decode([request]).failures == {0: "the file is missing"}


@pytest.mark.parametrize(
    ("content", "kind"), [(b"", "empty"), (b"not a picture at all", "unreadable"), (None, "missing")]
)
def test_probe_says_why_not(tmp_path, content, kind):
    path = tmp_path / "x.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProbeError) as error:
        probe_still(path)
    assert error.value.kind == kind


def test_layouts(tmp_path):
    for path in ("a/abbey/sun_1.jpg", "a/apartment_building/outdoor/sun_2.jpg", "b/bank_vault/sun_3.jpg"):
        write_still(tmp_path / "sun" / path, gradient(20, 30))
    sun = index(tmp_path / "sun")
    assert sun.classes == ("/a/abbey", "/a/apartment_building/outdoor", "/b/bank_vault")
    assert sun.is_still.all()
    write_still(tmp_path / "mine" / "train" / "diving" / "1.png", gradient(20, 20))
    write_still(tmp_path / "mine" / "val" / "diving" / "2.png", gradient(20, 20))
    (tmp_path / "mine" / "val" / "diving" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrest is missing")
    mine = index(tmp_path / "mine")
    assert (mine.classes, list(mine.strings("split"))) == (("diving",), ["train", "val"])
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no pictures in"):
        read_layout("images", tmp_path / "none")
    with pytest.raises(InputError, match="LETTER/CLASS"):
        read_layout("sun397", tmp_path / "mine")


@pytest.fixture
def mixed(tmp_path) -> Manifest:
    """Three videos and five stills of the same batch size, and one still that is broken."""
    for number in range(3):
        write_colors(tmp_path / f"{number}.mp4", fade((0, 0, 250), (250, 0, 250), 8))
    videos = manifest_of(tmp_path, [(f"{number}.mp4", "fading", 8) for number in range(3)])
    for number in range(5):
        write_still(tmp_path / "stills" / "gradient" / f"{number}.png", gradient(80, 60))
    return concatenate([videos, index(tmp_path / "stills")])


def load(manifest: Manifest, steps: int, **position: int) -> list:
    labels = np.arange(len(manifest.classes))
    stream = StreamPlan(
        seed=3, batch_size=4, rank=position.pop("rank", 0), world_size=position.pop("world", 1), flip=True
    )
    weights = RowWeights.of_rows(np.where(manifest.is_still, 0.8, 2.0))
    decoder = build_decoder("pyav", CLIP, CPU, 2, 4)
    loader = ClipLoader(
        manifest, labels, decoder, CLIP, stream, DataConfig(max_bad_share=0.5), weights=weights, **position
    )
    try:
        return [next(loader) for _ in range(steps)]
    finally:
        loader.close()


def test_videos_and_stills_in_one_batch_by_weight(mixed):
    batches = load(mixed, 5)  # an epoch: 3 videos twice, 4 of 5 stills
    rows = torch.cat([batch.video for batch in batches])
    counts = np.bincount(rows[:10], minlength=8)
    assert counts[:3].tolist() == [2, 2, 2]
    assert sorted(counts[3:].tolist()) == [0, 1, 1, 1, 1]
    for batch in batches:
        assert batch.frames.shape == (4, 5, 24, 24, 3)
        assert batch.frames.is_contiguous()
        for frames, row, label in zip(batch.frames, batch.video.tolist(), batch.class_index.tolist(), strict=True):
            is_video = row < 3
            assert mixed.classes[label] == ("fading" if is_video else "gradient")
            blue = frames[..., 2].float().mean()
            assert (blue > 200) if is_video else (blue < 5)


def test_moving_crops_are_a_function_of_seed_epoch_and_position_alone(mixed):
    whole = load(mixed, 6)
    resumed = load(mixed, 3, epoch=1, position=2)
    assert all(torch.equal(a.frames, b.frames) for a, b in zip(whole[3:], resumed, strict=True))
    halves = [load(mixed, 6, rank=rank, world=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert torch.equal(batch.frames[0::2], halves[0][step].frames)
        assert torch.equal(batch.frames[1::2], halves[1][step].frames)
    stills = {
        (int(row), frames.numpy().tobytes())
        for b in whole
        for row, frames in zip(b.video, b.frames, strict=True)
        if row > 2
    }
    assert len(stills) > 5  # the same still moves differently in another epoch


def test_a_broken_still_is_replaced_and_named(mixed):
    (mixed.video(5).path).write_bytes(b"gone")
    batches = load(mixed, 5)
    failures = [failure for batch in batches for failure in batch.failures]
    assert {failure.path for failure in failures} == {mixed.video(5).path}
    assert 5 not in torch.cat([batch.video for batch in batches]).tolist()


def test_stills_do_not_keep_a_run_from_the_gpu(mixed):
    assert unfit_videos(mixed).tolist() == [True] * 3 + [False] * 5  # mpeg4, then stills
    assert choose_decoder("auto", CPU, [mixed]).name == "pyav"
