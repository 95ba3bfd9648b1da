"""Shots: where what a network sees of a video changes all at once. A moment's score is a mean over a shot, not across its ends.

windows ──sums of the 4 before and the 4 after──▶ their cosine ──▶ below a half, and lowest of its neighbours ──▶ a cut

A video without cuts, or a long take, is smoothed over a few windows instead; shots of less than two seconds are not told apart.
The numbers are in windows of half a second (`engine.moments.index.GRID`); tools/moments_in_a_row.py measures them.
"""

import numpy as np

from engine.moments.retrieval import SMOOTH, smoothed

_REACH = 4  # windows on each side that are compared
ALIKE = 0.5  # cosine of what comes before and after from which nothing is cut
_APART = 2  # a cut is the strongest of so many windows on either side
_WHOLE = 20  # windows up to which a shot is scored as a whole; longer ones are smoothed
_BLOCK = 4096


def find_shots(features: np.ndarray, least_alike: float = ALIKE) -> np.ndarray:
    """Features [W, D] of a video's windows -> int64 [S + 1], ascending: shot s is of the windows shots[s] ... shots[s + 1] - 1."""
    alike = _likeness(features)
    padded = np.pad(alike, _APART, constant_values=np.inf)
    least = np.min([padded[shift : shift + len(alike)] for shift in range(2 * _APART + 1)], axis=0)
    cuts = 1 + np.flatnonzero((alike <= least) & (alike < least_alike))
    return np.concatenate([[0], cuts, [len(features)]])


def _likeness(features: np.ndarray) -> np.ndarray:
    """The cosine of the windows before and behind each inner edge: float64 [W - 1]."""
    count, alike = len(features) - 1, np.ones(max(0, len(features) - 1))
    for first in range(0, count, _BLOCK):  # those of a long video may be on disk
        last = min(first + _BLOCK, count)
        low, high = first + 1 - _REACH, last + _REACH
        some = np.asarray(features[max(0, low) : high], np.float32)
        beyond = (max(0, -low), max(0, high - len(features)))
        some = np.pad(some, (beyond, (0, 0)))  # with zeros: sums are shorter at the ends
        before, after = (
            np.sum([some[shift : shift + last - first] for shift in range(begin, begin + _REACH)], axis=0)
            for begin in (0, _REACH)
        )
        lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        alike[first:last] = np.einsum("wd,wd->w", before, after) / np.maximum(lengths, 1e-12)
    return alike


def means_in_shots(curve: np.ndarray, shots: np.ndarray) -> np.ndarray:
    """A value for each window [W]: the mean over its shot; of a long shot, over a few windows of it."""
    lengths = np.diff(shots)
    low, high, width = (
        np.repeat(each, lengths) for each in (shots[:-1], shots[1:], np.where(lengths > _WHOLE, SMOOTH, 2 * _WHOLE))
    )
    return smoothed(curve, width, low, high)
