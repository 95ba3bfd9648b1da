"""From the `data` section to the videos that train, validate and test."""

import dataclasses
import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.data.config import DataConfig, SourceConfig, file_name, set_names
from engine.data.manifests.contents import file_identities, rows_of_files
from engine.data.manifests.joining import join
from engine.data.manifests.large_manifest import LargeManifest, read_manifest
from engine.data.manifests.manifest import Manifest
from engine.data.manifests.trust import check_inside, check_limits
from engine.data.sampling.keyed import SHARE_OF_VIDEOS
from engine.data.sampling.weights import RowWeights
from engine.data.sets.class_splits import published_split, split_classes
from engine.data.sets.footage import HELD_OUT_CLASS, HELD_OUT_VIDEO, TRAINED, Footage
from engine.data.sets.holding_out import draw_large_parts, draw_parts, rows_of_classes
from engine.errors import InputError
from engine.files.addresses import shown
from engine.semantics.words import composed


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
    weights: how often each of its videos comes in an epoch.
    held_out_videos: videos of those same classes. held_out_classes: all videos of training classes that are held out
    whole, to choose a checkpoint by zero-shot accuracy. None if there are none. Neither is ever the test.
    footage: all of these rows in the manifests' order, as the run is going to remember them.
    changes: how the manifests differ from what a run remembers of them, in words; none where they do not.
    """

    train: DataSet
    held_out_videos: DataSet | None
    held_out_classes: DataSet | None
    weights: RowWeights
    footage: Footage
    changes: tuple[str, ...] = ()


def load_source(config: SourceConfig) -> DataSet:
    """Read a manifest and keep the part that the config names.

    Raises:
        InputError: a split, group or class that the manifest does not have, nothing left, paths that leave the root,
            or videos over the limits.
    """
    path = Path(config.manifest)
    manifest = read_manifest(path, Path(config.root) if config.root else None)
    if isinstance(manifest, LargeManifest):
        manifest = manifest.limited(config)
    else:
        check_limits(manifest, config)
        if not config.allow_outside:
            check_inside(manifest)
    classes, others = (list(map(composed, names)) for names in (config.classes, config.exclude_classes))
    for column, wanted in (("split", config.splits), ("group", config.groups), ("class_name", classes)):
        if wanted:
            _check_names(manifest, column, wanted, path)
            manifest = manifest.select(manifest.is_one_of(column, wanted))
    if others:
        _check_names(manifest, "class_name", others, path)
        manifest = manifest.select(~manifest.is_one_of("class_name", others))
    _expect_some(manifest, path)
    if config.part != "all":
        published = config.published_split is not None
        split, by = (published_split, config.published_split) if published else (split_classes, config.class_split)
        keep = split(manifest.classes, by)[config.part]
        manifest = manifest.select(manifest.is_one_of("class_name", keep))
        _expect_some(manifest, path)
    if isinstance(manifest, LargeManifest):
        manifest = manifest.settled()
    if config.video_share < 1:
        manifest = manifest.select(draw_videos(manifest, config.video_share, config.video_seed))
        _expect_some(manifest, path)
    return DataSet(set_names([config])[0], manifest)


def _expect_some(manifest: Manifest, path: Path) -> None:
    if len(manifest) == 0:
        raise InputError(
            f"data source '{shown(path)}': no video is left after its splits, groups and classes are applied"
        )


def load_tests(sources: Sequence[SourceConfig] | None) -> list[DataSet]:
    """The test sets of a config, if it names any. Results are kept by name, so no two may have the same.

    Raises:
        InputError: as `load_source`, or two sets of one name.
    """
    datasets = [load_source(source) for source in sources or ()]
    names = [dataset.name for dataset in datasets]
    files = [file_name(name) for name in names]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InputError(f"two test sets are called '{name}': name one with data.tests.{index}.name=OTHER")
        if files[index] in files[:index]:
            other = names[files.index(files[index])]
            raise InputError(
                f"the test sets '{other}' and '{name}' would have results in files of one name: name one with "
                f"data.tests.{index}.name=OTHER"
            )
    return datasets


def _check_names(manifest: Manifest, column: str, wanted: Sequence[str], path: Path) -> None:
    present = manifest.names(column)
    for name in wanted:
        if name not in present:
            if present == {""}:
                raise InputError(f"manifest '{shown(path)}' knows no {column}s: leave '{name}' out of the config")
            close, others = difflib.get_close_matches(name, present, n=3), sorted(present)
            known = (
                "near: " + _quoted(close) if close else "it has " + _quoted(others[:10]) + ", ..." * (len(others) > 10)
            )
            raise InputError(f"manifest '{shown(path)}' has no {column} '{name}'; {known}")


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def draw_videos(manifest: Manifest, share: float, seed: int) -> np.ndarray:
    """bool [V]: a random share of the videos of each class, rounded, at least one (the data set sizes of paper Fig. 4).

    The draw of a class is keyed by (seed, class name): whatever other classes there are, and for one seed the videos of a
    smaller share are among those of a larger. Of a large manifest each source of videos is drawn by itself, so the shares of
    classes are near to it.
    """
    if isinstance(manifest, LargeManifest):
        return manifest.is_drawn(share, seed, SHARE_OF_VIDEOS)
    kept = np.zeros(len(manifest), dtype=bool)
    for name, rows in zip(manifest.classes, rows_of_classes(manifest), strict=True):
        key = (seed, *name.encode("utf-8"))
        order = np.random.Generator(np.random.Philox(np.random.SeedSequence(key))).permutation(len(rows))
        kept[rows[order[: num_drawn(share, len(rows))]]] = True
    return kept


def num_drawn(share: float, num_videos: int) -> int:
    """How many of a class's videos `draw_videos` keeps."""
    return max(1, round(share * num_videos))


def load_training_sets(config: DataConfig, *, undrawn: bool = False) -> list[DataSet]:
    """The training sets of a config, each by itself.

    Args:
        undrawn: all videos of sets of which a share is drawn (`video_share`; the draw depends on the rows' order).

    Raises:
        InputError: as `load_source`, or there are none.
    """
    if not config.train:
        raise InputError("data.train is empty: name at least one manifest to train on")
    sources = [dataclasses.replace(source, video_share=1.0) if undrawn else source for source in config.train]
    names = set_names(config.train)
    return [dataclasses.replace(load_source(source), name=name) for source, name in zip(sources, names, strict=True)]


def load_training(
    config: DataConfig,
    without: Collection[str] = (),
    sets: Sequence[DataSet] | None = None,
    remembered: Footage | None = None,
    *,
    join_copies: bool = True,
) -> TrainingData:
    """All training sets as one, without some classes, and with what the validation section holds out taken away.

    Args:
        sets: `load_training_sets(config)`, where the manifests have been read and checked already; undrawn where the rows
            are `remembered`.
        remembered: of a run: its rows, in its order and parts, as far as they are there; no others.
        join_copies: see `hold_out_videos`.

    Raises:
        InputError: nothing is left to train on.
    """
    sets = load_training_sets(config) if sets is None else sets
    name = " + ".join(
        data.name if source.weight == 1 else f"{source.weight:g} x {data.name}"
        for data, source in zip(sets, config.train, strict=True)
    )
    weights = RowWeights.of_sets(
        [(source.weight, len(data.manifest)) for data, source in zip(sets, config.train, strict=True)]
    )
    manifest = sets[0].manifest if len(sets) == 1 else join([data.manifest for data in sets])
    whole = manifest
    if without:
        keep, count = ~manifest.is_one_of("class_name", without), len(manifest.classes)
        manifest, weights = manifest.select(keep), weights.select(keep)
        if len(manifest) == 0:
            raise InputError(
                f"no training class is left: all {count} overlap with test classes (train.exclude_overlap)"
            )
    if isinstance(whole, LargeManifest):
        footage = Footage.of_large([part.digest for part in whole.parts])
        return _large_training(config, DataSet(name, manifest), weights, footage, remembered)
    changes: tuple[str, ...] = ()
    if remembered is None:
        part = draw_parts(manifest, config.validation, join_copies=join_copies)
    else:
        rows = remembered.find(manifest)
        changes = _changes(config, len(rows), int((rows < 0).sum()), int(len(manifest) - (rows >= 0).sum()))
        part, rows = remembered.part[rows >= 0], rows[rows >= 0]
        manifest, weights = manifest.select(rows), weights.select(rows)

    def held_out(which: int, what: str) -> DataSet | None:
        return DataSet(f"{name} (held-out {what})", manifest.select(part == which)) if (part == which).any() else None

    return TrainingData(
        train=DataSet(name, manifest.select(part == TRAINED)),
        held_out_videos=held_out(HELD_OUT_VIDEO, "videos"),
        held_out_classes=held_out(HELD_OUT_CLASS, "classes"),
        weights=weights.select(part == TRAINED),
        footage=Footage.of(manifest, part),
        changes=changes,
    )


def _large_training(
    config: DataConfig, data: DataSet, weights: RowWeights, footage: Footage, remembered: Footage | None
) -> TrainingData:
    """As `load_training`. What is held out is drawn again: it is a function of the manifests and the config.

    Raises:
        InputError: the manifests are not those of the run.
    """
    validation, manifest = config.validation, data.manifest
    if remembered is not None:
        if any(remembered.difference(footage)):
            raise InputError(
                f"{', '.join(source.manifest for source in config.train)}: not what the run was trained on"
            )
        validation = dataclasses.replace(validation, num_classes=0)  # those that it held out are among the left out
    if not validation.video_share and not validation.num_classes:
        return TrainingData(data, None, None, weights, footage)
    sides = draw_large_parts(manifest, validation)

    def taken(which: int, what: str = "") -> DataSet | None:
        chosen = LargeManifest(sides[which], manifest.source)
        return DataSet(f"{data.name}{what}", chosen.settled()) if len(chosen) else None

    train = taken(TRAINED)
    if train is None:
        raise InputError("data.validation holds out all training videos: hold out less")
    videos, classes = taken(HELD_OUT_VIDEO, " (held-out videos)"), taken(HELD_OUT_CLASS, " (held-out classes)")
    weights = weights.thinned(manifest.ends, [len(part) for part in sides[TRAINED]])
    return TrainingData(train, videos, classes, weights, footage)


def _changes(config: DataConfig, num_remembered: int, num_gone: int, num_new: int) -> tuple[str, ...]:
    where = ", ".join(f"'{source.manifest}'" for source in config.train)
    gone = f"{num_gone} of {num_remembered} videos of the run are not in {where} any more (removed, changed, or of another class)"
    new = f"{num_new} videos in {where} are not of the run"
    is_drawn = any(source.video_share < 1 for source in config.train)  # then there always are others
    return (*([gone] if num_gone else []), *([new] if num_new and not is_drawn else []))


def same_videos(train: DataSet, others: Iterable[DataSet]) -> list[str]:
    """A warning for each set with videos that are trained on too: the same contents, whatever they are called."""
    others = [other for other in others if not other.manifest.is_large]
    contents = [file_identities(other.manifest) for other in others]
    rows = rows_of_files(train.manifest, np.concatenate([*contents, np.zeros(0, np.int64)]))
    known = file_identities(train.manifest.select(rows).settled()).tolist() if len(rows) else []
    notes, trained = [], dict(zip(known, rows.tolist(), strict=True))
    for other, files in zip(others, (each.tolist() for each in contents), strict=True):
        found = [(row, trained[identity]) for row, identity in enumerate(files) if identity in trained]
        if found:
            pairs = ((other.manifest.path(row), train.manifest.path(same)) for row, same in found[:3])
            examples = "; ".join(f"{path} = {trained_path}" for path, trained_path in pairs)
            more = "; ..." * (len(found) > 3)
            notes.append(
                f"warning: {len(found)} of the {len(other.manifest)} videos of '{other.name}' are trained on too, by their "
                f"contents: {examples}{more}"
            )
    return notes


def class_lookup(manifest: Manifest, classes: Iterable[str]) -> np.ndarray:
    """int64 [C]: each class of a manifest as an index into `classes` (all must be there)."""
    indices = {name: index for index, name in enumerate(classes)}
    return np.array([indices[name] for name in manifest.classes], dtype=np.int64)
