"""The network of a run as it is called in a step: its form, its memory, distributed, compiled."""

import dataclasses

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.checkpoint import LOSS_PART
from engine.config import Config
from engine.data.batch import ClipFormat
from engine.distributed import Ranks
from engine.errors import InputError
from engine.losses import Loss
from engine.models.backbones import choose_form
from engine.models.embedder import Embedder, build_embedder
from engine.precision import Precision, precision_notes
from kernels.triton_support import can_use_triton

CUDA_GRAPH_MODES = ("reduce-overhead", "max-autotune")  # of torch.compile: they record CUDA graphs


def build_model(
    config: Config, ranks: Ranks, precision: Precision, clip: ClipFormat, embed_dim: int, loss: Loss
) -> tuple[Embedder, list[str]]:
    """The model on its device, with random or given weights (`run.seed`), and lines for the log.

    Raises:
        InputError: an option that this device has not, or weights that cannot be had.
    """
    train, device = config.train, ranks.device
    if config.run.deterministic and config.model.backbone == "c3d" and device.type == "cuda":
        raise InputError(
            "run.deterministic: the gradient of c3d's pooling is not deterministic on a GPU: leave it off, or take another "
            "model.backbone"
        )
    form, why = choose_form(config.model, device, precision.name, is_compiled=is_compiled(config, device))
    torch.manual_seed(config.run.seed)
    model = build_embedder(dataclasses.replace(config.model, form=form), clip, embed_dim)
    if isinstance(loss, nn.Module):  # what it trains is stepped, averaged over ranks and saved with the model
        model.add_module(LOSS_PART, loss)
    model.backbone.recompute = train.checkpoint_activations
    if train.sync_bn and ranks.world_size > 1:
        if device.type == "cpu":
            raise InputError(
                "train.sync_bn needs GPUs (torch's SyncBatchNorm computes nowhere else): leave it off on CPUs"
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    memory = torch.channels_last_3d if train.channels_last else torch.contiguous_format
    weights = torch.float64 if precision.name == "fp64" else torch.float32
    model.to(device, weights, memory_format=memory)
    notes = [f"form: {form} ({why})", *precision_notes(precision, device, form)]
    return model, notes


def is_compiled(config: Config, device: torch.device) -> bool:
    """Whether the network goes through torch.compile.

    `auto` does on a GPU that Triton supports, unless the run must be repeated bit for bit: the compiler may choose among
    reductions by timing them, and so in another order of adding.
    """
    if config.train.compile == "auto":
        return can_use_triton(device) and not config.run.deterministic
    return config.train.compile == "yes"


def as_called(model: Embedder, config: Config, ranks: Ranks) -> nn.Module:
    """The model as a step calls it: all-reducing its gradients over the ranks, compiled.

    Raises:
        InputError: `train.compile_mode` records CUDA graphs and there is no GPU.
    """
    network, train = model, config.train
    if ranks.world_size > 1:
        network = DistributedDataParallel(
            network,
            device_ids=[ranks.device.index] if ranks.device.type == "cuda" else None,
            # Gradients are reduced where they are computed, without a copy. Buckets go while backward still runs.
            gradient_as_bucket_view=True,
            # Batch-norm's statistics are not read in training: `share_buffers` sends rank 0's round where they are.
            broadcast_buffers=False,
        )
    if not is_compiled(config, ranks.device):
        return network
    if train.compile_mode in CUDA_GRAPH_MODES and ranks.device.type != "cuda":
        raise InputError(
            f"train.compile_mode '{train.compile_mode}' records CUDA graphs, which a CPU has not: take 'default'"
        )
    return torch.compile(network, mode=train.compile_mode)
