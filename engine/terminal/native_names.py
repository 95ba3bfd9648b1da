"""Names that the system hands over as bytes, of folders or on a command line: what they say, whatever its encoding is."""

import os
import re

_NO_TEXT = re.compile("[\ud800-\udfff]")  # bytes that are no text, as Python holds them
_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # nor that: as JSON may have it


def is_text(name: str) -> bool:
    """Whether all of it can be written as UTF-8."""
    return not _NO_TEXT.search(name)


def as_utf8(name: str) -> str:
    """The name as UTF-8 has it; bytes that are none stay as they are."""
    if name.isascii():  # nearly all are, and there may be millions
        return name
    name = _NO_BYTES.sub("\ufffd", name)
    try:
        data = os.fsencode(name)
    except UnicodeEncodeError:  # letters that the system's encoding lacks: of a file's contents
        data = name.encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "surrogateescape")


def as_text(name: str) -> str:
    """The name as UTF-8 has it, and where it is none as Latin-1, which older systems wrote."""
    return _NO_TEXT.sub(lambda found: chr(ord(found[0]) - 0xDC00), as_utf8(name))
