"""Whether Triton kernels are interpreted in this process (TRITON_INTERPRET=1), and an interpreter that works.

Triton 3.6 makes an integer of an array with one element, for the bounds of a loop; NumPy from 2.5 on wants `item()`.
"""

import os
from collections.abc import Iterable
from typing import Any

import pytest
from triton.runtime import interpreter

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"


def few(values: Iterable[Any], rare: Any) -> list[Any]:
    """Parameters of a test, of which the interpreter is given the rare one by -m slow only; a GPU takes all."""
    return [pytest.param(v, marks=pytest.mark.slow) if INTERPRETED and v == rare else v for v in values]


_patch_tensors = interpreter._patch_lang_tensor


def _patch_tensors_for_any_numpy(tensor, scope):
    _patch_tensors(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())
    scope.set_attr(tensor, "__bool__", lambda self: self.handle.data.size != 1 or bool(self.handle.data.item()))


interpreter._patch_lang_tensor = _patch_tensors_for_any_numpy
