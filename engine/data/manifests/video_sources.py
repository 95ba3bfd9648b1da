"""Which rows of a large manifest are of one source of videos, as a number for each: rows of a source are held out together.

class and group, or else contents ──▶ `source_keys` ──▶ keys that have a file in common (`common_keys`) ──▶ one number (`joined`)
"""

from collections.abc import Sequence

import numpy as np

from engine.data.manifests.contents import digest_of
from engine.data.manifests.manifest import Manifest
from engine.data.sampling.keyed import mixed


def source_keys(manifest: Manifest, files: np.ndarray) -> np.ndarray:
    """int64 [V]: a number of the class and group of each row, or where it has no group the contents of its file, `files`."""
    ((codes, groups),) = manifest.coded("group")
    of_group = np.array([digest_of(f"group {name}") if name else 0 for name in groups], np.int64)[codes]
    of_class = np.array([digest_of(f"class {name}") for name in manifest.classes], np.int64)[manifest.class_index]
    return np.where(of_group == 0, files, mixed(of_group, of_class))


def file_keys(files: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """int64 [P, 2]: the different pairs of a file and its key, of rows that have a group."""
    has_group = keys != files
    return _different(np.column_stack([files[has_group], keys[has_group]]))


def _different(pairs: np.ndarray) -> np.ndarray:
    """Rows of [N, 2], each once and in order."""
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    return pairs[np.any(np.diff(pairs, axis=0, prepend=pairs[:1] - 1) != 0, axis=1)]


def common_keys(pairs: Sequence[np.ndarray]) -> dict[int, int]:
    """Key -> the one that it is joined with, for keys that have a file in common (a video with several classes, a copy).

    Args:
        pairs: arrays that `file_keys` gives.
    """
    found = _different(np.concatenate([np.empty((0, 2), np.int64), *pairs]))
    is_same = np.diff(found[:, 0]) == 0
    joined: dict[int, int] = {}

    def first(key: int) -> int:
        while key in joined:
            joined[key] = joined.get(joined[key], joined[key])
            key = joined[key]
        return key

    for one, other in zip(found[:-1][is_same, 1].tolist(), found[1:][is_same, 1].tolist(), strict=True):
        low, high = sorted((first(one), first(other)))
        if low != high:
            joined[high] = low
    return {key: first(key) for key in list(joined)}


def joined(keys: np.ndarray, common: dict[int, int]) -> np.ndarray:
    """int64 [V]: each key, or the one that it is joined with."""
    if not common:
        return keys
    known = np.array(sorted(common), np.int64)
    instead = np.array([common[key] for key in known.tolist()], np.int64)
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, instead[place], keys)
