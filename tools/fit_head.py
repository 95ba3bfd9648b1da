"""How well heads over cached features name classes they were not fitted to, over random splits of a data set's classes.

    python tools/extract_features.py data/ucf15.parquet --model installed --window 1s --hop 1s --out features/ucf15
    python tools/fit_head.py features/ucf15 data/ucf15.parquet --num-train 10 --splits 20

Split s is that of tools/untrained_splits.py: RandomState(s).permutation over the sorted class names, of which the first
--num-train are seen. A head is fitted to their videos and names the videos of the others among the others. Nothing is
decoded, and no setting is chosen on the unseen classes:

    linear        a linear layer from a video's mean feature to the class vectors, with the paper's loss
    ridge         the same by ridge regression, its strength chosen on seen classes held out of it
    aurl          a linear layer with alignment and uniformity (engine/training/losses.py)
    action2vec    two LSTMs over the windows, attention, ranking loss and cross-entropy
    tarn          the windows in relation with the words of a class one by one, by GRUs and attention, in episodes
    after_url     parts that videos and class vectors share, by non-negative matrix factorisation
    objects       no training: what the network of the features knows, held against the names (engine/naming/)
    objects_standardised   each class's scores counted from their mean over the seen videos, in standard deviations
    objects_ridge          the sum of those and of a ridge regression's, standardised in the same way
    trained       with --run RUN, over its features: the layer that it trained with its network; it is not fitted again. Of a
                  run without one (model.linear: false) these are its features themselves

Action2Vec, TARN and URL are published systems, here in sizes for a CPU; what of them is published stands in engine/heads/. The
three with objects take features of `--model installed` or `installed:lite2` alone. Classes and videos of MANIFEST that a run
was trained on are named.

--also FEATURES MANIFEST, repeated for several: further videos, features of the same kind, whose classes are seen in every
split; --always-seen FILE: so are those classes of MANIFEST; those of --joined FEATURES MANIFEST are split with its own, one
name one class. With --tau every seen class, wherever it is from, is left out of a split in which it overlaps with an unseen
one: no further than that in its words, or one name ends in the other's last word or is made of its words. A video that is asked
about in a split, by its contents, is not learnt from in it under any name; how many these are is told.

--transductive: behind each head a row of what it answers when the unseen classes' videos of a split are named together
(engine/evaluation/transductive.py). With --occurring N only videos of N of its unseen classes are asked about, while all of
these can be answered: what the row is worth where not every class is shown by some video.

--class-counts 5 10 20: accuracy over the number of seen classes, on the same unseen ones. Of those that a split has left,
wherever they are from, so many are drawn at random, fewer a part of more. --figure FILE shows it.

Class vectors are those of the installed sentence encoder, of names or of --definitions, or those of RUN. Each head is also
fitted with random class vectors, the control: it must be at chance. Mean and standard deviation over the splits; the
difference is that of mean-class accuracy to the first head in the same split, with its 95 % interval (Student's t over
splits; too narrow, for splits share classes and videos). Largest class: what naming every video by the largest of the classes
would give. --apart FILE: also on the videos of the unseen classes that it names and on those of the others, each still named
among all unseen ones.

The features may come from weights that have seen classes of the data set (docs/pretrained.md); then this is no result under
the paper's protocol.
"""

import feature_options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(feature_options.fit_head, __doc__)

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from record_tables import spread

from engine.data.config import ClassSplitConfig, SourceConfig
from engine.data.manifests.contents import file_identities, footage_identities
from engine.data.manifests.manifest import Manifest
from engine.data.sets.class_splits import check_measurable
from engine.data.sets.sources import load_tests
from engine.errors import InputError
from engine.features.cache import FeatureCache, Stamp
from engine.features.encoder import encoder_of
from engine.heads.catalogue import HEADS, OBJECT_HEADS, WORD_HEADS
from engine.heads.classes import has_words
from engine.heads.labelled import LabelledFeatures
from engine.heads.sequences import Sequences
from engine.heads.splits import ALL, TRAINED, WORDS, Measured, measure, summarise
from engine.models.image_weights import INSTALLED, installed_names
from engine.records import GrowingRecord
from engine.results.figures import save_figure, series_colors
from engine.results.plots import Line, Panel, lines_figure
from engine.results.spread import Difference, interval
from engine.results.table import Table
from engine.semantics.class_lists import read_class_names
from engine.semantics.config import WordsConfig
from engine.tasks.zero_shot.known import Known
from engine.tasks.zero_shot.trained import load_for_inference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CPU = torch.device("cpu")


def main(arguments: argparse.Namespace) -> None:
    """Fit, print the table; keep a record if asked."""
    run = load_for_inference(arguments.run, _CPU) if arguments.run else None
    data, stamp = read(arguments.features, arguments.manifest, encoder_of(run, _CPU).digest if run else None)
    words = run.config.words if run else WordsConfig(source="sentence")
    if arguments.definitions:
        words = replace(words, text="definition", definitions=arguments.definitions)
    heads = chosen_heads(arguments.heads, stamp.model, run is not None, words)
    if run:
        (labelled,) = load_tests([SourceConfig.parse(str(arguments.manifest))])
        for line in Known.of(run, run.footage).look(labelled).warnings():
            print(line, file=sys.stderr)
        if TRAINED in heads and run.model.linear is None:
            print(
                f"{TRAINED}: the run has no last layer (model.linear: false): its features themselves", file=sys.stderr
            )
    data, also = further(arguments, data, stamp)
    splits = [ClassSplitConfig(seed, arguments.num_train) for seed in range(arguments.splits)]
    check_measurable(data.classes, arguments.num_train)  # too few classes are told before anything is fitted
    record = GrowingRecord("heads") if arguments.record else None
    about = {"model": stamp.model, "windows": str(stamp.grid), "videos": len(data.label), "classes": len(data.classes)}
    about |= {"also_videos": [len(each.label) for each in also]} if also else {}
    about |= {"occurring": arguments.occurring} if arguments.occurring else {}
    about |= {"tau": arguments.tau, "class_counts": arguments.class_counts}
    about |= {"num_train": arguments.num_train, "definitions": [Path(file).name for file in arguments.definitions]}
    found: list[Measured] = []
    model, apart = run.model if run else None, kinds(arguments.apart, data.classes)
    how = (also, arguments.tau, model, arguments.class_counts, apart, stamp.model)
    every = measure(
        data, splits, heads, words, *how, transductive=arguments.transductive, occurring=arguments.occurring,
        tell=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    for done, (_, of_split) in enumerate(itertools.groupby(every, lambda each: each.split), 1):
        found += of_split
        print(f"{done} of {len(splits)} splits", file=sys.stderr)
        table = list(summarise(found, heads[0]))
        if record:  # of the splits so far: what was measured stays
            record.write(n=done, accuracy=table, measured=[asdict(one) for one in found], **about)
    print("\n" + show(table, heads[0]).text())
    if arguments.figure:
        save_figure(curves(found), arguments.figure)
        print(f"\nwritten: {arguments.figure}")


def kinds(file: Path | None, classes: Sequence[str]) -> dict[str, set[str]]:
    """The classes that a file names, and those that it does not.

    Raises:
        InputError: it names one that is not there, or its own name is taken.
    """
    if file is None:
        return {}
    if file.stem == ALL:
        raise InputError(f"--apart '{file}': rows called '{ALL}' are those of all unseen classes: rename the file")
    named = set(read_class_names(file))
    if unknown := sorted(named - set(classes)):
        raise InputError(f"--apart '{file}': no class is called '{unknown[0]}'")
    return {file.stem: named, f"not {file.stem}": set(classes) - named}


def chosen_heads(asked: Sequence[str], model: str, of_run: bool = False, words: WordsConfig | None = None) -> list[str]:
    """The heads asked for, or all that features of this model and these words serve.

    Raises:
        InputError: one asked for that they do not.
    """
    of_words = [name for name in HEADS if name not in WORD_HEADS or words is None or has_words(words)]
    served = [*of_words, *(OBJECT_HEADS if model in installed_names() else ()), *([TRAINED] if of_run else ())]
    if TRAINED in asked and not of_run:
        raise InputError(f"--heads {TRAINED} is the layer of the run whose features these are: name it with --run")
    if lost := [name for name in asked if name in HEADS and name not in of_words]:
        raise InputError(
            f"--heads {lost[0]} reads the words of a class one by one, and ready vectors (the run's words.source: npz) are of "
            "whole classes: leave it out"
        )
    if unfit := [name for name in asked if name not in served]:
        raise InputError(f"--heads {unfit[0]} needs features of --model {INSTALLED}, and these are of {model}")
    return list(dict.fromkeys(asked or served))


def read(folder: Path, file: Path, digest: str | None = None) -> tuple[LabelledFeatures, Stamp]:
    """The features of the videos of a manifest, and what made them; says how many there are.

    Raises:
        InputError: there are none, or they are of other videos, or not of the network with this digest.
    """
    manifest = Manifest.load(file)
    cache = FeatureCache(folder, digest=digest, manifest=manifest)
    rows, windows = cache.windows(manifest)
    if not len(rows):
        raise InputError(f"the features in '{folder}' have no video of '{file}'")
    labelled = manifest.select(rows)
    print(f"{len(rows)} of {len(manifest)} videos, features of {cache.stamp.model}, windows of {cache.stamp.grid}")
    videos = Sequences.of([torch.from_numpy(each) for each in windows])
    shown = torch.from_numpy(footage_identities(labelled, file_identities(labelled)))
    return LabelledFeatures(videos, torch.from_numpy(labelled.class_index), labelled.classes, shown), cache.stamp


def further(
    arguments: argparse.Namespace, data: LabelledFeatures, stamp: Stamp
) -> tuple[LabelledFeatures, list[LabelledFeatures]]:
    """The data whose classes are split, and what is seen in every split.

    Raises:
        InputError: a class that is not there, or features of another kind.
    """
    for folder, file in arguments.joined:
        data = data.joined(_alike("--joined", folder, file, stamp))
    also = []
    if arguments.always_seen:
        fixed = read_class_names(arguments.always_seen)
        if unknown := [name for name in fixed if name not in data.classes]:
            raise InputError(
                f"--always-seen '{arguments.always_seen}': '{arguments.manifest}' has no class '{unknown[0]}'"
            )
        also.append(data.only(fixed))
        data = data.only([name for name in data.classes if name not in fixed])
    also += [_alike("--also", folder, file, stamp) for folder, file in arguments.also]
    return data, also


def _alike(option: str, folder: str, file: str, stamp: Stamp) -> LabelledFeatures:
    other, its_stamp = read(Path(folder), Path(file))
    if its_stamp.digest != stamp.digest:
        raise InputError(f"{option} '{folder}': features {stamp.difference(its_stamp)}: extract both with one model")
    return other


def show(rows: Sequence[Mapping[str, object]], baseline: str) -> Table:
    """The rows of `summarise`, for people."""
    shown = [
        [row["head"], row["words"], row["of"], spread(row, "mean_class"), None if row["head"] == baseline else
         str(Difference(row["difference"], row["difference_low"], row["difference_high"])), row["chance"],
         spread(row, "top1"), row["largest"], row["seen"], row["fit_s"]]
        for row in rows
    ]  # fmt: skip
    header = ["head", "class vectors", "unseen", "mean-class", f"less {baseline} (95 %)", "chance", "top-1", "largest class",
              "seen", "seconds to fit"]  # fmt: skip
    return Table(header, shown, "unseen classes of random splits: mean and standard deviation over splits")


def curves(found: Sequence[Measured]) -> "Figure":
    """Mean-class accuracy over the seen classes: a panel for each kind of unseen classes, a line for each head, another for
    its control; bands are 95 % intervals."""
    heads = list(dict.fromkeys(each.head for each in found))
    colors = dict(zip(heads, series_colors(len(heads)), strict=True))
    panels = []
    for of in dict.fromkeys(each.of for each in found):
        lines = []
        for words, head in dict.fromkeys((each.words, each.head) for each in found):
            at: dict[int, list[float]] = {}
            for each in found:
                if (each.of, each.words, each.head) == (of, words, head):
                    at.setdefault(each.seen, []).append(each.mean_class)
            means = {seen: interval(values) for seen, values in at.items()}
            values = [mean.value for mean in means.values()]
            reaches = [0.0 if mean.high is None else mean.high - mean.value for mean in means.values()]
            label, style = (head, "-") if words == WORDS else (f"{head}, {words}", ":")
            lines.append(Line(label, list(means), values, reaches, colors[head], style, band=True))
        chance = next(each.chance for each in found if each.of == of)
        panels.append(Panel(f"{of} of the unseen classes", "seen classes", lines, chance, log=True))
    return lines_figure(panels, "Unseen classes over the number of seen ones")


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
