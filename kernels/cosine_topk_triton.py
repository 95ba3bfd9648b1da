"""`cosine_topk` in one Triton launch: a matrix product over tiles of classes whose epilogue keeps the k best.

A program owns a block of queries, which stays on the chip, and walks over tiles of prepared classes. Scores of a tile
are q . c / |c|, in fp32 and in registers only; what beats a row's present k-th best is taken in. The length of the query
changes no order: it is divided out once, at the end, and what rounding makes equal then goes by the lower index.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.cosine_classes import PreparedClasses
from kernels.cosine_classes_triton import ROW_MULTIPLE, inverse_length, inverse_power
from kernels.cosine_configs import Config, choose_config, pieces
from kernels.sort_keys import from_sort_keys, largest_keys

_NAN_BITS = tl.constexpr(-(1 << 31))  # as in kernels/sort_keys.py
_LOW_32_BITS = tl.constexpr(0xFFFFFFFF)
_EMPTY = tl.constexpr(-(1 << 63))  # and the next few: below the key of every class
_SPLIT_CLASSES = 4096  # a program has at least so many classes to itself
_REGISTERS = 255  # without this limit ptxas spills a little to stay at 128 of them


@triton.jit
def _load_queries(queries, rows, N, start, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """[rows, BLOCK_D] from column `start`, zero outside of [N, D]."""
    columns = start + tl.arange(0, BLOCK_D)
    mask = (rows < N)[:, None] & (columns < D)[None, :]
    return tl.load(queries + rows.to(tl.int64)[:, None] * D + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _load_classes(classes, first, start, ROW: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr):
    """[BLOCK_D, BLOCK_C]: columns from `start` of the prepared classes from `first`, transposed."""
    offset = tl.arange(0, BLOCK_C)[:, None] * ROW + (start + tl.arange(0, BLOCK_D))[None, :]
    return tl.trans(tl.load(classes + tl.cast(first, tl.int64) * ROW + offset))


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
def _dot(q, c, dot, UPCAST: tl.constexpr):
    """dot + q @ c. UPCAST is for the interpreter, which would multiply the bit patterns of bf16 as integers."""
    if UPCAST:
        q, c = q.to(tl.float32), c.to(tl.float32)
    return tl.dot(q, c, dot, input_precision="ieee")


@triton.jit
def _scores(dot, inverse, bias, first):
    """q . c / |c| of a tile, the bias added."""
    offset = first + tl.arange(0, dot.shape[1])
    return dot * tl.load(inverse + offset)[None, :] + tl.load(bias + offset)[None, :]


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
def _index_of(key):
    return (key & _LOW_32_BITS) ^ _LOW_32_BITS


@triton.jit
def _final(raw, q_inverse):
    """The cosine: NaN for a class or a query without a direction."""
    return tl.where(raw < -1.0e38, float("nan"), raw) * q_inverse


@triton.jit
def _take(best, floor, scores, first, K: tl.constexpr):
    """Take in what beats the `floor` of its row. Classes come in ascending order: one that equals it loses the tie.

    `best`: for K = 1 the index whose score is the floor, [rows]; else keys [rows, K_PAD], of which the floor is the least.
    """
    columns = tl.arange(0, scores.shape[1])
    top = tl.max(scores, axis=1)
    if tl.max((top > floor).to(tl.int32), axis=0) > 0:  # around the loop too: else loads do not run ahead
        if K == 1:
            at = tl.min(tl.where(scores == top[:, None], columns[None, :], scores.shape[1]), axis=1)
            best = tl.where(top > floor, first + at, best)
            floor = tl.maximum(top, floor)
        else:
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
def _store(scores, indices, keys, key, rows, N, offset, K: tl.constexpr, SPLIT: tl.constexpr):
    """What stands at `place` of a row's result; of a split's, to be merged later."""
    if SPLIT:
        tl.store(keys + (rows.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * K + offset, key, mask=rows < N)
    else:
        out = rows.to(tl.int64) * K + offset
        tl.store(scores + out, _score_of(key), mask=rows < N)
        tl.store(indices + out, _index_of(key), mask=rows < N)


@triton.jit
def _kernel(
    queries, classes, inverse, bias, scores, indices, keys, N, C, classes_of_split,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, K: tl.constexpr, K_PAD: tl.constexpr,
    SPLIT: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    ROW: tl.constexpr = D0 + D1
    RESIDENT: tl.constexpr = BLOCK_D == 0
    SCALED: tl.constexpr = queries.dtype.element_ty != tl.float16  # no square of an fp16 number leaves fp32
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    factor = tl.full((BLOCK_N,), 1.0, tl.float32)
    if RESIDENT:
        q0 = _load_queries(queries, rows, N, 0, D, D0)
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

    slots = tl.arange(0, K_PAD)
    floor = tl.where(rows < N, -float("inf"), float("inf"))  # rows past the end want nothing
    if K == 1:
        best = tl.zeros((BLOCK_N,), tl.int32)
    else:
        best = tl.where(slots < K, slots.to(tl.int64) + _EMPTY, 0x7FFFFFFFFFFFFFFF)[None, :]
        best = tl.broadcast_to(best, (BLOCK_N, K_PAD))

    split_first = tl.program_id(1) * classes_of_split
    split_last = tl.minimum(split_first + classes_of_split, C)
    if RESIDENT:
        for first in tl.range(split_first, split_last, BLOCK_C):
            dot = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
            dot = _dot(q0, _load_classes(classes, first, 0, ROW, BLOCK_C, D0), dot, UPCAST)
            if D1 > 0:
                dot = _dot(q1, _load_classes(classes, first, D0, ROW, BLOCK_C, D1), dot, UPCAST)
            best, floor = _take(best, floor, _scores(dot, inverse, bias, first), first, K)
    else:
        # One loop over (tile, chunk of D), so that the loads of the next tile are under way during this one's epilogue.
        CHUNKS: tl.constexpr = ROW // BLOCK_D
        dot = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
        for step in tl.range(0, tl.cdiv(split_last - split_first, BLOCK_C) * CHUNKS):
            first = split_first + (step // CHUNKS) * BLOCK_C
            start = (step % CHUNKS) * BLOCK_D
            q = _load_queries(queries, rows, N, start, D, BLOCK_D)
            if SCALED:
                q = _scale(q, factor)
            dot = _dot(q, _load_classes(classes, first, start, ROW, BLOCK_C, BLOCK_D), dot, UPCAST)
            if start == (CHUNKS - 1) * BLOCK_D:
                best, floor = _take(best, floor, _scores(dot, inverse, bias, first), first, K)
                dot = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)

    # A query without a direction takes the classes in order.
    if K == 1:
        index = tl.where(q_inverse == q_inverse, best, split_first)
        _store(scores, indices, keys, _to_key(_final(floor, q_inverse), index), rows, N, 0, K, SPLIT)
    else:
        index = tl.where(
            (q_inverse == q_inverse)[:, None], _index_of(best), (split_first + slots).to(tl.int64)[None, :]
        )
        best = _to_key(_final(_score_of(best), q_inverse[:, None]), index)
        best = tl.where((slots < K)[None, :], best, _EMPTY)
        for offset in range(K):
            key = tl.max(best, axis=1)
            _store(scores, indices, keys, key, rows, N, offset, K, SPLIT)
            best = tl.where(best == key[:, None], _EMPTY, best)


def constants(width: int, k: int, is_split: bool, config: Config) -> dict[str, object]:
    """What the kernel is compiled for."""
    d0, d1 = pieces(width)
    return {
        "D": width, "D0": d0, "D1": d1, "K": k, "K_PAD": triton.next_power_of_2(k),
        "SPLIT": is_split, "UPCAST": triton.knobs.runtime.interpret,
        "BLOCK_N": config.block_n, "BLOCK_C": config.block_c, "BLOCK_D": config.block_d,
    }  # fmt: skip


def options(config: Config) -> dict[str, int]:
    """How the kernel is compiled."""
    return {"num_warps": config.warps, "num_stages": config.stages, "maxnreg": _REGISTERS}


def cosine_topk_triton(
    queries: Tensor,
    classes: PreparedClasses,
    k: int,
    *,
    config: Config | None = None,
    splits: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`kernels.cosine_topk.cosine_topk` on a GPU; its arguments are checked there.

    Args:
        classes: of `prepare_classes_triton`.
        config: how the work is cut; None: by rule, `kernels.cosine_configs.choose_config`.
        splits: how many programs share a query's classes; their bests are merged in a second step. None: 1, more
            where so few queries would leave the GPU idle before many classes.
    """
    prepared = classes.rows
    if queries.dtype != prepared.dtype:
        queries, prepared = queries.float(), prepared.float()
    queries = queries.contiguous()
    (n, d), c = queries.shape, classes.count
    scores = torch.empty((n, k), dtype=torch.float32, device=queries.device)
    indices = torch.empty((n, k), dtype=torch.int64, device=queries.device)
    if n == 0:
        return scores, indices
    if config is None:
        config = choose_config(n, prepared.shape[1], prepared.itemsize, queries.device)
    splits = _num_splits(n, c, config, queries.device) if splits is None else splits
    classes_of_split = triton.cdiv(triton.cdiv(c, splits), ROW_MULTIPLE) * ROW_MULTIPLE
    splits = triton.cdiv(c, classes_of_split)
    keys = torch.empty((n, splits * k), dtype=torch.int64, device=queries.device) if splits > 1 else indices
    with torch.cuda.device_of(queries):  # Triton launches on the current device
        _kernel[(triton.cdiv(n, config.block_n), splits)](
            queries, prepared, classes.inverse, classes.bias, scores, indices, keys, n, c, classes_of_split,
            **constants(d, k, splits > 1, config), **options(config),
        )  # fmt: skip
    return (scores, indices) if splits == 1 else from_sort_keys(largest_keys(keys, k))


def _num_splits(n: int, c: int, config: Config, device: torch.device) -> int:
    programs = triton.cdiv(n, config.block_n)
    wanted = 2 * torch.cuda.get_device_properties(device).multi_processor_count // programs
    return max(1, min(wanted, c // _SPLIT_CLASSES))
