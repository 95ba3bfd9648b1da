"""What runs are called: all by names that differ."""

from pathlib import Path

import pytest

from engine.results.run_names import run_names


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["/w/a", "/w/b/evaluation", "/w/c/checkpoints/best_evaluation"], ["a", "b/evaluation", "c/best_evaluation"]),
        (["/w/a/x", "/w/b/x", "/w/y"], ["a/x", "b/x", "y"]),
        (["/v/a/x", "/w/a/x", "/w/b/x"], ["v/a/x", "w/a/x", "w/b/x"]),
        (["/1/a/x", "/2/b/x", "/3/a/checkpoints/x"], ["1/a/x", "2/b/x", "a/checkpoints/x"]),
        (["/1/evaluation", "/2/evaluation", "/3/1/evaluation"], ["/1/evaluation", "2/evaluation", "3/1/evaluation"]),
        (["/x", "/a/x", "/x"], ["/x", "a/x", "/x"]),
    ],
)
def test_names_are_as_short_as_tells_them_apart(folders, names):
    assert run_names([*map(Path, folders)]) == names
