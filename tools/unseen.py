"""The everyday programs under one name, wherever the package is installed: `unseen NAME ...`.

unseen predict clip.mp4 --classes "surfing, archery"       is      python tools/predict.py ...
unseen train mine.yaml                                     is      python engine/train.py ...
unseen configs                                             where the ready configs lie
"""

import argparse
import ast
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import engine
from engine.errors import run_command
from engine.terminal import called
from engine.terminal.command_line import Parser

_TOOLS = Path(__file__).resolve().parent
PROGRAMS = {
    name: Path(engine.__file__).with_name("train.py") if name == "train" else _TOOLS / f"{name}.py"
    for name in called.PROGRAMS
}


def main() -> None:
    """Of the command `unseen`."""
    run_command(_main, sys.argv[1:])


def _main(words: Sequence[str]) -> None:
    about = {name: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for name, path in PROGRAMS.items()}
    listed = "\n".join(f"  {name:17} {text.splitlines()[0]}" for name, text in about.items())
    parser = Parser(description=f"{__doc__}\n{listed}")
    parser.add_argument("name", metavar="NAME", choices=(*PROGRAMS, "configs"), help="one of the above, or configs")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="its own options: unseen NAME --help")
    arguments = parser.parse_args(words)
    if arguments.name == "configs":
        installed = _TOOLS / "configs"  # within the package; in a checkout they lie beside it
        print(installed if installed.is_dir() else _TOOLS.with_name("configs"))
        return
    called.start_by_command()
    sys.argv[:] = [str(PROGRAMS[arguments.name]), *arguments.words]
    sys.path.insert(0, str(_TOOLS))  # as Python does for a program: they import each other
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
