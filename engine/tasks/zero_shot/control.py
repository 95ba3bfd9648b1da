"""The control of a zero-shot run: what the network reaches where the class vectors say nothing of the classes."""

import dataclasses

from engine.config import Config
from engine.tasks.zero_shot.outcome import Outcome


def control_config(config: Config, reached: Outcome) -> Config | None:
    """The same run with random class vectors of the same length, if `run.control` asks for it."""
    return random_vectors(config, reached.embed_dim) if config.run.control else None


def random_vectors(config: Config, embed_dim: int) -> Config:
    """The same run with random class vectors: what it reaches is not due to the words."""
    words = dataclasses.replace(
        config.words, source="random", also=None, path=None, dim=embed_dim, seed=config.run.seed
    )
    # What overlaps is told by the real words: the control must train on the same classes.
    overlap = dataclasses.replace(
        config.train.exclude_overlap, words=config.train.exclude_overlap.words or config.words
    )
    train = dataclasses.replace(config.train, exclude_overlap=overlap)
    run = dataclasses.replace(config.run, folder=f"{config.run.folder}/control", control=False)
    log = dataclasses.replace(config.log, report=False)  # the run's report tells of the control
    return dataclasses.replace(config, words=words, run=run, train=train, log=log)
