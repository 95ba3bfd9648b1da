"""A file is there whole or not at all, and nothing of a writing that failed stays."""

import os
import time
from pathlib import Path

import pytest

from engine.errors import InputError
from engine.files.atomic_file import LEFTOVERS, atomic_write


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_appears_when_it_is_whole(durable, tmp_path):
    path = tmp_path / "clip[1].mp4"  # no pattern
    for text in ("old", "new"):
        with atomic_write(path, durable=durable) as beside:
            assert (beside.parent, beside.suffix) == (tmp_path, ".mp4")  # of one disk; FFmpeg goes by the suffix
            beside.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clip[1].mp4", "plain"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(error, tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as beside:
        beside.write_text("ne")
        raise error
    assert [file.name for file in tmp_path.iterdir()] == ["file"] and path.read_text() == "old"


def test_a_folder_appears_whole_too_and_gives_way_to_the_first(tmp_path):
    path = tmp_path / "folder"
    with atomic_write(path) as beside:
        beside.mkdir()
        (beside / "file").write_text("first")
    with pytest.raises(OSError, match="not empty"), atomic_write(path) as beside:
        beside.mkdir()
        (beside / "file").write_text("second")
    assert [*tmp_path.iterdir()] == [path] and (path / "file").read_text() == "first"


def test_what_a_kill_left_is_removed_once_nobody_can_be_writing_it(tmp_path):
    old, young, other = (tmp_path / name for name in (".a.partial-1.pt", ".a.partial-2.pt", ".b.partial-1.pt"))
    for file in (old, young, other):
        file.write_text("half")
    for file in (old, other):
        os.utime(file, (0, time.time() - 7200))
    with atomic_write(tmp_path / "a.pt") as beside:
        beside.write_text("whole")
    assert sorted(tmp_path.iterdir()) == [young, other, tmp_path / "a.pt"]
    assert sorted(tmp_path.glob(LEFTOVERS)) == [young, other]


def test_the_clock_of_the_disk_tells_what_is_old(tmp_path, monkeypatch):
    """This machine's is hours ahead of a file server's, where another one is writing."""
    young = tmp_path / ".a.partial-1.pt"
    young.write_text("half")
    ahead = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: ahead)
    with atomic_write(tmp_path / "a.pt") as beside:
        beside.write_text("whole")
    assert sorted(tmp_path.iterdir()) == [young, tmp_path / "a.pt"]


def test_a_device_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/null"), Path("/dev/stdout")):
        with pytest.raises(InputError, match=f"'{path}' is a device or a pipe"), atomic_write(path):
            pytest.fail("nothing is written")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "pipe"]
