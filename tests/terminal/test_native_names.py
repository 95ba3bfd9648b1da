"""Names of folders and on command lines, in whatever encoding the system is."""

import ast
import os
import subprocess
import sys

import pytest

from engine.data.layouts import Entry, Listing
from engine.errors import InputError
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig
from engine.terminal.native_names import as_text, as_utf8, is_text
from tools.predict import class_names

MEANT = {"vélo".encode(): "vélo", "拍手".encode(): "拍手", b"caf\xe9 bar": "café bar", b"run": "run"}


@pytest.mark.parametrize("name", MEANT)
def test_a_name_is_utf_8_and_else_latin_1(name):
    for held in (os.fsdecode(name), name.decode("ascii", "surrogateescape")):
        assert as_text(held) == MEANT[name]
        assert is_text(as_utf8(held)) == (name != b"caf\xe9 bar")


def test_text_that_is_no_bytes_stays_text():
    assert as_text("拍手 \ud800") == "拍手 \ufffd"


def test_classes_are_named_alike_where_the_system_is_not_utf_8():
    """Folders, --classes and --query, read as ASCII: Python holds each byte of another letter as a surrogate."""
    code = """
import sys
from engine.data.layouts import Entry, Listing
from engine.terminal.native_names import as_text
listing = Listing("folder", [Entry(f"{name}/x.mp4", name) for name in sys.argv[1:]])
listing.decode_names()
print(ascii((sys.getfilesystemencoding(), [entry.class_name for entry in listing.entries], listing.notes)))
print(ascii([as_text(name) for name in sys.argv[1:]]))
"""
    plain = {name: value for name, value in os.environ.items() if name not in ("LANG", "LC_CTYPE")}
    environment = plain | {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    said = subprocess.run([sys.executable, "-c", code, *MEANT], env=environment, capture_output=True, check=True).stdout
    (encoding, classes, notes), given = map(ast.literal_eval, said.decode().splitlines())
    assert encoding == "ascii"
    assert classes == given == list(MEANT.values())
    assert notes == ["1 name of no UTF-8, read as Latin-1: 'café bar'"]


def test_bytes_that_no_command_has_read_are_refused_as_a_class():
    names = ["archery", "v\udcc3\udca9lo"]
    with pytest.raises(InputError, match=r"class 'v\\udcc3\\udca9lo' holds bytes that are no text"):
        build_class_embeddings(names, WordsConfig(source="random"))
    assert class_names(",".join(names), None) == ["archery", "vélo"]
    listing = Listing("folder", [Entry("x.mp4", names[1])])
    listing.decode_names()
    assert (listing.entries[0].class_name, listing.notes) == ("vélo", [])
