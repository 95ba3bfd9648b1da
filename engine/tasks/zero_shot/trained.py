"""A trained zero-shot model, rebuilt from its checkpoint alone."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from engine.config import Config
from engine.data.config import DataConfig
from engine.data.sets.footage import Footage
from engine.data.sets.sources import load_training, load_training_sets
from engine.errors import InputError
from engine.models.building import for_inference
from engine.models.embedder import Embedder, build_embedder
from engine.provenance import changed_manifest
from engine.schema.keys import with_keys
from engine.training.checkpoint import check_fields, checkpoint_file, network_weights, read_checkpoint, saved_config
from engine.training.ema import evaluated_weights

FIELDS = ("train_classes", "embed_dim")  # of a checkpoint, beside those that every one has


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for inference.

    began_from: `model.weights` or `train.init_from`, if it had either.
    prior_classes: that the weights it started from were trained on.
    known: the classes that a point's places stand for, of a model that was not trained towards class vectors.
    trained_data: of its training, whatever `config` names now; None of a model that was not trained here.
    footage: the videos of its training, see `known_footage`; None of a run from before they were remembered.
    """

    model: Embedder
    config: Config
    train_classes: tuple[str, ...]
    step: int
    epoch: int
    path: Path
    began_from: str | None = None
    prior_classes: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    trained_data: DataConfig | None = None
    footage: Footage | None = None


@for_inference()
def load_for_inference(path: Path, device: torch.device, weights: str | None = None) -> LoadedModel:
    """Rebuild the model of a checkpoint (or of a run folder's best one), in eval mode on `device`.

    Args:
        weights: as `evaluate.weights`, if not as the run's own config has it.
    """
    file = checkpoint_file(Path(path))
    state = read_checkpoint(file)
    config = saved_config(state, file)
    began_from = config.model.weights or config.train.init_from
    config = with_keys(config, {"model.weights": None})  # all weights are in the checkpoint
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
    return LoadedModel(
        model, config, tuple(state["train_classes"]), state["step"], state["epoch"], file,
        began_from=began_from, prior_classes=prior, trained_data=config.data, footage=Footage.from_state(state),
    )  # fmt: skip


def known_footage(loaded: LoadedModel) -> Footage:
    """What a model was trained on and what was held out of it.

    A run from before that was remembered has only row numbers: they count as long as its manifests are as they were.

    Raises:
        InputError: they are not, or nothing tells.
    """
    if loaded.footage is not None:
        return loaded.footage
    if loaded.trained_data is None:
        raise InputError(f"'{loaded.path}' was not trained here: it has no training videos")
    trained, now = loaded.trained_data, loaded.config.data.train
    sources = list(trained.train)
    if len(now) == len(sources):  # its manifests may lie elsewhere by now
        sources = [replace(old, manifest=new.manifest, root=new.root) for old, new in zip(sources, now, strict=True)]
    # Class by class the draws of the training: its other classes are left out below, none is to be held out any more.
    config = replace(trained, train=sources, validation=replace(trained.validation, num_classes=0))
    sets = load_training_sets(config)
    if reason := changed_manifest(loaded.path.parent.parent, sources):
        raise InputError(
            f"'{loaded.path}' remembers its videos by their row numbers alone, as runs of earlier versions do, and {reason}: what "
            "was held out cannot be told from what was trained on. Put the manifest of then back, or train anew"
        )
    others = {name for data in sets for name in data.classes} - set(loaded.train_classes)
    return load_training(config, others, sets, join_copies=False).footage
