"""The k nearest classes by cosine, without ever holding all N x C scores."""

from functools import cache

import torch
from torch import Tensor

from kernels.cosine_classes import PreparedClasses
from kernels.sort_keys import from_sort_keys, largest_keys, sort_keys
from kernels.triton_support import can_use_triton

MAX_K = 32
_ROWS = 2048  # at most so many queries or classes at a time
_SCORES = 1 << 20  # and at most so many scores
_ALIGN = 64  # see _scores


def prepare_classes(classes: Tensor) -> PreparedClasses:
    """What `cosine_topk` has to do with classes before it meets a query: do it once where they are asked repeatedly.

    Args:
        classes: fp16, bf16 or fp32 [C, D]; later changes to them are not seen.

    Returns:
        About the memory of the classes: on a GPU that Triton supports in their own type, elsewhere in fp32.

    Raises:
        ValueError: shape or type are not as above.
    """
    if classes.ndim != 2 or 0 in classes.shape:
        raise ValueError(f"classes {tuple(classes.shape)} must be [C, D]")
    _check_type("classes", classes)
    with torch.no_grad(), torch.autocast(classes.device.type, enabled=False):
        if has_kernel(classes.device):
            from kernels.cosine_classes_triton import prepare_classes_triton

            return prepare_classes_triton(classes)
        return PreparedClasses(_unit_rows(classes), *classes.shape)


def cosine_topk(queries: Tensor, classes: Tensor | PreparedClasses, k: int) -> tuple[Tensor, Tensor]:
    """For every query the `k` classes with the largest cosine similarity, best first (paper Eq. 1).

    Args:
        queries: fp16, bf16 or fp32 [N, D]; N may be 0.
        classes: fp16, bf16 or fp32 [C, D], on the same device, or what `prepare_classes` made of them. They need not
            have the type of the queries: both are then taken as fp32.
        k: 1 .. min(32, C).

    Returns:
        scores fp32 [N, k] and indices int64 [N, k]. Products and lengths are computed in fp32. Equal scores are in the
        order of their indices, and equal class vectors score equally. A zero vector scores 0 against everything. A row
        with a NaN or an infinity has no direction: its scores are NaN, and NaN comes after every number (lower index
        first). No gradients.

    On a GPU that Triton supports this is one launch, one more to prepare classes that are not, and one more where few
    queries meet many classes; scores never leave its registers. Which classes are among the k is decided before the
    query's length is divided out, so where two scores differ by no more than that division's rounding, either of them
    may be the k-th. Elsewhere blocks of scores are made by PyTorch, and memory beyond the result is some 50 MB at
    D = 300 whatever N and C.

    Raises:
        ValueError: shapes, types, devices or `k` are not as above.
    """
    _check(queries, classes, k)
    with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
        if has_kernel(queries.device):
            from kernels.cosine_topk_triton import cosine_topk_triton

            prepared = classes if isinstance(classes, PreparedClasses) else prepare_classes(classes)
            return cosine_topk_triton(queries, prepared, k)
        return cosine_topk_blocks(queries, classes, k)


@cache
def has_kernel(device: torch.device) -> bool:
    """Whether a device runs the Triton kernel. Triton 3.6 cannot compile it for tensor memory (compute capability 10 and
    11: B200), 3.8 can."""
    if not can_use_triton(device):
        return False
    import triton  # whose distribution may be called otherwise (pytorch-triton)

    release = tuple(int(part) for part in triton.__version__.split(".")[:2])
    return release >= (3, 8) or torch.cuda.get_device_capability(device)[0] not in (10, 11)


def cosine_topk_blocks(queries: Tensor, classes: Tensor | PreparedClasses, k: int) -> tuple[Tensor, Tensor]:
    """`cosine_topk` in PyTorch, for CPUs and for GPUs without Triton: a block of scores at a time."""
    is_prepared = isinstance(classes, PreparedClasses)
    class_rows = classes.rows if is_prepared else classes
    count = len(class_rows)
    scores = torch.empty((len(queries), k), dtype=torch.float32, device=queries.device)
    indices = torch.empty((len(queries), k), dtype=torch.int64, device=queries.device)
    blocks = -(-count // _ROWS)
    columns = -(-count // (blocks * _ALIGN)) * _ALIGN  # equal blocks
    rows = min(_ROWS, _SCORES // columns)
    for top in range(0, len(queries), rows):
        block = _unit_rows(queries[top : top + rows])
        best = torch.empty((len(block), 0), dtype=torch.int64, device=queries.device)
        for left in range(0, count, columns):
            some = class_rows[left : left + columns]
            keys = sort_keys(_scores(block, some if is_prepared else _unit_rows(some), columns), left)
            best = largest_keys(torch.cat((best, largest_keys(keys, k)), dim=1), k)
        scores[top : top + rows], indices[top : top + rows] = from_sort_keys(best)
    return scores, indices


def cosine_topk_ref(queries: Tensor, classes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The definition of `cosine_topk`: all scores, then a stable sort. Memory grows with N x C."""
    _check(queries, classes, k)
    with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
        scores = _scores(_unit_rows(queries), _unit_rows(classes), -(-len(classes) // _ALIGN) * _ALIGN)
        order = scores.nan_to_num(nan=-torch.inf).argsort(dim=1, descending=True, stable=True)[:, :k]
        return scores.gather(1, order), order


def _unit_rows(x: Tensor) -> Tensor:
    """Rows at unit length in fp32. Dividing by the largest element first keeps squares from over- or underflowing."""
    x = x.float()
    largest = x.abs().amax(dim=1, keepdim=True)
    x = x / largest.masked_fill(largest == 0, 1)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / length.masked_fill(length == 0, 1)


def _scores(unit_queries: Tensor, unit_classes: Tensor, columns: int) -> Tensor:
    """Cosines [n, c] of a block. Zero rows fill the classes up to `columns`, a multiple of 64: at a ragged edge a matrix
    product adds in another order, and equal classes would no longer score exactly alike."""
    padded = torch.nn.functional.pad(unit_classes, (0, 0, 0, columns - len(unit_classes)))
    return (unit_queries @ padded.T)[:, : len(unit_classes)]


def _check(queries: Tensor, classes: Tensor | PreparedClasses, k: int) -> None:
    if isinstance(classes, PreparedClasses):
        shape, device = (classes.count, classes.width), classes.rows.device
    else:
        shape, device = tuple(classes.shape), classes.device
        _check_type("classes", classes)
    _check_type("queries", queries)
    if queries.ndim != 2 or len(shape) != 2 or queries.shape[1] != shape[1] or shape[1] == 0:
        raise ValueError(f"queries {tuple(queries.shape)} and classes {shape} must be [N, D] and [C, D]")
    if queries.device != device:
        raise ValueError(f"queries are on {queries.device}, classes on {device}")
    if not 1 <= k <= min(MAX_K, shape[0]):
        raise ValueError(f"k must be in 1 .. min({MAX_K}, {shape[0]} classes), not {k}")


def _check_type(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise ValueError(f"{name} must be fp16, bf16 or fp32, not {tensor.dtype}")
