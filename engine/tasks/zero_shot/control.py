"""The control of a zero-shot run: what the network reaches where the class vectors say nothing of the classes."""

from engine.config import Config
from engine.schema_keys import with_keys
from engine.tasks.zero_shot.outcome import Outcome


def control_config(config: Config, reached: Outcome) -> Config | None:
    """The same run with random class vectors of the same length, if `run.control` asks for it."""
    return random_vectors(config, reached.embed_dim) if config.run.control else None


def random_vectors(config: Config, embed_dim: int) -> Config:
    """The same run with random class vectors: what it reaches is not due to the words."""
    changed = {
        "words.source": "random",
        "words.also": None,
        "words.path": None,
        "words.dim": embed_dim,
        "words.seed": config.run.seed,
        # What overlaps is told by the real words: the control must train on the same classes.
        "train.exclude_overlap.words": config.train.exclude_overlap.words or config.words,
        "run.folder": f"{config.run.folder}/control",
        "run.control": False,
        "log.report": False,  # the run's report tells of the control
    }
    return with_keys(config, changed)
