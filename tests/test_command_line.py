"""Command lines: a wrong option and a folder that cannot be written are one line each."""

from pathlib import Path

import pytest

from engine.command_line import Parser, output_folder
from engine.errors import InputError


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
