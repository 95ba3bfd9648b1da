"""The Triton kernel of cosine_topk against fp64 and against the reference. test_triton.py runs this file in a process
of its own: in Triton's interpreter (TRITON_INTERPRET=1, CPU tensors), and compiled where there is a GPU."""

import pytest
import torch

from kernels.cosine_classes_triton import prepare_classes_triton
from kernels.cosine_configs import Config
from kernels.cosine_topk import cosine_topk_ref
from kernels.cosine_topk_triton import cosine_topk_triton
from tests.kernels.interpreter import DEVICE, INTERPRETED, few
from tests.kernels.test_cosine_topk import DTYPES, cosines, random_rows

SMALL = Config(16, 64, 4, 2)
FEW_DTYPES = few(DTYPES, rare=torch.float16)  # to the kernel it is what bf16 is: the other half precision


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """In the interpreter classes are filled up to whole small tiles, and split at them: fewer rows do."""
    if INTERPRETED:
        monkeypatch.setattr("kernels.cosine_classes_triton.ROW_MULTIPLE", SMALL.block_c)
        monkeypatch.setattr("kernels.cosine_topk_triton.ROW_MULTIPLE", SMALL.block_c)


def topk(queries, classes, k, config=SMALL, splits=1):
    prepared = prepare_classes_triton(classes.to(DEVICE))
    scores, indices = cosine_topk_triton(queries.to(DEVICE), prepared, k, config=config, splits=splits)
    return scores.cpu(), indices.cpu()


def errors(scores, indices, exact):
    """Largest error of the scores at their indices, and of the best scores, against exact cosines [N, C]."""
    best = exact.sort(dim=1, descending=True).values[:, : scores.shape[1]]
    at = exact.gather(1, indices)
    return (scores.double() - at).abs().max().item(), (at - best).abs().max().item()


@pytest.mark.parametrize("dtype", FEW_DTYPES)
@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize(
    ("n", "c", "d", "k"),
    [(1, 1, 1, 1), (7, 51, 50, 5), (3, 101, 300, 1), (17, 33, 7, 32), (19, 263, 16, 2), (5, 300, 31, 3)],
)
def test_no_worse_than_the_reference(n, c, d, k, splits, dtype):
    queries, classes = random_rows(n, d, dtype=dtype), random_rows(c, d, seed=1, dtype=dtype)
    exact = torch.from_numpy(cosines(queries, classes))
    scores, indices = topk(queries, classes, k, splits=splits)
    assert (scores.dtype, scores.shape, indices.dtype) == (torch.float32, (n, k), torch.int64)
    of_score, of_choice = errors(scores, indices, exact)
    of_reference = max(errors(*cosine_topk_ref(queries, classes, k), exact))
    assert max(of_score, of_choice) <= 2 * of_reference + 2**-24 * (4 + d**0.5)
    assert scores.abs().max() > 0.1  # all zeros would be far off, and here is the proof that they would fail
    assert all(len(set(row)) == k for row in indices.tolist())
    assert (scores[:, :-1] >= scores[:, 1:]).all()


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("dtype", FEW_DTYPES)
@pytest.mark.parametrize(
    "config",
    [
        Config(16, 16, 4, 1),
        Config(64, 32, 8, 3),
        Config(32, 32, 4, 2, block_d=16),
        Config(32, 16, 4, 2, block_d=64),
    ],
    ids=str,
)
def test_ways_of_cutting_change_nothing_but_rounding(config, dtype, k):
    queries, classes = random_rows(40, 70, dtype=dtype), random_rows(40, 70, seed=1, dtype=dtype)
    scores, indices = topk(queries, classes, k, config=config)
    expected = cosine_topk_ref(queries, classes, k)
    torch.testing.assert_close(scores, expected[0], rtol=0, atol=1e-6)
    assert torch.equal(indices, expected[1])


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("dtype", FEW_DTYPES)
def test_ties_go_to_the_lower_index(dtype, splits):
    # Whole numbers add up to the same in any order: numpy, which multiplies in the interpreter, adds some columns in another.
    queries, one = ((3 * random_rows(n, 50, seed=n)).round().to(dtype) for n in (3, 1))
    scores, indices = topk(queries, one.expand(265, 50), 9, splits=splits)
    assert torch.equal(indices, torch.arange(9).expand(3, -1))
    assert torch.equal(scores, scores[:, :1].expand_as(scores)) and scores.abs().min() > 0
    order = torch.tensor([2, 1] + [0] * 260 + [1, 2, 1])
    scores, indices = topk(torch.tensor([[0.0, 2.0, 1.0]]), torch.eye(3)[order] * 5, 4, splits=splits)
    assert indices.tolist() == [[1, 262, 264, 0]]  # 263, equal to 0, has to stay out
    torch.testing.assert_close(scores, torch.tensor([[2, 2, 2, 1]]) / 5**0.5)


def test_signed_zeros_tie():
    classes = torch.tensor([[-1.0, 0], [0, 1], [1, 0], [0, -1], [-1, -1]])
    scores, indices = topk(torch.tensor([[1.0, -0.0]]), classes, 5)
    assert indices.tolist() == [[2, 1, 3, 4, 0]]
    torch.testing.assert_close(scores, torch.tensor([[1, 0, 0, -(0.5**0.5), -1]]))


@pytest.mark.parametrize("dtype", FEW_DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_zero_and_broken_rows(dtype, bad):
    queries = torch.tensor([[1.0, 0.0], [bad, 1.0], [0.0, 0.0]], dtype=dtype)
    classes = torch.tensor([[bad, 0.0], [-1.0, 0.0], [1.0, bad], [1.0, 1.0]], dtype=dtype)
    scores, indices = topk(queries, classes, 4)
    assert indices.tolist() == [[3, 1, 0, 2], [0, 1, 2, 3], [1, 3, 0, 2]]
    expected = torch.tensor([[0.5**0.5, -1, torch.nan, torch.nan], [torch.nan] * 4, [0, 0, torch.nan, torch.nan]])
    torch.testing.assert_close(scores, expected, equal_nan=True)


def test_broken_classes_fill_up_to_k_in_both_ways_of_splitting():
    classes = torch.full((265, 3), torch.nan)
    classes[262] = 1
    for splits in (1, 3):
        scores, indices = topk(torch.ones(1, 3), classes, 3, splits=splits)
        assert indices.tolist() == [[262, 0, 1]]
        torch.testing.assert_close(scores, torch.tensor([[1, torch.nan, torch.nan]]), equal_nan=True)


@pytest.mark.parametrize(
    ("size", "dtype"),  # the interpreter turns bf16 below its normal numbers into zeros
    [(1e-40, torch.float32), *((size, dtype) for size in (1e-30, 1e30) for dtype in (torch.float32, torch.bfloat16))],
)
def test_lengths_whose_squares_leave_fp32(size, dtype):
    queries = (random_rows(5, 20) * size).to(dtype)
    classes = random_rows(70, 20, seed=1, dtype=dtype)
    classes[:40] *= 1e-30 if size == 1e30 else 1e30  # one tile extreme, one not
    classes[7] = 0
    scores, indices = topk(queries, classes, 9)
    exact = torch.from_numpy(cosines(queries, classes))
    assert max(errors(scores, indices, exact)) < 2e-6
    assert scores.max() > 0.3


def test_zero_classes_between_others_score_zero():
    classes = random_rows(40, 6)
    classes[3] = 0
    scores, indices = topk(classes[:2], classes, 32)
    assert [row[indices[place].tolist().index(3)] for place, row in enumerate(scores.tolist())] == [0, 0]


@pytest.mark.parametrize("splits", [1, 2])
def test_scores_that_rounding_makes_equal_are_in_the_order_of_their_indices(splits):
    """Scores that differ by a bit before the query's length is divided out, and by nothing after it."""
    queries = random_rows(16, 2)
    steps = 1 + torch.arange(300) * 2.0**-23
    classes = torch.stack((steps, torch.ones(300)), dim=1)[
        torch.randperm(300, generator=torch.Generator().manual_seed(0))
    ]
    scores, indices = topk(queries, classes, 20, splits=splits)
    same = scores[:, :-1] == scores[:, 1:]
    assert same.sum() > 100 and (scores[:, :-1] >= scores[:, 1:]).all()
    assert (indices[:, :-1] < indices[:, 1:])[same].all()


@pytest.mark.parametrize("of_queries", DTYPES)
@pytest.mark.parametrize("of_classes", DTYPES)
def test_types_that_differ_and_views(of_queries, of_classes):
    queries = random_rows(6, 20, dtype=of_queries)[::2, ::2][:, :9]
    classes = random_rows(9, 30, seed=1, dtype=of_classes).T[::3]
    scores, indices = topk(queries, classes, 2)
    expected = cosine_topk_ref(queries, classes, 2)
    torch.testing.assert_close(scores, expected[0], rtol=0, atol=1e-6)
    assert torch.equal(indices, expected[1])
    assert topk(queries[:0], classes, 2)[0].shape == (0, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_prepared_classes(dtype):
    classes = torch.tensor([[3, 4, 0], [0, 0, 0], [0, torch.nan, 1], [0, 2, 0]]).to(dtype)
    prepared = prepare_classes_triton(classes.to(DEVICE))
    assert (prepared.count, prepared.width, prepared.rows.dtype) == (4, 3, dtype)
    assert prepared.rows.shape[0] % 64 == 0 and prepared.rows[0].nbytes % 16 == 0
    rows, inverse, bias = (tensor.cpu() for tensor in (prepared.rows, prepared.inverse, prepared.bias))
    unit = (rows.float() * inverse[:, None])[:5, :4]
    torch.testing.assert_close(unit, torch.tensor([[0.6, 0.8, 0, 0], [0] * 4, [0] * 4, [0, 1, 0, 0], [0] * 4]))
    assert rows.count_nonzero() == 3
    assert bias[0] == bias[1] == bias[3] == 0 and bias[2] < -1e38 and (bias[4:] == -torch.inf).all()


@pytest.mark.skipif(DEVICE == "cpu", reason="minutes in the interpreter")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "c", "d", "k"), [(1024, 101, 300, 1), (65_536, 700, 300, 5), (1000, 999, 301, 32), (3, 200_000, 300, 5)]
)
def test_real_sizes(n, c, d, k, dtype):
    queries, classes = random_rows(n, d, dtype=dtype), random_rows(c, d, seed=1, dtype=dtype)
    scores, indices = topk(queries, classes, k, config=None, splits=None)
    rows = torch.arange(0, n, max(1, n // 200))
    exact = torch.from_numpy(cosines(queries[rows], classes))
    assert max(errors(scores[rows], indices[rows], exact)) < 2**-24 * (8 + 2 * d**0.5)
    assert scores.abs().max() > 0.1
