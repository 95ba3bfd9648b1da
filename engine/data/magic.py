"""What a file is by its first bytes, whatever it is called."""

import re
from pathlib import Path

_NUM_BYTES = 512
_PICTURES = {  # kind, and the usual suffix -> what its files begin with
    ("JPEG", "jpg"): re.compile(rb"\xff\xd8\xff"),
    ("PNG", "png"): re.compile(rb"\x89PNG\r\n\x1a\n"),
    ("WEBP", "webp"): re.compile(rb"RIFF....WEBP", re.DOTALL),
    ("BMP", "bmp"): re.compile(rb"BM(?![ -~]{6})"),  # not a text
    ("GIF", "gif"): re.compile(rb"GIF8"),
    ("TIFF", "tif"): re.compile(rb"II[*+]\0|MM\0[*+]"),
}


def first_bytes(path: Path) -> bytes:
    """The beginning of a file; nothing of what cannot be read, or is no file."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return b""
        with path.open("rb") as file:
            return file.read(_NUM_BYTES)
    except OSError:
        return b""


def picture_kind(path: Path) -> tuple[str, str]:
    """The kind of picture that a file begins as, and the suffix of such files; both "" where it is none."""
    start = first_bytes(path)
    return next((kind for kind, is_its in _PICTURES.items() if is_its.match(start)), ("", ""))


def picture_by_contents(path: Path) -> str:
    """What to say of a picture whose name is that of none; "" where the file begins as no picture."""
    kind, suffix = picture_kind(path)
    return f"a picture by its contents ({kind}): give it a name that ends in .{suffix} to use it as one" if kind else ""
