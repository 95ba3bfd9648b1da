"""Classes made ready for `cosine_topk`'s kernel, in one Triton launch: each row is read and written once.

Rows are padded to whole tiles and 16-byte aligned columns, which lets tiles be loaded without masks, sixteen bytes at
a time or by the copy engine (TMA). A row of bf16 or fp32 is divided by a power of two that brings its largest element
into [1, 4), which is exact, so that no product with it leaves fp32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.cosine_classes import PreparedClasses
from kernels.cosine_configs import padded_width

ROW_MULTIPLE = 256  # of every block_c
_ROWS = 16  # a program's
NAN_BIAS = tl.constexpr(-3.0e38)  # below the score of every class that has a direction, above what is not there


@triton.jit
def power_bits(largest):
    """The exponent bits of the power of two that brings `largest` >= 0 into [1, 4) when divided by it."""
    bits = largest.to(tl.int32, bitcast=True) & 0x7F800000
    return tl.minimum(tl.maximum(bits, 0x00800000), 0x7E800000)  # both it and its inverse are normal numbers


@triton.jit
def inverse_power(largest):
    """1 / that power, exactly."""
    return (0x7F000000 - power_bits(largest)).to(tl.float32, bitcast=True)


@triton.jit
def inverse_length(squares):
    """0 for a zero row, NaN for a row with a NaN or an infinity."""
    inverse = 1.0 / tl.sqrt_rn(tl.where(squares == 0.0, 1.0, squares))
    return tl.where(squares == 0.0, 0.0, tl.where(squares < float("inf"), inverse, float("nan")))


@triton.jit
def _prepare(
    classes, rows, inverse, bias, C, D: tl.constexpr, D_PAD: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr
):
    """BLOCK_D: a power of two of at least D_PAD."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    mask = (row < C)[:, None] & (column < D)[None, :]
    x = tl.load(classes + row.to(tl.int64)[:, None] * D + column[None, :], mask=mask, other=0.0)
    wide = x.to(tl.float32)
    if classes.dtype.element_ty != tl.float16:  # no square of an fp16 number leaves fp32
        wide *= inverse_power(tl.max(tl.abs(wide), axis=1))[:, None]
    squares = tl.sum(wide * wide, axis=1)
    is_finite = squares < float("inf")
    wide = tl.where(is_finite[:, None], wide, 0.0)
    out = rows + row.to(tl.int64)[:, None] * D_PAD + column[None, :]
    tl.store(out, wide.to(rows.dtype.element_ty), mask=(column < D_PAD)[None, :])
    tl.store(inverse + row, tl.where(is_finite, inverse_length(squares), 0.0))
    tl.store(bias + row, tl.where(row < C, tl.where(is_finite, 0.0, NAN_BIAS), -float("inf")))


def prepare_classes_triton(classes: Tensor) -> PreparedClasses:
    """`kernels.cosine_topk.prepare_classes` on a GPU.

    Returns:
        rows [C', D'] in the type of the classes, zero past [C, D] and where a row has a NaN or an infinity;
        inverse fp32 [C'], 1 / length of each of them, 0 for zero rows;
        bias fp32 [C'], what the kernel adds to a score: 0, NAN_BIAS for rows without a direction, -inf past C.
    """
    (count, width), device = classes.shape, classes.device
    padded = (triton.cdiv(count, ROW_MULTIPLE) * ROW_MULTIPLE, padded_width(width))
    rows = torch.empty(padded, dtype=classes.dtype, device=device)
    inverse, bias = torch.empty((2, padded[0]), dtype=torch.float32, device=device)
    per_program = max(1, min(_ROWS, 8192 // triton.next_power_of_2(padded[1])))
    with torch.cuda.device_of(classes):  # Triton launches on the current device
        _prepare[(padded[0] // per_program,)](
            classes.contiguous(), rows, inverse, bias,
            count, D=width, D_PAD=padded[1], ROWS=per_program, BLOCK_D=triton.next_power_of_2(padded[1]),
        )  # fmt: skip
    return PreparedClasses(rows, count, width, inverse, bias)
