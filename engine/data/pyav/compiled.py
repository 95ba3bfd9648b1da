"""Functions compiled to machine code, kept on disk for the next process where a disk takes them."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserWideCacheLocator

from engine.files.home import cache_home


class _Place(CompileResultCacheImpl):
    """Where Numba keeps a function: as ever, but in no folder called ~ where the user has no home."""

    _locator_classes: ClassVar = [
        each for each in CompileResultCacheImpl._locator_classes if cache_home() or each is not UserWideCacheLocator
    ]


class _Cache(FunctionCache):
    """What the disk does not give, or gives spoiled, is compiled; what it does not take is compiled by the next process too."""

    _impl_class = _Place

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except OSError:  # a file of another user's
            return None
        except Exception:  # whatever bytes can do to pickle; the next process shall not meet them
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(Exception):
            super().save_overload(sig, data)


def compiled(*signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile to machine code that runs without Python's lock: now, for a signature, or at the first call."""

    def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
        dispatcher = numba.njit(nogil=True)(function)
        if numba.config.DISABLE_JIT:
            return dispatcher
        with suppress(RuntimeError, OSError):  # neither beside the file nor in the user's cache may anything be written
            dispatcher._cache = _Cache(function)
        for types in signature:
            dispatcher.compile(types)
        if signature:
            dispatcher.disable_compile()
        return dispatcher

    return compile_function
