"""Memory of a decoder that runs for long: resident size while tens of thousands of snippets are decoded.

    python tools/bench_throughput.py memory --manifest ucf15.parquet --snippets 50000

Snippets are drawn anew all the time, half from the raw files and half from a store of them. The resident size is read
a hundred times. "Growth" is the straight line through the readings after the first tenth, over their whole length, as
a share of where it begins.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench.material import Material, prepare
from engine.data.batch import SnippetRequest
from engine.data.pyav.decode import PyAVDecoder
from engine.errors import InputError
from engine.records import append_record

_BATCH = 16
_READINGS = 100


def run(arguments: argparse.Namespace) -> None:
    """Decode, print the growth, append a record.

    Raises:
        InputError: an option out of range.
    """
    if arguments.threads < 1 or arguments.snippets < _READINGS * _BATCH:
        raise InputError(f"--threads must be at least 1 and --snippets at least {_READINGS * _BATCH}")
    with tempfile.TemporaryDirectory() as folder:
        sizes = read_sizes(prepare(arguments, Path(folder)), arguments)
    first, share = growth(sizes)
    print(f"{arguments.snippets} snippets: {first / 2**20:.0f} MiB at first, {max(sizes) / 2**20:.0f} MiB at most,")
    print(f"growth {100 * share:.2f} %")
    if not arguments.no_record:
        fields = {name: getattr(arguments, name) for name in ("snippets", "threads", "short_side", "crop")}
        path = append_record("memory", n=1, growth=share, resident_bytes=sizes, **fields)
        print(f"recorded in {Path(os.path.relpath(path))}")


def read_sizes(material: Material, arguments: argparse.Namespace) -> list[int]:
    """Resident bytes of this process, `_READINGS` times while the snippets are decoded."""
    generator = np.random.default_rng(arguments.seed)
    decoder = PyAVDecoder(material.clip, torch.device("cpu"), arguments.threads)
    sizes, num_batches = [], arguments.snippets // _BATCH
    for batch in range(num_batches):
        manifest = (material.raw, material.store)[batch % 2]
        requests = []
        for row in generator.integers(0, len(manifest), _BATCH).tolist():
            video = manifest.video(row)
            start = int(generator.integers(0, video.num_frames - material.clip.span, endpoint=True))
            y, x, flip = generator.random(), generator.random(), bool(generator.integers(2))
            requests.append(SnippetRequest(video, start, y, x, flip))
        if failures := decoder.decode(requests).failures:
            raise InputError(f"snippets that do not decode: {failures}")
        if (batch + 1) * _READINGS // num_batches > len(sizes):
            sizes.append(resident_bytes())
    decoder.close()
    return sizes


def resident_bytes() -> int:
    """Of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(sizes: list[int]) -> tuple[float, float]:
    """Bytes at the beginning of the line through the readings after the first tenth, and its rise as a share of them."""
    settled = np.array(sizes[len(sizes) // 10 :], float)
    slope, first = np.polyfit(np.arange(len(settled)), settled, 1)
    return float(first), float(slope * (len(settled) - 1) / first)
