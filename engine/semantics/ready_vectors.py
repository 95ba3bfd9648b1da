"""Ready class vectors from an .npz file: somebody else's averaging, a sentence encoder, attributes.

The file holds `names` (text) and `vectors` (float [C, D]), or several such sets as `NAME_names` and
`NAME_vectors`; `words.path: FILE.npz:NAME` picks one of those. Without it the set that holds most of the
asked names is taken, and it must be the only such set: sets made from differently spelt names give the
same class different vectors.

A class is found in a set by its exact spelling, else regardless of case, spaces and '_', else by equal
words under the rules (CleanAndJerk is 'Weight Lifting'). `words.replace` gives the name it has in the file.
"""

import difflib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.errors import InputError
from engine.semantics.config import WordSourceConfig
from engine.semantics.embeddings import ClassEmbeddings, MissingVectors
from engine.semantics.words import name_key, user_replacement, words_or_name


class _NamedVectors:
    """One set of a file: names and vectors, float [C, D], with the ways a name is looked up (to rows)."""

    def __init__(self, label: str, names: list[str], vectors: np.ndarray, config: WordSourceConfig) -> None:
        self.label = label
        self.names = names
        self.vectors = vectors
        self._config = config
        self._by_name: dict[str, list[int]] = {}
        self._by_key: dict[str, list[int]] = {}
        self._by_words: dict[tuple[str, ...], list[int]] = {}
        for row, name in enumerate(names):
            self._by_name.setdefault(name, []).append(row)
            self._by_key.setdefault(name_key(name), []).append(row)
            self._by_words.setdefault(self._words(name), []).append(row)

    def _words(self, name: str) -> tuple[str, ...]:
        return words_or_name(name, self._config.rules, self._config.lemmatize)

    def rows(self, name: str) -> list[int]:
        """Rows that a class name may mean, by the first kind of match that gives any."""
        return self._by_name.get(name) or self._by_key.get(name_key(name)) or self._by_words.get(self._words(name), [])


class ReadyVectors:
    """A `ClassVectorSource` that looks class names up in a file."""

    def __init__(self, config: WordSourceConfig) -> None:
        self.config = config
        self.path, self.sets = _read_sets(config)

    def embed(self, names: Sequence[str]) -> ClassEmbeddings:
        """See `ClassVectorSource`."""
        wanted = [user_replacement(name, self.config.replace) or name for name in names]
        matches = [[part.rows(name) for name in wanted] for part in self.sets]
        covered = [sum(bool(rows) for rows in found) for found in matches]
        chosen, found = self.sets[covered.index(max(covered))], matches[covered.index(max(covered))]
        missing = [name for name, rows in zip(names, found, strict=True) if not rows]
        if missing:
            raise MissingVectors(self._missing_message(missing, chosen))
        rows = [self._one_row(name, indices, chosen) for name, indices in zip(names, found, strict=True)]
        for part, indices in zip(self.sets, matches, strict=True):
            if part is not chosen and all(indices):
                self._check_agreement(names, chosen, rows, part, [options[0] for options in indices])
        vectors, centred = chosen.vectors[rows].astype(np.float64), self.config.centre == "yes"
        if centred:
            vectors -= chosen.vectors.mean(axis=0, dtype=np.float64)
        label = f" (set {chosen.label})" if chosen.label else ""
        description = (
            f"ready class vectors of '{self.path.name}'{label}: {len(chosen.names)} classes, {vectors.shape[1]} dimensions, "
            f"{'centred on their mean' if centred else 'not centred'}"
        )
        return ClassEmbeddings.from_raw(names, vectors, description, [(chosen.names[row],) for row in rows])

    def _one_row(self, name: str, rows: list[int], part: _NamedVectors) -> int:
        if not np.allclose(part.vectors[rows], part.vectors[rows[0]], equal_nan=True):
            options = ", ".join(repr(part.names[row]) for row in rows)
            raise InputError(f"class '{name}' may be {options} of '{self.path}': say which under words.replace")
        return rows[0]

    def _check_agreement(
        self, names: Sequence[str], first: _NamedVectors, rows: list[int], other: _NamedVectors, other_rows: list[int]
    ) -> None:
        """Two sets that both hold all the classes must have the same vectors for them."""
        mine, theirs = first.vectors[rows], other.vectors[other_rows]
        if mine.shape == theirs.shape and np.allclose(mine, theirs, atol=1e-6):
            return
        one, another = (part.label or "without a name" for part in (first, other))
        raise InputError(
            f"the sets {one} and {another} of '{self.path}' both hold these {len(names)} classes, with different "
            f"vectors: pick one with words.path: {self.path}:{first.label or other.label}"
        )

    def _missing_message(self, missing: list[str], part: _NamedVectors) -> str:
        source = f"'{self.path}'{f' (set {part.label})' if part.label else ''}"
        lines = [f"no vector for these classes ({len(missing)}) in {source}:"]
        by_lower = {name.lower(): name for name in part.names}
        for name in missing:
            near = [by_lower[hit] for hit in difflib.get_close_matches(name.lower(), by_lower, n=3)]
            lines.append(f"  '{name}' ({'near: ' + ', '.join(near) if near else 'nothing near'})")
        lines.append("Say in the config what they are called there: words.replace: {CLASS: NAME IN THE FILE}")
        return "\n".join(lines)


def _read_sets(config: WordSourceConfig) -> tuple[Path, list[_NamedVectors]]:
    """The file's path and its sets, only the one named after ':' if one is."""
    text = config.path or ""
    path, _, label = text.rpartition(":")
    if Path(text).is_file() or not path:
        path, label = text, ""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"words.path: no file at '{text}'")
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
    except Exception as error:  # of numpy and zipfile: whatever a damaged file makes them raise
        # numpy calls any text a pickle, and says how to load it all the same.
        reason = error if zipfile.is_zipfile(file) else "no .npz file, or one cut short"
        raise InputError(
            f"class vectors '{file}' cannot be read ({reason}): write them with "
            "np.savez(FILE, names=np.array(NAMES, dtype=str), vectors=VECTORS)"
        ) from error
    prefixes = [key.removesuffix("names") for key in arrays if key == "names" or key.endswith("_names")]
    prefixes = {prefix.rstrip("_"): prefix for prefix in prefixes if prefix + "vectors" in arrays}
    if not prefixes:
        held = ", ".join(arrays) or "nothing"
        raise InputError(f"'{file}' holds {held}: it needs 'names' and 'vectors', or 'X_names' and 'X_vectors'")
    if label and label not in prefixes:
        known = ", ".join(filter(None, prefixes)) or "one set, without a name"
        raise InputError(f"'{file}' has no set '{label}': it has {known}")
    chosen = {label: prefixes[label]} if label else prefixes
    return file, [
        _named_vectors(file, short, arrays[prefix + "names"], arrays[prefix + "vectors"], config)
        for short, prefix in chosen.items()
    ]


def _named_vectors(
    path: Path, label: str, names: np.ndarray, vectors: np.ndarray, config: WordSourceConfig
) -> _NamedVectors:
    where = f"class vectors '{path}'{f' (set {label})' if label else ''}"
    if names.dtype.kind not in "US" or names.ndim != 1 or not len(names):
        raise InputError(f"{where}: the names must be a row of text, not {names.dtype} of shape {names.shape}")
    if vectors.dtype.kind != "f" or vectors.ndim != 2 or len(vectors) != len(names):
        raise InputError(
            f"{where}: {len(names)} names need float vectors [{len(names)}, D], not {vectors.dtype} {vectors.shape}"
        )
    text = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names.tolist()]
    return _NamedVectors(label, text, vectors, config)
