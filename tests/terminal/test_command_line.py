"""Command lines: a wrong option and a folder that cannot be written are one line each."""

import tempfile
from pathlib import Path

import pytest

from engine.errors import InputError, run_command
from engine.terminal.called import as_called
from engine.terminal.command_line import Parser, output_folder
from tests.small_run import call_tool


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--top", "x"], "argument --top: invalid int value: 'x'"),
        (["part", "--of", "1", "--tpo"], "unrecognized arguments: --tpo"),
        (["part"], "the following arguments are required: --of"),
    ],
)
def test_a_wrong_option_is_one_line_without_the_usage(words, says, capsys):
    parser = Parser(prog="tool.py")
    parser.add_argument("--top", type=int)
    parser.add_subparsers().add_parser("part").add_argument("--of", required=True)
    with pytest.raises(InputError) as caught:
        parser.parse_args(words)
    assert str(caught.value).startswith(f"{says} (see tool.py")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_programs_are_named_as_they_are_called(monkeypatch, capsys):
    told = "see python tools/predict.py, `torchrun engine/train.py m.yaml`, (tools/ingest.py), tools/soak.py, /a/tools/ingest.py"
    parser = Parser(prog="ingest.py", description=told)
    assert as_called(told) == told and parser.format_usage().startswith("usage: ingest.py ")
    monkeypatch.setenv("UNSEEN_COMMAND", "1")
    assert as_called(told) == (
        "see unseen predict, `unseen train m.yaml`, (unseen ingest), tools/soak.py, /a/tools/ingest.py"
    )
    parser = Parser(prog="ingest.py", description=told)
    parser.add_subparsers().add_parser("part").add_argument("--of", required=True)
    assert parser.format_help().startswith("usage: unseen ingest ") and "see unseen predict" in parser.format_help()
    with pytest.raises(SystemExit):
        run_command(parser.parse_args, ["part"])
    assert capsys.readouterr().err.endswith("(see unseen ingest part --help)\n")


def test_a_path_may_begin_at_home_where_no_shell_has_replaced_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = Parser()
    parser.add_argument("--out", type=Path)
    parser.add_subparsers().add_parser("part").add_argument("--of", type=Path)
    asked = parser.parse_args(["--out=~/ev", "part", "--of=~"])
    assert (asked.out, asked.of) == (tmp_path / "ev", tmp_path)
    for kept in ("a/~b", "~nobody.is.called.so/a", "s3:/bucket/~x"):
        assert parser.parse_args([f"--out={kept}"]).out == Path(kept)


def test_an_option_of_several_values_that_is_given_again_has_them_all():
    parser = Parser()
    parser.add_argument("--set", nargs="+", default=[])
    parser.add_mutually_exclusive_group().add_argument("--shares", nargs="*", type=float, default=[1.0])
    parser.add_argument("--out", type=Path)
    parts = Parser()
    parts.add_subparsers().add_parser("part", parents=[parser], add_help=False)
    for reads, before in ((parser, []), (parts, ["part"])):
        for _ in range(2):  # a default is in place of what is given, and stays as it is
            asked = reads.parse_args(
                [*before, "--set", "a=1", "b=2", "--shares", "1", "--set", "c=3", "--shares", "0.5"]
            )
            assert (asked.set, asked.shares) == (["a=1", "b=2", "c=3"], [1.0, 0.5])
            asked = reads.parse_args([*before, "--out", "a", "--out", "b"])
            assert (asked.set, asked.shares, asked.out) == ([], [1.0], Path("b"))


@pytest.mark.parametrize(
    ("tool", "words", "says"),
    [
        ("index_dataset.py", ["FOLDER", "--workers", "2"], "--workers"),
        ("ingest.py", ["FOLDER", "--out", "store", "--workers", "2"], "--workers"),
        ("extract_features.py", ["m.parquet", "--model", "objects", "--out", "f", "--threads", "2"], "--threads"),
        ("extract_features.py", ["m.parquet", "--model", "objects", "--out", "f", "--threads", "1", "--processes"],
         "--threads and --processes"),
    ],
)  # fmt: skip
def test_what_counts_for_one_machine_is_refused_with_a_cluster(tool, words, says, monkeypatch, capsys):
    assert call_tool(tool, *words, "--cluster", "auto", monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.startswith(f"error: {says}: for this machine alone; with --cluster")


def test_an_output_folder_is_made_and_left_empty(tmp_path):
    made = output_folder(tmp_path / "a" / "b", "--out")
    assert made.is_dir()
    assert not list(made.iterdir())


def test_a_folder_that_cannot_be_written_is_named_with_its_option(tmp_path):
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/nothing")):
        with pytest.raises(InputError, match=rf"--out: cannot write into '{path}' \(.*\): choose another folder"):
            output_folder(path, "--out")
    assert (tmp_path / "file").read_text() == "kept"


def test_no_folder_for_temporary_files_is_one_line(monkeypatch, tmp_path, capsys):
    """In place of the traceback that `import torch` would end in."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "missing")])
    with pytest.raises(
        InputError, match=r"No usable temporary directory found in .*: name one with the variable TMPDIR"
    ):
        Parser().parse_args([])
    with pytest.raises(SystemExit) as ended:
        Parser().parse_args(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage:")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_folder_on_a_full_disk_is_refused_before_the_work(monkeypatch, tmp_path):
    """There a file can be made, but nothing written into it."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("wb", buffering=0))  # noqa: SIM115
    with pytest.raises(InputError, match=r"--out: cannot write into .* \(No space left on device\)"):
        output_folder(tmp_path, "--out")
