"""No module imports itself by way of others, not even within a function that is called later."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.environment import ROOT


def imports_of(folders: dict[str, Path]) -> dict[str, set[str]]:
    """Module -> the modules that it imports, of those in these folders, by the names that they are imported by.

    Imports for type checkers alone (`if TYPE_CHECKING:`) are never run and do not count.
    """
    files = {}
    for prefix, folder in folders.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            files[".".join(filter(None, (prefix, *parts))).removesuffix(".__init__")] = path
    return {
        name: set(_imported(ast.parse(path.read_text(encoding="utf-8")), files)) - {name}
        for name, path in files.items()
    }


def _imported(node: ast.AST, known: dict[str, Path]) -> list[str]:
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        names = [alias.name for alias in child.names] if isinstance(child, (ast.Import, ast.ImportFrom)) else []
        if isinstance(child, ast.ImportFrom):
            names = [f"{child.module}.{name}" if f"{child.module}.{name}" in known else child.module for name in names]
        found += [name for name in names if name in known] + _imported(child, known)
    return found


def test_no_circle():
    imported = imports_of({"engine": ROOT / "engine", "kernels": ROOT / "kernels", "": ROOT / "tools"})
    assert "engine.data.batch" in imported["engine.train"] | imported["engine.data.loading.loader"]
    assert "bench.turns" in imported["bench.decode"]
    list(TopologicalSorter(imported).static_order())  # raises where there is one, and names it


def test_a_circle_within_functions_is_found(tmp_path):
    (tmp_path / "one.py").write_text("import os\nfrom two import two\n")
    (tmp_path / "two.py").write_text("def two():\n    import one\n")
    with pytest.raises(CycleError, match="one"):
        list(TopologicalSorter(imports_of({"": tmp_path})).static_order())
    (tmp_path / "two.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import one\n")
    assert imports_of({"": tmp_path}) == {"one": {"two"}, "two": set()}


def test_no_name_hides_a_module_of_pythons_own():
    """`torchrun engine/train.py` and `python tools/...` put their folder first on Python's path."""
    for folder in ("engine", "tools", "engine/processes"):  # the last: `tied.py` is a program
        names = {path.stem for path in (ROOT / folder).iterdir() if path.suffix in {"", ".py"}}
        assert len(names) > 5 and not names & sys.stdlib_module_names
