"""Models that name videos without any training of ours: `--model installed[:lite2]`, `--model kinetics400[:FILE]`.

The classes that their weights were trained on are D_p of the paper (Eq. 3). Whatever such a model reaches is not
comparable with the paper's protocol, and every result of it says which of the classes asked for it had seen.
"""

from pathlib import Path

import torch

from engine.config import Config, load_config
from engine.errors import InputError
from engine.models.backbone import build_backbone
from engine.models.building import for_inference
from engine.models.embedder import Embedder
from engine.models.image_network import ImageNetwork
from engine.models.image_weights import INSTALLED, imagenet_classes, installed_network
from engine.models.weights import KINETICS400, kinetics400_classes, load_backbone_weights, weights_classes
from engine.naming.classifier import Classifier, VideoClassifier
from engine.schema.parser import parse
from engine.tasks.zero_shot.trained import LoadedModel

UNTRAINED = (INSTALLED, KINETICS400)


def is_untrained(name: str | Path) -> bool:
    """Whether a command line names a model of this kind; a run folder or file of that very name wins."""
    return str(name).partition(":")[0] in UNTRAINED and not Path(name).exists()


@for_inference()
def load_untrained(name: str, device: torch.device) -> LoadedModel:
    """The model that `name` stands for, in eval mode on `device`.

    Args:
        name: one of `installed_names`; kinetics400, whose weights come from torch hub's cache; or kinetics400:FILE.

    Raises:
        InputError: there is no such model, its weights cannot be had, or they do not fit.
    """
    kind, _, rest = name.partition(":")
    if kind == INSTALLED:
        installed = installed_network(name)
        clip = {"num_frames": 1, "short_side": installed.side, "crop": installed.side}
        tree = {"model": {"backbone": installed.backbone}, "clip": clip, "evaluate": {"num_snippets": 8}}
        network = ImageNetwork(installed.backbone, 1, installed.side, with_classifier=True)
        network.to(memory_format=torch.channels_last)
        weights, known = INSTALLED, imagenet_classes()
    else:
        tree = {"model": {"backbone": "r2plus1d_18"}, "evaluate": {"num_snippets": 8, "batch_size": 8}}
        network, weights, known = VideoClassifier(), rest or KINETICS400, kinetics400_classes()
    config = parse(Config, {**tree, "words": {"source": "sentence"}})
    load_backbone_weights(network, weights)
    model = Classifier(network).to(device).eval()
    return LoadedModel(model, config, (), 0, 0, Path(name), weights, weights_classes(kind) or (), known)


@for_inference()
def load_config_alone(path: Path, device: torch.device) -> LoadedModel:
    """The model of a config that has no layer of ours to train (`model.linear: false`), with its published weights.

    Raises:
        InputError: it has one, or names no weights; or they cannot be had.
    """
    config = load_config(path, [])
    if config.model.linear or config.model.weights is None:
        raise InputError(
            f"'{path}' describes a model that has to be trained first: name its run, or a config with model.linear false and "
            "model.weights, as configs/clip_zero_shot.yaml"
        )
    network = build_backbone(config.model, config.clip)
    load_backbone_weights(network, config.model.weights)
    model = Embedder(network, None, unit_norm=config.model.unit_norm).to(device).eval()
    weights = config.model.weights
    return LoadedModel(model, config, (), 0, 0, path, weights, weights_classes(weights) or ())
