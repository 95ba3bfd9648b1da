"""The command line of `engine/train.py`. Nothing is imported here that imports torch, which takes seconds."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from engine.config import Config, load_config
from engine.processes.launch import launch
from engine.schema.help import describe, outline, sections
from engine.terminal.command_line import Parser


class _ShowSection(argparse.Action):
    """Print one section of the config whole, and exit; as --help does, so the config file may be missing."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        print(describe(Config, values))
        parser.exit()


def read(about: str) -> Config:
    """The config that the command line asks for. With --help or --section: prints and exits; with --ranks: runs and exits.

    Raises:
        InputError: a wrong option, a config that cannot be read, a wrong key.
    """
    parser = Parser(
        prog="torchrun engine/train.py",
        description=about,
        epilog=f"Config sections with their keys, as section.key=default:\n\n{outline(Config)}",
    )
    parser.add_argument("config", type=Path,
                        help="YAML file, see configs/; with base: FILE, keys that it lacks come from that file")  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="override single keys of the file")
    parser.add_argument("--section", action=_ShowSection, choices=sections(Config), metavar="NAME",
                        help="print what every key of a section means, and exit; the sections are listed below")  # fmt: skip
    parser.add_argument("--ranks", type=int, metavar="N",
                        help="start so many processes on this machine, each with a GPU of its own, as torchrun does")  # fmt: skip
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)
    if arguments.ranks is not None:
        if arguments.ranks < 1:
            parser.error(f"--ranks is {arguments.ranks}: it must be at least 1")
        if os.environ.get("RANK"):
            parser.error("--ranks starts the ranks, which torchrun or srun has done already: leave it out")
        launch(arguments.ranks, [sys.argv[0], str(arguments.config), *arguments.overrides])
    return config
