"""Random numbers and permutations that are computed for a place: nothing is drawn before it, and nothing is kept.

`uniform_words`: Philox4x32-10 (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3), a generator keyed by a counter.
`permuted`: a Feistel cipher over the numbers of so many bits, walked along its cycles until it is back among the first `size`
(Black and Rogaway 2002, Ciphers with arbitrary finite domains). All work on arrays of places at once.
"""

import numpy as np

ORDER, REST, HOLD_OUT, SHARE_OF_VIDEOS = range(4)  # purposes of keys; REST: of what weights have after the point
ROUNDS = 8  # of the Feistel cipher; even, so that the halves end as they began
_LEAST_BITS = 4  # a cipher over fewer than 16 numbers has too few permutations
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW, _WORD = np.uint64(0xFFFFFFFF), np.uint64(32)


def keys(*numbers: int, count: int, purpose: int) -> np.ndarray:
    """uint64 [count]: keys of some numbers (seed, epoch, ...), each at least 0, that differ for each `purpose`."""
    return np.random.SeedSequence(numbers, spawn_key=(purpose,)).generate_state(count, np.uint64)


def mixed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Two int64 (or uint64) arrays as one int64 (the finaliser of SplitMix64, by which each bit of both counts)."""
    found = one.astype(np.int64, copy=False).view(np.uint64) * np.uint64(3)
    found += other.astype(np.int64, copy=False).view(np.uint64)
    shifted = np.empty_like(found)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        found ^= np.right_shift(found, np.uint64(shift), out=shifted)
        found *= np.uint64(factor)
    found ^= np.right_shift(found, np.uint64(31), out=shifted)
    return found.view(np.int64)


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10: uint64 [4, N] of 32 bits each, from counters [4, N] and a key of two numbers, of 32 bits too."""
    a, b, c, d = counter.astype(np.uint64)
    for turn in range(10):
        first, second = ((key[i] + turn * _WEYL[i]) & 0xFFFFFFFF for i in (0, 1))
        one, other = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            (other >> _WORD) ^ b ^ np.uint64(first),
            other & _LOW,
            (one >> _WORD) ^ d ^ np.uint64(second),
            one & _LOW,
        )
    return np.stack([a, b, c, d])


def uniform_words(places: np.ndarray, key: int, count: int) -> np.ndarray:
    """uint64 [count, N]: for each place, int64 [N], so many independent numbers, uniform over 32 bits."""
    places = places.astype(np.uint64)
    blocks = -(-count // 4)
    block = np.repeat(np.arange(blocks, dtype=np.uint64), len(places))
    low, high = (np.tile(part, blocks) for part in (places & _LOW, places >> _WORD))
    words = philox(np.stack([low, high, block, np.zeros_like(block)]), (int(key) & 0xFFFFFFFF, int(key) >> 32))
    return words.reshape(4, blocks, len(places)).swapaxes(0, 1).reshape(4 * blocks, len(places))[:count]


def permuted(places: np.ndarray, size: int, rounds: np.ndarray) -> np.ndarray:
    """int64 [N]: where a permutation of 0 .. size - 1 sends each of `places`, int64 [N].

    Args:
        rounds: uint64 [ROUNDS], the keys that the permutation is of.
    """
    bits = max(_LEAST_BITS, (size - 1).bit_length())
    values, found = places.astype(np.uint64), np.zeros(len(places), np.int64)
    waiting = np.arange(len(places))
    while len(waiting):
        values = _enciphered(values, bits, rounds)
        is_inside = values < size
        found[waiting[is_inside]] = values[is_inside]
        waiting, values = waiting[~is_inside], values[~is_inside]
    return found


def _enciphered(values: np.ndarray, bits: int, rounds: np.ndarray) -> np.ndarray:
    """A permutation of all numbers of so many bits; of an odd number one half has one more, in turns the left and the right."""
    low = np.uint64(bits - bits // 2)
    masks = [np.uint64((1 << bits // 2) - 1), np.uint64((1 << int(low)) - 1)]
    left, right = values >> low, values & masks[1]
    for turn, key in enumerate(rounds):
        left, right = right, left ^ (mixed(right, key).view(np.uint64) & masks[turn % 2])
    return (left << low) | right
