"""int64 keys that sort by score, then by lower index: the score's bits above, the reversed index below."""

import torch
from torch import Tensor

_LOW_32_BITS = 0xFFFFFFFF


def sort_keys(scores: Tensor, first_index: int) -> Tensor:
    """Keys of scores fp32 [n, c] whose columns are numbered from `first_index` (below 2**32).

    A float's bits sort like an integer once those of negative numbers are flipped. NaN takes the lowest value, which
    `from_sort_keys` turns into a NaN again.
    """
    bits = (scores + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    bits ^= (bits >> 31) & 0x7FFFFFFF
    keys = bits.masked_fill_(scores.isnan(), -(1 << 31)).to(torch.int64)
    keys <<= 32
    keys += torch.arange(_LOW_32_BITS - first_index, _LOW_32_BITS - first_index - keys.shape[1], -1, device=keys.device)
    return keys


def from_sort_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Keys int64 of any shape -> scores fp32 and indices int64 of the same shape."""
    ordered = (keys >> 32).to(torch.int32)
    scores = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return scores, _LOW_32_BITS - (keys & _LOW_32_BITS)


def largest_keys(keys: Tensor, k: int) -> Tensor:
    """The largest `k` keys of every row (all of a shorter row), best first: [n, c] -> [n, min(k, c)]."""
    if k == 1:
        return keys.amax(dim=1, keepdim=True)
    return keys.topk(min(k, keys.shape[1]), dim=1).values
