"""Whether the training sets of a run that is over still list the videos that it was trained on."""

from collections.abc import Sequence
from pathlib import Path

from engine.config import Config
from engine.data.sets.footage import Footage
from engine.data.sets.sources import DataSet, TrainingData, load_tests, load_training, load_training_sets
from engine.errors import InputError
from engine.files.addresses import url_of
from engine.provenance import changed_manifest
from engine.results.record import read_results
from engine.semantics.overlap import remove_overlap
from engine.semantics.same_names import changed_classes
from engine.training.checkpoint import best_checkpoint, checkpoint_file, list_checkpoints, read_checkpoint


def training_now(config: Config) -> tuple[list[DataSet], list[str], TrainingData]:
    """The training sets of a config, the classes that a run of it leaves out, and what it trains on.

    Raises:
        InputError: as the run itself would.
    """
    sets = load_training_sets(config.data)
    tests = [(test.name, test.classes) for test in load_tests(config.data.tests)]
    removed, _ = remove_overlap(
        config.train.exclude_overlap, [(data.name, data.classes) for data in sets], tests, config.words
    )
    return sets, removed, load_training(config.data, without=removed, sets=sets)


def changed_videos(folder: Path, config: Config) -> str | None:
    """How the videos of a config's training sets differ from those of a finished run of it, in words.

    None where they are the same under any name and in any order, or where nothing tells: a set is gone, the run has no
    checkpoint any more, or is from before runs remembered their videos. Manifests of equal bytes are not read.
    """
    are_there = all(url_of(source.manifest) or Path(source.manifest).exists() for source in config.data.train)
    is_kept = best_checkpoint(folder).is_file() or list_checkpoints(folder)
    if not are_there or not is_kept:
        return None
    if changed_manifest(folder, config.data.train) is None and not _may_lose_classes(folder):
        return None
    state = read_checkpoint(checkpoint_file(folder))
    remembered = Footage.from_state(state)
    return None if remembered is None else _difference(config, remembered, state.get("train_classes"))


def _may_lose_classes(folder: Path) -> bool:
    """Whether a run is of a version that knew no classes of one name that lie apart, and was trained on some class of its tests."""
    if "same_names" in (folder / "config.yaml").read_text(encoding="utf-8"):
        return False
    try:
        tests = read_results(folder).tests.values()
    except InputError:  # told where results are shown
        return False
    return any(test.seen_classes is None or test.seen_classes for test in tests)


def _difference(config: Config, remembered: Footage, classes: Sequence[str] | None) -> str | None:
    _, removed, now = training_now(config)
    if classes is not None and list(classes) != list(now.train.classes):
        of_tests = [name for test in load_tests(config.data.tests) for name in test.classes]
        return changed_classes(classes, now.train.classes, of_tests)
    if remembered.is_large or now.footage.is_large:
        return "other files of rows" if any(remembered.difference(now.footage)) else None
    sets = load_training_sets(config.data, undrawn=True)
    changes = list(load_training(config.data, removed, sets, remembered).changes)
    before, count = len(remembered.rows), len(now.footage.rows)
    if config.data.draws_videos and before != count:
        changes.append(f"{count} videos are drawn of them, {before} were")
    return "; ".join(changes) or None
