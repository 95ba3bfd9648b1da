"""Reading word vectors: the installed GloVe, the file formats, what is refused, the cache."""

import bz2
import gzip
import io
import lzma
import os
import sys
import zipfile

import numpy as np
import pytest

from engine.errors import InputError
from engine.semantics import vector_files
from engine.semantics.vector_files import read_vector_file
from engine.semantics.vectors import CENTRE_WORDS, WordVectors, load_word_vectors

WORDS = ["the", "kayak", "American", "naïve", "jet", "ski"]
VECTORS = np.random.default_rng(7).standard_normal((len(WORDS), 5)).astype(np.float32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_binary(path, words=WORDS, vectors=VECTORS):
    keyed = pytest.importorskip("gensim.models").KeyedVectors(vectors.shape[1])
    keyed.add_vectors(list(words), vectors)
    keyed.save_word2vec_format(str(path), binary=True)
    return path


def text_lines(words=WORDS, vectors=VECTORS):
    return [
        f"{word} {' '.join(repr(float(value)) for value in row)}\n" for word, row in zip(words, vectors, strict=True)
    ]


def write_text(path, header=True, lines=None):
    lines = text_lines() if lines is None else lines
    path.write_text((f"{len(lines)} 5\n" if header else "") + "".join(lines), encoding="utf-8")
    return path


def write_gz(path):
    path.write_bytes(gzip.compress("".join(text_lines()).encode()))
    return path


FORMATS = {
    "binary.bin": write_binary,
    "any.name": write_binary,  # content counts, not the name
    "word2vec.txt": write_text,
    "glove.txt": lambda path: write_text(path, header=False),
    "glove.txt.gz": write_gz,
}


@pytest.fixture(scope="module")
def glove():
    return load_word_vectors(None)


def cosine(vocabulary, one, other):
    a, b = vocabulary.vectors([one, other]).astype(np.float64) - vocabulary.mean
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_installed_glove_is_the_real_one(glove):
    assert (len(glove), glove.dim, glove.matrix.dtype) == (400_000, 50, np.float32)
    assert isinstance(glove.matrix, np.memmap)
    # first values of 'the' in Stanford's glove.6B.50d.txt
    np.testing.assert_allclose(glove.vectors(["the"])[0, :4], [0.418, 0.24968, -0.41242, 0.1217], atol=1e-6)


@pytest.mark.parametrize(
    ("word", "near", "far"),
    [
        ("violin", "cello", "omelette"),
        ("kayak", "canoe", "piano"),
        ("swim", "dive", "knit"),
        ("basketball", "volleyball", "mascara"),
        ("shave", "beard", "hockey"),
        ("horse", "rider", "typing"),
        ("surf", "beach", "algebra"),
    ],
)
def test_meaning_is_where_it_should_be(glove, word, near, far):
    assert cosine(glove, word, near) > cosine(glove, word, far) + 0.15


def test_nearest_words_of_cello_are_instruments(glove):
    row = glove.row["cello"]
    part = np.asarray(glove.matrix[:50_000], dtype=np.float64) - glove.mean
    part /= np.linalg.norm(part, axis=1, keepdims=True)
    nearest = np.argsort(-(part @ part[row]))[1:6]
    words = list(glove.row)
    assert {words[index] for index in nearest} <= {
        "violin",
        "viola",
        "bassoon",
        "clarinet",
        "oboe",
        "concerto",
        "flute",
        "piano",
    }


def test_the_mean_is_that_of_frequent_words_and_actions_lean_to_it(glove):
    np.testing.assert_allclose(glove.mean, np.asarray(glove.matrix[:CENTRE_WORDS], np.float64).mean(axis=0), atol=1e-9)
    actions = glove.vectors(["run", "piano", "kick", "swim", "shave", "dance", "throw", "knit", "surf", "jump"])
    assert (actions @ glove.mean > 0).mean() >= 0.8


@pytest.mark.parametrize("name", FORMATS)
def test_formats_read_the_same(tmp_path, name):
    table = read_vector_file(FORMATS[name](tmp_path / name))
    assert table.words == WORDS
    assert table.vectors.dtype == np.float32
    np.testing.assert_allclose(table.vectors, VECTORS, rtol=1e-6)


@pytest.mark.parametrize("name", FORMATS)
def test_max_words_reads_the_first(tmp_path, name):
    table = read_vector_file(FORMATS[name](tmp_path / name), max_words=2)
    assert table.words == WORDS[:2]
    np.testing.assert_allclose(table.vectors, VECTORS[:2], rtol=1e-6)


def test_text_with_spaces_in_a_word_and_a_word_twice(tmp_path):
    lines = [*text_lines()[:2], text_lines([". . ."], VECTORS[2:3])[0], text_lines(["the"], VECTORS[3:4])[0]]
    table = read_vector_file(write_text(tmp_path / "g.txt", header=False, lines=lines))
    assert table.words == ["the", "kayak", ". . ."]
    np.testing.assert_allclose(table.vectors, VECTORS[:3], rtol=1e-6)


def pack_zip(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._w.txt", b"a mark of the system that packed it")
        archive.writestr("vectors/w.txt", content)
    return buffer.getvalue()


TWO = (["kayak", "ski"], [[1.0, -2.0, 0.5], [3.0, 4.0, 1e-3]])
MARK = b"\xef\xbb\xbf"
ODD = {  # content, note; words and vectors are always those of `TWO`
    "blank_lines.txt": (b"\n\n2 3\n\nkayak 1 -2 .5\n  \nski 3 4 1e-3\n\n\n", "blank lines: 6"),
    "blank_lines_without_header.txt": (b"\r\nkayak 1 -2 .5\r\n\r\nski 3 4 1e-3\r\n", "blank lines: 2"),
    "empty_token.txt": (b"3 3\nkayak 1 -2 .5\n 7 8 9\nski 3 4 1e-3\n", "vectors without a word: 1"),
    "empty_token_first.txt": (b"3 3\n 7 8 9\nkayak 1 -2 .5\nski 3 4 1e-3\n", "vectors without a word: 1"),
    "empty_token_first_without_header.txt": (b" 7 8 9\nkayak 1 -2 .5\nski 3 4 1e-3\n", "vectors without a word: 1"),
    "tabs.txt": (b"2\t3\nkayak\t1\t-2\t.5\nski\t3\t4\t1e-3\n", ""),
    "tabs_without_header.txt": (b"kayak\t1\t-2\t.5\nski\t3\t4\t1e-3\n", ""),
    "mixed_blanks.txt": (b"2 3 \nkayak  1   -2\t.5 \nski\t3 4  1e-3\t\n", ""),
    "windows.txt": (b"2 3\r\nkayak 1 -2 .5\r\nski 3 4 1e-3\r\n", ""),
    "fasttext.vec": (b"2 3\nkayak 1.0 -2.0 0.5 \nski 3.0 4.0 0.001 \n", ""),
    "byte_order_mark.txt": (MARK + b"2 3\nkayak 1 -2 .5\nski 3 4 1e-3\n", ""),
    "byte_order_mark_without_header.txt": (MARK + b"kayak 1 -2 .5\nski 3 4 1e-3\n", ""),
    "no_last_newline.txt": (b"kayak 1 -2 .5\nski 3 4 1e-3", ""),
    "header_of_fewer.txt": (b"1 3\nkayak 1 -2 .5\nski 3 4 1e-3\n", "words read beyond the number in the header: 1"),
    "something_after.txt": (b"2 3\nkayak 1 -2 .5\nski 3 4 1e-3\n(end of file)\n", "lines after the announced words: 1"),
    "again.txt": (b"kayak 1 -2 .5\nski 3 4 1e-3\nkayak 9 9 9\nski 9 9 9\n", "words given again: 2"),
    "not_finite.txt": (b"kayak 1 -2 .5\nrow nan 1 1\nski 3 4 1e-3\nsurf 1 1 -inf\n", "vectors that are not finite: 2"),
    "overflow.txt": (b"kayak 1 -2 .5\nrow 1e39 -1e39 1\nski 3 4 1e-3\n", "vectors that are not finite: 1"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, pack_zip])
def test_odd_text_is_read_whatever_packs_it_and_what_was_skipped_is_counted(tmp_path, name, pack):
    content, note = ODD[name]
    (tmp_path / name).write_bytes(pack(content))  # content counts, not the name
    table = read_vector_file(tmp_path / name)
    assert table.words == TWO[0]
    np.testing.assert_array_equal(table.vectors, np.array(TWO[1], np.float32))
    assert table.note == note
    assert load_word_vectors(str(tmp_path / name)).source == f"'{name}'" + (f" (skipped in it: {note})" if note else "")


def test_words_with_spaces_or_of_digits_do_not_hide_how_many_values_there_are(tmp_path):
    path, words = tmp_path / "glove.txt", ["room 101", "1", "at 3 o'clock", "ice cream", "7", "nan", "\xa0", "kayak"]
    path.write_text("".join(f"{word} {number} 2 3\n" for number, word in enumerate(words)), encoding="utf-8")
    table = read_vector_file(path)
    assert table.words == words
    assert table.vectors.tolist() == [[number, 2, 3] for number in range(len(words))]
    path.write_text(f"{len(words)} 3\n" + path.read_text("utf-8"), encoding="utf-8")
    assert read_vector_file(path).words == words
    path.write_text(path.read_text("utf-8").replace(" 3\n", " 2\n", 1), encoding="utf-8")
    with pytest.raises(InputError, match="the header announces 2 values a word, the lines have 3"):
        read_vector_file(path)


def test_a_word_that_is_not_utf8_is_read_and_counted(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 1 2\nkayak 3 4\n")
    table = read_vector_file(tmp_path / "latin.txt")
    assert (table.words, table.note) == (["caf\ufffd", "kayak"], "words that are not UTF-8: 1")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["odd", "s3 http:__x.gz", "odd.bz2"])
def test_odd_binary_is_read_whatever_it_is_called(tmp_path, pack, name):
    pytest.importorskip("gensim")
    words = ["a\xa0b", *WORDS[1:], "", "kayak"]  # each after the line's end that word2vec's own tool writes
    rows = zip(words, [*VECTORS, *VECTORS[:2]], strict=True)
    odd = b"8 5\n" + b"\n".join(word.encode() + b" " + row.tobytes() for word, row in rows) + b"\n"
    (tmp_path / name).write_bytes(pack(odd))
    table = read_vector_file(tmp_path / name)
    assert table.words == ["a\xa0b", *WORDS[1:]]
    np.testing.assert_array_equal(table.vectors, VECTORS)
    assert table.note == "words given again: 1, vectors without a word: 1"


def test_a_binary_header_that_announces_fewer_words_is_told(tmp_path):
    content = write_binary(tmp_path / "w.bin").read_bytes()
    (tmp_path / "fewer.bin").write_bytes(content.replace(b"6 5\n", b"4 5\n", 1))
    table = read_vector_file(tmp_path / "fewer.bin")
    assert table.words == WORDS[:4]
    assert table.note == f"bytes after the announced words, at least: {len('jet ski ') + 2 * 20}"
    assert read_vector_file(tmp_path / "w.bin", max_words=4).note == ""


def test_binary_values_that_are_not_finite_are_counted(tmp_path):
    vectors = VECTORS.copy()
    vectors[2, 1], vectors[4, 0] = np.nan, -np.inf
    table = read_vector_file(write_binary(tmp_path / "w.bin", WORDS, vectors))
    assert table.words == ["the", "kayak", "naïve", "ski"]
    assert table.note == "vectors that are not finite: 2"


@pytest.fixture(scope="module")
def fasttext(tmp_path_factory):
    """A trained fastText model as Facebook's program writes it."""
    fasttext = pytest.importorskip("gensim.models.fasttext")
    model = fasttext.FastText([WORDS * 4] * 20, vector_size=5, min_count=1, epochs=1, bucket=50, seed=1, workers=1)
    path = tmp_path_factory.mktemp("fasttext") / "model.bin"
    fasttext.save_facebook_model(model, str(path))
    return path, model.wv


def test_fasttext_models_are_read(tmp_path, fasttext):
    path, expected = fasttext
    (tmp_path / "cc.en.gz").write_bytes(path.read_bytes())
    table = read_vector_file(tmp_path / "cc.en.gz")
    assert sorted(table.words) == sorted(WORDS)
    np.testing.assert_allclose(table.vectors, expected[table.words], rtol=1e-5)
    assert read_vector_file(tmp_path / "cc.en.gz", max_words=2).words == table.words[:2]


@pytest.mark.parametrize("share", [0.01, 0.04, 0.06, 0.1, 0.5, 0.9])
def test_a_fasttext_model_cut_short_is_one_error(tmp_path, fasttext, share):
    content = fasttext[0].read_bytes()
    (tmp_path / "cut.bin").write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="truncated"):
        read_vector_file(tmp_path / "cut.bin")


def test_many_more_lines_than_words_take_no_memory(tmp_path):
    (tmp_path / "long").write_bytes(b"a" + b" 1" * 40_000 + b"\n" * 400_000)
    table = read_vector_file(tmp_path / "long")
    assert (table.words, table.vectors.shape, table.note) == (["a"], (1, 40_000), "blank lines: 399,999")


def cut(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def save_pickled(path):
    keyed = pytest.importorskip("gensim.models").KeyedVectors(5)
    keyed.add_vectors(WORDS, VECTORS)
    keyed.save(str(path))
    return path


def save_bytes(content):
    def save(path):
        path.write_bytes(content)
        return path

    return save


def wrong_binary_dimension(path):
    content = write_binary(path, [f"w{i}" for i in range(400)], np.ones((400, 5), np.float32) / 3).read_bytes()
    path.write_bytes(content.replace(b"400 5\n", b"300 6\n", 1))
    return path


def read_by_gensim(save):
    def save_if_installed(path):
        pytest.importorskip("gensim")
        return save(path)

    return save_if_installed


def save_zip(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"a 1 2\n")
    return path


def supervised_model(path):
    header = np.array([793712314, 12, 5, 5, 1, 1, 5, 1, 3, 3, 0, 0, 0, 100], "<i4").tobytes() + bytes(8)
    path.write_bytes(header + np.array([1, 0, 1], "<i4").tobytes() + bytes(16) + b"label\0" + bytes(9) + bytes(100))
    return path


BROKEN = {
    "cut.bin": (lambda path: cut(write_binary(path)), "end before the 6 words .* truncated"),
    "cut.txt": (lambda path: cut(write_text(path)), "line 5 has 0 values|line 5 has . values|truncated"),
    "cut_between_lines.txt": (
        lambda path: save_bytes(b"3 2\na 1 2\nb 3 4\n")(path),
        "end before the 3 words .* truncated",
    ),
    "billions.bin": (
        read_by_gensim(save_bytes(b"9999999999999 300\n" + b"word " + bytes(1200))),
        "end before the 9999999999999 words .* truncated",
    ),
    "billions.txt": (save_bytes(b"9999999999999 2\na 1 2\n"), "end before the 9999999999999 words"),
    "cut.gz": (lambda path: cut(write_gz(path)), "cannot be read"),
    "gensim.kv": (save_pickled, "a Python pickle.*save_word2vec_format"),
    "damaged.zip": (save_bytes(b"PK\x03\x04zip"), "cannot be read: File is not a zip file"),
    "glove.6B.zip": (
        lambda path: save_zip(path, "a.txt", "b.txt"),
        "zip archive of 2 files \\(a.txt, b.txt\\): unpack it",
    ),
    "vectors.npz": (lambda path: save_zip(path, "names.npy", "vectors.npy"), "words.source: npz"),
    "packed_binary.zip": (
        lambda path: save_bytes(pack_zip(write_binary(path).read_bytes()))(path),
        "binary file .* unpack",
    ),
    "packed_model.bin": (
        save_bytes(bz2.compress(b"\xba\x16\x4f\x2f" + bytes(99))),
        "fasttext file packed as .bz2: unpack",
    ),
    "cut.bz2": (save_bytes(bz2.compress(b"a 1 2\n" * 100_000)[:60]), "cannot be read"),
    "cut.xz": (save_bytes(lzma.compress(b"a 1 2\n" * 100_000)[:90]), "cannot be read"),
    "cut_binary.bin.gz": (
        lambda path: save_bytes(gzip.compress(write_binary(path).read_bytes())[:-30])(path),
        "cannot be read|truncated",
    ),
    "utf16.txt": (save_bytes("2 2\na 1 2\nb 3 4\n".encode("utf-16")), "text in UTF-16: save it as UTF-8"),
    "zstd.txt": (save_bytes(b"\x28\xb5\x2f\xfd\x04\x00"), "packed by zstd"),
    "blank.txt": (save_bytes(b"\n\r\n\n"), "empty"),
    "no_words.txt": (save_bytes(b" 1 2\n\t3 4\n"), "no word in it has a vector"),
    "page.bin": (
        save_bytes(b"\n<!DOCTYPE html><html><title>Sign in</title></html>\n"),
        "a web page, not the file itself",
    ),
    "marked.bin": (
        lambda path: save_bytes(MARK + write_binary(path).read_bytes())(path),
        "something stands before the header of a binary file",
    ),
    "supervised.bin": (read_by_gensim(supervised_model), "Supervised fastText models are not supported"),
    "pointer.bin": (save_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "array.npy": (save_bytes(b"\x93NUMPY\x01\x00"), "words.source: npz"),
    "empty.txt": (save_bytes(b""), "empty"),
    "digits.txt": (save_bytes(b"1 " + b"9" * 5000 + b"\n"), "neither word2vec .* nor GloVe text"),
    "notes.txt": (
        save_bytes(b"kayaking is fun\nreally\n"),
        "neither word2vec .* nor GloVe text: the first line is 'kayaking is fun'",
    ),
    "short_line.txt": (save_bytes(b"a 1 2 3\nb 1\n"), "line 2 has 1 values after the word instead of 3"),
    "letters.txt": (save_bytes(b"a 1 2 3\nb 1 x 2\n"), "line 2 has 1 values after the word instead of 3"),
    "dim.txt": (save_bytes(b"2 3\na 1 2\nb 1 2\n"), "header announces 3 values a word, the lines have 2"),
    "none.txt": (save_bytes(b"0 5\n"), "announces 0 words"),
    "dim.bin": (wrong_binary_dimension, "\\(6 float32 values after every word\\) does not fit"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_one_error_with_file_and_reason(tmp_path, name):
    make, reason = BROKEN[name]
    path = make(tmp_path / name)
    with pytest.raises(InputError, match=reason) as caught:
        read_vector_file(path)
    assert str(path) in str(caught.value)


def test_without_gensim_text_is_read_and_a_binary_file_is_one_error(tmp_path, monkeypatch):
    (tmp_path / "w.bin").write_bytes(b"1 2\nkayak " + bytes(8))
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    assert read_vector_file(write_text(tmp_path / "w.txt")).words == WORDS
    with pytest.raises(InputError, match=r"w\.bin': gensim reads this kind of file, and is not installed: .* as text"):
        read_vector_file(tmp_path / "w.bin")


def test_missing_file_names_the_key(tmp_path):
    with pytest.raises(InputError, match=r"words\.path: no file at '.*nowhere\.bin'"):
        load_word_vectors(str(tmp_path / "nowhere.bin"))


def test_case_rules(tmp_path):
    words = ["skyjet", "Skyjet", "Zumba", "BMX", "colors"]
    vocabulary = WordVectors("test", read_vector_file(write_binary(tmp_path / "w.bin", words, VECTORS[:5])))
    wanted = {
        "Skyjet": "Skyjet",
        "skyjet": "skyjet",
        "SKYJET": "skyjet",
        "zumba": "Zumba",
        "bmx": "BMX",
        "colours": None,
    }
    assert {word: vocabulary.find(word) for word in wanted} == wanted
    np.testing.assert_array_equal(vocabulary.vectors(["BMX", "skyjet"]), VECTORS[[3, 0]])


def test_near_spellings(glove):
    assert "kayak" in glove.near_spellings("kayakk")
    assert "guitar" in glove.near_spellings("giutar")
    assert glove.near_spellings("faceplanting")[-1] == "face planting"
    assert "carving" in glove.near_spellings("crarvving")  # two letters away
    assert glove.near_spellings("xqzwvkkjqq") == []


def test_a_file_is_loaded_once_until_it_changes(tmp_path):
    path = write_binary(tmp_path / "w.bin")
    first = load_word_vectors(str(path))
    assert load_word_vectors(str(path)) is first
    write_binary(path, WORDS[:3], VECTORS[:3])
    os.utime(path, ns=(1, 1))
    assert len(load_word_vectors(str(path))) == 3


def test_large_files_are_mapped_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_files, "CACHE_FROM_BYTES", 1)
    path = write_binary(tmp_path / "w.bin")
    read_vector_file(path)
    monkeypatch.setattr(vector_files, "_read", lambda *_: pytest.fail("read again although it is cached"))
    again = read_vector_file(path)
    assert isinstance(again.vectors, np.memmap)
    assert again.words == WORDS
    np.testing.assert_array_equal(again.vectors, VECTORS)
    (folder,) = (tmp_path / "cache" / "unseen" / "word_vectors").iterdir()
    assert sorted(entry.name for entry in folder.iterdir()) == ["vectors.npy", "words.txt"]


def test_the_count_of_what_was_skipped_is_cached_too(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_files, "CACHE_FROM_BYTES", 1)
    (tmp_path / "w.txt").write_bytes(ODD["again.txt"][0])
    assert [read_vector_file(tmp_path / "w.txt").note for _ in range(2)] == ["words given again: 2"] * 2


@pytest.mark.parametrize("damage", ["words.txt", "vectors.npy"])
def test_a_damaged_cache_is_made_anew(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(vector_files, "CACHE_FROM_BYTES", 1)
    path = write_binary(tmp_path / "w.bin")
    read_vector_file(path)
    (folder,) = (tmp_path / "cache" / "unseen" / "word_vectors").iterdir()
    (folder / damage).write_bytes(b"x")
    np.testing.assert_array_equal(read_vector_file(path).vectors, VECTORS)
    assert isinstance(read_vector_file(path).vectors, np.memmap)


def test_without_a_home_nothing_is_cached(tmp_path, monkeypatch, caplog):
    """HOME is not set and the system knows no user of this number, as in some containers."""
    monkeypatch.setattr(vector_files, "CACHE_FROM_BYTES", 1)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    path = write_binary(tmp_path / "w.bin")
    assert read_vector_file(path).words == WORDS
    assert "not cached" in caplog.text
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_any_name_is_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_files, "CACHE_FROM_BYTES", 1)
    for name in (b"caf\xe9.bin", b"x" * 251 + b".bin", b"new\nline.bin"):
        path = write_binary(tmp_path / os.fsdecode(name))
        read_vector_file(path)
        assert isinstance(read_vector_file(path).vectors, np.memmap)


def test_a_cache_that_cannot_be_written_is_only_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(vector_files, "CACHE_FROM_BYTES", 1)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert read_vector_file(write_binary(tmp_path / "w.bin")).words == WORDS
    assert "not cached" in caplog.text


def test_damaged_files_are_tables_or_one_error(tmp_path, fasttext):
    text = "".join(text_lines()).encode()
    binary = write_binary(tmp_path / "w.bin").read_bytes()
    bases = [b"6 5\n" + text, text, binary, fasttext[0].read_bytes(), gzip.compress(text), lzma.compress(binary)]
    generator = np.random.default_rng(0)
    inserts = [b"\n", b" ", b"\t", b"\r\n", b"\0", b"\xff", b"999999999", b"nan "]
    num_read = 0
    for number in range(600):
        content = bytearray(bases[number % len(bases)])
        for _ in range(generator.integers(1, 4)):
            place, kind = int(generator.integers(len(content))), generator.integers(4)
            if kind == 0:
                content[place] = generator.integers(256)
            elif kind == 1:
                del content[place + 1 :]
            elif kind == 2:
                content[place:place] = inserts[generator.integers(len(inserts))]
            else:
                del content[place + 1 : place + 20]
        (tmp_path / "damaged").write_bytes(content)
        try:
            table = read_vector_file(tmp_path / "damaged")
        except InputError:
            continue
        num_read += 1
        assert len(set(table.words)) == len(table.words) == len(table.vectors) > 0
        assert all(table.words) and np.isfinite(table.vectors).all()
    assert 20 < num_read < 500
