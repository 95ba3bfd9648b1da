"""The control of a zero-shot run: what the network reaches where the class vectors say nothing of the classes."""

from pathlib import Path

import numpy as np

from engine.config import Config
from engine.schema.files import read_yaml
from engine.schema.keys import with_keys
from engine.tasks.zero_shot.outcome import Outcome


def control_config(config: Config, reached: Outcome) -> Config | None:
    """The same run with random class vectors of the same length, if `run.control` asks for it."""
    return random_vectors(config, reached.embed_dim) if config.run.control else None


def random_vectors(config: Config, embed_dim: int) -> Config:
    """The same run with random class vectors: what it reaches is not due to the words."""
    folder = Path(config.run.folder, "control")
    changed = {
        "words.source": "random",
        "words.also": None,
        "words.path": None,
        "words.dim": embed_dim,
        "words.seed": _vector_seed(config, folder),
        # What overlaps is told by the real words: the control must train on the same classes.
        "train.exclude_overlap.words": config.train.exclude_overlap.words or config.words,
        "run.folder": str(folder),
        "run.resume": "auto",  # the run may have begun at a checkpoint of its own words
        "run.control": False,
        "log.report": False,  # the run's report tells of the control
    }
    return with_keys(config, changed)


def _vector_seed(config: Config, folder: Path) -> int:
    """Seed of the random vectors: another for each split of the classes, so that controls of several splits are several draws.

    A control that has begun keeps the one it began with; those of before took `run.seed` for every split.
    """
    begun = read_yaml(folder / "config.yaml") if (folder / "config.yaml").is_file() else {}
    if "words" in begun:
        return begun["words"]["seed"]
    sources = (*config.data.train, *(config.data.tests or ()))
    splits = {source.class_split.seed for source in sources if source.class_split is not None}
    if not splits:
        return config.run.seed
    return int(np.random.SeedSequence((config.run.seed, *sorted(splits))).generate_state(1)[0])
