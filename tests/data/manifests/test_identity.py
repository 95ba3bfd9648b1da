"""A file that was replaced after it was indexed is refused by every decoder; one that is equal never is."""

import os
import shutil
import time

import pyarrow.parquet as pq
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.decoders import build_decoder
from engine.data.indexing.dataset import index_folder
from engine.data.manifests import identity
from engine.data.manifests.identity import change_since_index, content_hash
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.excerpt import write_excerpt
from engine.data.pyav.in_order import InOrderDecoder
from engine.features.reading import timed_videos
from tests.data.videos import numbers, write_numbered

CLIP = ClipFormat(num_frames=3, short_side=64, crop=64)
CHANGED = "the file has changed since it was indexed: index it again"
NAMES = ("a.webm", "b.webm", "c.webm")


@pytest.fixture
def root(tmp_path):
    """Three square VP9 videos (which DALI reads on a CPU) of one class and size in bytes, indexed."""
    root = tmp_path / "set"
    (root / "walk").mkdir(parents=True)
    for index, name in enumerate(NAMES):
        write_numbered(root / "walk" / name, num_frames=12 + index, size=(128, 128))
        with (root / "walk" / name).open("ab") as file:
            file.truncate(60_000)  # demuxers do not mind zeros at the end
    index_folder(root, root / "m.parquet")
    return root


@pytest.fixture(scope="module", params=["pyav", "dali"])
def decoder(request):
    if request.param == "dali":
        decoder = request.getfixturevalue("dali").DaliDecoder(CLIP, torch.device("cpu"), 1, 4)
    else:
        decoder = build_decoder("pyav", CLIP, torch.device("cpu"), 1, 4)
    yield decoder
    decoder.close()


def decode(decoder, manifest):
    """File name -> why it failed, and the number of the first frame shown -> of those that did not."""
    decoded = decoder.decode([SnippetRequest(manifest.video(row), 2 + row, 0.5, 0.5, False) for row in range(3)])
    return {name: decoded.failures.get(row, numbers(decoded.frames[row].numpy())[0]) for row, name in enumerate(NAMES)}


def test_another_video_of_the_same_size_is_refused_and_good_ones_are_decoded(root, decoder):
    manifest = Manifest.load(root / "m.parquet")
    assert decode(decoder, manifest) == {"a.webm": 2, "b.webm": 3, "c.webm": 4}
    kept = (root / "walk" / "b.webm").stat()
    (root / "walk" / "b.webm").write_bytes((root / "walk" / "c.webm").read_bytes())
    assert decode(decoder, manifest) == {"a.webm": 2, "b.webm": CHANGED, "c.webm": 4}
    index_folder(root, root / "m.parquet")
    assert decode(decoder, Manifest.load(root / "m.parquet")) == {"a.webm": 2, "b.webm": 3, "c.webm": 4}
    os.utime(root / "walk" / "b.webm", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert decode(decoder, manifest)["b.webm"] == 3  # what is not noticed: contents that change and keep their time


def test_touched_copied_and_old_manifests_are_accepted(root, tmp_path, decoder):
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)  # without times
    os.utime(root / "walk" / "a.webm", ns=(1, 1))
    for path in (root, tmp_path / "copy"):
        assert decode(decoder, Manifest.load(root / "m.parquet", path)) == {"a.webm": 2, "b.webm": 3, "c.webm": 4}
    table = pq.read_table(root / "m.parquet")
    pq.write_table(table.drop_columns(["mtime_ns", "content_hash"]), root / "old.parquet")
    (root / "walk" / "b.webm").write_bytes((root / "walk" / "c.webm").read_bytes())
    old = Manifest.load(root / "old.parquet")
    assert (old.video(1).mtime_ns, old.video(1).content_hash) == (None, None)
    assert decode(decoder, old) == {"a.webm": 2, "b.webm": 3, "c.webm": 4}  # it cannot be known
    (root / "walk" / "b.webm").write_bytes(b"x")
    assert decode(decoder, old)["b.webm"].startswith("it has 1 bytes, but had 60000 when it was indexed")


def test_rows_of_two_manifests_in_one_batch_are_judged_each_by_its_own(root, decoder):
    stale = Manifest.load(root / "m.parquet").video(1)
    (root / "walk" / "b.webm").write_bytes((root / "walk" / "c.webm").read_bytes())
    index_folder(root, root / "m.parquet")
    fresh = Manifest.load(root / "m.parquet").video(1)
    for videos in ((stale, fresh), (fresh, stale)):
        decoded = decoder.decode([SnippetRequest(video, 5, 0.5, 0.5, False) for video in videos])
        assert decoded.failures == {videos.index(stale): CHANGED}
        assert numbers(decoded.frames[videos.index(fresh)].numpy()) == [5, 6, 7]


def test_contents_are_read_once_and_only_where_times_differ(root, monkeypatch):
    read = []
    monkeypatch.setattr(identity, "content_hash", lambda path: read.append(path.name) or content_hash(path))
    manifest = Manifest.load(root / "m.parquet")
    videos = [manifest.video(row) for row in range(3)]
    assert [change_since_index(video.path, video) for video in videos] == [None] * 3
    assert read == []
    os.utime(videos[0].path, ns=(1, 1))
    assert [change_since_index(video.path, video) for video in videos * 2] == [None] * 6
    assert read == ["a.webm"]
    videos[0].path.write_bytes(videos[1].path.read_bytes())  # again, while the process runs
    assert [change_since_index(video.path, video) for video in videos * 2] == [CHANGED, None, None] * 2
    assert read == ["a.webm", "a.webm"]


def test_hash_of_contents(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert content_hash(tmp_path / "x") == 1944462792111596887
    (tmp_path / "x").write_bytes(b"abc" * 99_999 + b"abd")
    assert content_hash(tmp_path / "x") != 1944462792111596887


def cut_out(video, timeline, folder):
    write_excerpt(video, timeline, 0.1, 0.3, folder / "cut.mp4")


def read_in_order(video, timeline, _):
    assert len(list(InOrderDecoder(CLIP, patience_s=60.0).frames(video, timeline))) == 12


def read_snippet(video, *_):
    decoder = PyAVDecoder(CLIP, torch.device("cpu"), 1, time_limit_s=60.0)
    assert decoder.decode([SnippetRequest(video, 2, 0.5, 0.5, False)]).failures == {}
    decoder.close()


@pytest.mark.parametrize("read", [read_snippet, read_in_order, cut_out])
def test_time_limits_begin_when_contents_have_been_compared(root, tmp_path, monkeypatch, read):
    """A large file that was copied without its times is hashed, which may take minutes."""
    now, clock, hashed = [0.0], time.monotonic, []

    def hash_slowly(path):
        now[0] += 100.0
        hashed.append(path.name)
        return content_hash(path)

    ((video, timeline),) = timed_videos(Manifest.load(root / "m.parquet"), [0])
    os.utime(video.path, ns=(1, 1))
    monkeypatch.setattr(identity, "content_hash", hash_slowly)
    monkeypatch.setattr("time.monotonic", lambda: clock() + now[0])
    read(video, timeline, tmp_path)
    assert hashed == ["a.webm"]
