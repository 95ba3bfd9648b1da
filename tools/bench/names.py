"""Names without training: from the start of tools/predict.py to a name; videos/s of naming, of features; the share of decoding.

All by an installed network (--model). Naming and features: one core each, by seconds of computing, which other programs on the
machine hardly change. The start: a process of its own, with as many cores as there are, by the clock.

    python tools/bench_throughput.py names --manifest data/videos.parquet --num-videos 20
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench.material import check_counts, drawn_manifest
from bench.resources import run_to_end
from bench.turns import Turns
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.evaluation.inference import class_vectors, embed_files, load_model, manifest_of_files
from engine.evaluation.snippets import video_requests
from engine.features.encoder import build_encoder
from engine.features.extract import Work, extract
from engine.features.windows import parse_grid
from engine.records import append_record, summarise
from engine.results.table import Table
from engine.tasks.decoding import choose_decoding
from engine.tasks.zero_shot.trained import LoadedModel
from kernels.cosine_topk import cosine_topk

_CPU = torch.device("cpu")
_CLASSES = ["playing the cello", "surfing", "archery", "skydiving", "jumping rope"]  # those of the README's line
_PREDICT = Path(__file__).parents[1] / "predict.py"
NAMING, READING, FEATURES = "naming", "of it: reading", "features, 1 s windows"


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, record."""
    check_counts(arguments, "num_videos", "repeats")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            manifest = _videos(arguments, Path(folder))
            paths = [manifest.root / path for path in dict.fromkeys(manifest.strings("path"))]
            asked = ["--classes", ", ".join(_CLASSES), "--model", arguments.model]
            command = [sys.executable, str(_PREDICT), str(paths[0]), *asked]
            starts = [from_start(command) for _ in range(arguments.repeats)]
            turns, shares = _take_turns(arguments.model, manifest, paths, Path(folder), arguments.repeats)
    finally:
        torch.set_num_threads(threads)
    start = {key: summarise([each[key] for each in starts]) for key in starts[0]}
    rates = turns.summaries(float)
    share = {NAMING: rates[NAMING]["p50"] / rates[READING]["p50"], FEATURES: float(np.median(shares))}
    print(Table(["videos/s", "p20", "p50", "p80"], _rows(rates)).text())
    print(Table(["a name, from the process's start", "p20", "p50", "p80"], _rows(start)).text())
    print("share of decoding: " + ", ".join(f"{name} {each:.0%}" for name, each in share.items()))
    if not arguments.no_record:
        frames = int(manifest.num_frames.sum())
        append_record("names", n=arguments.repeats, device_type="cpu", start=start, results=rates,
                      decoding_share=share, videos=len(paths), frames=frames, model=arguments.model)  # fmt: skip


def from_start(command: list[str]) -> dict[str, float]:
    """Runs a program to its end: seconds by the clock and of computing, and the most memory it had resident, MB.

    Raises:
        InputError: it fails; with what it said.
    """
    with tempfile.TemporaryFile() as said:
        spent = run_to_end(command, subprocess.DEVNULL, said, every_s=0.02)
        if spent.status:
            said.seek(0)
            raise InputError(f"'{command[1]}' ended with {spent.status}: {said.read().decode().strip()}")
    return {"clock_s": spent.clock_s, "computing_s": spent.computing_s, "memory_mb": spent.peak_bytes / 1e6}


def _take_turns(
    model: str, manifest: Manifest, paths: list[Path], folder: Path, repeats: int
) -> tuple[Turns[Callable[[], None], float], list[float]]:
    """Videos a second of computing of each part, and decoding's shares in extracting features."""
    loaded = load_model(Path(model), _CPU, overrides=["data.decoder=pyav", "data.decode_threads=1"])
    vectors = class_vectors(loaded, _CLASSES).vectors
    encoder, shares = build_encoder(model, _CPU), []
    grid = parse_grid("1s", "1s", encoder.clip.span)

    def features() -> None:
        report = extract(manifest, encoder, Path(tempfile.mkdtemp(dir=folder)), grid, Work(num_threads=1))
        shares.append(report.decode_share)

    ways: dict[str, Callable[[], None]] = {
        NAMING: lambda: _name(loaded, paths, vectors),
        READING: lambda: _read(loaded, paths),
        FEATURES: features,
    }
    for way in ways.values():  # warm-up
        way()
    shares.clear()
    turns: Turns[Callable[[], None], float] = Turns(ways)
    for name, rate in turns.take(repeats, lambda way: len(paths) / _computing_s(way)):
        print(f"{name}: {rate:.2f} videos/s of computing", flush=True)
    return turns, shares


def _computing_s(way: Callable[[], None]) -> float:
    """Of all threads."""
    start = time.process_time()
    way()
    return time.process_time() - start


def _name(loaded: LoadedModel, paths: list[Path], vectors: torch.Tensor) -> None:
    embedded = embed_files(loaded, paths, _CPU, progress=False)
    for place, reason in embedded.failures.items():
        raise InputError(f"videos that cannot be used, the first '{paths[place]}': {reason}: name another --manifest")
    cosine_topk(embedded.embeddings, vectors, len(vectors))


def _read(loaded: LoadedModel, paths: list[Path]) -> None:
    """Probe the files and decode the frames that naming looks at, and nothing else."""
    how, (manifest, _) = loaded.config.evaluate, manifest_of_files(paths)
    decoder = choose_decoding(loaded.config, _CPU, [manifest]).open(how.batch_size)
    requests = list(video_requests(manifest, range(len(manifest)), loaded.config.clip, how.num_snippets))
    for first in range(0, len(requests), how.batch_size):
        decoder.decode(requests[first : first + how.batch_size])
    decoder.close()


def _rows(summaries: dict[str, dict[str, float | int]]) -> list[list[object]]:
    return [[name, *(each[p] for p in ("p20", "p50", "p80"))] for name, each in summaries.items()]


def _videos(arguments: argparse.Namespace, folder: Path) -> Manifest:
    manifest = Manifest.load(arguments.manifest or drawn_manifest(folder, np.random.default_rng(0)))
    return manifest.select(np.sort(np.random.default_rng(0).permutation(len(manifest))[: arguments.num_videos]))
