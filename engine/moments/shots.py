"""Shots: where what a network sees of a video changes all at once. A moment's score is a mean over a shot, not across its ends.

windows ──sums of the 4 before and the 4 after──▶ how alike they are ──▶ little, and least of its neighbours ──▶ a cut

How alike is told twice: beside the mean of the video (the cosine of both less that mean), since what all of a video shows tells no
shots apart; and by themselves (their correlation, so that what a network gives to all objects does not count), since of a single
take nothing but noise is left beside its mean. A cut takes one of them to be low, and the second not to be high.

A video without cuts, or a long take, is smoothed over a few windows instead; shots of less than two seconds are not told apart.
The numbers are in windows of half a second (`engine.moments.index.GRID`); tools/moments_in_a_row.py measures them.
"""

import numpy as np

from engine.moments.retrieval import SMOOTH, as_float32, average_window, smoothed

_REACH = 4  # windows on each side that are compared
ALIKE = 0.4  # from which nothing is cut, if both are
_ALIKE_ALONE = 0.6  # correlation from which nothing is cut
_APART = 2  # a cut is the strongest of so many windows on either side
_WHOLE = 20  # windows up to which a shot is scored as a whole; longer ones are smoothed
_BLOCK = 4096


def find_shots(features: np.ndarray, least_alike: float = ALIKE) -> np.ndarray:
    """Features [W, D] of a video's windows -> int64 [S + 1], ascending: shot s is of the windows shots[s] ... shots[s + 1] - 1."""
    beside_mean, alone = _likeness(_converted(features))
    alike = beside_mean + alone
    padded = np.pad(alike, _APART, constant_values=np.inf)
    least = np.min([padded[shift : shift + len(alike)] for shift in range(2 * _APART + 1)], axis=0)
    cuts = 1 + np.flatnonzero(
        (alike <= least) & (np.minimum(beside_mean, alone) < least_alike) & (alone < _ALIKE_ALONE)
    )
    return np.concatenate([[0], cuts, [len(features)]])


def _converted(features: np.ndarray) -> np.ndarray:
    """Features of a short video as float32, all at once; those of a long one may be on disk, and stay what they are."""
    return as_float32(features) if len(features) <= _BLOCK else features


def _likeness(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How alike the windows before and behind each inner edge are, float64 [W - 1]: cosine less the video's mean; correlation."""
    count = max(0, len(features) - 1)
    beside_mean, alone, mean = np.ones(count), np.ones(count), average_window(features)
    for first in range(0, count, _BLOCK):  # those of a long video may be on disk
        last = min(first + _BLOCK, count)
        low, high = first + 1 - _REACH, last + _REACH
        some = as_float32(features[max(0, low) : high])
        beyond = (max(0, -low), max(0, high - len(features)))
        some = np.pad(some, (beyond, (0, 0)))  # with zeros: sums are shorter at the ends
        pairs = some[:-1] + some[1:]
        sums = pairs[:-2] + pairs[2:]  # of four
        place = np.arange(low, high - _REACH + 1)
        windows = np.minimum(place + _REACH, len(features)) - np.maximum(place, 0)  # of each sum
        products = np.einsum("wd,wd->w", sums[:-_REACH], sums[_REACH:])
        squares, totals = np.einsum("wd,wd->w", sums, sums), sums.sum(axis=1)
        beside_mean[first:last] = _cosines_less(products, squares, sums @ mean, windows, float(mean @ mean))
        width = sums.shape[1]
        alone[first:last] = _cosines_less(products, squares, totals, totals / width, width)
    return beside_mean, alone


def _cosines_less(
    products: np.ndarray, squares: np.ndarray, along: np.ndarray, times: np.ndarray, length: float
) -> np.ndarray:
    """Cosines [N - _REACH] of each of N vectors with the one `_REACH` behind it, both less a vector so many times.

    Args:
        products, squares: of the two, and of each with itself. along: of each with that vector. times: it is taken off.
        length: its square.
    """
    squares = squares - 2 * times * along + times**2 * length
    (a, b), (times_a, times_b) = ((each[:-_REACH], each[_REACH:]) for each in (along, times))
    products = products - times_b * a - times_a * b + times_a * times_b * length
    lengths = np.sqrt(np.maximum(squares[:-_REACH] * squares[_REACH:], 0))
    return products / np.maximum(lengths, 1e-12)


def looks_of_shots(features: np.ndarray, shots: np.ndarray) -> np.ndarray:
    """What each shot shows: the mean of its windows [W, D], to length 1; a long shot is cut into equal pieces. float32 [P, D]."""
    starts = []
    for first, length in zip(shots[:-1], np.diff(shots), strict=True):
        pieces = -(-length // _WHOLE)
        starts.append(first + np.arange(pieces) * length // pieces)
    sums = np.add.reduceat(_converted(features), np.concatenate(starts), axis=0, dtype=np.float32)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def means_in_shots(curve: np.ndarray, shots: np.ndarray) -> np.ndarray:
    """A value for each window [W]: the mean over its shot; of a long shot, over a few windows of it."""
    lengths = np.diff(shots)
    low, high, width = (
        np.repeat(each, lengths) for each in (shots[:-1], shots[1:], np.where(lengths > _WHOLE, SMOOTH, 2 * _WHOLE))
    )
    return smoothed(curve, width, low, high)
