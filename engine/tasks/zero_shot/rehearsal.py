"""Whether a run, or an evaluation, can measure anything: asked before the first step, not after days of training."""

from collections.abc import Sequence

from engine.config import Config
from engine.data.sets.sources import DataSet
from engine.errors import InputError
from engine.evaluation.snippets import check_readable
from engine.tasks.zero_shot.sets import Sets

NO_TEST = "no test set, as data.tests says: nothing unseen is measured"
NOTHING_HELD_OUT = "nothing is held out of the training: the newest checkpoint counts as the best"
_NOT_POSSIBLE = "what data.validation asks for cannot be held out: every class has one source of videos"


def rehearse(config: Config, sets: Sets) -> list[str]:
    """Try what a training is going to measure; lines for the log.

    Raises:
        InputError: it could measure nothing, and its config does not say that this is meant.
    """
    wanted = config.data.validation
    has_held_out = sets.held_out_videos is not None or sets.held_out_classes is not None
    if config.data.tests is None:
        raise InputError(
            "the config names no test set, so nothing unseen would be measured: name one in data.tests, or write "
            "data.tests: [] where none is wanted (a pretraining)"
        )
    if not sets.tests and not has_held_out and (wanted.video_share or wanted.num_classes):
        raise InputError(
            f"the run could measure nothing: it has no test set, and {_NOT_POSSIBLE}. Name a test set in data.tests, or "
            "write data.validation: {video_share: 0} where nothing is to be measured"
        )
    check_candidates([test.data for test in sets.tests])
    check_readable([each.data for each in sets.measured], config.clip)
    notes = [] if sets.tests else [NO_TEST]
    if not has_held_out:
        is_meant = not wanted.video_share and not wanted.num_classes
        notes.append(NOTHING_HELD_OUT if is_meant else f"{NOTHING_HELD_OUT} ({_NOT_POSSIBLE})")
    return notes + [
        f"'{each.data.name}' has one class: every answer is right, so it chooses no checkpoint"
        for each in (sets.held_out_videos, sets.held_out_classes)
        if each is not None and len(each.classes) < 2
    ]


def check_candidates(tests: Sequence[DataSet]) -> None:
    """A test needs two candidates.

    Raises:
        InputError: a set has a single class, of which every answer is right.
    """
    for test in tests:
        if len(test.classes) < 2:
            raise InputError(
                f"test set '{test.name}' can measure nothing: with one class ('{test.classes[0]}') every answer is right. Take "
                "a set of at least two classes, or leave it out"
            )
