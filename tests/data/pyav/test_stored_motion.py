"""Motion in a snippet store: what is written, read by every decoder, added later, checked, and safe from kills."""

import dataclasses
import os
import re
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.config import DataConfig
from engine.data.dali.bitstreams import BitstreamError, load_frames
from engine.data.decoders import build_decoder, refuse_motionless
from engine.data.indexing.dataset import IndexSettings, index_dataset, index_folder
from engine.data.layouts import read_layout
from engine.data.loading.loader import ClipLoader, StreamPlan
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.store import adding_motion
from engine.data.store.index import MOTION_NAME, StoreIndex, StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.data.store.motion import WithStoredMotion
from engine.data.store.verify import verify
from engine.errors import InputError
from tests.data.moving import SIDE, draw_moving

CPU = torch.device("cpu")
CLIP = ClipFormat(num_frames=8, stride=2, short_side=96, crop=80, motion=True)
SETTINGS = StoreSettings(short_side=96, preset="veryfast")
MOTION = WorkSettings(motion=True)
SIZES = {"still/one.mp4": (176, 176), "pan/two.webm": (221, 176), "pan/one.mp4": (176, 231)}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Two H.264 files and one of VP9, which has no vectors of its own; and where the thing is in each."""
    root, places = tmp_path_factory.mktemp("raw"), {}
    for seed, (name, size) in enumerate(SIZES.items()):
        moving = draw_moving(seed, size=size, pan=2.0 * name.startswith("pan"), num_frames=37)
        (root / name).parent.mkdir(exist_ok=True)
        write_video(root / name, moving.frames, codec="libvpx-vp9" if name.endswith("webm") else "libx264",
                    pixel_format="yuv444p" if name.endswith("mp4") else "yuv420p", gop=12)  # fmt: skip
        places[name] = moving.places
    index_folder(root, root / "manifest.parquet")
    return Manifest.load(root / "manifest.parquet"), places


@pytest.fixture(scope="module")
def plain(raw, tmp_path_factory):
    """A store without motion."""
    folder = tmp_path_factory.mktemp("plain") / "s"
    ingest(raw[0], folder, SETTINGS, WorkSettings())
    return folder


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("changed", r"its bytes in shard 00000\.h264 are not those that were written \(checksum\)"),
        ("gone", r"shard 00000\.h264 cannot be read \(No such file or directory\)"),
        ("slow", r"it takes more than -1 s, raise --time-limit"),
        ("unfit", r"it does not decode \(Invalid data found\)"),
    ],
)
def test_why_no_motion_can_be_added_is_told(raw, plain, tmp_path, monkeypatch, damage, reason):
    shard, read = shutil.copytree(plain, tmp_path / "s") / "00000.h264", adding_motion._stored_bytes
    work = WorkSettings(motion=True, time_limit_s=-1 if damage == "slow" else 60)

    def unfit(*arguments):
        raise av.error.InvalidDataError(1, "Invalid data found")

    def bytes_of(*arguments):
        if damage == "gone":  # after the store was opened
            shard.unlink(missing_ok=True)
        return read(*arguments)

    monkeypatch.setattr(adding_motion, "_stored_bytes", bytes_of)
    if damage == "changed":
        shard.write_bytes(bytes(shard.stat().st_size))
    if damage == "unfit":
        monkeypatch.setattr(adding_motion, "motion_of", unfit)
    with pytest.raises(
        InputError, match=rf"no motion of '.*' in '{tmp_path}/s': {reason} \(see tools/ingest.py --verify\)"
    ):
        ingest(raw[0], tmp_path / "s", SETTINGS, work)


@pytest.fixture(scope="module")
def store(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "s"
    ingest(raw[0], folder, SETTINGS, MOTION)
    return folder


def manifest_of(folder):
    return Manifest.load(folder / "manifest.parquet")


def requests_of(folder):
    videos = [manifest_of(folder).video(row) for row in range(len(SIZES))]
    return [
        SnippetRequest(video, start, 0.3, 0.8, flip)
        for video in videos
        for start in (0, 15, 30)
        for flip in (False, True)
    ]


def decoded(requests, decoder):
    clips = decoder.decode(requests)
    decoder.close()
    return clips


def contents(folder, *, without=()):
    return {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name not in ("log.jsonl", *without)
    }


def test_a_store_has_the_motion_of_any_codec_on_the_thing(raw, store):
    manifest, hits = manifest_of(store), []
    for row in range(len(manifest)):
        video = manifest.video(row)
        places = next(places for name, places in raw[1].items() if name in str(video.path))
        clip = dataclasses.replace(CLIP, num_frames=37, stride=1)
        clips = decoded([SnippetRequest(video, 0, 0.5, 0.5, False)], PyAVDecoder(clip, CPU, 1))
        size = next(size for name, size in SIZES.items() if name in str(video.path))
        scale = 96 / min(size)
        left, top = ((round(side * scale) - 80) / 2 for side in size)
        for cells, (x, y) in zip(clips.motion[0].numpy(), places, strict=True):
            x, y, side = x * scale - left, y * scale - top, SIDE * scale
            if not (0 < x + side / 2 < 80 and 0 < y + side / 2 < 80):
                continue
            i, j = np.unravel_index(cells.argmax(), cells.shape)
            hits.append(x - 16 < j * 16 < x + side and y - 16 < i * 16 < y + side)
    assert len(hits) > 60 and np.mean(hits) >= 0.9, (len(hits), np.mean(hits))


def test_frames_are_the_same_bytes_with_motion_and_without(plain, store):
    changed = ("journal.jsonl", "store.index", MOTION_NAME)
    assert contents(store, without=changed) == contents(plain, without=changed)
    assert not StoreIndex(plain / "store.index").has_motion and StoreIndex(store / "store.index").has_motion
    assert b"motion" not in (plain / "journal.jsonl").read_bytes() + (plain / "store.index").read_bytes()


def test_motion_is_added_to_a_store_and_kept_there(raw, plain, store, tmp_path):
    folder = tmp_path / "s"
    shutil.copytree(plain, folder)
    ingest(raw[0], folder, SETTINGS, MOTION)
    for same in (MOTION_NAME, "00000.h264", "manifest.parquet", "store.index"):
        assert (folder / same).read_bytes() == (store / same).read_bytes()
    before = contents(folder)
    ingest(raw[0], folder, SETTINGS, WorkSettings())  # without being asked again
    assert contents(folder) == before
    part = raw[0].select(np.array([0, 1]))
    some = tmp_path / "some"
    ingest(part, some, SETTINGS, MOTION)
    ingest(raw[0], some, SETTINGS, WorkSettings())  # a new video gets it too
    assert StoreIndex(some / "store.index").has_motion and not verify(some, 9).problems


def test_a_store_without_motion_says_so(plain, monkeypatch):
    with pytest.raises(InputError, match=r"3 in the store '.*s': add it by the command .* --motion"):
        refuse_motionless([manifest_of(plain)])
    monkeypatch.chdir(plain.parent)
    with pytest.raises(
        InputError, match=rf"give: 6 in the store '{re.escape(str(plain.resolve()))}': add it"
    ):  # one store
        refuse_motionless([manifest_of(plain), Manifest.load(Path(plain.name, "manifest.parquet"))])
    clips = decoded(requests_of(plain)[:2], PyAVDecoder(CLIP, CPU, 1))
    assert set(clips.failures) == {0, 1} and "made without motion: add it" in clips.failures[0]


def test_hevc_stores_have_none(raw, tmp_path):
    with pytest.raises(InputError, match="no motion vectors of hevc"):
        ingest(raw[0], tmp_path / "s", StoreSettings(codec="hevc"), MOTION)


def test_verify_finds_what_is_wrong_with_the_motion(store, tmp_path):
    assert not verify(store, 9).problems
    for damage, told in ((lambda data: data[:-7], "cut short"), (lambda data: b"\x09" + data[1:], "its motion is not")):
        folder = tmp_path / told.replace(" ", "-")
        shutil.copytree(store, folder)
        (folder / MOTION_NAME).write_bytes(damage((folder / MOTION_NAME).read_bytes()))
        assert any(told in problem for problem in verify(folder, 9).problems)
    (folder / MOTION_NAME).unlink()
    assert any(
        "store.motion is missing, with the motion of 3 videos" in problem for problem in verify(folder, 0).problems
    )


@pytest.mark.parametrize("lost", [1, 40, 10**9], ids=["a byte", "a frame and more", "all"])
def test_motion_lost_in_a_power_cut_is_made_again(raw, store, tmp_path, lost):
    """The journal may be on the disk, and what it speaks of not."""
    folder = tmp_path / "s"
    shutil.copytree(store, folder)
    data = (folder / MOTION_NAME).read_bytes()
    (folder / MOTION_NAME).write_bytes(data[: max(0, len(data) - lost)])
    ingest(raw[0], folder, SETTINGS, MOTION)
    assert not verify(folder, 9).problems
    expected = decoded(requests_of(store), PyAVDecoder(CLIP, CPU, 1)).motion
    assert torch.equal(decoded(requests_of(folder), PyAVDecoder(CLIP, CPU, 1)).motion, expected)


class Blank(PyAVDecoder):
    """A decoder that knows no motion, as an accelerator."""

    name = "blank"

    def __init__(self):
        super().__init__(dataclasses.replace(CLIP, motion=False), CPU, 1)


def test_a_decoder_that_knows_no_motion_gets_it_from_the_store(store, plain):
    expected = decoded(requests_of(store), PyAVDecoder(CLIP, CPU, 2))
    found = decoded(requests_of(store), WithStoredMotion(Blank(), CLIP, CPU))
    assert not found.failures and torch.equal(found.motion, expected.motion) and found.motion.any()
    assert torch.equal(found.frames, expected.frames)
    without = decoded(requests_of(plain)[:1], WithStoredMotion(Blank(), CLIP, CPU))
    assert "made without motion" in without.failures[0]


def test_a_disk_that_fails_for_a_while_costs_samples(store, monkeypatch):
    requests, real = requests_of(store)[:1], os.stat
    decoders = [PyAVDecoder(CLIP, CPU, 1), WithStoredMotion(Blank(), CLIP, CPU)]

    def stale(path, *arguments, **options):
        if str(path).endswith("store.index"):
            raise OSError(116, "Stale file handle")
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stale)
        for decoder in decoders:
            assert "Stale file handle" in decoded(requests, decoder).failures[0]
        with pytest.raises(BitstreamError, match="Stale file handle"):
            load_frames(requests[0].video, [0])
    assert not decoded(requests, PyAVDecoder(CLIP, CPU, 1)).failures


def test_stills_beside_videos_have_motion_zero(store, tmp_path):
    (tmp_path / "still").mkdir()
    Image.fromarray(np.full((90, 90, 3), 99, np.uint8)).save(tmp_path / "still" / "p.png")
    index_dataset(read_layout("images", tmp_path), tmp_path, tmp_path / "m.parquet", IndexSettings())
    still = SnippetRequest(Manifest.load(tmp_path / "m.parquet").video(0), 0, 0.5, 0.5, False)
    videos = requests_of(store)[:2]
    clips = decoded([videos[0], still, videos[1]], build_decoder("pyav", CLIP, CPU, 1, 4))
    assert clips.motion.shape == (3, *CLIP.motion_shape)
    assert not clips.motion[1].any() and clips.motion[0].any() and clips.motion[2].any()
    alone = decoded([still], build_decoder("pyav", CLIP, CPU, 1, 4))
    assert alone.motion.shape == (1, *CLIP.motion_shape) and not alone.motion.any()


def test_batches_carry_motion_stand_ins_too(store, tmp_path):
    folder = tmp_path / "s"
    shutil.copytree(store, folder)
    manifest = manifest_of(folder)
    bad = manifest.video(0)
    index = StoreIndex(folder / "store.index")
    with (folder / "00000.h264").open("r+b") as file:  # the first video no longer decodes
        file.seek(index[0].offset)
        file.write(bytes(index[0].num_bytes))
    loader = ClipLoader(
        manifest, np.zeros(3, np.int64), build_decoder("pyav", CLIP, CPU, 1, 4), CLIP,
        StreamPlan(seed=0, batch_size=4, rank=0, world_size=1, flip=True), DataConfig(max_bad_share=1),
    )  # fmt: skip
    batches = [next(loader) for _ in range(3)]
    loader.close()
    assert any(failure.path == bad.path for batch in batches for failure in batch.failures)
    for batch in batches:
        assert batch.motion.shape == (4, *CLIP.motion_shape) and batch.motion.any(dim=(1, 2, 3)).all()
        halves = batch.chunk(2)
        assert torch.equal(torch.cat([half.motion for half in halves]), batch.motion)
