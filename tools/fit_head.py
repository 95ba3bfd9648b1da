"""How well heads over cached features name classes they were not fitted to, over random splits of a data set's classes.

    python tools/extract_features.py data/ucf15.parquet --model installed --window 1s --hop 1s --out features/ucf15
    python tools/fit_head.py features/ucf15 data/ucf15.parquet --num-train 10 --splits 20

Split s is that of tools/untrained_splits.py: RandomState(s).permutation over the sorted class names, of which the first
--num-train are seen. A head is fitted to their videos and names the videos of the others among the others. Nothing is
decoded, and no setting is chosen on the unseen classes:

    linear        a linear layer from a video's mean feature to the class vectors, with the paper's loss
    ridge         the same by ridge regression, its strength chosen on seen classes held out of it
    aurl          a linear layer with alignment and uniformity (engine/losses.py)
    action2vec    two LSTMs over the windows, attention, ranking loss and cross-entropy
    tarn          the windows in relation with the words of a class one by one, by GRUs and attention, in episodes
    after_url     parts that videos and class vectors share, by non-negative matrix factorisation
    names, names_standardised   no training: ImageNet's classes compared with the names (features of --model installed)

The three in the middle follow published systems, in sizes for a CPU; what of them is published stands in engine/heads/.

Class vectors are those of the installed sentence encoder, of names or of --definitions. Each head is also fitted with random
class vectors, the control: it must be at chance. Mean and standard deviation over the splits; the difference is that of
mean-class accuracy to the first head in the same split, with its 95 % interval over splits (too narrow, for splits share
classes and videos). Largest class: what naming every video by the largest of the classes would give.

The features may come from weights that have seen classes of the data set (docs/pretrained.md); then this is no result under
the paper's protocol.
"""

import options

from engine.errors import run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = run_command(options.fit_head, __doc__)

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from engine.data.config import ClassSplitConfig
from engine.data.manifest import Manifest
from engine.data.sources import split_classes
from engine.errors import InputError
from engine.features.cache import FeatureCache
from engine.heads.catalogue import HEADS, UNTRAINED
from engine.heads.sequences import Sequences
from engine.heads.splits import LabelledFeatures, Measured, measure, summarise
from engine.models.weights import INSTALLED
from engine.records import GrowingRecord
from engine.results.table import Table
from engine.semantics.config import WordsConfig


def main(arguments: argparse.Namespace) -> None:
    """Fit, print the table; keep a record if asked."""
    manifest = Manifest.load(arguments.manifest)
    cache = FeatureCache(arguments.features, manifest=manifest)
    rows, windows = cache.windows(manifest)
    if not len(rows):
        raise InputError(f"the features in '{arguments.features}' have no video of '{arguments.manifest}'")
    labelled = manifest.select(rows)
    videos = Sequences.of([torch.from_numpy(each) for each in windows])
    data = LabelledFeatures(videos, torch.from_numpy(labelled.class_index), labelled.classes)
    heads = chosen_heads(arguments.heads, cache.stamp.model)
    splits = [ClassSplitConfig(seed, arguments.num_train) for seed in range(arguments.splits)]
    split_classes(data.classes, splits[0])  # too few classes are told before anything is fitted
    words = WordsConfig(source="sentence")
    if arguments.definitions:
        words = replace(words, text="definition", definitions=arguments.definitions)
    record = GrowingRecord("heads") if arguments.record else None
    about = {"model": cache.stamp.model, "windows": str(cache.stamp.grid), "videos": len(rows)}
    about |= {"num_train": arguments.num_train, "definitions": [Path(file).name for file in arguments.definitions]}
    found: list[Measured] = []
    for each in measure(data, splits, heads, words):
        found.append(each)
        done, rest = divmod(len(found), 2 * len(heads))
        if not rest:
            print(f"{done} of {len(splits)} splits", file=sys.stderr)
            table = list(summarise(found, heads[0]))
            if record:  # of the splits so far: what was measured stays
                record.write(n=done, accuracy=table, measured=[asdict(one) for one in found], **about)
    print(f"{len(rows)} of {len(manifest)} videos, features of {cache.stamp.model}, windows of {cache.stamp.grid}\n")
    print(show(table, heads[0]).text())


def chosen_heads(asked: Sequence[str], model: str) -> list[str]:
    """The heads asked for, or all that features of this model serve.

    Raises:
        InputError: one asked for that they do not.
    """
    unfit = [] if model == INSTALLED else [name for name in UNTRAINED if name in asked or not asked]
    if asked and unfit:
        raise InputError(f"--heads {unfit[0]} needs features of --model {INSTALLED}, and these are of {model}")
    return [name for name in dict.fromkeys(asked or HEADS) if name not in unfit]


def show(rows: Sequence[Mapping[str, object]], baseline: str) -> Table:
    """The rows of `summarise`, for people."""
    shown = [
        [row["head"], row["words"], *(f"{row[key]:.3f} ± {row[f'{key}_sd']:.3f}" for key in ("top1", "mean_class")),
         row["chance"], row["largest"],
         f"{row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})", row["fit_s"]]
        for row in rows
    ]  # fmt: skip
    header = ["head", "class vectors", "top-1", "mean-class", "chance", "largest class",
              f"less {baseline} (95 %)", "seconds to fit"]  # fmt: skip
    return Table(header, shown, "unseen classes of random splits: mean and standard deviation over splits")


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
