"""cosine_topk against fp64 arithmetic in numpy: values, order of ties, zeros, NaN, awkward sizes, memory."""

import resource
import subprocess
import sys

import numpy as np
import pytest
import torch

from kernels.cosine_configs import RESIDENT, STREAMED, choose_config, fitting_configs, padded_width
from kernels.cosine_topk import cosine_topk, cosine_topk_ref, prepare_classes
from kernels.sort_keys import from_sort_keys, sort_keys

FUNCTIONS = [cosine_topk, cosine_topk_ref]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def random_rows(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def cosines(queries: torch.Tensor, classes: torch.Tensor) -> np.ndarray:
    """fp64 [N, C]; zero rows give 0."""
    rows = []
    for x in (queries.double().numpy(), classes.double().numpy()):
        length = np.linalg.norm(x, axis=1, keepdims=True)
        rows.append(x / np.where(length == 0, 1, length))
    return rows[0] @ rows[1].T


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "c", "d", "k"),
    [(1, 1, 1, 1), (7, 51, 50, 5), (3, 101, 300, 1), (199, 33, 7, 32), (130, 4099, 17, 5), (2100, 700, 31, 2)],
)
def test_against_fp64(function, dtype, n, c, d, k):
    queries, classes = random_rows(n, d, dtype=dtype), random_rows(c, d, seed=1, dtype=dtype)
    exact = cosines(queries, classes)
    scores, indices = function(queries, classes, k)
    assert scores.dtype == torch.float32 and scores.shape == (n, k)
    assert indices.dtype == torch.int64 and indices.shape == (n, k)
    tolerance = 2**-24 * (8 + 2 * d**0.5)  # fp32 rounding, whatever the input type
    best = -np.sort(-exact, axis=1)[:, :k]
    assert np.abs(scores.numpy() - best).max() < tolerance  # the k best values
    assert np.abs(np.take_along_axis(exact, indices.numpy(), 1) - best).max() < 2 * tolerance  # and who has them
    assert all(len(set(row)) == k for row in indices.tolist())
    assert (scores[:, :-1] >= scores[:, 1:]).all()


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("d", [7, 50, 300])
@pytest.mark.parametrize("c", [2, 5, 51, 397, 2047, 2049, 5000])
@pytest.mark.parametrize("n", [1, 2, 33])
def test_equal_classes_tie_and_the_lower_index_wins(function, n, c, d):
    queries, one = random_rows(n, d), random_rows(1, d, seed=1)
    scores, indices = function(queries, one.expand(c, d).contiguous(), min(c, 32))
    assert torch.equal(indices, torch.arange(min(c, 32)).expand(n, -1))
    assert torch.equal(scores, scores[:, :1].expand_as(scores)) and scores.abs().min() > 0


@pytest.mark.parametrize("function", FUNCTIONS)
def test_ties_at_the_last_place_and_across_blocks(function):
    directions = torch.eye(3)
    order = torch.tensor([2, 1] + [0] * 3000 + [1, 2, 1])
    scores, indices = function(torch.tensor([[0.0, 2.0, 1.0]]), directions[order] * 5, 4)
    assert indices.tolist() == [[1, 3002, 3004, 0]]  # 3003, equal to 0, has to stay out
    torch.testing.assert_close(scores, torch.tensor([[2, 2, 2, 1]]) / 5**0.5)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_signs_sort_as_numbers(function):
    classes = torch.tensor([[-1.0, 0], [0, 1], [1, 0], [0, -1], [-1, -1]])
    scores, indices = function(torch.tensor([[1.0, 0.0]]), classes, 5)
    assert indices.tolist() == [[2, 1, 3, 4, 0]]  # 0.0 and -0.0 are equal
    torch.testing.assert_close(scores, torch.tensor([[1, 0, 0, -(0.5**0.5), -1]]))


def test_sort_keys_order_every_kind_of_float():
    """Some matrix products give -0.0: it must tie with 0.0."""
    scores = torch.tensor([[0.5, -0.0, torch.nan, 1e-45, 0.0, -1.0, -1e-45, -torch.nan, 1.0]])
    keys = sort_keys(scores, 2**31).sort(descending=True).values
    ordered, indices = from_sort_keys(keys)
    assert (indices - 2**31).tolist() == [[8, 0, 3, 1, 4, 6, 5, 2, 7]]
    expected = torch.tensor([[1, 0.5, 1e-45, 0, 0, -1e-45, -1, torch.nan, torch.nan]])
    torch.testing.assert_close(ordered, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_vectors_score_zero(function, dtype):
    queries = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=dtype)
    classes = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]], dtype=dtype)
    scores, indices = function(queries, classes, 3)
    assert scores.tolist() == [[0, 0, 0], [1, 0, -1]]
    assert indices.tolist() == [[0, 1, 2], [2, 1, 0]]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_rows_without_a_direction_score_nan_and_come_last(function, dtype, bad):
    queries = torch.tensor([[1.0, 0.0], [bad, 1.0], [0.0, 0.0]], dtype=dtype)
    classes = torch.tensor([[bad, 0.0], [-1.0, 0.0], [1.0, bad], [1.0, 1.0]], dtype=dtype)
    scores, indices = function(queries, classes, 4)
    assert indices.tolist() == [[3, 1, 0, 2], [0, 1, 2, 3], [1, 3, 0, 2]]
    expected = torch.tensor([[0.5**0.5, -1, torch.nan, torch.nan], [torch.nan] * 4, [0, 0, torch.nan, torch.nan]])
    torch.testing.assert_close(scores, expected, equal_nan=True)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e30])
def test_lengths_whose_squares_leave_fp32(function, size):
    queries, classes = random_rows(5, 20) * size, random_rows(9, 20, seed=1) / size
    if size == 1e-40:
        classes = random_rows(9, 20, seed=1)
    scores, _ = function(queries, classes, 9)
    expected = -np.sort(-cosines(queries, classes), axis=1)
    np.testing.assert_allclose(scores.numpy(), expected, atol=2e-6)
    assert scores.max() > 0.3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("of_queries", DTYPES)
@pytest.mark.parametrize("c", [3, 2050])
def test_prepared_classes_give_the_same(c, of_queries, dtype):
    queries, classes = random_rows(40, 9, dtype=of_queries), random_rows(c, 9, seed=1, dtype=dtype)
    classes[0] = 0
    classes[1, 2] = torch.nan
    prepared = prepare_classes(classes)
    assert (prepared.count, prepared.width) == (c, 9)
    expected = cosine_topk(queries, classes.clone(), 3)
    classes.fill_(1)  # is not seen
    for actual, wanted in zip(cosine_topk(queries, prepared, 3), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (torch.ones(3), r"classes \(3,\) must be \[C, D\]"),
        (torch.ones(0, 3), r"classes \(0, 3\) must be \[C, D\]"),
        (torch.ones(2, 3).long(), "classes must be fp16, bf16 or fp32"),
    ],
)
def test_what_cannot_be_prepared_is_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        prepare_classes(classes)


def test_prepared_classes_of_another_size_are_refused():
    prepared = prepare_classes(torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"queries \(2, 5\) and classes \(4, 3\) must be"):
        cosine_topk(torch.ones(2, 5), prepared, 1)
    with pytest.raises(ValueError, match=r"k must be in 1 .. min\(32, 4 classes\)"):
        cosine_topk(torch.ones(2, 3), prepared, 5)


@pytest.mark.parametrize(
    ("shared_bytes", "width", "itemsize", "blocks"),
    [
        (232_448, 300, 2, [(128, 64), (64, 64)]),  # H100, B200
        (166_912, 300, 2, [(64, 64), (64, 32)]),  # A100
        (101_376, 300, 2, [(64, 32)]),  # L4, RTX 4090
        (101_376, 50, 2, [(128, 64), (64, 64)]),
        (232_448, 385, 2, [(64, 64)]),  # streamed
        (232_448, 300, 4, [(64, 64)]),
    ],
)
def test_the_way_of_cutting_fits_the_device(monkeypatch, shared_bytes, width, itemsize, blocks):
    columns = padded_width(width)
    configs = fitting_configs(columns, itemsize, shared_bytes)
    assert [(config.block_n, config.block_c) for config in configs] == blocks
    if configs == [STREAMED[itemsize]]:
        assert all(columns % config.block_d == 0 for config in configs)
    else:
        assert set(configs) <= set(RESIDENT)
    monkeypatch.setattr("kernels.cosine_configs._limits", lambda _: (shared_bytes, 132))
    few, many = (choose_config(n, columns, itemsize, torch.device("cuda")) for n in (8448, 8449))
    assert (many, few) == (configs[0], configs[-1])


@pytest.mark.parametrize(
    ("width", "padded"), [(1, 64), (50, 64), (65, 128), (257, 320), (300, 320), (400, 512), (513, 576)]
)
def test_rows_are_padded_to_two_powers_of_two(width, padded):
    assert padded_width(width) == padded


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_queries(function):
    scores, indices = function(torch.empty(0, 8), torch.ones(5, 8), 3)
    assert scores.shape == indices.shape == (0, 3) and indices.dtype == torch.int64


def test_blocks_and_autocast_change_nothing(monkeypatch):
    queries, classes = random_rows(300, 24), random_rows(500, 24, seed=1)
    expected = cosine_topk_ref(queries, classes, 7)
    monkeypatch.setattr("kernels.cosine_topk._ROWS", 64)
    with torch.autocast("cpu", torch.bfloat16):
        actual = cosine_topk(queries, classes, 7)
    assert torch.equal(actual[1], expected[1])
    torch.testing.assert_close(actual[0], expected[0], rtol=0, atol=3e-7)


@pytest.mark.parametrize(
    ("queries", "classes", "k", "message"),
    [
        (torch.ones(2, 3), torch.ones(4, 5), 1, r"must be \[N, D\] and \[C, D\]"),
        (torch.ones(2, 0), torch.ones(4, 0), 1, r"must be \[N, D\] and \[C, D\]"),
        (torch.ones(2, 3).long(), torch.ones(4, 3), 1, "queries must be fp16, bf16 or fp32"),
        (torch.ones(2, 3), torch.ones(4, 3), 5, r"k must be in 1 .. min\(32, 4 classes\)"),
        (torch.ones(2, 3), torch.ones(4, 3), 0, "k must be in"),
        (torch.ones(2, 3), torch.ones(40, 3), 33, "k must be in"),
    ],
)
def test_wrong_input_is_refused(queries, classes, k, message):
    with pytest.raises(ValueError, match=message):
        cosine_topk(queries, classes, k)


def peak_bytes(n: int, c: int) -> int:
    """Peak memory of a fresh process beyond what it held before the call."""
    program = f"""
import resource, torch
from kernels.cosine_topk import cosine_topk
torch.set_num_threads(1)
queries, classes = torch.randn({n}, 8), torch.randn({c}, 8)
cosine_topk(queries[:4096], classes[:4096], 5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cosine_topk(queries, classes, 5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(out.stdout) * 1024


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_SELF"), reason="needs getrusage")
def test_memory_does_not_grow_with_n_times_c():
    assert peak_bytes(9_000, 9_000) < 16e6  # the scores alone would be 324 MB
