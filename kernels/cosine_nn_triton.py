"""`cosine_topk` in one Triton launch: a matrix product over tiles of classes whose epilogue keeps the k best.

A program owns a block of queries, which stays on the chip, and walks over tiles of prepared classes. Scores of a tile
are q . c / |c|, in fp32 and in registers only; what beats a row's present k-th best is taken in. The length of the query
changes no order: it is divided out once, at the end.
"""

from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.cosine_classes_triton import (
    NAN_BIAS,
    ROW_MULTIPLE,
    PaddedClasses,
    inverse_length,
    inverse_power,
    pad_classes,
    pieces,
)
from kernels.sort_keys import from_sort_keys, largest_keys

_NAN_BITS = tl.constexpr(-(1 << 31))  # as in kernels/sort_keys.py
_LOW_32_BITS = tl.constexpr(0xFFFFFFFF)
_EMPTY = tl.constexpr(-(1 << 63))  # and the next few: below the key of every class
_SPLIT_CLASSES = 4096  # a program has at least so many classes to itself


@dataclass(frozen=True, slots=True)
class Config:
    """How the work is cut. `resident`: the queries stay in registers or shared memory, else they are read anew for
    each tile, `block_d` columns at a time. `tma`: classes come by the copy engine. `slots`: for k = 1, every column of
    the tile keeps its own best and they are compared once at the end; else a row's best is found tile by tile."""

    block_n: int
    block_c: int
    warps: int
    stages: int
    resident: bool = True
    tma: bool = False
    slots: bool = False
    block_d: int = 16
    precision: str = field(default="ieee", kw_only=True)  # of fp32 products


@triton.jit
def _load_queries(queries, rows, N, start, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """[rows, BLOCK_D] from column `start`, zero outside of [N, D]."""
    columns = start + tl.arange(0, BLOCK_D)
    mask = (rows < N)[:, None] & (columns < D)[None, :]
    return tl.load(queries + rows.to(tl.int64)[:, None] * D + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _load_classes(classes, first, start, ROW: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, TMA: tl.constexpr):
    """[BLOCK_D, BLOCK_C]: columns from `start` of the prepared classes from `first`, transposed."""
    if TMA:
        tile = classes.load([first, start])
    else:
        columns = start + tl.arange(0, BLOCK_D)
        place = tl.arange(0, BLOCK_C)[:, None] * ROW + columns[None, :]
        tile = tl.load(classes + tl.cast(first, tl.int64) * ROW + place)
    return tl.trans(tile)


@triton.jit
def _largest(x):
    return tl.max(tl.abs(x.to(tl.float32)), axis=1)


@triton.jit
def _squares(x):
    x = x.to(tl.float32)
    return tl.sum(x * x, axis=1)


@triton.jit
def _scale(x, factor):
    return (x.to(tl.float32) * factor[:, None]).to(x.dtype)


@triton.jit
def _dot(q, c, dot, UPCAST: tl.constexpr, PRECISION: tl.constexpr):
    """dot + q @ c. UPCAST is for the interpreter, which would multiply the bit patterns of bf16 as integers."""
    if UPCAST:
        q, c = q.to(tl.float32), c.to(tl.float32)
    return tl.dot(q, c, dot, input_precision=PRECISION)


@triton.jit
def _resident_dot(
    q0, q1, classes, classes_1, first, D0: tl.constexpr, D1: tl.constexpr,
    BLOCK_C: tl.constexpr, TMA: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    dot = tl.zeros((q0.shape[0], BLOCK_C), tl.float32)
    dot = _dot(q0, _load_classes(classes, first, 0, D0 + D1, BLOCK_C, D0, TMA), dot, UPCAST, PRECISION)
    if D1 > 0:
        dot = _dot(q1, _load_classes(classes_1, first, D0, D0 + D1, BLOCK_C, D1, TMA), dot, UPCAST, PRECISION)
    return dot


@triton.jit
def _scores(dot, inverse, bias, first):
    """q . c / |c| of a tile, the bias added."""
    place = first + tl.arange(0, dot.shape[1])
    return dot * tl.load(inverse + place)[None, :] + tl.load(bias + place)[None, :]


@triton.jit
def _to_key(score, index):
    bits = (score + 0.0).to(tl.int32, bitcast=True)  # -0.0 becomes 0.0
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    bits = tl.where(score == score, bits, _NAN_BITS)
    return (bits.to(tl.int64) << 32) + (index.to(tl.int64) ^ _LOW_32_BITS)


@triton.jit
def _score_of(key):
    bits = (key >> 32).to(tl.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _insert(best, floor, scores, first):
    """Take into `best` [rows, K_PAD] what beats the `floor` of its row, the largest first.

    Classes come in ascending order, so one that only equals the floor loses the tie.
    """
    columns = tl.arange(0, scores.shape[1])
    top = tl.max(scores, axis=1)
    while tl.max((top > floor).to(tl.int32), axis=0) > 0:
        at = tl.min(tl.where(scores == top[:, None], columns[None, :], scores.shape[1]), axis=1)
        better = top > floor
        lowest = tl.min(best, axis=1)
        key = _to_key(top, first + at)
        best = tl.where((best == lowest[:, None]) & better[:, None], key[:, None], best)
        lowest = tl.min(best, axis=1)
        floor = tl.where(better, tl.where(lowest < _EMPTY + 64, -float("inf"), _score_of(lowest)), floor)
        scores = tl.where(columns[None, :] == at[:, None], -float("inf"), scores)
        top = tl.max(scores, axis=1)
    return best, floor


@triton.jit
def _store(scores, indices, keys, rows, N, place, raw, index, q_inverse, first, K: tl.constexpr, SPLIT: tl.constexpr):
    """The result at `place`, or its key for the merge of splits. A query without a direction takes classes in order."""
    score = tl.where(raw < -1.0e38, float("nan"), raw) * q_inverse
    index = tl.where(q_inverse == q_inverse, tl.cast(index, tl.int64), tl.cast(first + place, tl.int64))
    score = tl.where(q_inverse == q_inverse, score, float("nan"))
    if SPLIT:
        out = (rows.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * K + place
        tl.store(keys + out, _to_key(score, index), mask=rows < N)
    else:
        out = rows.to(tl.int64) * K + place
        tl.store(scores + out, score, mask=rows < N)
        tl.store(indices + out, index, mask=rows < N)


@triton.jit
def _kernel(
    queries, classes, classes_1, inverse, bias, scores, indices, keys,
    N, C, classes_of_split,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, K: tl.constexpr, K_PAD: tl.constexpr,
    SPLIT: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    RESIDENT: tl.constexpr, TMA: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    ROW: tl.constexpr = D0 + D1
    SCALED: tl.constexpr = queries.dtype.element_ty != tl.float16  # no square of an fp16 number leaves fp32
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    factor = tl.full((BLOCK_N,), 1.0, tl.float32)
    if RESIDENT:
        q0 = _load_queries(queries, rows, N, 0, D, D0)
        q1 = q0
        if D1 > 0:
            q1 = _load_queries(queries, rows, N, D0, D, D1)
        if SCALED:
            largest = _largest(q0)
            if D1 > 0:
                largest = tl.maximum(largest, _largest(q1))
            factor = inverse_power(largest)
            q0 = _scale(q0, factor)
            if D1 > 0:
                q1 = _scale(q1, factor)
        squares = _squares(q0)
        if D1 > 0:
            squares += _squares(q1)
    else:
        if SCALED:
            largest = tl.zeros((BLOCK_N,), tl.float32)
            for start in tl.range(0, D, BLOCK_D, num_stages=1):
                largest = tl.maximum(largest, _largest(_load_queries(queries, rows, N, start, D, BLOCK_D)))
            factor = inverse_power(largest)
        squares = tl.zeros((BLOCK_N,), tl.float32)
        for start in tl.range(0, D, BLOCK_D, num_stages=1):
            squares += _squares(_scale(_load_queries(queries, rows, N, start, D, BLOCK_D), factor))
    q_inverse = inverse_length(squares)

    columns = tl.arange(0, BLOCK_C)
    slots = tl.arange(0, K_PAD)
    if SLOTS:
        slot_score = tl.full((BLOCK_N, BLOCK_C), -float("inf"), tl.float32)
        slot_first = tl.zeros((BLOCK_N, BLOCK_C), tl.int32)
    elif K == 1:
        best_score = tl.where(rows < N, -float("inf"), float("inf"))  # rows past the end want nothing
        best_index = tl.zeros((BLOCK_N,), tl.int32)
    else:
        best = tl.where(slots < K, slots.to(tl.int64) + _EMPTY, 0x7FFFFFFFFFFFFFFF)[None, :]
        best = tl.broadcast_to(best, (BLOCK_N, K_PAD))
        floor = tl.where(rows < N, -float("inf"), float("inf"))

    split_first = tl.program_id(1) * classes_of_split
    split_last = tl.minimum(split_first + classes_of_split, C)
    if not RESIDENT:
        # One loop over (tile, chunk of D), so that the loads of the next tile are under way during this one's epilogue.
        CHUNKS: tl.constexpr = (ROW + BLOCK_D - 1) // BLOCK_D
        dot = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
        for step in range(tl.cdiv(split_last - split_first, BLOCK_C) * CHUNKS):
            first = split_first + (step // CHUNKS) * BLOCK_C
            start = (step % CHUNKS) * BLOCK_D
            q = _load_queries(queries, rows, N, start, D, BLOCK_D)
            if SCALED:
                q = _scale(q, factor)
            dot = _dot(q, _load_classes(classes, first, start, ROW, BLOCK_C, BLOCK_D, TMA), dot, UPCAST, PRECISION)
            if start == (CHUNKS - 1) * BLOCK_D:
                tile = _scores(dot, inverse, bias, first)
                if K == 1:
                    top = tl.max(tile, axis=1)
                    if tl.max((top > best_score).to(tl.int32), axis=0) > 0:
                        at = tl.min(tl.where(tile == top[:, None], columns[None, :], BLOCK_C), axis=1)
                        best_index = tl.where(top > best_score, first + at, best_index)
                        best_score = tl.maximum(top, best_score)
                else:
                    best, floor = _insert(best, floor, tile, first)
                dot = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    elif SLOTS:
        for first in tl.range(split_first, split_last, BLOCK_C):
            dot = _resident_dot(q0, q1, classes, classes_1, first, D0, D1, BLOCK_C, TMA, UPCAST, PRECISION)
            tile = _scores(dot, inverse, bias, first)
            slot_first = tl.where(tile > slot_score, first, slot_first)
            slot_score = tl.maximum(tile, slot_score)
    else:
        for first in tl.range(split_first, split_last, BLOCK_C):
            dot = _resident_dot(q0, q1, classes, classes_1, first, D0, D1, BLOCK_C, TMA, UPCAST, PRECISION)
            tile = _scores(dot, inverse, bias, first)
            if K == 1:
                top = tl.max(tile, axis=1)
                if tl.max((top > best_score).to(tl.int32), axis=0) > 0:
                    at = tl.min(tl.where(tile == top[:, None], columns[None, :], BLOCK_C), axis=1)
                    best_index = tl.where(top > best_score, first + at, best_index)
                    best_score = tl.maximum(top, best_score)
            else:
                top = tl.max(tile, axis=1)
                if tl.max((top > floor).to(tl.int32), axis=0) > 0:  # the loop within a branch: else loads do not run ahead
                    best, floor = _insert(best, floor, tile, first)

    if SLOTS:
        best_score = tl.max(slot_score, axis=1)
        index = slot_first + columns[None, :]
        best_index = tl.min(tl.where(slot_score == best_score[:, None], index, 0x7FFFFFFF), axis=1)
    if K == 1:
        _store(scores, indices, keys, rows, N, 0, best_score, best_index, q_inverse, split_first, K, SPLIT)
    else:
        best = tl.where((slots < K)[None, :], best, _EMPTY)
        for place in range(K):
            key = tl.max(best, axis=1)
            index = (key & _LOW_32_BITS) ^ _LOW_32_BITS
            _store(scores, indices, keys, rows, N, place, _score_of(key), index, q_inverse, split_first, K, SPLIT)
            best = tl.where(best == key[:, None], _EMPTY, best)


def default_config(queries: Tensor, k: int) -> Config:
    if queries.dtype == torch.float32:
        return Config(64, 64, 8, 3, resident=False, block_d=16)
    return Config(64, 64, 4, 2)


def cosine_topk_triton(
    queries: Tensor,
    classes: Tensor | PaddedClasses,
    k: int,
    *,
    config: Config | None = None,
    splits: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`kernels.cosine_nn.cosine_topk` on a GPU; its arguments are checked there.

    Args:
        config: how the work is cut; None: the measured best for the size.
        splits: how many programs share a query's classes; their bests are merged in a second step. None: 1, more
            where so few queries would leave the GPU idle before many classes.
    """
    if isinstance(classes, Tensor):
        if queries.dtype != classes.dtype:
            queries, classes = queries.float(), classes.float()
        classes = pad_classes(classes)
    queries = queries.contiguous()
    (n, d), c = queries.shape, classes.count
    config = config or default_config(queries, k)
    scores = torch.empty((n, k), dtype=torch.float32, device=queries.device)
    indices = torch.empty((n, k), dtype=torch.int64, device=queries.device)
    if n == 0:
        return scores, indices
    splits = _num_splits(n, c, queries.device) if splits is None else splits
    classes_of_split = triton.cdiv(triton.cdiv(c, splits), ROW_MULTIPLE) * ROW_MULTIPLE
    splits = triton.cdiv(c, classes_of_split)
    keys = torch.empty((n, splits * k), dtype=torch.int64, device=queries.device) if splits > 1 else scores
    tiles, tiles_1 = _class_arguments(classes, config)
    d0, d1 = pieces(d)
    with torch.cuda.device_of(queries):  # Triton launches on the current device
        _kernel[(triton.cdiv(n, config.block_n), splits)](
            queries, tiles, tiles_1, classes.inverse, classes.bias, scores, indices, keys,
            n, c, classes_of_split,
            D=d, D0=d0, D1=d1, K=k, K_PAD=triton.next_power_of_2(k),
            SPLIT=splits > 1, UPCAST=triton.knobs.runtime.interpret, PRECISION=config.precision,
            RESIDENT=config.resident, TMA=config.tma, SLOTS=config.slots and k == 1,
            BLOCK_N=config.block_n, BLOCK_C=config.block_c, BLOCK_D=min(config.block_d, d0),
            num_warps=config.warps, num_stages=config.stages,
        )  # fmt: skip
    return (scores, indices) if splits == 1 else from_sort_keys(largest_keys(keys, k))


def _class_arguments(classes: PaddedClasses, config: Config) -> tuple[object, object]:
    if not config.tma:
        return classes.rows, classes.rows
    from triton.tools.tensor_descriptor import TensorDescriptor

    first, second = pieces(classes.width) if config.resident else (config.block_d, 0)
    return tuple(
        TensorDescriptor.from_tensor(classes.rows, [config.block_c, columns]) for columns in (first, second or first)
    )


def _num_splits(n: int, c: int, device: torch.device) -> int:
    programs = triton.cdiv(n, 64)
    wanted = 2 * torch.cuda.get_device_properties(device).multi_processor_count // programs
    return max(1, min(wanted, c // _SPLIT_CLASSES))
