"""An index of one's own videos, and what is found in it."""

import shutil

import numpy as np
import pytest

from engine.errors import InputError
from engine.moments.index import open_index
from engine.moments.objects import find_moments, likeliest_videos, nearest_videos
from tests.features.small_set import FrameReader, write_set


class OtherReader(FrameReader):
    name, digest = "other", "f" * 16


@pytest.fixture
def home(tmp_path):
    write_set(tmp_path, {"a.mp4": 30, "b.mp4": 50})
    return tmp_path


def test_an_index_grows_takes_changed_files_anew_and_drops_what_is_gone(home):
    shown, out = home / "set" / "shown", home / "index"
    a, b = (str(shown / name) for name in ("a.mp4", "b.mp4"))
    (shown / "broken.mp4").write_bytes(b"no video")
    cache, videos, bad = open_index([shown], out, FrameReader())
    assert videos == [a, b] and list(bad) == [str(shown / "broken.mp4")]
    assert cache[b].end_s[-1] == pytest.approx(2.0) and len(cache[b].features) == 4
    before = cache[b].features.copy()
    c = shown / "c.mp4"
    shutil.copy(shown / "a.mp4", c)
    reader = FrameReader()
    cache, videos, bad = open_index([c], out, reader)
    assert videos == [str(c)] and set(cache.videos) == {a, b, str(c)} and not bad
    assert sum(reader.batches) == len(cache[str(c)].features)
    reader = FrameReader()
    assert set(open_index([], out, reader)[1]) == {a, b, str(c)} and not reader.batches
    write_set(home, {"b.mp4": 40}, first=7)
    c.unlink()
    cache, videos, _ = open_index([], out, FrameReader())
    assert set(videos) == {a, b}
    assert len(cache[b].features) == 4 and not np.array_equal(cache[b].features, before)


def test_what_cannot_be_used_is_refused(home):
    shown, out = home / "set" / "shown", home / "index"
    open_index([shown], out, FrameReader())
    with pytest.raises(InputError, match="are of the model reader, digest 0123456789ab, not of ffffffffffff"):
        open_index([shown], out, OtherReader())
    (home / "empty.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the videos can be used: .*empty\.mp4"):
        open_index([home / "empty.mp4"], home / "new", FrameReader())
    with pytest.raises(InputError, match="no video at"):
        open_index([home / "nowhere.mp4"], out, FrameReader())


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
    best = find_moments(cache, cache.videos, "it", cache.vector, 3)
    assert best[0].video == "33.mp4" and best[0].score > 0.9 and len(best) == 3
    assert 3.5 <= best[0].start_s <= 4.75 and 6.25 <= best[0].end_s <= 7.5
    others = [video for video in cache.videos if video != "33.mp4"]
    assert find_moments(cache, others, "it", cache.vector, 1)[0].video == "12.mp4"
    assert find_moments(cache, ["12.mp4"], "it", cache.vector, 1)[0].video == "12.mp4"
