"""Index annotations of moments: which seconds of which video a sentence tells of, as one table for training and search.

    python tools/index_moments.py charades_sta_train.txt charades_sta_test.txt --manifest data/charades.parquet
    python tools/index_moments.py train=captions/train.json val_2=captions/val_2.json --manifest data/activitynet.parquet
    python tools/index_moments.py my_moments.csv --manifest data/mine.parquet --out data/mine.moments.parquet

Reads Charades-STA (text), ActivityNet Captions and TACoS (JSON), QVHighlights (JSON lines) and CSV or TSV with the columns
video, start, end, query; which it is the content tells. A file's split is what stands before its '=', else train, val or test
if its name has that word, else all.

What is wrong stops nothing. It is listed with place and reason in OUT.report.json: spans that end after the video (cut) or
before they start, that have no length or stand twice, videos that are not in the manifest, queries without a known word, and
the like.

Without --manifest no video is checked, durations are those of the files (Charades-STA's own has none) and videos keep the
names they have there: for features that others have published.
"""

import argparse
import re
import shlex
from operator import itemgetter
from pathlib import Path

from engine.errors import InputError, run_command
from engine.terminal.command_line import Parser, each_once, output_folder


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    about, _, more = __doc__.partition("\n\n")
    parser = Parser(prog="index_moments.py", description=about, epilog=more)
    parser.add_argument("annotations", nargs="+", metavar="[SPLIT=]FILE", help="files of queries and their moments")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="the videos, from tools/index_dataset.py")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the table (default: NAME.moments.parquet beside manifest NAME.parquet)",
    )
    parser.add_argument(
        "--words", metavar="SOURCE[:FILE]", default="glove",
        help="a query needs a word of it: glove[:FILE], word2vec:FILE, or none (default: the installed GloVe)",
    )  # fmt: skip
    return parser.parse_args()


def split_and_file(text: str) -> tuple[str, Path]:
    """`SPLIT=FILE`, or a file whose name tells its split."""
    split, sign, path = text.partition("=")
    if sign and split and not Path(text).is_file():
        return split, Path(path)
    words = r"(?<![a-z])(train|test|val(?:idation)?(?:_?[12])?)(?:ing|set|split)?(?![a-z])"
    found = re.search(words, Path(text).stem.lower())
    return found[1] if found else "all", Path(text)


def main() -> None:
    """Read, check, write the table and the report, and print what came of it."""
    arguments = parse_arguments()
    if arguments.out is None and arguments.manifest is None:
        raise InputError("--out is missing: without --manifest there is no place that it would follow from")
    from engine.data.manifests.manifest import Manifest
    from engine.moments.annotations import KINDS, Report, check, joined
    from engine.moments.queries import knows_a_word
    from engine.moments.readers import read_moments
    from engine.results.table import Table

    out = arguments.out or arguments.manifest.with_name(f"{arguments.manifest.stem}.moments.parquet")
    named = map(split_and_file, arguments.annotations)
    files = each_once(named, key=lambda each: (each[0], each[1].resolve()), told=itemgetter(1))
    read = [file for _, file in files] + ([arguments.manifest] if arguments.manifest else [])
    if out.exists() and any(file.exists() and out.samefile(file) for file in read):
        raise InputError(
            f"--out: '{out}' is a file that is read here, and the table would take its place: name another"
        )
    output_folder(out.parent, "--out")
    manifest = Manifest.load(arguments.manifest) if arguments.manifest else None
    source, _, path = arguments.words.partition(":")
    knows = knows_a_word(source, path or None)
    report, parts, rows = Report(), [], []
    for split, file in files:
        noted = read_moments(file)
        parts.append(check(noted, split, manifest, knows, report))
        rows.append([str(file), split, len(noted), len(parts[-1]), len(set(parts[-1].videos))])
    found = joined(parts)
    report.save(out.with_name(f"{out.name}.report.json"))
    print(Table(["file", "split", "rows", "queries", "videos"], rows).text())
    if report.rows:
        told = [[kind, count, KINDS[kind]] for kind, count in report.counts.items()]
        print("\n" + Table(["wrong", "count", ""], told).text())
        print(f"each with its place: {out}.report.json")
    if not len(found):
        raise InputError(f"no query of {', '.join(arguments.annotations)} can be used: see {out}.report.json")
    if manifest is not None:
        without = set(manifest.table.column("path").to_pylist()) - set(found.videos)
        print(f"videos of the manifest without a query: {len(without)}")
    found.save(out)
    print(f"\n{len(found)} queries of {len(set(found.videos))} videos: {shlex.quote(str(out))}")


if __name__ == "__main__":
    run_command(main)
