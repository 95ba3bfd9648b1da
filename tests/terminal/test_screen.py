"""What cannot be printed costs lines on the screen; the work and its exit status stay what they are."""

import io
import subprocess
import sys

import pytest

from engine.errors import InputError, run_command
from engine.terminal.command_line import check_shown
from engine.terminal.screen import Screen, lenient_screen, plain
from tests.environment import ROOT, environment, lowest_free_file
from tests.screens import STREAMS, break_screen, full_disk

every_kind = pytest.mark.parametrize("kind", STREAMS)


@every_kind
def test_work_goes_on_and_ends_well_whatever_becomes_of_its_output(kind, monkeypatch, tmp_path):
    break_screen(monkeypatch, kind)
    before = lowest_free_file()

    def work() -> str:
        for number in range(3000):  # more than any buffer holds
            print("a line of output", number, flush=number % 2 == 0)
            print("and of errors", file=sys.stderr)
        (tmp_path / "result").write_text("done")
        return "returned"

    assert run_command(work) == "returned"
    assert (tmp_path / "result").read_text() == "done"
    assert lowest_free_file() == before  # a lost line leaves no file open
    if kind != "closed stream":
        sys.stdout.flush()  # as Python does at its end: a failure here would be exit status 120


@every_kind
def test_errors_stay_errors(kind, monkeypatch):
    break_screen(monkeypatch, kind)

    def mistake() -> None:
        raise InputError("wrong")

    with pytest.raises(SystemExit) as ended:
        run_command(mistake)
    assert ended.value.code == 2


@every_kind
def test_a_result_that_is_only_printed_must_arrive_unless_the_reader_has_had_enough(kind, monkeypatch):
    break_screen(monkeypatch, kind)

    def work() -> None:
        print("the result")
        check_shown()

    if kind == "closed pipe":
        run_command(work)
        return
    with pytest.raises(SystemExit) as ended:
        run_command(work)
    assert ended.value.code == 2


def test_a_full_disk_is_told_where_that_can_be_read(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", full_disk())
    run_command(print, "lost")
    assert capsys.readouterr().err == (
        "not everything could be printed ([Errno 28] No space left on device); the work is done all the same\n"
    )


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", b"0.5 +- 0.1 caf\\xe9 \\u4f60 \\udce9"),
        ("latin-1", b"0.5 \xb1 0.1 caf\xe9 \\u4f60 \\udce9"),
        ("cp1252", b"0.5 \xb1 0.1 caf\xe9 \\u4f60 \\udce9"),
        ("utf-8", "0.5 ± 0.1 café 你 ".encode() + b"\\udce9"),
    ],
)
def test_what_an_encoding_lacks_is_spelt_out(encoding, shown, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding, errors="strict"))
    run_command(print, "0.5 ± 0.1 café 你 \udce9")
    assert sys.stdout.buffer.getvalue() == shown + b"\n"


def test_a_signal_within_a_line_costs_the_line_of_its_handler_alone():
    class Busy(io.StringIO):
        def write(self, text: str) -> int:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    screen = Screen(Busy())
    screen.write("interrupted")
    assert screen.failure is None


def test_a_screen_is_the_stream_in_all_else(capsys):
    before = sys.stdout
    with lenient_screen():
        assert sys.stdout.encoding == before.encoding
        assert not sys.stdout.isatty()
        print("told")
    assert sys.stdout is before
    assert capsys.readouterr().out == "told\n"


def test_names_do_not_steer_the_terminal():
    assert plain("a\x1b[2Jb\tc\r d\ne \udce9 é") == "a\\x1b[2Jb\\tc\\r d\ne \\udce9 é"


FILES = """
import os, sys
from engine.errors import run_command
def work():
    with open(sys.argv[1], "wb", buffering=0) as file:
        os.write(1, b"from a library"), os.write(2, b"from FFmpeg")
        print("lost"), print("lost", file=sys.stderr), sys.stdin.read()
        file.write(str(file.fileno() > 2).encode())
run_command(work)
"""


def test_a_closed_stream_is_not_taken_for_the_next_file(tmp_path):
    """Else what libraries print would be written into a store or a checkpoint."""
    found = tmp_path / "file"
    command = f'"{sys.executable}" -c "$0" "{found}" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", command, FILES], env=environment(), cwd=ROOT, check=False, timeout=60)
    assert (done.returncode, found.read_bytes()) == (0, b"True")


def test_head_ends_a_help_with_status_0():
    command = f'"{sys.executable}" tools/evaluate.py --help | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], env=environment(), cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"usage: evaluate.py")
