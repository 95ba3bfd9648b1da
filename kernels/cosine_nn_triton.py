"""`cosine_topk` in one Triton launch: a matrix product over tiles of classes whose epilogue keeps the k best.

A program owns a block of queries and walks over the classes. Per tile of classes it accumulates q . c and |c|^2 in
fp32 from one read of both, scales to cosines, and inserts what beats a row's present k-th best; so the N x C scores
exist only in registers, a tile at a time. Lengths whose squares leave fp32 (bf16 and fp32 rows beyond about
1e-12 .. 1e12) send that tile down a second path that divides every row by its largest element first.

Cosines lie within [-1, 1], which leaves room below: -2 stands for NaN, -inf for a place not yet taken.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.sort_keys import from_sort_keys, largest_keys

_NAN_SCORE = tl.constexpr(-2.0)
_NAN_BITS = tl.constexpr(-(1 << 31))  # as in kernels/sort_keys.py
_LOW_32_BITS = tl.constexpr(0xFFFFFFFF)
_EMPTY = tl.constexpr(-(1 << 63))  # and the next few: below the key of every class
_NEGLIGIBLE_WORK = 1 << 30  # N x C x D below which trying configurations costs more than it can win
_FEW_QUERIES = 4096
_SPLIT_MULTIPLE = 256  # of every BLOCK_C
_SPLIT_CLASSES = 4096  # a program has at least so many classes to itself


@triton.jit
def _load_rows(base, rows, count, start, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """[rows, BLOCK_D] from column `start`, zero outside of the matrix [count, D]."""
    columns = start + tl.arange(0, BLOCK_D)
    mask = (rows < count)[:, None] & (columns < D)[None, :]
    return tl.load(base + rows.to(tl.int64)[:, None] * D + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _squares(x):
    x = x.to(tl.float32)
    return tl.sum(x * x, axis=1)


@triton.jit
def _add_dot(q, c, dot, UPCAST: tl.constexpr):
    """dot + q @ c.T. UPCAST is for the interpreter, which would multiply the bit patterns of bf16 as integers."""
    if UPCAST:
        q, c = q.to(tl.float32), c.to(tl.float32)
    return tl.dot(q, tl.trans(c), dot, input_precision="ieee")


@triton.jit
def _inverse_length(squares):
    """0 for a zero row, NaN for a row with a NaN or an infinity."""
    inverse = 1.0 / tl.sqrt_rn(tl.where(squares == 0.0, 1.0, squares))
    return tl.where(squares == 0.0, 0.0, tl.where(squares < float("inf"), inverse, float("nan")))


@triton.jit
def _is_extreme(squares):
    """Rows whose squares may have left fp32 (2**-80 .. 2**80 is safe), zero rows and NaN among them."""
    return (squares < 8.271806125530277e-25) | (squares > 1.2089258196146292e24) | (squares != squares)


@triton.jit
def _power_of_two(base, rows, count, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """The power of two that brings a row's largest element into [1, 2) when it is divided by it, which is exact."""
    largest = tl.zeros(rows.shape, tl.float32)
    for start in range(0, D, BLOCK_D):
        x = tl.abs(_load_rows(base, rows, count, start, D, BLOCK_D).to(tl.float32))
        largest = tl.maximum(largest, tl.max(x, axis=1))
    bits = largest.to(tl.int32, bitcast=True) & 0x7F800000
    return tl.maximum(bits, 0x00800000).to(tl.float32, bitcast=True)  # of subnormals and zero: the least normal


@triton.jit
def _scaled_cosines(
    queries, classes, q_rows, c_rows, N, C, D: tl.constexpr, BLOCK_D: tl.constexpr, UPCAST: tl.constexpr
):
    """Cosines [q_rows, c_rows] of rows of any length."""
    q_power = _power_of_two(queries, q_rows, N, D, BLOCK_D)
    c_power = _power_of_two(classes, c_rows, C, D, BLOCK_D)
    dot = tl.zeros((q_rows.shape[0], c_rows.shape[0]), tl.float32)
    q_squares = tl.zeros(q_rows.shape, tl.float32)
    c_squares = tl.zeros(c_rows.shape, tl.float32)
    for start in tl.range(0, D, BLOCK_D, num_stages=1):  # rare, so it need not hold shared memory
        q = _load_rows(queries, q_rows, N, start, D, BLOCK_D)
        c = _load_rows(classes, c_rows, C, start, D, BLOCK_D)
        q = (q.to(tl.float32) / q_power[:, None]).to(q.dtype)
        c = (c.to(tl.float32) / c_power[:, None]).to(c.dtype)
        dot = _add_dot(q, c, dot, UPCAST)
        q_squares += _squares(q)
        c_squares += _squares(c)
    return dot * _inverse_length(q_squares)[:, None] * _inverse_length(c_squares)[None, :]


@triton.jit
def _to_key(score, index):
    bits = (score + 0.0).to(tl.int32, bitcast=True)  # -0.0 becomes 0.0
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    bits = tl.where(score < -1.5, _NAN_BITS, bits)
    return (bits.to(tl.int64) << 32) + (index.to(tl.int64) ^ _LOW_32_BITS)


@triton.jit
def _score_of(key, nan_score):
    bits = (key >> 32).to(tl.int32)
    score = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    return tl.where(bits == _NAN_BITS, nan_score, score)


@triton.jit
def _insert(best, floor, cosines, first):
    """Take into `best` [rows, K_PAD] what beats the `floor` of its row, the largest first.

    Classes come in ascending order, so one that only equals the floor loses the tie.
    """
    columns = tl.arange(0, cosines.shape[1])
    top = tl.max(cosines, axis=1)
    while tl.max((top > floor).to(tl.int32), axis=0) > 0:
        at = tl.min(tl.where(cosines == top[:, None], columns[None, :], cosines.shape[1]), axis=1)
        better = top > floor
        lowest = tl.min(best, axis=1)
        key = _to_key(top, first + at)
        best = tl.where((best == lowest[:, None]) & better[:, None], key[:, None], best)
        lowest = tl.min(best, axis=1)
        reached = tl.where(lowest < _EMPTY + 64, -float("inf"), _score_of(lowest, _NAN_SCORE))
        floor = tl.where(better, reached, floor)
        cosines = tl.where(columns[None, :] == at[:, None], -float("inf"), cosines)
        top = tl.max(cosines, axis=1)
    return best, floor


@triton.jit
def _kernel(
    queries, classes, scores, indices, keys,
    N, C, classes_of_split, n_bucket, c_bucket,
    D: tl.constexpr, K: tl.constexpr, K_PAD: tl.constexpr, SPLIT: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(1)
    q_squares = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, D, BLOCK_D):
        q_squares += _squares(_load_rows(queries, rows, N, start, D, BLOCK_D))
    q_inverse = _inverse_length(q_squares)
    q_extreme = _is_extreme(q_squares) & (rows < N)

    slots = tl.arange(0, K_PAD)
    best = tl.where(slots < K, slots.to(tl.int64) + _EMPTY, 0x7FFFFFFFFFFFFFFF)[None, :]
    best = tl.broadcast_to(best, (BLOCK_N, K_PAD))
    floor = tl.where(rows < N, -float("inf"), float("inf"))  # rows past the end want nothing

    # One loop over (tile, chunk of D), so that the loads of the next tile are under way during this one's epilogue.
    CHUNKS: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    split_first = split * classes_of_split
    num_tiles = tl.cdiv(tl.minimum(C - split_first, classes_of_split), BLOCK_C)
    dot = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    squares = tl.zeros((BLOCK_C,), tl.float32)
    for step in range(num_tiles * CHUNKS):
        first = split_first + (step // CHUNKS) * BLOCK_C
        chunk = step % CHUNKS
        c_rows = first + tl.arange(0, BLOCK_C)
        q = _load_rows(queries, rows, N, chunk * BLOCK_D, D, BLOCK_D)
        c = _load_rows(classes, c_rows, C, chunk * BLOCK_D, D, BLOCK_D)
        dot = _add_dot(q, c, dot, UPCAST)
        squares += _squares(c)
        if chunk == CHUNKS - 1:
            cosines = dot * q_inverse[:, None] * _inverse_length(squares)[None, :]
            if queries.dtype.element_ty != tl.float16:  # no square of an fp16 number leaves fp32
                extreme = tl.max((_is_extreme(squares) & (c_rows < C)).to(tl.int32), axis=0)
                if extreme + tl.max(q_extreme.to(tl.int32), axis=0) > 0:
                    cosines = _scaled_cosines(queries, classes, rows, c_rows, N, C, D, BLOCK_D, UPCAST)
            cosines = tl.where((c_rows < C)[None, :], cosines, float("nan"))
            cosines = tl.maximum(cosines, _NAN_SCORE)  # the larger of a NaN and a number is the number
            best, floor = _insert(best, floor, cosines, first)
            dot = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
            squares = tl.zeros((BLOCK_C,), tl.float32)

    best = tl.where((slots < K)[None, :], best, _EMPTY)
    for place in range(K):
        key = tl.max(best, axis=1)
        if SPLIT:
            out = (rows.to(tl.int64) * tl.num_programs(1) + split) * K + place
            tl.store(keys + out, key, mask=rows < N)
        else:
            out = rows.to(tl.int64) * K + place
            tl.store(scores + out, _score_of(key, float("nan")), mask=rows < N)
            tl.store(indices + out, (key & _LOW_32_BITS) ^ _LOW_32_BITS, mask=rows < N)
        best = tl.where(best == key[:, None], _EMPTY, best)


def _config(block_n: int, block_c: int, block_d: int, num_warps: int, num_stages: int) -> triton.Config:
    blocks = {"BLOCK_N": block_n, "BLOCK_C": block_c, "BLOCK_D": block_d}
    return triton.Config(blocks, num_warps=num_warps, num_stages=num_stages)


# The first two of a list are taken without trial where there is little to win: for few queries and for many. fp32 has
# no tensor cores that keep its precision: narrow chunks of D keep the unrolled multiply-adds within the registers.
HALF_CONFIGS = [
    _config(16, 64, 64, 4, 3),
    _config(64, 64, 64, 4, 3),
    _config(64, 128, 64, 4, 3),
    _config(128, 64, 64, 4, 3),
    _config(128, 64, 64, 8, 3),
    _config(128, 128, 32, 8, 4),
    _config(128, 128, 64, 8, 3),
    _config(256, 128, 64, 16, 3),
]
FP32_CONFIGS = [
    _config(16, 64, 16, 4, 3),
    _config(64, 64, 16, 8, 3),
    _config(64, 64, 16, 4, 3),
    _config(128, 64, 16, 8, 3),
    _config(128, 128, 16, 16, 3),
]


def _worth_trying(_: list[triton.Config], arguments: dict, **__: object) -> list[triton.Config]:
    queries, n, c = arguments["queries"], arguments["N"], arguments["C"]
    configs = FP32_CONFIGS if queries.dtype == torch.float32 else HALF_CONFIGS
    if queries.dtype == torch.bfloat16:
        configs = configs[:5]  # of 128 x 128 and up the compiler takes minutes and spills, see docs/performance.md
    if n * c * queries.shape[1] >= _NEGLIGIBLE_WORK:
        return configs
    return configs[:1] if n <= _FEW_QUERIES else configs[1:2]


_tuned_kernel = triton.autotune(
    HALF_CONFIGS + FP32_CONFIGS,
    key=["n_bucket", "c_bucket", "D", "K_PAD"],
    prune_configs_by={"early_config_prune": _worth_trying},
    cache_results=True,
)(_kernel)


def cosine_topk_triton(
    queries: Tensor, classes: Tensor, k: int, *, config: triton.Config | None = None, splits: int | None = None
) -> tuple[Tensor, Tensor]:
    """`kernels.cosine_nn.cosine_topk` on a GPU; its arguments are checked there.

    Args:
        config: block sizes; None chooses by trial (once for sizes alike, remembered on disk) where it pays.
        splits: how many programs share a query's classes; their bests are merged in a second step. None: 1, more
            where so few queries would leave the GPU idle before many classes.
    """
    (n, d), c = queries.shape, classes.shape[0]
    if queries.dtype != classes.dtype:
        queries, classes = queries.float(), classes.float()
    queries, classes = queries.contiguous(), classes.contiguous()
    scores = torch.empty((n, k), dtype=torch.float32, device=queries.device)
    indices = torch.empty((n, k), dtype=torch.int64, device=queries.device)
    if n == 0:
        return scores, indices
    splits = _num_splits(n, c, queries.device) if splits is None else splits
    keys = torch.full((n, splits * k) if splits > 1 else (1,), -(1 << 63), dtype=torch.int64, device=queries.device)
    blocks = config.all_kwargs() if config else {}
    kernel = _kernel if config else _tuned_kernel
    classes_of_split = triton.cdiv(triton.cdiv(c, splits), _SPLIT_MULTIPLE) * _SPLIT_MULTIPLE
    with torch.cuda.device_of(queries):  # Triton launches on the current device
        kernel[lambda meta: (triton.cdiv(n, meta["BLOCK_N"]), splits)](
            queries, classes, scores, indices, keys,
            n, c, classes_of_split, triton.next_power_of_2(n), triton.next_power_of_2(c),
            D=d, K=k, K_PAD=triton.next_power_of_2(k), SPLIT=splits > 1,
            UPCAST=triton.knobs.runtime.interpret, **blocks,
        )  # fmt: skip
    return (scores, indices) if splits == 1 else from_sort_keys(largest_keys(keys, k))


def _num_splits(n: int, c: int, device: torch.device) -> int:
    programs = triton.cdiv(n, 64)
    wanted = 2 * torch.cuda.get_device_properties(device).multi_processor_count // programs
    return max(1, min(wanted, c // _SPLIT_CLASSES))
