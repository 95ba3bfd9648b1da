"""An index of one's own videos, and what is found in it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.data.indexing.journal import Journal
from engine.data.manifests.manifest import Manifest
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.errors import InputError
from engine.features.cache import INDEX_NAME
from engine.features.extract import extract
from engine.features.windows import WindowGrid
from engine.files.locks import lock_file
from engine.moments import index as index_module
from engine.moments.index import FeatureKind, open_index
from engine.moments.objects import ObjectIndex, find_moments, likeliest_videos, nearest_videos
from tests.features.small_set import FrameReader, write_set


class OtherReader(FrameReader):
    name, digest = "other", "f" * 16


def opened(videos, folder, reader, **options):
    """(features, videos, failures) of an index of this reader's features."""
    index = open_index(videos, folder, FeatureKind(reader.digest, lambda: reader), **options)
    return index.cache, index.videos, index.failures


@pytest.fixture
def home(tmp_path):
    write_set(tmp_path, {"a.mp4": 30, "b.mp4": 50})
    return tmp_path


def test_an_index_grows_takes_changed_files_anew_and_drops_what_is_gone(home):
    shown, out = home / "set" / "shown", home / "index"
    a, b = (str(shown / name) for name in ("a.mp4", "b.mp4"))
    (shown / "broken.mp4").write_bytes(b"no video")
    cache, videos, bad = opened([shown], out, FrameReader())
    assert videos == [a, b] and list(bad) == [str(shown / "broken.mp4")]
    assert cache[b].end_s[-1] == pytest.approx(2.0) and len(cache[b].features) == 4
    before = cache[b].features.copy()
    c = shown / "c.mp4"
    shutil.copy(shown / "a.mp4", c)
    reader = FrameReader()
    cache, videos, bad = opened([c], out, reader)
    assert videos == [str(c)] and set(cache.videos) == {a, b, str(c)} and not bad
    assert sum(reader.batches) == len(cache[str(c)].features)
    reader = FrameReader()
    assert set(opened([], out, reader)[1]) == {a, b, str(c)} and not reader.batches
    write_set(home, {"b.mp4": 40}, first=7)
    c.unlink()
    cache, videos, _ = opened([], out, FrameReader())
    assert set(videos) == {a, b}
    assert len(cache[b].features) == 4 and not np.array_equal(cache[b].features, before)


def test_what_cannot_be_used_is_refused(home):
    shown, out = home / "set" / "shown", home / "index"
    opened([shown], out, FrameReader())
    with pytest.raises(InputError, match="are of the model reader, digest 0123456789ab, not of ffffffffffff"):
        opened([shown], out, OtherReader())
    (home / "empty.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 1 videos can be used: .*empty\.mp4"):
        opened([home / "empty.mp4"], home / "new", FrameReader())
    with pytest.raises(InputError, match="no video at"):
        opened([home / "nowhere.mp4"], out, FrameReader())
    (home / "large").mkdir()
    (home / "large" / "part-00000.arrow").write_bytes(b"rows")
    with pytest.raises(
        InputError, match="large' is a folder: where it is a large manifest, name the files that it was"
    ):
        opened([home / "large"], out, FrameReader())


def test_a_manifest_or_store_is_searched_and_a_video_named_twice_counts_once(home):
    shown, out = home / "set" / "shown", home / "index"
    a, b = (str(shown / name) for name in ("a.mp4", "b.mp4"))
    (home / "link.mp4").symlink_to(a)
    ingest(Manifest.load(home / "videos.parquet"), home / "store", StoreSettings(short_side=64, gop=8), WorkSettings())
    named = [home / "videos.parquet", shown, shown / ".." / "shown" / "a.mp4", home / "link.mp4"]
    cache, videos, bad = opened(named, out, FrameReader())
    assert videos == [a, b] and not bad and len(cache) == 2
    for place in ("store", "store/store.index", "store/manifest.parquet"):
        reader = FrameReader()
        cache, stored, bad = opened([home / place, home / "store"], out, reader)
        assert [path.rpartition("/")[2] for path in stored] == ["a.mp4#0", "b.mp4#1"] and not bad and len(cache) == 4
        assert np.allclose(cache[stored[1]].features, cache[b].features)
        assert bool(reader.batches) == (place == "store")
    index = open_index([], out, FeatureKind(FrameReader.digest, FrameReader))
    assert set(index.videos) == {a, b, *stored}
    footage, lost = index.footage([b, stored[1]], home)
    assert not lost and [video.num_frames for video, _ in footage.values()] == [50, 50]
    shutil.rmtree(home / "store")
    assert set(opened([], out, FrameReader())[1]) == {a, b}


def test_names_that_are_no_text_are_searched_and_found_again(home):
    shown, out = home / "set" / "shown", home / "index"
    odd, broken = (str(shown / os.fsdecode(name)) for name in (b"caf\xe9\n.mp4", b"\xff.mp4"))
    shutil.copy(shown / "a.mp4", odd)
    (shown / os.fsdecode(b"\xff.mp4")).write_bytes(b"no video")
    cache, videos, bad = opened([shown], out, FrameReader())
    assert odd in videos and list(bad) == [broken]
    reader = FrameReader()
    cache, again, _ = opened([], out, reader)
    assert set(again) == set(videos) and not reader.batches and len(cache[odd].features)


def test_videos_of_a_manifest_that_are_gone_or_outside_are_told(home):
    manifest, shown = home / "videos.parquet", home / "set" / "shown"
    (shown / "a.mp4").unlink()
    _, videos, bad = opened([manifest], home / "index", FrameReader())
    assert videos == [str(shown / "b.mp4")] and "No such file" in bad[str(shown / "a.mp4")]
    (home / "b.mp4").symlink_to(shown / "b.mp4")
    (shown / "b.mp4").rename(home / "elsewhere.mp4")
    with pytest.raises(InputError, match=r"none of the 2 videos can be used: .*a\.mp4: .*b\.mp4: "):
        opened([manifest], home / "new", FrameReader())
    (shown / "b.mp4").symlink_to(home / "elsewhere.mp4")
    with pytest.raises(InputError, match=r"names '.*b\.mp4', which leaves its root .*, give --allow-outside$"):
        opened([manifest], home / "index", FrameReader())
    assert opened([manifest], home / "index", FrameReader(), allow_outside=True)[1] == [str(shown / "b.mp4")]
    (home / "no.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="is not a readable Parquet file"):
        opened([home / "no.parquet"], home / "index", FrameReader())


def test_features_of_a_manifest_are_searched_as_they_are(home):
    out, shown = home / "features", home / "set" / "shown"
    extract(Manifest.load(home / "videos.parquet"), FrameReader(), out, WindowGrid(8, 4))
    with pytest.raises(InputError, match="was made of a manifest: name no VIDEO"):
        opened([shown], out, FrameReader())
    index = open_index([], out, FeatureKind(FrameReader.digest, FrameReader))
    a, b = sorted(index.videos)
    assert not index.failures and index.path(b) == shown / "b.mp4"
    footage, lost = index.footage([b], home)
    assert not lost and footage[b][0].file_frames == 50
    (shown / "a.mp4").unlink()
    write_set(home, {"b.mp4": 40}, first=7)
    write_set(home, {"a.mp4": 30})
    index = open_index([], out, FeatureKind(FrameReader.digest, FrameReader))
    assert index.videos == [a] and "run tools/extract_features.py again" in index.failures[b]


def test_a_folder_without_videos_is_not_the_whole_index(home):
    shown, out, empty = home / "set" / "shown", home / "index", home / "empty"
    empty.mkdir()
    (home / "words").mkdir()
    (home / "words" / "notes.txt").write_text("no video")
    opened([shown], out, FrameReader())
    for folder in (out, home / "new"):
        with pytest.raises(
            InputError, match=r"^no video: none is in the folders named: .*empty; .*words: name others, or none"
        ):
            opened([empty, home / "words"], folder, FrameReader())
    features = home / "features"
    extract(Manifest.load(home / "videos.parquet"), FrameReader(), features, WindowGrid(8, 4))
    with pytest.raises(InputError, match="no video: none is in the folders named"):
        opened([empty], features, FrameReader())
    assert len(opened([empty, shown / "a.mp4"], out, FrameReader())[1]) == 1
    with pytest.raises(InputError, match=r"^no video: '.*new' has none, and none is named$"):
        opened([], home / "new", FrameReader())


def test_a_pipe_is_no_video_and_is_not_waited_for(home):
    os.mkfifo(home / "pipe.mp4")
    with pytest.raises(InputError, match=r"pipe\.mp4: not a regular file"):
        opened([home / "pipe.mp4"], home / "index", FrameReader())


def test_what_another_model_has_begun_is_refused_by_the_name_that_the_user_gave_it(home):
    """Its index was never finished."""
    out = home / "index"
    opened([home / "set" / "shown"], out, FrameReader())
    (out / INDEX_NAME).unlink()
    with pytest.raises(InputError, match=r"are not mixed: give the same, or another --index$"):
        opened([home / "set" / "shown"], out, OtherReader())


def test_where_nothing_that_is_asked_for_can_be_used_the_reason_is_told(home):
    """Though the index has other videos."""
    shown, out = home / "set" / "shown", home / "index"
    opened([shown], out, FrameReader())
    (home / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"none of the videos asked for can be used: .*broken\.mp4: "):
        opened([home / "broken.mp4"], out, FrameReader())
    assert len(opened([], out, FrameReader())[1]) == 2


def test_a_new_index_knows_no_file_yet_and_an_old_one_says_how_many(home, capsys):
    shown, out = home / "set" / "shown", home / "index"
    opened([shown], out, FrameReader())
    told = capsys.readouterr().err
    assert "known and unchanged" not in told and "2 videos: those that are new or have changed are looked at" in told
    for again in ([], [shown]):
        opened(again, out, FrameReader())
        told = capsys.readouterr().err
        assert told.count("2 of 2 files are known and unchanged") == 1 and "are looked at" not in told
    shutil.copy(shown / "a.mp4", shown / "c.mp4")
    opened([shown], out, FrameReader())
    assert "3 videos: those that are new or have changed are looked at" in capsys.readouterr().err


def test_what_is_not_searched_is_told(home, capsys):
    shown, out = home / "set" / "shown", home / "index"
    (shown / "loop").symlink_to("loop")
    _, videos, bad = opened([shown], out, FrameReader())
    assert len(videos) == 2 and list(bad) == [str(shown / "loop")] and "cannot be followed" in bad[str(shown / "loop")]
    (home / "alone").mkdir()
    (home / "alone" / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"no video: .* in the folders named \(.*loop: the link cannot be followed"):
        opened([home / "alone"], home / "new", FrameReader())
    capsys.readouterr()
    (shown / "a.mp4").unlink()
    opened([], out, FrameReader())
    told = capsys.readouterr()
    assert f"1 videos of the index are not there any more, their features are dropped: {shown / 'a.mp4'}" in (
        told.out + told.err
    )


def test_what_another_process_has_added_meanwhile_stays(home, monkeypatch):
    shown, out = home / "set" / "shown", home / "index"
    opened([shown / "a.mp4"], out, FrameReader())
    write_set(home, {"c.mp4": 30})
    current = index_module._is_current

    def another_adds(folder, manifest):
        monkeypatch.setattr(index_module, "_is_current", current)
        opened([shown / "b.mp4"], out, FrameReader())
        return current(folder, manifest)

    monkeypatch.setattr(index_module, "_is_current", another_adds)
    _, videos, _ = opened([shown / "c.mp4"], out, FrameReader())
    assert videos == [str(shown / "c.mp4")]
    assert sorted(opened([], out, FrameReader())[1]) == [str(shown / f"{name}.mp4") for name in "abc"]
    write_set(home, {"d.mp4": 30})
    lock = lock_file(out / "lock")
    assert len(opened([], out, FrameReader())[1]) == 3  # what is there can be searched
    with pytest.raises(InputError, match="another process adds videos to the index"):
        opened([shown], out, FrameReader())
    os.close(lock)
    with Journal(out / "videos.journal") as journal:
        journal.lock()
        assert len(opened([], out, FrameReader())[1]) == 3
        write_set(home, {"e.mp4": 30})
        with pytest.raises(InputError, match=r"another process is writing '.*videos.journal'"):
            opened([shown / "e.mp4"], out, FrameReader())
    assert len(opened([shown], out, FrameReader())[1]) == 5


@pytest.mark.parametrize("is_first", [True, False])
def test_an_interrupted_start_is_gone_on_with_whatever_is_named_then(home, monkeypatch, capsys, is_first):
    shown, out = home / "set" / "shown", home / "index"
    if not is_first:
        opened([shown / "a.mp4"], out, FrameReader())
    before = (out / INDEX_NAME).read_bytes() if not is_first else None
    write_set(home, {"c.mp4": 30, "d.mp4": 30})

    def killed(manifest, encoder, folder, *how, **beside):
        extract(manifest.select(np.arange(len(manifest) - 1)), encoder, folder, *how, **beside)
        (out / INDEX_NAME).unlink()
        if before is not None:
            (out / INDEX_NAME).write_bytes(before)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(index_module, "extract", killed)
        opened([shown], out, FrameReader())
    (shown / "c.mp4").unlink()
    lock = lock_file(out / "lock")
    if is_first:
        with pytest.raises(InputError, match="no video"):  # another process is at it
            opened([], out, FrameReader())
    else:
        assert opened([], out, FrameReader())[1] == [str(shown / "a.mp4")]
    os.close(lock)
    capsys.readouterr()
    reader = FrameReader()
    assert opened([shown / "b.mp4"], out, reader)[1] == [str(shown / "b.mp4")]
    told = "".join(capsys.readouterr())
    assert "an interrupted start is gone on with, of 4 videos" in told and "dropped" not in told
    assert f"1 videos of the interrupted start are not there any more, they are left out: {shown / 'c.mp4'}" in told
    assert sum(reader.batches) == 3  # windows of d.mp4
    assert sorted(opened([], out, FrameReader())[1]) == [
        str(shown / f"{name}.mp4") for name in "abd"
    ]  # in the order read
    assert "interrupted" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("is_first", [True, False])
def test_a_start_that_is_killed_while_it_looks_at_files_is_gone_on_with(home, monkeypatch, capsys, is_first):
    shown, out = home / "set" / "shown", home / "index"
    if not is_first:
        opened([shown / "a.mp4"], out, FrameReader())

    def killed(*how, **beside):
        raise KeyboardInterrupt

    write_set(home, {"c.mp4": 30})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(index_module, "probe_files", killed)
        opened([shown], out, FrameReader())
    capsys.readouterr()
    assert opened([shown / "b.mp4"], out, FrameReader())[1] == [str(shown / "b.mp4")]
    told = "".join(capsys.readouterr())
    assert "an interrupted start is gone on with, of 3 videos" in told and "not there any more" not in told
    assert {Path(video).name for video in opened([], out, FrameReader())[1]} == {"a.mp4", "b.mp4", "c.mp4"}
    assert "interrupted" not in "".join(capsys.readouterr())


def test_a_video_that_a_killed_start_had_not_come_to_has_no_features_to_drop(home, monkeypatch, capsys):
    shown, out = home / "set" / "shown", home / "index"
    opened([shown / "a.mp4"], out, FrameReader())

    def killed(*how, **beside):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(index_module, "probe_files", killed)
        opened([shown / "b.mp4"], out, FrameReader())
    (shown / "a.mp4").unlink()
    (shown / "b.mp4").unlink()
    write_set(home, {"c.mp4": 30})
    capsys.readouterr()
    opened([shown / "c.mp4"], out, FrameReader())
    told = "".join(capsys.readouterr())
    assert f"1 videos of the index are not there any more, their features are dropped: {shown / 'a.mp4'}\n" in told
    assert f"1 videos of the interrupted start are not there any more, they are left out: {shown / 'b.mp4'}\n" in told


@pytest.mark.parametrize("text", ["null", "5", "[1]", '"abc"', "[null]", "[["])
def test_a_list_of_an_interrupted_start_that_is_none_is_told_to_who_adds(home, text):
    shown, out = home / "set" / "shown", home / "index"
    opened([shown / "a.mp4"], out, FrameReader())
    (out / "wanted.json").write_text(text)
    assert opened([], out, FrameReader())[1] == [str(shown / "a.mp4")]
    with pytest.raises(InputError, match=r"wanted.json' cannot be read \(.*\): remove it and name the videos again$"):
        opened([shown / "b.mp4"], out, FrameReader())
    (out / "wanted.json").unlink()
    assert opened([shown / "b.mp4"], out, FrameReader())[1] == [str(shown / "b.mp4")]


def test_a_start_of_which_nothing_can_be_used_is_over(home, capsys):
    shown, out = home / "set" / "shown", home / "index"
    (shown / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match="none of the 1 videos can be used"):
        opened([shown / "bad.mp4"], out, FrameReader())
    assert opened([shown / "a.mp4"], out, FrameReader())[1] == [str(shown / "a.mp4")]
    assert "interrupted" not in "".join(capsys.readouterr())


def test_an_index_that_can_only_be_read_is_searched_as_it_is(home, monkeypatch):
    shown, out = home / "set" / "shown", home / "index"
    opened([shown], out, FrameReader())
    write_set(home, {"b.mp4": 40}, first=7)
    before = sorted(path.name for path in out.iterdir())
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != out)
    _, videos, bad = opened([], out, FrameReader())
    assert videos == [str(shown / "a.mp4")] and "can only be read" in bad[str(shown / "b.mp4")]
    assert sorted(path.name for path in out.iterdir()) == before


class ManyVideos:
    """A cache of 40 videos of 20 windows of half a second; video 33 shows the query from 4 to 7 seconds, 12 a little of it."""

    def __init__(self):
        draws = np.random.default_rng(0)
        self.videos = tuple(f"{k}.mp4" for k in range(40))
        scenes = np.repeat(draws.normal(size=(40, 16)), 20, axis=0)
        self.features = (scenes + 0.3 * draws.normal(size=(800, 16))).astype(np.float16)
        self.video_of = np.repeat(np.arange(40), 20)
        self.vector = np.eye(16, dtype=np.float32)[0]
        self.features[33 * 20 + 8 : 33 * 20 + 14] = 4 * self.vector
        self.features[12 * 20 + 2 : 12 * 20 + 8] = 2 * self.vector + np.eye(16)[1]
        self.features /= np.linalg.norm(self.features, axis=1, keepdims=True)

    def __getitem__(self, video):
        place = self.videos.index(video)

        class Seen:
            features = self.features[self.video_of == place]
            start_s, end_s, duration_s = np.arange(20) / 2, np.arange(1, 21) / 2, 10.0

        return Seen


def test_the_nearest_windows_of_all_videos_lead_to_the_moment():
    cache = ManyVideos()
    assert nearest_videos(cache, cache.videos, cache.vector)[:2] == ["33.mp4", "12.mp4"]
    likeliest = likeliest_videos(cache, cache.videos, cache.vector)
    assert likeliest[:2] == ["33.mp4", "12.mp4"] and len(set(likeliest)) == 32
    assert likeliest_videos(cache, cache.videos[:33], cache.vector)[0] == "12.mp4"
    best = find_moments(ObjectIndex(cache), cache.videos, "it", cache.vector, 3)
    assert best[0].video == "33.mp4" and best[0].score > 0.9 and len(best) == 3
    assert 3.5 <= best[0].start_s <= 4.75 and 6.25 <= best[0].end_s <= 7.5
    others = [video for video in cache.videos if video != "33.mp4"]
    assert find_moments(ObjectIndex(cache), others, "it", cache.vector, 1)[0].video == "12.mp4"
    assert find_moments(ObjectIndex(cache), ["12.mp4"], "it", cache.vector, 1)[0].video == "12.mp4"


def test_windows_of_some_videos_are_found_without_comparing_names():
    """Of hundreds of thousands of windows that would take seconds a query."""
    compared = []

    class Name(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(self)
            return str.__eq__(self, other)

        def __lt__(self, other):
            compared.append(self)
            return str.__lt__(self, other)

    cache = ManyVideos()
    cache.videos = tuple(map(Name, cache.videos))
    found = nearest_videos(cache, cache.videos[:33], cache.vector)
    assert len(compared) <= len(cache.videos)
    assert found[0] == "12.mp4" and set(found) <= set(cache.videos[:33])
