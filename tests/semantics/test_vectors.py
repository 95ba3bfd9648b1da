"""Reading word vectors: the installed GloVe, the file formats, what is refused, the cache."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from engine.semantics import vector_files
from engine.semantics.vector_files import read_vector_file
from engine.semantics.vectors import CENTRE_WORDS, WordVectors, load_word_vectors

KeyedVectors = pytest.importorskip("gensim.models", reason="gensim is not installed").KeyedVectors
WORDS = ["the", "kayak", "American", "naïve", "jet", "ski"]
VECTORS = np.random.default_rng(7).standard_normal((len(WORDS), 5)).astype(np.float32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_binary(path, words=WORDS, vectors=VECTORS):
    keyed = KeyedVectors(vectors.shape[1])
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


def cut(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def save_pickled(path):
    keyed = KeyedVectors(5)
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


BROKEN = {
    "cut.bin": (lambda path: cut(write_binary(path)), "end before the 6 words .* truncated"),
    "cut.txt": (lambda path: cut(write_text(path)), "line 5 has 0 values|line 5 has . values|truncated"),
    "cut_between_lines.txt": (
        lambda path: save_bytes(b"3 2\na 1 2\nb 3 4\n")(path),
        "end before the 3 words .* truncated",
    ),
    "billions.bin": (
        save_bytes(b"9999999999999 300\n" + b"word " + bytes(1200)),
        "end before the 9999999999999 words .* truncated",
    ),
    "billions.txt": (save_bytes(b"9999999999999 2\na 1 2\n"), "end before the 9999999999999 words"),
    "long_line.txt": (save_bytes(b"a" + b" 1" * 400_000 + b"\n" * 4_000_000), "end before the last words"),
    "cut.gz": (lambda path: cut(write_gz(path)), "cannot be read"),
    "gensim.kv": (save_pickled, "a Python pickle.*save_word2vec_format"),
    "glove.zip": (save_bytes(b"PK\x03\x04zip"), "zip archive.*unpack"),
    "packed.bin": (lambda path: save_bytes(gzip.compress(b"a 1 2\n"))(path), "gzip-packed.*\\.gz"),
    "cc.en.300.bin": (save_bytes(b"\xba\x16\x4f\x2f\x0c\0\0\0"), "fastText model.*\\.vec"),
    "pointer.bin": (save_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "array.npy": (save_bytes(b"\x93NUMPY\x01\x00"), "words.source: npz"),
    "empty.txt": (save_bytes(b""), "empty"),
    "notes.txt": (
        save_bytes(b"kayaking is fun\nreally\n"),
        "neither word2vec .* nor GloVe text: the first line is 'kayaking is fun'",
    ),
    "tabs.txt": (save_bytes(b"a\t1\t2\nb\t1\t2\n"), "neither word2vec"),
    "short_line.txt": (save_bytes(b"a 1 2 3\nb 1\n"), "line 2 has 1 values after the word instead of 3"),
    "letters.txt": (save_bytes(b"a 1 2 3\nb 1 x 2\n"), "could not convert"),
    "dim.txt": (save_bytes(b"2 3\na 1 2\nb 1 2\n"), "header announces 3 values a word, line 2 has 2"),
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

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(vector_files, "CACHE_FROM_BYTES", 1)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
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
