"""The network of a run as it is called in a step: its place, its memory, distributed, compiled."""

import inspect

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.config import Config
from engine.errors import InputError
from engine.processes.distributed import Ranks
from engine.training.compile_cache import remove_unfinished
from engine.training.precision import Precision
from kernels.triton_support import can_use_triton

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # axes of a tensor -> its memory order
# Batch-norm's statistics are not read in training: `broadcast_buffers` sends rank 0's round where they are. torch's key for
# it has another name from 2.14 on, and the former one warns there.
_KEYS = inspect.signature(DistributedDataParallel).parameters
_BUFFERS_STAY = {"forward_sync_buffers" if "forward_sync_buffers" in _KEYS else "broadcast_buffers": False}
CUDA_GRAPH_MODES = ("reduce-overhead", "max-autotune")  # of torch.compile: they record CUDA graphs


def placed(model: nn.Module, config: Config, ranks: Ranks, precision: Precision) -> nn.Module:
    """The model on its device, in the type and the memory order that it is trained in.

    Raises:
        InputError: an option that this device has not.
    """
    train = config.train
    if train.sync_bn and ranks.world_size > 1:
        if ranks.device.type == "cpu":
            raise InputError(
                "train.sync_bn needs GPUs (torch's SyncBatchNorm computes nowhere else): leave it off on CPUs"
            )
        from timm.layers import convert_sync_batchnorm  # torch's would drop the activations within timm's batch-norms

        model = convert_sync_batchnorm(model)
    model = model.to(ranks.device, precision.weights)
    for tensor in (*model.parameters(), *model.buffers()):
        if train.channels_last and tensor.ndim in _CHANNELS_LAST:
            tensor.data = _channels_last(tensor.data)
    return model


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """In that memory order. Axes of one cell have the strides that they have in its gradient: DDP copies others, and warns."""
    # `contiguous` leaves those strides as they are, as convolutions in float64 do; others give all axes strides of this order.
    ordered = tensor.contiguous if tensor.dtype == torch.float64 else tensor.to
    tensor = ordered(memory_format=_CHANNELS_LAST[tensor.ndim])
    return tensor[0][None] if len(tensor) == 1 else tensor  # position embeddings


def is_compiled(config: Config, device: torch.device) -> bool:
    """Whether the network goes through torch.compile.

    `auto` does on a GPU that Triton supports, unless the run must be repeated bit for bit: the compiler may choose among
    reductions by timing them, and so in another order of adding.
    """
    if config.train.compile == "auto":
        return can_use_triton(device) and not config.run.deterministic
    return config.train.compile == "yes"


def as_called(model: nn.Module, config: Config, ranks: Ranks) -> nn.Module:
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
            **_BUFFERS_STAY,
        )
    if not is_compiled(config, ranks.device):
        return network
    if train.compile_mode in CUDA_GRAPH_MODES and ranks.device.type != "cuda":
        raise InputError(
            f"train.compile_mode '{train.compile_mode}' records CUDA graphs, which a CPU has not: take 'default'"
        )
    remove_unfinished()
    return torch.compile(network, mode=train.compile_mode)
