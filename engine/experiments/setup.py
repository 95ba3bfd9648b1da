"""What all experiments share: the config they start from, the splits, and the methods they compare.

end to end    the config as it is
frozen        its features stay as they begin (random, or model.weights); only the linear layer learns (paper Sec. 3.2)
pretrained    end to end from weights trained on moving crops of pictures (paper Sec. 3.4)
joint         end to end on videos and pictures at the same time: more training classes
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.config import Config
from engine.data.config import SourceConfig
from engine.data.sources import DataSet, load_source, load_tests, load_training_sets, num_drawn
from engine.errors import InputError
from engine.experiments.cells import Cell
from engine.schema_keys import with_keys
from engine.semantics.overlap import NamedClasses, remove_overlap

_SHORT = {"end to end": "e2e", "frozen": "frozen", "pretrained": "pretrained", "joint": "joint"}


@dataclass(frozen=True)
class Method:
    """One of the methods of a list, with its config read. start: the method whose weights it starts from."""

    name: str
    config: Config
    start: str | None
    is_shown: bool


@dataclass(frozen=True)
class Setup:
    """What an experiment is made with.

    base: the config of end-to-end training; splits: seeds of its class splits (or of the run, where it has none).
    images: manifest of pictures to pretrain on, or None. draws: random subsets of each kind.
    shares: of the training videos; class_counts: training classes; clusters: into which the training classes are cut;
    cluster_classes: training classes of a run within a cluster. train_classes, test_classes: lists for Figures 2 and 3 in
    place of the config's sets. methods: for the comparison of methods, with the name of the reference.
    """

    base: Config
    splits: tuple[int, ...] = (0, 1, 2)
    images: str | None = None
    draws: int = 1
    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    class_counts: tuple[int, ...] = (2, 4, 6, 8)
    clusters: tuple[int, ...] = (1, 2, 3, 6)
    cluster_classes: int = 6
    train_classes: tuple[NamedClasses, ...] = ()
    test_classes: tuple[NamedClasses, ...] = ()
    reference: str = ""
    methods: tuple[Method, ...] = ()


@dataclass(frozen=True)
class ClassPool:
    """The training classes of a split, after overlapping ones are left out.

    videos: for each source of the config, class name -> number of its videos.
    """

    videos: tuple[dict[str, int], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for source in self.videos for name in source))

    @property
    def total(self) -> int:
        return sum(sum(source.values()) for source in self.videos)


def for_split(setup: Setup, split: int) -> Config:
    """The base config of one class split; where it has no random split of classes, of one seed."""
    data = setup.base.data
    seeds = [
        f"data.{side}.{index}.class_split.seed"
        for side, sources in (("train", data.train), ("tests", data.tests or ()))
        for index, source in enumerate(sources)
        if source.class_split is not None
    ]
    return with_keys(setup.base, dict.fromkeys(seeds or ["run.seed"], split))


def method_cell(
    setup: Setup, method: str, split: int, sources: Sequence[SourceConfig] | None = None, label: str = ""
) -> Cell:
    """The cell of a method on one split.

    Args:
        sources: training sets in place of the config's (for joint: of its videos).
        label: what those are, in a word.
    """
    config = for_split(setup, split)
    if sources is not None:
        config = with_sources(config, sources)
    name = "-".join(part for part in (_SHORT[method], f"split{split}", label) if part)
    if method == "frozen":
        config = with_keys(config, {"model.freeze_backbone": True})
    if method == "pretrained":
        return Cell(name, config, pretraining_cell(setup, split))
    if method == "joint":
        images = image_source(setup)
        videos = sum(len(data.manifest) for data in load_training_sets(config.data))
        weight = round(min(1.0, videos / len(load_source(images).manifest)), 2)  # half of a batch is videos
        config = leaving_out_overlap(
            with_sources(config, [*config.data.train, dataclasses.replace(images, weight=weight)])
        )
    return Cell(name, config)


def pretraining_cell(setup: Setup, split: int) -> Cell:
    """Training on pictures alone, without those of the split's test classes (paper Sec. 3.4)."""
    config = with_sources(for_split(setup, split), [image_source(setup)])
    return Cell(f"images-split{split}", leaving_out_overlap(config))


def image_source(setup: Setup) -> SourceConfig:
    """The set of pictures.

    Raises:
        InputError: none is named.
    """
    if setup.images is None:
        raise InputError("this experiment pretrains on pictures: name their manifest with --images MANIFEST")
    return SourceConfig(manifest=setup.images, name=Path(setup.images).resolve().parent.name)


def with_sources(config: Config, sources: Sequence[SourceConfig]) -> Config:
    """The config with other training sets."""
    return with_keys(config, {"data.train": list(sources)})


def leaving_out_overlap(config: Config) -> Config:
    """The config with overlapping training classes left out, where it would refuse to start."""
    return with_keys(config, {"train.exclude_overlap.training": "remove"})


def class_pool(config: Config) -> ClassPool:
    """The classes that a run with this config would train on, and their videos.

    Raises:
        InputError: as the run itself would.
    """
    sets = load_training_sets(config.data)
    tests = [(test.name, test.classes) for test in load_tests(config.data.tests)]
    removed, _ = remove_overlap(
        config.train.exclude_overlap, [(data.name, data.classes) for data in sets], tests, config.words
    )
    return ClassPool(tuple(_count(data, set(removed)) for data in sets))


def _count(data: DataSet, without: set[str]) -> dict[str, int]:
    counts = np.bincount(data.manifest.class_index, minlength=len(data.classes)).tolist()
    return {name: count for name, count in zip(data.classes, counts, strict=True) if name not in without}


def only_classes(config: Config, pool: ClassPool, names: Sequence[str]) -> list[SourceConfig]:
    """The config's training sets with only these classes, in as many steps as with all of them.

    A set's videos come as often as makes its classes' share of an epoch as large as their share of the names; a class that
    is in several sets counts as a part in each.
    """
    chosen = []
    for source, counts in zip(config.data.train, pool.videos, strict=True):
        kept = [name for name in counts if name in set(names)]
        if kept:
            share = sum(1 / sum(name in other for other in pool.videos) for name in kept) / len(names)
            wanted = pool.total * share
            weight = round(wanted / sum(counts[name] for name in kept), 4)
            chosen.append(
                dataclasses.replace(
                    source, classes=sorted(kept), class_split=None, published_split=None, part="all", weight=weight
                )
            )
    return chosen


def share_of_videos(config: Config, pool: ClassPool, share: float, seed: int) -> list[SourceConfig]:
    """The config's training sets with a share of each class's videos, in as many steps as with all of them."""
    if share == 1:
        return list(config.data.train)
    chosen = []
    for source, counts in zip(config.data.train, pool.videos, strict=True):
        kept = sum(num_drawn(share, count) for count in counts.values())
        weight = round(source.weight * sum(counts.values()) / max(1, kept), 4)
        chosen.append(dataclasses.replace(source, video_share=share, video_seed=seed, weight=weight))
    return chosen
