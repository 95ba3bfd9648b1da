"""Whether classes that were learnt from one source of videos are known in those of another.

    python tools/domain_shift.py --pair features/actions ucf101_part.parquet features/actions jhmdb_part.parquet

Two sets are a pair: FEATURES (tools/extract_features.py) MANIFEST, and the same of another source. A class is shared if a name of
the other lies within --tau of its own. A head learns all classes of the first set twice: the shared ones from half of their
groups of videos, and from as many videos of the other source in their place. The other half is named among all classes of the
first set; then the halves change places. What the other source shows of the half that is asked about, by its contents, is not
learnt, and how many videos these are is told. A group is the manifest's column of that name (docs/data.md): the clips of one video,
which never stand on both sides.

A row for each shared class of each --pair, and the mean difference with its 95 % interval (Student's t over these rows).
Whatever else tells the sources apart, such as photos from videos, is part of the difference.
"""

import feature_options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(feature_options.domain_shift, __doc__)

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from fit_head import chosen_heads, read

from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.features.cache import FeatureCache
from engine.heads.classes import WordClasses
from engine.heads.shift import Shifted, measure_shift, shared_classes, shift_table
from engine.heads.splits import head_makers
from engine.records import append_record
from engine.semantics.config import WordsConfig
from engine.terminal.wording import counted


def main(arguments: argparse.Namespace) -> None:
    """Fit, print a table for each head; append a record if asked."""
    words = WordClasses(WordsConfig(source="sentence"))
    found: dict[str, list[Shifted]] = {name: [] for name in arguments.heads}
    for pair in arguments.pair:
        for name, shifted in measured(list(map(Path, pair)), list(found), words, arguments.tau):
            found[name] += shifted
    for name, shifted in found.items():
        print("\n" + shift_table(name, shifted).text())
    if arguments.record:
        heads = {name: [asdict(each) for each in shifted] for name, shifted in found.items()}
        append_record("domain_shift", n=len(next(iter(heads.values()))), tau=arguments.tau, heads=heads)


def measured(
    pair: Sequence[Path], heads: Sequence[str], words: WordClasses, tau: float
) -> Iterator[tuple[str, list[Shifted]]]:
    """Each head on one pair of sets.

    Raises:
        InputError: features of two kinds, a manifest without groups, or no class that both sets have.
    """
    folder, file, other_folder, other_file = pair
    here, stamp = read(folder, file)
    there, other = read(other_folder, other_file)
    chosen_heads(heads, stamp.model)
    if other.digest != stamp.digest:
        raise InputError(f"--pair '{other_folder}': features {stamp.difference(other)}: extract both with one model")
    manifest = Manifest.load(file)
    groups = manifest.select(FeatureCache(folder, manifest=manifest).windows(manifest)[0]).strings("group")
    if not any(groups):
        raise InputError(f"'{file}' knows no groups of videos: index a list with a column 'group' (--layout csv)")
    shared = shared_classes(here.classes, there.classes, words, tau)
    makers = head_makers(heads, words.source.config, stamp.model)
    for name in heads:
        found = measure_shift(here, groups, there, shared, makers[name], words)
        if name == heads[0] and (left_out := sum(each.left_out for each in found)):
            print(
                f"warning: {counted(left_out, 'video')} of '{other_file}' are asked about too, by their contents: left out of "
                "what is learnt for that half",
                file=sys.stderr,
            )
        yield name, found


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
