"""The network of a zero-shot run: backbone, linear layer, and what its loss trains of its own."""

import dataclasses

import torch
from torch import nn

from engine.config import Config
from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.models.backbones import choose_form
from engine.models.embedder import Embedder, build_embedder
from engine.training.checkpoint import LOSS_PART
from engine.training.losses import Loss
from engine.training.network import is_compiled
from engine.training.precision import Precision, precision_notes


def build_model(
    config: Config, device: torch.device, precision: Precision, clip: ClipFormat, embed_dim: int, loss: Loss
) -> tuple[Embedder, list[str]]:
    """The model on the CPU, with random or given weights, and lines for the log.

    Args:
        device: where it is going to be.

    Raises:
        InputError: an option that this device has not, or weights that cannot be had.
    """
    if config.run.deterministic and config.model.backbone == "c3d" and device.type == "cuda":
        raise InputError(
            "run.deterministic: the gradient of c3d's pooling is not deterministic on a GPU: leave it off, or take another "
            "model.backbone"
        )
    form, why = choose_form(config.model, device, precision.name, is_compiled=is_compiled(config, device))
    model = build_embedder(dataclasses.replace(config.model, form=form), clip, embed_dim)
    if isinstance(loss, nn.Module):  # what it trains is stepped, averaged over ranks and saved with the model
        model.add_module(LOSS_PART, loss)
    model.backbone.recompute = config.train.checkpoint_activations
    return model, [f"form: {form} ({why})", *precision_notes(precision, device, form)]
