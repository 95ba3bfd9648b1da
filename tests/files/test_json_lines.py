"""Lines that a kill may tear at any byte."""

import resource

import pytest

from engine.files.json_lines import JsonLines, append_json_line, read_json_lines


def test_a_file_torn_at_any_byte_keeps_its_whole_lines_and_goes_on(tmp_path):
    path, values = tmp_path / "lines.jsonl", [{"n": 0, "of": {"a": [1]}}, {"n": 1, "name": "Füße"}, {"n": 2}]
    assert list(read_json_lines(path)) == []
    for value in values:
        append_json_line(path, value)
    whole = path.read_bytes()
    assert whole.count(b"\n") == 3 and whole.isascii()  # no empty ones
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = values[: whole[:cut].count(b"\n")]
        assert list(read_json_lines(path)) == kept
        append_json_line(path, {"n": 9})
        assert path.read_bytes().startswith(whole[:cut])
        assert list(read_json_lines(path))[-1:] == [{"n": 9}] and list(read_json_lines(path))[: len(kept)] == kept


def test_lines_are_there_at_once_and_can_begin_anew(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("torn")
    lines = JsonLines(path)
    lines.restart({"version": 2})
    lines.append({"n": 1})
    with pytest.raises(ValueError, match="JSON"):
        lines.append({"n": float("nan")})
    assert path.read_text() == '{"version": 2}\n{"n": 1}\n'
    lines.close()


def test_a_line_that_found_no_room_is_told_and_the_next_stands_by_itself(tmp_path):
    """A limit of the file's size cuts the line in the middle, as a full disk does (EFBIG and not ENOSPC when none is left)."""
    path, limits = tmp_path / "lines.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    lines = JsonLines(path)
    lines.append({"n": 0})
    for room in (5, 5, 0):
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, limits[1]))
        try:
            with pytest.raises(OSError, match=r"No space left|File too large"):
                lines.append({"n": 1})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lines.append({"n": 2})
    lines.close()
    assert list(read_json_lines(path)) == [{"n": 0}, {"n": 2}] and path.read_text().endswith('\n{"n": 2}\n')
