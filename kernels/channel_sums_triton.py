"""`channel_moments` and `gradient_sums` in one Triton launch each over the matrix, and a small sum of what the programs found.

The matrix is one run of memory. A program takes a block of it, then the block `programs` blocks further on, and so on. The
number of programs is such that this step is a whole number of rows: every lane meets one column only, and keeps its sums
and that column's constants in registers. At the end the lanes' sums, again a matrix of whole rows, are added up: by each
program first, where its block is a number of whole rows.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK, _WARPS, _STAGES = 2048, 8, 4  # 8 elements a thread: 16-byte loads of fp16
_BLOCKS_OF_PROGRAM = 8  # at least, as far as the matrix has them: fewer would write more sums than they save
_PROGRAMS_OF_PROCESSOR = 8


@triton.jit
def _store(sums, first, second, C: tl.constexpr, BLOCK: tl.constexpr):
    """A program's lanes into [2, lanes of all programs]; added up to [C] before where its block is a number of whole rows."""
    size: tl.constexpr = C if BLOCK % C == 0 else BLOCK
    if size < BLOCK:
        first = tl.sum(tl.reshape(first, (BLOCK // C, C)), 0)
        second = tl.sum(tl.reshape(second, (BLOCK // C, C)), 0)
    here = tl.program_id(0).to(tl.int64) * size + tl.arange(0, size)
    tl.store(sums + here, first)
    tl.store(sums + tl.num_programs(0).to(tl.int64) * size + here, second)


@triton.jit
def _moments_kernel(x, sums, size, blocks, C: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr):
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lanes = tl.num_programs(0).to(tl.int64) * BLOCK
    pivot = tl.load(x + lane % C).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    squares = tl.zeros((BLOCK,), tl.float32)
    for block in tl.range(0, blocks, num_stages=STAGES):
        offset = lane + block * lanes
        inside = offset < size
        value = tl.load(x + offset, mask=inside, other=0.0).to(tl.float32)
        value = tl.where(inside, value - pivot, 0.0)
        total += value
        squares += value * value
    _store(sums, total, squares, C, BLOCK)


@triton.jit
def _gradients_kernel(
    grad, x, mean, scale, shift, sums, size, blocks,
    C: tl.constexpr, RELU: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lanes = tl.num_programs(0).to(tl.int64) * BLOCK
    centre = tl.load(mean + lane % C)
    factor = tl.load(scale + lane % C)
    offset = tl.load(shift + lane % C)
    total = tl.zeros((BLOCK,), tl.float32)
    products = tl.zeros((BLOCK,), tl.float32)
    for block in tl.range(0, blocks, num_stages=STAGES):
        offsets = lane + block * lanes
        inside = offsets < size
        value = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
        slope = tl.load(grad + offsets, mask=inside, other=0.0).to(tl.float32)
        if RELU:
            slope = tl.where(value * factor + offset > 0, slope, 0.0)
        total += slope
        products += slope * (value - centre)
    _store(sums, total, products, C, BLOCK)


@triton.jit
def _complete_kernel(sums, x, mean, var, rows, C: tl.constexpr, BLOCK: tl.constexpr):
    """Mean and variance from the sums of deviations from the first row, [2, C]."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = column < C
    first = tl.load(sums + column, mask=inside, other=0.0) / rows
    second = tl.load(sums + C + column, mask=inside, other=0.0) / rows
    pivot = tl.load(x + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(mean + column, first + pivot, mask=inside)
    tl.store(var + column, tl.maximum(second - first * first, 0.0), mask=inside)  # rounding may bring it below


def channel_moments_triton(x: Tensor) -> tuple[Tensor, Tensor]:
    """`kernels.channel_sums.channel_moments` on a GPU."""
    rows, columns = x.shape
    programs, blocks = _division(x)
    sums = _room(programs, x)
    mean, var = (torch.empty(columns, dtype=torch.float32, device=x.device) for _ in range(2))
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _moments_kernel[(programs,)](
            x, sums, x.numel(), blocks, C=columns, BLOCK=_BLOCK, STAGES=_STAGES, num_warps=_WARPS
        )
        _complete_kernel[(triton.cdiv(columns, 256),)](
            _added(sums, columns), x, mean, var, rows, C=columns, BLOCK=256, num_warps=4
        )
    return mean, var


def gradient_sums_triton(grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor:
    """`kernels.channel_sums.gradient_sums` on a GPU."""
    programs, blocks = _division(x)
    sums = _room(programs, x)
    with torch.cuda.device_of(x):
        _gradients_kernel[(programs,)](
            grad, x, mean, scale, shift, sums, x.numel(), blocks,
            C=x.shape[1], RELU=relu, BLOCK=_BLOCK, STAGES=_STAGES, num_warps=_WARPS,
        )  # fmt: skip
    return _added(sums, x.shape[1])


def _room(programs: int, x: Tensor) -> Tensor:
    """For what `_store` stores."""
    lanes = x.shape[1] if _BLOCK % x.shape[1] == 0 else _BLOCK
    return torch.empty((2, programs * lanes), dtype=torch.float32, device=x.device)


def _added(sums: Tensor, columns: int) -> Tensor:
    """[2, lanes] -> [2, C]."""
    return sums.view(2, -1, columns).sum(dim=1)


def _division(x: Tensor) -> tuple[int, int]:
    """How many programs, and how many blocks each takes."""
    unit = x.shape[1] // math.gcd(x.shape[1], _BLOCK)  # programs whose blocks together are whole rows
    whole = triton.cdiv(x.numel(), _BLOCK)
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
    wanted = min(processors * _PROGRAMS_OF_PROCESSOR, triton.cdiv(whole, _BLOCKS_OF_PROGRAM))
    programs = max(1, round(wanted / unit)) * unit
    return programs, triton.cdiv(whole, programs)
