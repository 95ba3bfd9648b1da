"""From the `data` section to the videos that train, validate and test."""

import dataclasses
import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.data.config import ClassSplitConfig, DataConfig, SourceConfig, ValidationConfig
from engine.data.manifest import Manifest, concatenate
from engine.data.trust import check_inside, check_limits
from engine.errors import InputError


@dataclass(frozen=True)
class DataSet:
    """A named set of videos with its class names."""

    name: str
    manifest: Manifest

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes


@dataclass(frozen=True)
class TrainingData:
    """What trains, and what is held out of it.

    train: the videos trained on; `train.classes` is the order of the class vectors.
    weights: float64 [V], how often each of its videos comes in an epoch.
    held_out_videos: videos of those same classes. held_out_classes: all videos of training classes that are held out
    whole, to choose a checkpoint by zero-shot accuracy. None if there are none. Neither is ever the test.
    """

    train: DataSet
    held_out_videos: DataSet | None
    held_out_classes: DataSet | None
    weights: np.ndarray


def load_source(config: SourceConfig) -> DataSet:
    """Read a manifest and keep the part that the config names.

    Raises:
        InputError: a split, group or class that the manifest does not have, nothing left, paths that leave the root,
            or videos over the limits.
    """
    path = Path(config.manifest)
    manifest = Manifest.load(path, Path(config.root) if config.root else None)
    check_limits(manifest, config)
    if not config.allow_outside:
        check_inside(manifest)
    for column, wanted in (("split", config.splits), ("group", config.groups), ("class_name", config.classes)):
        if wanted:
            manifest = manifest.select(np.isin(_checked(manifest, column, wanted, path), wanted))
    if config.exclude_classes:
        manifest = manifest.select(
            ~np.isin(_checked(manifest, "class_name", config.exclude_classes, path), config.exclude_classes)
        )
    if config.class_split is not None:
        keep = split_classes(manifest.classes, config.class_split)[config.part]
        manifest = manifest.select(np.isin(manifest.class_index, [manifest.classes.index(name) for name in keep]))
    if config.video_share < 1:
        manifest = manifest.select(draw_videos(manifest, config.video_share, config.video_seed))
    if len(manifest) == 0:
        raise InputError(f"data source '{path}': no video is left after its splits, groups and classes are applied")
    return DataSet(config.name or path.resolve().parent.name, manifest)


def load_tests(sources: Sequence[SourceConfig]) -> list[DataSet]:
    """The test sets of a config. Results are kept by name, so no two may have the same.

    Raises:
        InputError: as `load_source`, or two sets of one name.
    """
    datasets = [load_source(source) for source in sources]
    names = [dataset.name for dataset in datasets]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InputError(f"two test sets are called '{name}': name one with data.tests.{index}.name=OTHER")
    return datasets


def _checked(manifest: Manifest, column: str, wanted: Sequence[str], path: Path) -> np.ndarray:
    values = manifest.strings(column)
    present = set(values)
    for name in wanted:
        if name not in present:
            if present == {""}:
                raise InputError(f"manifest '{path}' knows no {column}s: leave '{name}' out of the config")
            close, others = difflib.get_close_matches(name, present, n=3), sorted(present)
            known = (
                "near: " + _quoted(close) if close else "it has " + _quoted(others[:10]) + ", ..." * (len(others) > 10)
            )
            raise InputError(f"manifest '{path}' has no {column} '{name}'; {known}")
    return values


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def split_classes(classes: Sequence[str], split: ClassSplitConfig) -> dict[str, list[str]]:
    """Class names of both sides: a RandomState permutation of the sorted names, the first num_train train."""
    names = sorted(classes)
    if split.num_train >= len(names):
        raise InputError(
            f"class_split.num_train is {split.num_train} but there are {len(names)} classes: none would be unseen"
        )
    order = np.random.RandomState(split.seed).permutation(len(names))
    return {
        "train": [names[i] for i in order[: split.num_train]],
        "unseen": [names[i] for i in order[split.num_train :]],
    }


def draw_videos(manifest: Manifest, share: float, seed: int) -> np.ndarray:
    """bool [V]: a random share of the videos of each class, rounded, at least one (the data set sizes of paper Fig. 4).

    The draw of a class is keyed by (seed, class name): whatever other classes there are, and for one seed the videos of a
    smaller share are among those of a larger.
    """
    kept = np.zeros(len(manifest), dtype=bool)
    for index, name in enumerate(manifest.classes):
        rows = np.flatnonzero(manifest.class_index == index)
        key = (seed, *name.encode("utf-8"))
        order = np.random.Generator(np.random.Philox(np.random.SeedSequence(key))).permutation(len(rows))
        kept[rows[order[: num_drawn(share, len(rows))]]] = True
    return kept


def num_drawn(share: float, num_videos: int) -> int:
    """How many of a class's videos `draw_videos` keeps."""
    return max(1, round(share * num_videos))


def load_training_sets(config: DataConfig) -> list[DataSet]:
    """The training sets of a config, each by itself.

    Raises:
        InputError: as `load_source`, or there are none.
    """
    if not config.train:
        raise InputError("data.train is empty: name at least one manifest to train on")
    return [load_source(source) for source in config.train]


def load_training(
    config: DataConfig, without: Collection[str] = (), sets: Sequence[DataSet] | None = None
) -> TrainingData:
    """All training sets as one, without some classes, and with what the validation section holds out taken away.

    Args:
        sets: `load_training_sets(config)`, where the manifests have been read and checked already.
    """
    sets = load_training_sets(config) if sets is None else sets
    name = " + ".join(
        data.name if source.weight == 1 else f"{source.weight:g} x {data.name}"
        for data, source in zip(sets, config.train, strict=True)
    )
    weights = np.concatenate(
        [np.full(len(data.manifest), source.weight) for data, source in zip(sets, config.train, strict=True)]
    )
    manifest = sets[0].manifest if len(sets) == 1 else concatenate([data.manifest for data in sets])
    if without:
        names = np.array(manifest.classes, dtype=object)
        keep = ~np.isin(names, list(without))[manifest.class_index]
        manifest, weights = manifest.select(keep), weights[keep]
        if len(manifest) == 0:
            raise InputError(
                f"no training class is left: all {len(names)} overlap with test classes (train.exclude_overlap)"
            )
    held_classes = hold_out_classes(manifest.classes, config.validation)
    is_held = np.isin(manifest.class_index, [manifest.classes.index(c) for c in held_classes])
    of_classes = DataSet(f"{name} (held-out classes)", manifest.select(is_held)) if held_classes else None
    manifest, weights = manifest.select(~is_held), weights[~is_held]
    held = hold_out_videos(manifest, config.validation)
    of_videos = DataSet(f"{name} (held-out videos)", manifest.select(held)) if held.any() else None
    return TrainingData(DataSet(name, manifest.select(~held)), of_videos, of_classes, weights[~held])


def load_trained(config: DataConfig, train_classes: Collection[str]) -> TrainingData:
    """The training data of a run that is over: what it trained on and which videos of those classes it held out.

    Args:
        train_classes: of the run, as its checkpoint has them (without overlapping and held-out classes).
    """
    sets = load_training_sets(config)
    names = {name for data in sets for name in data.classes}
    # Class by class the same draws as in training: the other classes are gone, none is to be held out any more.
    validation = dataclasses.replace(config.validation, num_classes=0)
    config = dataclasses.replace(config, validation=validation)
    return load_training(config, without=names - set(train_classes), sets=sets)


def load_held_out(config: DataConfig, train_classes: Collection[str]) -> DataSet:
    """The videos of the training classes that a run with this config held out of its training.

    Args:
        train_classes: of the run, as its checkpoint has them (without overlapping and held-out classes).

    Raises:
        InputError: the run held no videos out.
    """
    data = load_trained(config, train_classes).held_out_videos
    if data is None:
        raise InputError(
            "the run held out no videos of its training classes (data.validation.video_share): name a set of other videos"
        )
    return data


def hold_out_classes(classes: Sequence[str], config: ValidationConfig) -> list[str]:
    """Names of the training classes that are held out entirely."""
    if config.num_classes and config.num_classes > len(classes) - 2:
        raise InputError(
            f"data.validation.num_classes is {config.num_classes} of {len(classes)} training classes: at least 2 must be "
            f"left to train on, so it can be at most {max(0, len(classes) - 2)}"
        )
    order = np.random.RandomState(config.seed).permutation(len(classes))[: config.num_classes]
    return sorted(sorted(classes)[i] for i in order)


def hold_out_videos(manifest: Manifest, config: ValidationConfig) -> np.ndarray:
    """bool [V]: whole groups of each class, about `video_share` of its videos; never all of a class.

    Videos of one group are cut from one source: a group on both sides would be no test at all.
    """
    held = np.zeros(len(manifest), dtype=bool)
    if config.video_share == 0:
        return held
    groups = manifest.strings("group")
    generator = np.random.RandomState(config.seed)
    for index in range(len(manifest.classes)):
        rows = np.flatnonzero(manifest.class_index == index)
        sources = np.array([groups[row] or f"row {row}" for row in rows], dtype=object)
        names, counts = np.unique(sources, return_counts=True)
        order = generator.permutation(len(names))[: len(names) - 1]
        wanted = config.video_share * len(rows)
        before = np.cumsum(counts[order]) - counts[order]
        held[rows[np.isin(sources, names[order[before < wanted]])]] = True
    return held


def same_videos(train: DataSet, others: Iterable[DataSet]) -> list[str]:
    """A warning for each set with videos that are trained on too: the same contents, whatever they are called.

    Videos of a store, and of manifests without hashes, are told by their paths alone.
    """
    notes, trained = [], {identity: row for row, identity in enumerate(_identities(train.manifest))}
    for other in others:
        found = [
            (row, trained[identity]) for row, identity in enumerate(_identities(other.manifest)) if identity in trained
        ]
        if found:
            shown = "; ".join(f"{_path(other, row)} = {_path(train, same)}" for row, same in found[:3])
            more = "; ..." * (len(found) > 3)
            notes.append(
                f"warning: {len(found)} of the {len(other.manifest)} videos of '{other.name}' are trained on too, by their "
                f"contents: {shown}{more}"
            )
    return notes


def _identities(manifest: Manifest) -> list[int | str]:
    """What tells a file of a manifest from others: the hash of its contents, else where it lies."""
    hashes = manifest.table.column("content_hash").to_pylist()
    root, paths = manifest.root.absolute(), manifest.paths
    return [str(root / path) if found is None else found for path, found in zip(paths, hashes, strict=True)]


def _path(data: DataSet, row: int) -> str:
    return data.manifest.paths[row]


def class_lookup(manifest: Manifest, classes: Iterable[str]) -> np.ndarray:
    """int64 [V]: each video's class as an index into `classes` (all must be there)."""
    indices = {name: index for index, name in enumerate(classes)}
    return np.array([indices[name] for name in manifest.classes], dtype=np.int64)[manifest.class_index]
