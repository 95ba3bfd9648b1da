"""How `cosine_topk`'s kernel is cut for a problem and a GPU: by rule, since a trial would cost more than most calls."""

from dataclasses import dataclass
from functools import cache

import torch

_COLUMN_MULTIPLE = 64
_KEPT_BACK = 1024  # bytes of a block's shared memory for barriers and reductions
_RESIDENT_COLUMNS = 384  # wider queries do not stay on the chip: 512 columns spill registers


@dataclass(frozen=True, slots=True)
class Config:
    """A program's queries, classes of a tile, warps, and tiles under way at a time.

    block_d: 0: the queries stay on the chip. Else they are read anew for each tile, so many columns at a time.
    """

    block_n: int
    block_c: int
    warps: int
    stages: int
    block_d: int = 0


RESIDENT = (Config(128, 64, 8, 3), Config(64, 64, 4, 2), Config(64, 32, 4, 2))  # fp16 and bf16
STREAMED = {2: Config(64, 64, 4, 3, 64), 4: Config(64, 64, 8, 3, 16)}  # by itemsize


def choose_config(n: int, columns: int, itemsize: int, device: torch.device) -> Config:
    """The larger of what fits the device; the smaller where each of its processors then has no more than one block.

    Args:
        n: queries. columns: of a prepared class, D'. itemsize: bytes of an element, 2 or 4.
    """
    shared_bytes, processors = _limits(device)
    configs = fitting_configs(columns, itemsize, shared_bytes)
    return configs[-1] if n <= configs[-1].block_n * processors else configs[0]


def fitting_configs(columns: int, itemsize: int, shared_bytes: int) -> list[Config]:
    """One or two that a block with so much shared memory can hold, the larger first.

    fp32 products have no tensor cores (TF32 would lose digits): their tiles are small in D, and queries do not stay.
    """
    if itemsize == 2 and columns <= _RESIDENT_COLUMNS:
        row = columns * itemsize
        kept = [c for c in RESIDENT if (c.block_n + c.stages * c.block_c) * row + _KEPT_BACK <= shared_bytes]
        if kept:
            return kept[:2]
    return [STREAMED[itemsize]]


@cache
def _limits(device: torch.device) -> tuple[int, int]:
    """Shared memory of a block in bytes, and streaming multiprocessors."""
    if device.type != "cuda":  # Triton's interpreter
        return 101_376, 1
    properties = torch.cuda.get_device_properties(device)
    return properties.shared_memory_per_block_optin, properties.multi_processor_count


def pieces(width: int) -> tuple[int, int]:
    """Two powers of two (the second may be 0) whose sum is at least `width`, and as small as it gets: 300 -> 256, 64.

    Both are multiples of 64: of every `block_d`, and as many as it takes for 16 bytes a thread.
    """
    whole = max(_COLUMN_MULTIPLE, 1 << (width - 1).bit_length())
    if whole == _COLUMN_MULTIPLE or width > whole * 3 // 4:
        return whole, 0
    return whole // 2, max(_COLUMN_MULTIPLE, 1 << (width - whole // 2 - 1).bit_length())


def padded_width(width: int) -> int:
    """D' of prepared classes of that many columns."""
    return sum(pieces(width))
