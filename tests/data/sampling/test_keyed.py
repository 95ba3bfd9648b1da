"""Permutations and random numbers that are computed for a place."""

import numpy as np
import pytest

from engine.data.sampling.keyed import ROUNDS, keys, permuted, philox, uniform_words

HIGHEST = 0xFFFFFFFF
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
SIZES = (*range(1, 70), 127, 128, 129, 1023, 1025, 4099, 2**16 - 1, 2**16, 2**16 + 1, 2**17 + 1, 100_003)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((HIGHEST,) * 4, (HIGHEST, HIGHEST), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (PI, (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
def test_philox_gives_the_known_answers(counter, key, expected):
    """Of Random123's file of them (kat_vectors: philox4x32 10)."""
    assert philox(np.array(counter)[:, None], key)[:, 0].tolist() == list(expected)


def rounds(*numbers: int) -> np.ndarray:
    return keys(*numbers, count=ROUNDS, purpose=0)


def test_a_permutation_has_each_number_once():
    for size in SIZES:
        found = permuted(np.arange(size), size, rounds(1, 2))
        assert np.array_equal(np.sort(found), np.arange(size))
        some = np.array([size - 1, 0, size // 2])
        assert permuted(some, size, rounds(1, 2)).tolist() == found[some].tolist()


@pytest.mark.parametrize("size", [2**33 + 7, 2**40, 2**62 - 1])
def test_sizes_beyond_any_memory(size):
    places = np.unique(np.random.default_rng(0).integers(0, size, 5000))
    found = permuted(places, size, rounds(3))
    assert len(np.unique(found)) == len(places) and found.min() >= 0 and found.max() < size
    assert abs(np.mean(found / size) - 0.5) < 0.02


def test_all_orders_of_four_are_as_likely():
    orders = [tuple(permuted(np.arange(4), 4, rounds(seed, 0)).tolist()) for seed in range(1200)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24 and ((counts - 50) ** 2 / 50).sum() < 50  # 23 degrees of freedom


def test_words_are_told_by_place_key_and_number():
    places = np.array([0, 1, 2**32, 2**40 + 5])
    words = uniform_words(places, 9, 11)
    assert words.shape == (11, 4) and words.max() < 2**32 and len(np.unique(words)) == 44
    assert np.array_equal(uniform_words(places[2:3], 9, 3), words[:3, 2:3])
    assert not np.isin(uniform_words(places, 2**32 + 9, 11), words).any()


def test_keys_differ_by_numbers_and_purpose():
    asked = (((1, 2), 0), ((2, 1), 0), ((1, 2), 1), ((1,), 0))
    found = [keys(*numbers, count=2, purpose=purpose) for numbers, purpose in asked]
    assert len(np.unique(np.concatenate(found))) == 8
