"""What all experiments share: the config they start from, the splits, and the methods they compare.

end to end    the config as it is
frozen        its features stay as they begin (random, model.weights, or those of --frozen-weights); only the linear layer
              learns (paper Sec. 3.2)
pretrained    end to end from weights trained on moving crops of pictures (paper Sec. 3.4)
joint         end to end on videos and pictures at the same time, half of each batch of either: more training classes

All runs of one split take the same number of steps: what trains on less sees it more often.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.config import Config
from engine.data.config import SourceConfig
from engine.data.sampling.sampler import epoch_length
from engine.data.sets.footage import TRAINED
from engine.data.sets.sources import DataSet, load_training, load_training_sets
from engine.errors import InputError
from engine.experiments import drawn
from engine.experiments.cells import Cell
from engine.experiments.changed import training_now
from engine.schema.keys import with_keys
from engine.semantics.class_lists import NamedClasses

_SHORT = {"end to end": "e2e", "frozen": "frozen", "frozen pretrained": "frozen-pretrained", "pretrained": "pretrained",
          "joint": "joint"}  # fmt: skip

_OF_IMAGES = ("pretrained", "frozen pretrained", "joint")


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

    base: the config of end-to-end training; splits: seeds of its class splits (or of the run, where it has none), and of
    the videos that it draws. images: manifest of pictures to pretrain on; None: the stills that the config draws, if any.
    without: methods that are left out. frozen_weights: of the frozen method alone, as `model.weights`.
    draws: random subsets of each kind. cluster_images: the classes of the pictures are among those cut into clusters.
    shares: of the training videos; class_counts: training classes; clusters: into which the training classes are cut;
    cluster_classes: training classes of a run within a cluster. train_classes, test_classes: lists for Figures 2 and 3 in
    place of the config's sets. methods: for the comparison of methods, with the name of the reference.
    """

    base: Config
    splits: tuple[int, ...] = (0, 1, 2)
    images: str | None = None
    without: tuple[str, ...] = ()
    frozen_weights: str | None = None
    cluster_images: bool = False
    draws: int = 1
    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    class_counts: tuple[int, ...] = (2, 4, 6, 8)
    clusters: tuple[int, ...] = (1, 2, 3, 6)
    cluster_classes: int = 6
    train_classes: tuple[NamedClasses, ...] = ()
    test_classes: tuple[NamedClasses, ...] = ()
    reference: str = ""
    methods: tuple[Method, ...] = ()

    @property
    def has_images(self) -> bool:
        """Whether there are pictures to pretrain on."""
        return self.images is not None or drawn.has_stills(self.base)

    def uses(self, method: str) -> bool:
        """Whether a method is asked for, and has the pictures that it needs."""
        return method not in self.without and (self.has_images or method not in _OF_IMAGES)


@dataclass(frozen=True)
class ClassPool:
    """The training classes of a split, after overlapping ones are left out.

    videos: for each source of the config, class name -> number of its videos, those to be held out among them.
    trained: videos of each source that a run with all of them trains on. epoch: snippets of its epochs, before
        data.clips_per_epoch.
    """

    videos: tuple[dict[str, int], ...]
    trained: tuple[int, ...]
    epoch: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for source in self.videos for name in source))


@dataclass(frozen=True)
class Training:
    """What a cell trains on. videos: without those held out. epoch: snippets of one of its epochs."""

    sources: list[SourceConfig]
    videos: int
    classes: int
    epoch: int


def for_split(setup: Setup, split: int) -> Config:
    """The base config of one class split; where it has no random split of classes, of one seed."""
    if setup.base.procedural is not None:
        return drawn.of_split(setup.base, split)
    return with_split(setup.base, split)


def with_split(config: Config, split: int) -> Config:
    """The config with another class split, or where it has none another seed."""
    seeds = [f"{key}.class_split.seed" for key, source in config.data.sources.items() if source.class_split is not None]
    return with_keys(config, dict.fromkeys(seeds or ["run.seed"], split))


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
    if method in ("frozen", "frozen pretrained"):
        keys: dict[str, object] = {"model.freeze_backbone": True}
        if setup.frozen_weights is not None and method == "frozen":
            # The paper's baseline has seen test classes (D_p of Eq. 3).
            keys |= {"model.weights": setup.frozen_weights, "train.exclude_overlap.pretrained": "allow"}
        config = with_keys(config, keys)
    if method in ("pretrained", "frozen pretrained"):
        return Cell(name, config, pretraining_cell(setup, split))
    if method == "joint":
        config = _joint(setup, config, split)
    return Cell(name, config)


def _joint(setup: Setup, config: Config, split: int) -> Config:
    """With the pictures beside the videos: half of each batch of either, in as many steps as with the videos alone."""
    alone = class_pool(config)
    config = leaving_out_overlap(with_sources(config, [*config.data.train, image_source(setup, split)]))
    pool = class_pool(config)
    *videos, pictures = pool.trained
    of_videos = sum(source.weight * count for source, count in zip(config.data.train[:-1], videos, strict=True))
    halves = [alone.epoch / 2 / of_videos] * len(videos) + [alone.epoch / 2 / max(1, pictures)]
    sources = [
        dataclasses.replace(source, weight=_short(source.weight * share))
        for source, share in zip(config.data.train, halves, strict=True)
    ]
    return with_sources(config, as_long(config, pool, sources, alone.epoch).sources)


def pretraining_cell(setup: Setup, split: int) -> Cell:
    """Training on pictures alone, without those of the split's test classes (paper Sec. 3.4)."""
    config = with_sources(for_split(setup, split), [image_source(setup, split)])
    config = with_keys(config, {"run.control": False})  # no accuracy of it is shown
    return Cell(f"images-split{split}", leaving_out_overlap(config))


def image_source(setup: Setup, split: int) -> SourceConfig:
    """The set of pictures of a split.

    Raises:
        InputError: none is named.
    """
    if setup.images is None:
        if drawn.has_stills(setup.base):
            return drawn.stills_of(setup.base, split)
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
    sets, removed, data = training_now(config)
    if data.footage.is_large:
        raise InputError(
            "experiments count each class's videos, and take no manifest of millions of rows: name a smaller one"
        )
    counts = tuple(_count(each, set(removed)) for each in sets)
    ends = np.cumsum([sum(count.values()) for count in counts])[:-1]
    trained = tuple(int((part == TRAINED).sum()) for part in np.split(data.footage.part, ends))
    return ClassPool(counts, trained, epoch_length(data.weights))


def whole_training(config: Config, pool: ClassPool) -> Training:
    """All classes of the pool with all of their videos: what the config says."""
    epoch = min(pool.epoch, config.data.clips_per_epoch or pool.epoch)
    return Training(list(config.data.train), sum(pool.trained), len(pool.names), epoch)


def _count(data: DataSet, without: set[str]) -> dict[str, int]:
    counts = np.bincount(data.manifest.class_index, minlength=len(data.classes)).tolist()
    return {name: count for name, count in zip(data.classes, counts, strict=True) if name not in without}


def only_classes(config: Config, pool: ClassPool, names: Sequence[str]) -> Training:
    """The config's training sets with only these classes, in as many steps as with all of them.

    A set's videos come as often as makes its classes' share of an epoch as large as their share of the names; a class that
    is in several sets counts as a part in each.
    """
    chosen = []
    for source, counts in zip(config.data.train, pool.videos, strict=True):
        kept = [name for name in counts if name in set(names)]
        if kept:
            share = sum(1 / sum(name in other for other in pool.videos) for name in kept) / len(names)
            weight = _short(pool.epoch * share / sum(counts[name] for name in kept))
            chosen.append(
                dataclasses.replace(
                    source, classes=sorted(kept), class_split=None, published_split=None, part="all", weight=weight
                )
            )
    return as_long(config, pool, chosen, pool.epoch)


def share_of_videos(config: Config, pool: ClassPool, share: float, seed: int) -> Training:
    """The config's training sets with a share of each class's videos, in as many steps as with all of them.

    Of a set of which the config itself draws a share, that share of it; with seed 0 of the very videos that the config draws.
    """
    if share == 1:
        return whole_training(config, pool)
    sources = [_drawn(source, share, seed) for source in config.data.train]
    sets, chosen = load_training_sets(with_sources(config, sources).data), []
    for source, data, counts in zip(sources, sets, pool.videos, strict=True):
        kept = sum(count for name, count in _count(data, set()).items() if name in counts)
        weight = _short(source.weight * sum(counts.values()) / max(1, kept))
        chosen.append(dataclasses.replace(source, weight=weight))
    return as_long(config, pool, chosen, pool.epoch)


def _drawn(source: SourceConfig, share: float, seed: int) -> SourceConfig:
    first = source.video_seed if source.video_share < 1 else 0
    return dataclasses.replace(source, video_share=source.video_share * share, video_seed=first + seed)


def as_long(config: Config, pool: ClassPool, sources: Sequence[SourceConfig], epoch: int) -> Training:
    """The sources with their weights scaled so that an epoch has so many snippets, whatever is held out of them; where
    `data.clips_per_epoch` cuts both to one length they stay as they are."""
    sets = load_training_sets(with_sources(config, sources).data)
    others = {name for data in sets for name in data.classes} - set(pool.names)
    data = load_training(with_sources(config, sources).data, without=others, sets=sets)
    cap = config.data.clips_per_epoch
    if cap is None or min(epoch, epoch_length(data.weights)) < cap:
        scale = epoch / data.weights.sum()
        sources = [dataclasses.replace(source, weight=float(f"{source.weight * scale:.9g}")) for source in sources]
        data = load_training(with_sources(config, sources).data, without=others, sets=sets)
    length = epoch_length(data.weights, cap)
    return Training(list(sources), len(data.train.manifest), len(data.train.classes), length)


def _short(weight: float) -> float:
    """A weight in four digits behind the point, but never 0."""
    return round(weight, 4) or weight
