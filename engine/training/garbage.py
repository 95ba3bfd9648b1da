"""Python's garbage collector under control: it runs between steps that are counted, not in the middle of any of them.

A full collection goes through all objects of the process, hundreds of thousands once torch is imported, while the GPU
runs dry. What lives when training starts is set apart for good (`gc.freeze`), so that the later ones are short.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected_by_hand(is_wanted: bool = True) -> Iterator[None]:
    """While inside, nothing is collected but by `gc.collect()`. As Python does it, if not wanted."""
    if not (is_wanted and gc.isenabled()):
        yield
        return
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
