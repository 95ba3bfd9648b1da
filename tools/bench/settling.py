"""Before a GPU's decoding is timed: until it is chosen who decodes, clips are shared out to find that out, not to be fast."""

import time
from collections.abc import Iterator

from engine.tasks.decoding import Decoding

LIMIT_S = 60.0


def until_settled(decoding: Decoding, limit_s: float = LIMIT_S) -> Iterator[None]:
    """Once for each piece of work that is still to be done, untimed, before the choice is made."""
    begun = time.perf_counter()
    while not decoding.is_settled and time.perf_counter() - begun < limit_s:
        yield


def decoder_line(decoding: Decoding, limit_s: float = LIMIT_S) -> str:
    """What was measured and chosen; nothing where there was no choice."""
    if decoding.is_settled:
        return decoding.found
    return f"decoder: not chosen within {limit_s:g} s of work: what is timed is the measuring of the decoders"
