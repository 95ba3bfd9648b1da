"""Batch-norm of clips, on a GPU over a 4-D view.

In channels_last_3d memory [N, C, T, H, W] *is* the channels-last [N, C, T * H, W]. Statistics go over all but the channels,
so the two are the same function. torch's kernels for bf16 know the second memory order, and treat the first as the
general, slow case.
"""

import torch
from torch import nn


class ClipBatchNorm(nn.BatchNorm3d):
    """`nn.BatchNorm3d`, float [N, C, T, H, W] -> the same; parameters and state dict are its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not x.is_cuda or not x.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(x)
        size = x.shape[2:4]
        return super().forward(x.flatten(2, 3)).unflatten(2, size)

    def _check_input_dim(self, x: torch.Tensor) -> None:
        if x.dim() not in (4, 5):
            raise ValueError(f"clips are [N, C, T, H, W], not {tuple(x.shape)}")


def use_clip_batch_norm(network: nn.Module) -> None:
    """Let every `nn.BatchNorm3d` in a network compute as `ClipBatchNorm`, in place."""
    for module in network.modules():
        if type(module) is nn.BatchNorm3d:
            module.__class__ = ClipBatchNorm
