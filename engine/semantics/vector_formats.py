"""What a file of word vectors is, told from its content and not from its name: how it is packed, its kind, its dimension."""

import bz2
import gzip
import lzma
import re
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from engine.errors import InputError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DAMAGED = (OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)  # what unpacking raises
_HEAD_BYTES = 1 << 20
_PACKED = {b"\x1f\x8b": (".gz", gzip.open), b"BZh": (".bz2", bz2.open), b"\xfd7zXZ\0": (".xz", lzma.open)}
_ZIP = b"PK\x03\x04"
_FASTTEXT = b"\xba\x16\x4f\x2f"
_FASTTEXT_HEADER = 64 + 12  # bytes: settings; numbers of entries, of words and of labels, int32 each
_UNPACK = "unpack it and name the file of vectors"
_NOT_VECTORS = (  # first bytes -> what the file is, and the mend
    (b"\x93NUMPY", "a bare numpy array, without words: use .npz (words.source: npz)"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"\xff\xfe", "text in UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16: save it as UTF-8"),
    (b"\x28\xb5\x2f\xfd", f"packed by zstd: {_UNPACK}"),
    (b"\x04\x22\x4d\x18", f"packed by LZ4: {_UNPACK}"),
    (b"7z\xbc\xaf", f"a 7z archive: {_UNPACK}"),
    (b"Rar!", f"a rar archive: {_UNPACK}"),
    (b"\x89HDF", "an HDF5 file: name one of word2vec or GloVe text"),
    (b"PAR1", "a Parquet file: name one of word2vec or GloVe text"),
)
_WEB_PAGE = re.compile(rb"\s*(<!doctype|<html|<\?xml)", re.IGNORECASE)
_PICKLED = (
    "is in gensim's own format, a Python pickle, which is not loaded because a pickle can run code: write it once as "
    "word2vec binary with `gensim.models.KeyedVectors.load(OLD).save_word2vec_format(NEW, binary=True)` and name that file"
)


@dataclass(frozen=True)
class Layout:
    """kind: text, binary (both of word2vec, the first without its header also GloVe's) or fasttext (a model).

    dim: of a vector; 0 of a fastText model, which is not looked into. count: words that the header announces, if there is
    one. suffix: that says how the file is packed, "" if it is not.
    """

    kind: str
    dim: int
    count: int | None
    suffix: str


def open_unpacked(path: Path) -> BinaryIO:
    """The file's bytes, unpacked, whatever its name.

    Raises:
        InputError: a zip archive of anything but one file.
    """
    with path.open("rb") as file:
        magic = file.read(8)
    if magic.startswith(_ZIP):
        return _open_zip(path)
    return next((unpack for first, (_, unpack) in _PACKED.items() if magic.startswith(first)), Path.open)(path, "rb")


def _open_zip(path: Path) -> BinaryIO:
    archive = zipfile.ZipFile(path)
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if names and all(name.endswith(".npy") for name in names):
        raise InputError(f"word vectors '{path}': this is an .npz of arrays: set words.source: npz")
    if len(names) != 1:
        held = ", ".join(names[:5]) or "nothing"
        raise InputError(f"word vectors '{path}': a zip archive of {len(names)} files ({held}): {_UNPACK}")
    return archive.open(names[0])


def detect_layout(path: Path) -> Layout:
    """Look at the first part of a file.

    Raises:
        InputError: it holds no word vectors, or cannot be read; says what it is and the mend.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(8)
        with open_unpacked(path) as file:
            head = file.read(_HEAD_BYTES)
    except DAMAGED as error:
        raise InputError(f"word vectors '{path}' cannot be read: {error}") from error
    packed = {_ZIP: ".zip"} | {first: suffix for first, (suffix, _) in _PACKED.items()}
    suffix = next((suffix for first, suffix in packed.items() if magic.startswith(first)), "")
    _refuse_other(path, head)
    layout = Layout("fasttext", 0, None, suffix) if head.startswith(_FASTTEXT) else _detect_words(path, head, suffix)
    packings = {
        "text": ("", ".gz", ".bz2", ".xz", ".zip"),
        "binary": ("", ".gz", ".bz2", ".xz"),
        "fasttext": ("", ".gz"),
    }
    if suffix not in packings[layout.kind]:  # the first is read here, the others by gensim
        raise InputError(f"word vectors '{path}': a {layout.kind} file packed as {suffix}: {_UNPACK}")
    return layout


def _refuse_other(path: Path, head: bytes) -> None:
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise InputError(f"word vectors '{path}' {_PICKLED}")
    for magic, what in _NOT_VECTORS:
        if head.startswith(magic):
            raise InputError(f"word vectors '{path}': this is {what}")
    if _WEB_PAGE.match(head):
        raise InputError(f"word vectors '{path}': this is a web page, not the file itself: download it again")
    if head[257:262] == b"ustar":
        raise InputError(f"word vectors '{path}': this is a tar archive: {_UNPACK}")


def _detect_words(path: Path, head: bytes, suffix: str) -> Layout:
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip(b"\r\n")
    if not text.strip():
        raise InputError(f"word vectors '{path}': the file is empty")
    first, _, rest = text.partition(b"\n")
    header = re.fullmatch(rb"\s*(\d{1,18})\s+(\d{1,18})\s*", first)
    # Of many lines, because in a single one the word may be a number, end in one, or be missing.
    lines = (rest if header else text).split(b"\n", 101)
    counts = Counter(count_values(line) for line in lines[:-1] or lines if line.strip())
    found = counts.most_common(1)[0][0] if counts else 0
    if header is None:
        if found < 2:
            raise InputError(
                f"word vectors '{path}' are neither word2vec (binary or text) nor GloVe text: "
                f"the first line is {first[:60].decode('utf-8', 'replace')!r}"
            )
        return Layout("text", found, None, suffix)
    count, dim = int(header[1]), int(header[2])
    if not count or not dim:
        raise InputError(f"word vectors '{path}': the header announces {count} words of {dim} values")
    if found not in (0, dim):
        raise InputError(f"word vectors '{path}': the header announces {dim} values a word, the lines have {found}")
    if found or not rest.strip():
        return Layout("text", dim, count, suffix)
    if not head.startswith(first):
        raise InputError(
            f"word vectors '{path}': something stands before the header of a binary file: download it again"
        )
    _check_binary(path, rest, count, dim)
    return Layout("binary", dim, count, suffix)


def count_values(line: bytes) -> int:
    """How many numbers follow the word on a line of text (or a blank, where it is missing)."""
    fields = line.split()
    count = 0
    for field in reversed(fields):
        try:
            float(field)
        except ValueError:
            return count
        count += 1
    return count if line[:1].isspace() else count - 1  # the word is a number, too


def split_line(line: bytes, dim: int) -> tuple[bytes, np.ndarray] | None:
    """Word (it may be missing, or have spaces in it) and float32 [dim] of a line of text; None if it is not so."""
    fields = line.rsplit(None, dim)
    if len(fields) == dim and line[:1].isspace():
        fields.insert(0, b"")
    if len(fields) <= dim:
        return None
    try:
        with np.errstate(over="ignore"):
            return fields[0].strip(), np.array(fields[1:], np.float32)
    except ValueError:
        return None


def _check_binary(path: Path, content: bytes, count: int, dim: int) -> None:
    """With a wrong dimension in the header, numbers are read as letters: look at the first hundred words."""
    place, strange = 0, []
    for number in range(1, min(100, count) + 1):
        space = content.find(b" ", place)
        end = space + 1 + 4 * dim
        if space < 0 or end > len(content):
            return  # a file cut short is found out while reading
        word = content[place:space].lstrip(b"\n").decode("utf-8", "replace")
        if not word.isprintable() or "\ufffd" in word:
            strange.append(word)
        if len(strange) > max(1, number / 10):  # single ones are words cut inside a character, or with odd blanks
            raise InputError(
                f"word vectors '{path}': what the header announces ({dim} float32 values after every word) does not fit "
                f"the content, as at the word {strange[0][:30]!r}: the header is wrong, or the file is damaged"
            )
        place = end


def skip_fasttext_words(file: BinaryIO) -> None:
    """Pass over the words of a fastText model; EOFError where they are cut off: gensim would look on for ever."""
    num_entries = int.from_bytes(file.read(_FASTTEXT_HEADER)[-12:-8], "little", signed=True)
    file.read(16)  # number of tokens, of entries pruned
    _skip_entries(file, num_entries, b"\0", 9)  # a count of eight bytes and a kind of one


def skip_binary_words(file: BinaryIO, count: int, dim: int) -> int:
    """Pass over a header and `count` words with their vectors; returns how many bytes follow, at most 1 MiB of them.

    Raises:
        EOFError: there are fewer words.
    """
    file.readline()
    return _skip_entries(file, count, b" ", 4 * dim)


def _skip_entries(file: BinaryIO, count: int, mark: bytes, num_bytes: int) -> int:
    """Pass over words that a mark ends and so many bytes follow."""
    chunk, start = b"", 0
    for _ in range(count):
        while (end := chunk.find(mark, start)) < 0 or end + 1 + num_bytes > len(chunk):
            more = file.read(_HEAD_BYTES)
            if not more:
                raise EOFError
            chunk, start = chunk[start:] + more, 0
        start = end + 1 + num_bytes
    return len(chunk[start:].strip() + file.read(_HEAD_BYTES))
