"""A trained moment search, rebuilt from its checkpoint alone."""

from dataclasses import dataclass
from pathlib import Path

import torch

from engine.errors import InputError
from engine.features.cache import Stamp
from engine.moments.network import MomentNetwork
from engine.moments.queries import open_queries
from engine.moments.search import MomentFinder
from engine.semantics.config import WordSourceConfig
from engine.training.checkpoint import check_fields, checkpoint_file, network_weights, read_checkpoint, saved_config
from engine.training.ema import evaluated_weights
from engine.training.precision import choose_precision

# Of a checkpoint, beside those that every one has.
FIELDS = ("features", "features_digest", "video_dim", "query_dim", "num_queries")


@dataclass(frozen=True)
class LoadedFinder:
    """finder: ready to search. stamp: of the features that it was trained with. path: the checkpoint.

    name, seen: what it is called, and what it was trained on, for the user. words: what reads its queries.
    """

    finder: MomentFinder
    stamp: Stamp
    path: Path
    name: str
    seen: str
    words: WordSourceConfig

    def check(self, stamp: Stamp) -> None:
        """Refuse features that are of another kind than those it was trained with: of another model, or of other windows.

        Raises:
            InputError: they are.
        """
        if stamp.grid != self.stamp.grid and stamp.digest == self.stamp.digest:
            raise InputError(
                f"'{self.path}' was trained with features of windows {self.stamp.grid}; these are of {stamp.grid}: "
                "extract them with those"
            )
        if stamp.digest != self.stamp.digest or stamp.width != self.stamp.width:
            raise InputError(
                f"'{self.path}' was trained with features of the model {self.stamp.model}, digest {self.stamp.digest[:12]}; "
                f"these are features of another model, {stamp.model}, {stamp.digest[:12]}: extract them with that one"
            )


def load_finder(path: Path, device: torch.device) -> LoadedFinder:
    """The model of a checkpoint, or of a run folder's best one, in eval mode on `device`.

    Raises:
        InputError: there is none, or it is of another task or version.
    """
    file = checkpoint_file(Path(path))
    state = read_checkpoint(file)
    config = saved_config(state, file)
    if config.task != "moments" or config.moments is None:
        raise InputError(f"checkpoint '{file}' is of the task '{config.task}': only a model of moments finds them")
    check_fields(state, FIELDS, file)
    queries = open_queries(config.words)
    if queries.dim != state["query_dim"]:
        raise InputError(
            f"checkpoint '{file}' needs word vectors of {state['query_dim']} numbers, these have {queries.dim}"
        )
    network = MomentNetwork(state["video_dim"], state["query_dim"], config.moments)
    try:
        network.load_state_dict(network_weights(evaluated_weights(state, config.evaluate.weights, file)))
    except RuntimeError as error:
        raise InputError(f"checkpoint '{file}' holds other weights than its config describes: {error}") from error
    finder = MomentFinder(network.to(device).eval(), queries, config.moments, device, choose_precision("fp32", device))
    name = f"{file.resolve().parent.parent.name}/{file.name} (step {state['step']})"
    of = config.moments.annotations or (config.moments.drawn and f"videos drawn into {config.moments.drawn.folder}")
    seen = f"{state['num_queries']:,} training queries of {of}"
    return LoadedFinder(finder, Stamp.of(state["features"]), file, name, seen, config.words)
