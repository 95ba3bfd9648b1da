"""What all command lines share: how they refuse a wrong option, the folder that results go to, results that are only shown."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from engine.errors import InputError
from engine.files.addresses import url_of
from engine.files.home import from_home
from engine.terminal.called import as_called, prog_as_called

T = TypeVar("T")


class _Store(argparse.Action):
    """Keeps what an option is given; of one that takes several values and is given again, all: argparse drops the first ones."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Called by argparse."""
        before = getattr(namespace, self.dest)
        is_again = self.option_strings and self.nargs in ("+", "*") and before is not self.default
        setattr(namespace, self.dest, [*before, *values] if is_again else values)


class Parser(argparse.ArgumentParser):
    """Tells of a wrong option like of any other mistake, in one line; argparse prints all options before it.

    So it does where there is no folder for temporary files, without which torch cannot even be imported. An option of the type
    `Path` may begin with ~, also where no shell has replaced it (--out=~/results). One that takes several values may be repeated.
    Descriptions are shown line by line, as they are written.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})
        self.prog = prog_as_called(self.prog)
        self.register("type", Path, _path)
        self.register("action", None, _Store)

    def parse_known_args(self, *arguments: Any, **options: Any) -> tuple[argparse.Namespace, list[str]]:
        """Called by argparse, whichever way options are read."""
        found = super().parse_known_args(*arguments, **options)
        try:
            tempfile.gettempdir()
        except OSError as error:
            raise InputError(f"{error.strerror}: name one with the variable TMPDIR") from error
        return found

    def format_help(self) -> str:
        """Called by argparse."""
        return as_called(super().format_help())

    def error(self, message: str) -> NoReturn:
        """Called by argparse."""
        raise InputError(f"{message} (see {self.prog} --help)")


def _path(text: str) -> Path:
    return Path(from_home(text))


def device_option(parser: argparse.ArgumentParser) -> None:
    """The option of every program that computes with a network, on a GPU where there is one."""
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto")


def cluster_option(parser: argparse.ArgumentParser, what: str) -> None:
    """The option that every program has whose work is many independent pieces.

    Args:
        what: the pieces, as its help calls them.
    """
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help=f"{what} on a Ray cluster: auto (the one of RAY_ADDRESS, or that runs on this machine) or HOST:PORT;"
        " default: on this machine",
    )


def refuse_with_cluster(arguments: argparse.Namespace, *names: str) -> None:
    """Refuse options that say how one machine does the work, which a cluster's workers would not follow.

    Args:
        names: of options whose value is None, 0 or False where they are not given.

    Raises:
        InputError: one was given beside --cluster.
    """
    given = " and ".join(f"--{name}" for name in names if getattr(arguments, name))
    if arguments.cluster and given:
        raise InputError(
            f"{given}: for this machine alone; with --cluster each piece has the cores that its node gives it: leave it out"
        )


def each_once(
    named: Iterable[T], key: Callable[[T], Hashable] = Path.resolve, told: Callable[[T], object] = str
) -> list[T]:
    """The files and folders that a command line names, each once though it may also be named by a link. Says what is left out.

    Args:
        key: what tells one from others. told: how the user has named it.
    """
    found: dict[Hashable, T] = {}
    again = [str(told(each)) for each in named if found.setdefault(key(each), each) is not each]
    if again:
        print(f"named more than once, counted once: {', '.join(again)}")
    return list(found.values())


def output_folder(path: Path, option: str) -> Path:
    """Make a folder that results go to, and try to write in it: now, and not after hours of work.

    Args:
        option: what it is called by the user, as `run.folder` or `--out`.

    Raises:
        InputError: it is a file, or nothing can be written there.
    """
    check_local(path, option)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path, buffering=0) as file:
            file.write(bytes(4096))  # a full disk has room for names
    except OSError as error:
        raise InputError(f"{option}: cannot write into '{path}' ({error.strerror}): choose another folder") from error
    return path


def check_local(path: Path, option: str) -> None:
    """Refuse an address where results are written as files.

    Raises:
        InputError: it is one.
    """
    if url := url_of(path):
        raise InputError(
            f"{option}: '{url}' is in object storage, where only tools/ingest.py writes: name a folder here"
        )


def check_shown() -> None:
    """Called at the end by a program whose results are printed and kept nowhere else.

    Raises:
        InputError: they could not be. A reader that has closed the pipe (`| head`) has had what it wants.
    """
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    if failure is not None and not isinstance(failure, BrokenPipeError):
        reason = getattr(failure, "strerror", None) or failure
        raise InputError(f"the result cannot be written ({reason}), and is kept nowhere else: send it to another place")
