"""`channel_moments` and `gradient_sums` in one Triton launch each, and a small sum of what the programs found.

The matrix is one run of memory. A program takes a block of it, then the block `programs` blocks further on, and so on. The
number of programs is such that this step is a whole number of rows: every lane meets one column only, and keeps its sums
and that column's constants in registers. At the end the lanes' sums, again a matrix of whole rows, are added up.
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
    tl.store(sums + lane, total)
    tl.store(sums + lanes + lane, squares)


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
    tl.store(sums + lane, total)
    tl.store(sums + lanes + lane, products)


def channel_moments_triton(x: Tensor) -> tuple[Tensor, Tensor]:
    """`kernels.channel_sums.channel_moments` on a GPU."""
    programs, blocks = _division(x)
    sums = torch.empty((2, programs * _BLOCK), dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _moments_kernel[(programs,)](
            x, sums, x.numel(), blocks, C=x.shape[1], BLOCK=_BLOCK, STAGES=_STAGES, num_warps=_WARPS
        )
    first, second = _added(sums, x.shape[1]) / len(x)
    return first + x[0].float(), (second - first.square()).clamp_min(0)  # rounding may bring it below


def gradient_sums_triton(
    grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, relu: bool
) -> tuple[Tensor, Tensor]:
    """`kernels.channel_sums.gradient_sums` on a GPU."""
    programs, blocks = _division(x)
    sums = torch.empty((2, programs * _BLOCK), dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _gradients_kernel[(programs,)](
            grad, x, mean, scale, shift, sums, x.numel(), blocks,
            C=x.shape[1], RELU=relu, BLOCK=_BLOCK, STAGES=_STAGES, num_warps=_WARPS,
        )  # fmt: skip
    total, products = _added(sums, x.shape[1])
    return total.clone(), products.clone()  # outputs of an operation are no views of each other's memory


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
