"""A trained zero-shot model, rebuilt from its checkpoint alone."""

from dataclasses import dataclass
from pathlib import Path

import torch

from engine.checkpoint import check_fields, checkpoint_file, network_weights, read_checkpoint
from engine.config import Config
from engine.ema import evaluated_weights
from engine.errors import InputError
from engine.models.embedder import Embedder, build_embedder
from engine.schema import parse
from engine.schema_keys import with_keys

FIELDS = ("train_classes", "embed_dim")  # of a checkpoint, beside those that every one has


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for inference.

    prior_classes: that the weights it started from were trained on.
    known: the classes that a point's places stand for, of a model that was not trained towards class vectors.
    """

    model: Embedder
    config: Config
    train_classes: tuple[str, ...]
    step: int
    epoch: int
    path: Path
    prior_classes: tuple[str, ...] = ()
    known: tuple[str, ...] = ()


def load_for_inference(path: Path, device: torch.device, weights: str | None = None) -> LoadedModel:
    """Rebuild the model of a checkpoint (or of a run folder's best one), in eval mode on `device`.

    Args:
        weights: as `evaluate.weights`, if not as the run's own config has it.
    """
    file = checkpoint_file(Path(path))
    state = read_checkpoint(file)
    try:
        config = parse(Config, state["config"])
        config = with_keys(config, {"model.weights": None})  # all weights are in the checkpoint
    except InputError as error:
        raise InputError(f"checkpoint '{file}' is of another version, its config is not understood: {error}") from error
    if config.task != "zero_shot":
        raise InputError(f"checkpoint '{file}' is of the task '{config.task}': only a model of zero_shot names classes")
    check_fields(state, FIELDS, file)
    model = build_embedder(config.model, config.clip, state["embed_dim"])
    weights = evaluated_weights(state, weights or config.evaluate.weights, file)
    try:
        model.load_state_dict(network_weights(weights))
    except RuntimeError as error:  # it lists every tensor
        raise InputError(
            f"checkpoint '{file}' holds other weights than its config describes ({config.model}): "
            f"{' '.join(str(error).split())[:200]} ..."
        ) from error
    model.to(device).eval()
    prior = tuple(state.get("prior_classes", ()))
    return LoadedModel(model, config, tuple(state["train_classes"]), state["step"], state["epoch"], file, prior)
