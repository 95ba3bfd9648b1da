"""Folders without videos for the tests of layouts, and short words for what is read from them."""

import pytest

from engine.data.layouts import detect_layout, read_layout
from engine.data.layouts.walk import VideoFolder
from engine.errors import InputError


def make(root, *paths):
    """Empty files: a layout goes by names alone."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def rows(listing, *names):
    return [tuple(getattr(entry, name) for name in names) for entry in listing.entries]


def kinds(listing):
    return sorted((problem.path, problem.kind) for problem in listing.problems)


def chosen(root, annotations=None):
    return detect_layout(VideoFolder(root), annotations)[0]


def error_of(*arguments, **options):
    with pytest.raises(InputError) as caught:
        read_layout(*arguments, **options)
    return str(caught.value)
