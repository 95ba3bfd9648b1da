"""The k nearest classes by cosine, without ever holding all N x C scores."""

import torch
from torch import Tensor

from kernels.sort_keys import from_sort_keys, largest_keys, sort_keys
from kernels.triton_support import can_use_triton

MAX_K = 32
_ROWS = 2048  # at most so many queries or classes at a time
_SCORES = 1 << 20  # and at most so many scores
_ALIGN = 64  # see _scores


def cosine_topk(queries: Tensor, classes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """For every query the `k` classes with the largest cosine similarity, best first (paper Eq. 1).

    Args:
        queries: fp16, bf16 or fp32 [N, D]; N may be 0.
        classes: fp16, bf16 or fp32 [C, D], on the same device.
        k: 1 .. min(32, C).

    Returns:
        scores fp32 [N, k] and indices int64 [N, k]. Rows are normalised and multiplied in fp32. Equal scores go to
        the lower index, and equal class vectors score equally. A zero vector scores 0 against everything. A row with
        a NaN or an infinity has no direction: its scores are NaN, and NaN comes after every number (lower index
        first). No gradients.

    On a GPU that Triton supports this is one launch (two where few queries meet many classes) and the scores never
    leave its registers; elsewhere blocks of scores are made by PyTorch, and memory beyond the result is some 50 MB at
    D = 300 whatever N and C.

    Raises:
        ValueError: shapes, types, devices or `k` are not as above.
    """
    _check(queries, classes, k)
    with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
        if can_use_triton(queries.device):
            from kernels.cosine_nn_triton import cosine_topk_triton

            return cosine_topk_triton(queries, classes, k)
        return cosine_topk_blocks(queries, classes, k)


def cosine_topk_blocks(queries: Tensor, classes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`cosine_topk` in PyTorch, for CPUs and for GPUs without Triton: a block of scores at a time."""
    count = classes.shape[0]
    scores = torch.empty((len(queries), k), dtype=torch.float32, device=queries.device)
    indices = torch.empty((len(queries), k), dtype=torch.int64, device=queries.device)
    blocks = -(-count // _ROWS)
    columns = -(-count // (blocks * _ALIGN)) * _ALIGN  # equal blocks
    rows = min(_ROWS, _SCORES // columns)
    for top in range(0, len(queries), rows):
        block = _unit_rows(queries[top : top + rows])
        best = torch.empty((len(block), 0), dtype=torch.int64, device=queries.device)
        for left in range(0, count, columns):
            keys = sort_keys(_scores(block, classes[left : left + columns], columns), left)
            best = largest_keys(torch.cat((best, largest_keys(keys, k)), dim=1), k)
        scores[top : top + rows], indices[top : top + rows] = from_sort_keys(best)
    return scores, indices


def cosine_topk_ref(queries: Tensor, classes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The definition of `cosine_topk`: all scores, then a stable sort. Memory grows with N x C."""
    _check(queries, classes, k)
    with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
        scores = _scores(_unit_rows(queries), classes, -(-len(classes) // _ALIGN) * _ALIGN)
        order = scores.nan_to_num(nan=-torch.inf).argsort(dim=1, descending=True, stable=True)[:, :k]
        return scores.gather(1, order), order


def _unit_rows(x: Tensor) -> Tensor:
    """Rows at unit length in fp32. Dividing by the largest element first keeps squares from over- or underflowing."""
    x = x.float()
    largest = x.abs().amax(dim=1, keepdim=True)
    x = x / largest.masked_fill(largest == 0, 1)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / length.masked_fill(length == 0, 1)


def _scores(unit_queries: Tensor, classes: Tensor, columns: int) -> Tensor:
    """Cosines [n, c] of a block. Zero rows fill the classes up to `columns`, a multiple of 64: at a ragged edge a matrix
    product adds in another order, and equal classes would no longer score exactly alike."""
    padded = torch.nn.functional.pad(_unit_rows(classes), (0, 0, 0, columns - len(classes)))
    return (unit_queries @ padded.T)[:, : len(classes)]


def _check(queries: Tensor, classes: Tensor, k: int) -> None:
    if queries.ndim != 2 or classes.ndim != 2 or queries.shape[1] != classes.shape[1] or queries.shape[1] == 0:
        raise ValueError(f"queries {tuple(queries.shape)} and classes {tuple(classes.shape)} must be [N, D] and [C, D]")
    for name, tensor in (("queries", queries), ("classes", classes)):
        if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32):
            raise ValueError(f"{name} must be fp16, bf16 or fp32, not {tensor.dtype}")
    if queries.device != classes.device:
        raise ValueError(f"queries are on {queries.device}, classes on {classes.device}")
    if not 1 <= k <= min(MAX_K, len(classes)):
        raise ValueError(f"k must be in 1 .. min({MAX_K}, {len(classes)} classes), not {k}")
