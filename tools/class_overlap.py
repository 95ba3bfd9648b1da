"""Find the training classes that are a test class, perhaps under another name (paper Sec. 3.3, Eq. 3-4, Fig. 3).

    python tools/class_overlap.py --train kinetics700.txt --test UCF101=ucf101.txt --test HMDB51=hmdb51.txt \\
        --words word2vec:GoogleNews-vectors-negative300.bin --out runs/overlap
    python tools/class_overlap.py --train data/kinetics700.parquet --train data/sun397.parquet --test data/ucf101.parquet
    python tools/class_overlap.py --train kinetics400 --test data/ucf101.parquet      # what published weights have seen

A set of classes is a manifest (.parquet, from tools/index_dataset.py, or a folder, from
tools/join_manifests.py), a text file with a class name a line, or the word kinetics400 or imagenet (what published weights were
trained on; 152 of imagenet's 1,842 names have words that GloVe lacks: --missing random). Any number of both;
NAME=FILE says what a set is called, which no other on its side may be.

Every training class is compared with all classes of all test sets: the distance of two classes is the
cosine distance of their name vectors. Those within --tau of a test class overlap, and those of its name, whose
vectors may lie apart where the spelling does ("tai chi", "TaiChi"). The paper takes 0.05; its list of 664 classes of
Kinetics-700 comes out at 0.01 (0.05 leaves 662) by distance alone: eight of them have the name of a test class.

A word that the vectors lack is an error that lists all such words. With --missing random it gets a
random vector of its own: it means nothing, but identical names are still at distance 0.

Into --out go class_overlap.csv (each training class with its nearest test class and the distance) and
class_overlap.png (the nearest ones, as the paper's Fig. 3). In training, train.exclude_overlap does this.

With --report also contamination.md, a page for a paper, and contamination.csv: for each test set and each training set how many
test classes were known, by the same name, within tau, or by shared words, which they are, and, between two manifests, how
many test videos lie among the training videos by their contents:

    python tools/class_overlap.py --report --train data/k700.parquet --train imagenet --test data/ucf101.parquet --out runs/overlap
"""

import options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(options.class_overlap, __doc__)

import argparse
from collections.abc import Sequence

from engine.errors import InputError, writing
from engine.results import figures, pictures
from engine.results.table import Table
from engine.schema.parser import parse
from engine.semantics import contamination
from engine.semantics.class_lists import read_classes
from engine.semantics.classes import KeptVectors, build_class_embeddings
from engine.semantics.config import WordsConfig
from engine.semantics.overlap import nearest_test_classes, overlap_table, overlapping, preferring_same_names
from engine.terminal.command_line import output_folder


def main(arguments: argparse.Namespace) -> None:
    """Measure, write the table and the picture, print the overlapping classes."""
    output_folder(arguments.out, "--out")
    source, _, path = arguments.words.partition(":")
    choices = {"rules": arguments.rules, "centre": arguments.centre, "missing": arguments.missing}
    words = KeptVectors(parse(WordsConfig, {"source": source, "path": path or None, **choices}, "words"))
    training = [read_classes(text) for text in arguments.train]
    tests = [read_classes(text) for text in arguments.test]
    for option, sets in (("--train", training), ("--test", tests)):
        check_names(option, [name for name, _ in sets])
    every_name = [name for _, names in (*training, *tests) for name in names]
    description = build_class_embeddings(every_name, words).description
    nearest = nearest_test_classes(training, tests, words)
    neighbours = preferring_same_names(nearest, tests, words)
    near = overlapping(neighbours, arguments.tau, same_names=True)
    overlap_table(neighbours, near).write_csv(arguments.out / "class_overlap.csv", decimals=6)
    figure = pictures.overlap_figure(neighbours, arguments.tau, num_shown=arguments.shown)
    figures.save_figure(figure, arguments.out / "class_overlap.png")
    print(f"class vectors: {description}")
    if near:
        rows = [[row.name, row.source, row.test_class, row.test_set, f"{row.distance:.4f}"] for row in near]
        print("\n" + Table(["training class", "of", "is test class", "of", "distance"], rows).text())
    left, within = len(neighbours) - len(near), len(overlapping(nearest, arguments.tau))
    print(
        f"\n{left} of {len(neighbours)} training classes are left: {within} lie within {arguments.tau:g} of a test class, "
        f"{len(near) - within} more have the name of one"
    )
    written = ["class_overlap.csv", "class_overlap.png"]
    if arguments.report:
        seen, asked = (
            [contamination.ClassSet.of(*each) for each in zip(classes, texts, strict=True)]
            for classes, texts in ((training, arguments.train), (tests, arguments.test))
        )
        found = [contamination.contamination(test, train, words, arguments.tau) for test in asked for train in seen]
        page = contamination.page(found, arguments.tau, description)
        with writing(arguments.out / "contamination.md"):
            (arguments.out / "contamination.md").write_text(page, encoding="utf-8")
        contamination.class_rows(found).write_csv(arguments.out / "contamination.csv", decimals=6)
        written += ["contamination.md", "contamination.csv"]
        print("\n" + contamination.summary(found).text())
    print(f"written to {arguments.out}: {', '.join(written)}")


def check_names(option: str, names: Sequence[str]) -> None:
    """Refuse sets that a table could not tell apart.

    Raises:
        InputError: two have one name.
    """
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise InputError(f"{option}: several sets are called '{twice[0]}': give each a name of its own, as NAME=FILE")


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
