"""How well videos are named without any training, over random splits of the classes of a data set.

    python tools/untrained_splits.py data/ucf15.parquet --num-train 10 --splits 100 --definitions ucf101_definitions.json

Split s is RandomState(s).permutation over the sorted class names: the first --num-train classes are left aside, as a training
would have them, and the videos of the others are named among these others. A row each for

    names, definitions              what the sentence encoder compares with the names (definitions) of the known classes
    ... standardised                each class's scores counted over the videos of the classes left aside, without labels
    ... transductive                videos named together (engine/evaluation/transductive.py): a name depends on the other videos
    random words                    the control: random vectors in place of all words, drawn anew in every split

and the same for all classes at once. Mean and standard deviation (of a sample: over n - 1) over the splits; of a single value
none. Every video is decoded once.

The classes that the weights have seen are listed below. This is no result under the paper's protocol.
"""

import feature_options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(feature_options.untrained_splits, __doc__)

import argparse
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from record_tables import spread

from engine.data.config import ClassSplitConfig, SourceConfig
from engine.data.sets.class_splits import check_measurable, split_classes
from engine.data.sets.sources import DataSet, load_tests
from engine.errors import InputError
from engine.evaluation.embedding import EmbeddedVideos
from engine.evaluation.inference import embed_source, load_model, seen_in_pretraining
from engine.evaluation.metrics import accuracy
from engine.evaluation.transductive import nearest_classes
from engine.naming.known_classes import KnownClasses
from engine.processes.distributed import choose_device
from engine.records import append_record
from engine.results.accuracy import TOP, Accuracy
from engine.results.table import Table
from engine.semantics.classes import KeptVectors
from engine.semantics.config import WordsConfig
from engine.tasks.zero_shot.trained import LoadedModel

_DRAWS = 20  # of random words, where all classes are one test


def main(arguments: argparse.Namespace) -> None:
    """Decode, name, print the tables; append a record if asked."""
    device = choose_device(arguments.device)
    loaded = load_model(arguments.model, device, transductive=True)
    if not loaded.known:
        raise InputError(f"--model '{loaded.path}' was trained: its splits are those of tools/experiments.py")
    source = SourceConfig(manifest=str(arguments.manifest))
    (data,) = load_tests([source])
    splits = [ClassSplitConfig(seed, arguments.num_train) for seed in range(arguments.splits)]
    check_measurable(data.classes, arguments.num_train)  # too few classes are told before the videos are decoded
    methods = word_methods(loaded, data.classes, arguments.definitions)  # and words that cannot be had
    started = time.perf_counter()
    embedded = embed_source(loaded, data, device)
    rate = len(embedded.rows) / (time.perf_counter() - started)
    print(f"{len(embedded.rows)} videos, {len(embedded.failures)} not decoded; {rate:.2f} videos/s")
    rows = [
        *measure("splits", splits, loaded, data, embedded, methods),
        *measure("all", [None] * _DRAWS, loaded, data, embedded, methods),
    ]
    for part in dict.fromkeys(row["part"] for row in rows):
        print("\n" + table([row for row in rows if row["part"] == part]).text())
    print("\n" + seen_in_pretraining(loaded, [(data.name, data.classes)]))
    if arguments.record:
        fields = {"data": data.name, "num_train": arguments.num_train, "videos_per_second": round(rate, 3)}
        append_record("untrained", n=arguments.splits, model=str(loaded.path), accuracy=rows, **fields)


def word_methods(
    loaded: LoadedModel, classes: Sequence[str], definitions: Sequence[str]
) -> dict[str, KeptVectors | None]:
    """The words that videos are named by: names, definitions if files are named, and None for random ones.

    Raises:
        InputError: a class has no vector, no definition, or a file of definitions cannot be read.
    """
    words = loaded.config.words
    methods = {"names": KeptVectors(words)}
    if definitions:
        methods["definitions"] = KeptVectors(
            dataclasses.replace(words, text="definition", definitions=list(definitions))
        )
    for kept in methods.values():
        KnownClasses(loaded.known, kept).embed(classes)
    return {**methods, "random words": None}


def measure(
    part: str,
    splits: Sequence[ClassSplitConfig | None],
    loaded: LoadedModel,
    data: DataSet,
    embedded: EmbeddedVideos,
    methods: Mapping[str, KeptVectors | None],
) -> Iterator[dict[str, object]]:
    """A row for each method: accuracies over the splits; the split None is all classes at once.

    The deviation is that of a sample, None for a single value; older records have that of a population, and 0.
    """
    sides = [split_classes(data.classes, split) if split else {"train": [], "unseen": data.classes} for split in splits]
    for name, kept in methods.items():
        for way in ("", "standardised", "transductive") if splits[0] is not None else ("", "transductive"):
            is_one = kept is not None and splits[0] is None  # nothing differs from draw to draw
            found = [
                name_unseen(loaded, data, embedded, kept or _random(seed), side, way)
                for seed, side in enumerate(sides[:1] if is_one else sides)
            ]
            row: dict[str, object] = {"part": part, "method": f"{name}, {way}" if way else name}
            for measured in ("top1", "mean_class", "chance_top1"):
                values = np.array([getattr(reached, measured) for reached in found])
                deviation = float(values.std(ddof=1)) if len(values) > 1 else None
                row |= {measured: float(values.mean()), f"{measured}_sd": deviation}
            yield row | {"largest_class": float(np.mean([reached.largest_class for reached in found]))}


def _random(seed: int) -> KeptVectors:
    return KeptVectors(WordsConfig(source="random", seed=seed))


def name_unseen(
    loaded: LoadedModel,
    data: DataSet,
    embedded: EmbeddedVideos,
    words: KeptVectors,
    sides: dict[str, list[str]],
    way: str,
) -> Accuracy:
    """On the unseen classes of a split.

    Args:
        way: standardised, transductive, or neither.

    Raises:
        InputError: no video of these classes could be decoded.
    """
    place = {name: index for index, name in enumerate(data.manifest.classes)}

    def videos(names: Sequence[str]) -> torch.Tensor:
        return torch.isin(embedded.class_index, torch.tensor([place[name] for name in names], dtype=torch.int64))

    unseen = list(sides["unseen"])
    others = embedded.embeddings[videos(sides["train"])] if way == "standardised" else None
    classes = KnownClasses(loaded.known, words, others).embed(unseen)
    chosen = videos(unseen)
    if not chosen.any():
        first = embedded.failures[0]
        raise InputError(
            f"no video of the classes {', '.join(map(repr, unseen))} could be decoded, so nothing is named among these "
            f"('{first.path}': {first.reason}): leave them out of the manifest, or get the videos again"
        )
    labels = torch.tensor([unseen.index(data.manifest.classes[i]) for i in embedded.class_index[chosen].tolist()])
    features = embedded.features[chosen] if way == "transductive" else None
    points = embedded.embeddings[chosen]
    _, best = nearest_classes(points, classes.vectors, min(TOP, len(unseen)), features)
    return accuracy(best.numpy(), labels.numpy(), len(unseen))


def table(rows: Sequence[dict[str, object]]) -> Table:
    """The rows of one part, for people."""
    what = {"splits": "unseen classes of random splits", "all": "all classes at once"}[str(rows[0]["part"])]
    shown = [
        [row["method"], spread(row, "mean_class"), row["chance_top1"], spread(row, "top1"), row["largest_class"]]
        for row in rows
    ]
    header = ["method", "mean-class", "chance", "top-1", "largest class"]
    over = {"splits": "splits", "all": "draws of random words"}[str(rows[0]["part"])]
    return Table(header, shown, f"WITHOUT TRAINING, {what}: mean and standard deviation over {over}")


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
