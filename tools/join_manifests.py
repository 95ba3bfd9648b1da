"""Join manifests into a large one: a folder that is never read whole, for millions of videos.

    python tools/join_manifests.py crawl/*.parquet --out manifests/crawl

Each manifest is read by itself, so memory stays what the largest of them needs, and some 70 bytes for each file that has a group.
The rows keep their order. Training takes the folder wherever it takes a manifest; docs/data.md says what is done otherwise where
there are so many rows.
"""

import argparse
import time
from pathlib import Path

from engine.errors import run_command
from engine.terminal.command_line import Parser, check_local, output_folder


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    about, _, more = __doc__.partition("\n\n")
    parser = Parser(prog="join_manifests.py", description=about, epilog=more)
    parser.add_argument(
        "manifests", nargs="+", type=Path, metavar="MANIFEST", help="of either form, in the order of the rows"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="the large manifest; it must not be there yet"
    )
    return parser.parse_args()


def main() -> None:
    """Join, and print what came of it."""
    arguments = parse_arguments()
    check_local(arguments.out, "--out")
    output_folder(arguments.out.parent, "--out")
    from engine.data.manifests.joining import write_large
    from engine.data.manifests.large_manifest import read_manifest

    start = time.monotonic()
    rows = write_large((read_manifest(path) for path in arguments.manifests), arguments.out)
    size = sum(file.stat().st_size for file in arguments.out.iterdir())
    print(
        f"{arguments.out}: {rows:,} rows, {size / 1e6:,.1f} MB, {size / rows:.0f} bytes a row ({time.monotonic() - start:.1f} s)"
    )


if __name__ == "__main__":
    run_command(main)
