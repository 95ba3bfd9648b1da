"""Whether Triton kernels are interpreted in this process (TRITON_INTERPRET=1), and an interpreter that works and is quick.

Triton 3.6 makes an integer of an array with one element, for the bounds of a loop; NumPy from 2.5 on wants `item()`.
What compares two numbers is a truth value that calls itself of their type, as which it is spread over a block: `block & (a < b)`
is of integers then, which Triton 3.9 refuses as a mask.
For every call of a function within a kernel it goes through all members of its language again, to patch the built-in
ones; which those are is looked up once here.
"""

import functools
import inspect
import os
from collections.abc import Iterable
from typing import Any

import pytest
import triton.language as tl
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


_splat = interpreter.InterpreterBuilder.create_splat


def _splat_as_it_is(builder, ret_ty, arg):
    found = _splat(builder, ret_ty, arg)
    return interpreter.TensorHandle(found.data.astype(arg.data.dtype), found.dtype)


interpreter.InterpreterBuilder.create_splat = _splat_as_it_is


@functools.cache
def _builtins(package: object) -> list[tuple[str, Any]]:
    """(name, member) of the built-in members of a module or class of Triton's language, asked for before any is patched."""
    return [(name, member) for name, member in inspect.getmembers(package) if tl.core.is_builtin(member)]


def _patch_builtins_once(package, builder, scope):
    for name, member in _builtins(package):
        if getattr(package, name) is not member:
            return  # an outer call has patched them, all of them
        interpreter._patch_attr(package, name, member, builder, scope)


interpreter._patch_builtin = _patch_builtins_once
