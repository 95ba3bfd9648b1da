"""Reading the windows of many videos, in threads and in processes."""

import dataclasses
import itertools
import os
import signal
import threading

import numpy as np
import pytest

from engine.data.manifests.identity import content_hash
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.features.reading import REPEATS, PieceMaker, WindowReader, timed_videos
from engine.features.windows import WindowGrid
from tests.data.videos import numbered_frame, numbers
from tests.features.small_set import CLIP, LENGTHS, expected, index, write_set

MAKER = PieceMaker(CLIP, WindowGrid(8, 4), 3)


class Crashing(PieceMaker):
    """A decoder that takes its process with it at the second piece of d.webm."""

    def __call__(self, video):
        piece = super().__call__(video)
        if video is None and piece.spans.size and piece.frames.shape[0] == 3 and numbers(piece.frames[0])[0] == 12:
            os.kill(os.getpid(), signal.SIGSEGV)
        return piece


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    manifest = Manifest.load(write_set(tmp_path_factory.mktemp("videos")))
    return timed_videos(manifest, range(len(manifest)))


def read(videos, maker, **how):
    """Place -> the numbers in its windows, and how it ended."""
    found, ends = {place: [] for place in range(len(videos))}, {}
    with WindowReader(videos, maker, 2, **how) as pieces:
        for piece in pieces:
            assert piece.video not in ends
            assert 0 < len(piece.frames) <= 3 or piece.is_last
            found[piece.video] += [numbers(clip) for clip in piece.frames]
            if piece.is_last:
                ends[piece.video] = piece.failure or piece.duration_s
    return found, ends


@pytest.mark.parametrize("in_processes", [False, True])
def test_every_window_comes_once_and_in_order(videos, in_processes):
    found, ends = read(videos, MAKER, in_processes=in_processes)
    for place, length in enumerate(LENGTHS.values()):
        assert np.array_equal(found[place], expected(length)[:, :4])
        assert ends[place] == pytest.approx(length / 25, abs=2e-3)


def test_a_file_that_kills_its_process_costs_itself_alone(videos):
    found, ends = read(videos, Crashing(CLIP, WindowGrid(8, 4), 3), in_processes=True)
    assert ends[3] == "FFmpeg cannot decode it (the process that read it died (signal SIGSEGV))"
    for place, length in enumerate([*LENGTHS.values()][:3]):
        assert np.array_equal(found[place], expected(length)[:, :4])


@pytest.mark.parametrize("in_processes", [False, True])
def test_who_stops_early_leaves_no_thread_behind(videos, in_processes):
    before = threading.active_count()
    with WindowReader(videos, MAKER, 2, in_processes=in_processes) as pieces:
        assert len(list(itertools.islice(pieces, 2))) == 2
    assert threading.active_count() == before


def test_a_defect_in_a_thread_is_raised_where_the_pieces_are_read(videos, monkeypatch):
    monkeypatch.setattr("engine.features.reading.WindowCutter.add", lambda *_: 1 / 0)
    with WindowReader(videos, MAKER, 2) as pieces, pytest.raises(ZeroDivisionError):
        list(pieces)


def test_a_frame_that_is_shown_for_long_makes_no_large_piece(tmp_path):
    """Slides: what is held is some windows, however long one picture stays."""
    (tmp_path / "set" / "shown").mkdir(parents=True)
    shown = (numbered_frame(k, 64, 64) for k in range(3))
    write_video(tmp_path / "set" / "shown" / "slides.mkv", shown, times=[0.0, 30.0, 60.0])
    manifest = Manifest.load(index(tmp_path))
    (video,) = timed_videos(manifest, range(1))
    pieces = list(PieceMaker(CLIP, WindowGrid(0.5, 0.5, "seconds"), 3).pieces(*video))
    assert max(len(piece.frames) for piece in pieces) <= 3 and sum(len(piece.spans) for piece in pieces) >= 120
    assert max(len(piece.spans) for piece in pieces) == 3 * REPEATS
    spans = np.concatenate([piece.spans for piece in pieces])
    assert (np.diff(spans[:, 0]) > 0).all() and spans[0, 0] == 0
    clips = [numbers(clip)[0] for piece in pieces for clip in piece.frames]
    place = np.cumsum(np.concatenate([piece.is_new for piece in pieces])) - 1
    seen = [clips[each] for each in place]
    assert seen[:60] == [0] * 60 and seen[60:120] == [1] * 60 and len(clips) == 3


def test_a_crash_says_nothing_of_the_contents(videos):
    with WindowReader(videos, Crashing(CLIP, WindowGrid(8, 4), 3), 2, in_processes=True) as pieces:
        assert {piece.video: piece.may_pass for piece in pieces if piece.is_last} == {
            0: False,
            1: False,
            2: False,
            3: True,
        }


def test_only_a_file_that_is_read_whole_and_as_indexed_is_known_to_be_bad(tmp_path):
    """What a disk gives instead of an error may look like damage."""
    (video,) = timed_videos(Manifest.load(write_set(tmp_path, {"a.mp4": 30})), range(1))
    path, state = video[0].path, video[0].path.stat()
    path.write_bytes(path.read_bytes()[:200] + bytes(state.st_size - 200))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    *_, last = MAKER.pieces(*video)
    assert last.failure and last.may_pass
    as_indexed = dataclasses.replace(video[0], content_hash=content_hash(path))
    *_, last = MAKER.pieces(as_indexed, video[1])
    assert last.failure and not last.may_pass
    path.unlink()
    *_, last = MAKER.pieces(*video)
    assert last.failure == "the file is missing" and last.may_pass
