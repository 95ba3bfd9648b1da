"""Training end to end from a manifest: clips/s, share of the time waiting for data, and saturation.

    python tools/bench_throughput.py train
    python tools/bench_throughput.py train --manifest stores/k700/manifest.parquet --raw k700.parquet --config my.yaml
    python tools/bench_throughput.py train --config configs/ucf15.yaml train.batch_size=16 --decoder pyav

The engine runs engine/train.py's own loop, in both forms of the network (on a CPU also flat in bf16). Saturation is its
clips/s over those of the same loop, in the same process, with one batch again and again in place of the loader: 100 %
means that data cost nothing. Beside it, on the same videos and with the same network:

    torchvision     as a careful user writes it: autocast, channels_last_3d, fused Adam, torch.compile (--compile),
                    and a DataLoader that seeks with PyAV
    paper recipe    fp32, contiguous, eager, and a DataLoader that reads with OpenCV as the authors' code does

All take turns; medians over the rounds. What a first start costs (compilation, trials of algorithms) stands apart as
warm-up. Without --manifest videos are drawn, and the engine reads them from a snippet store.
"""

import argparse
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.contestants import BaselineContestant, Contestant, EngineContestant, Window
from bench.material import draw_videos
from bench.rows import Row, table, with_ratios
from engine.config import Config, ProceduralConfig
from engine.data.decoders import default_threads
from engine.data.indexing import index_folder
from engine.data.manifest import Manifest
from engine.data.procedural import write_procedural_dataset
from engine.data.store.index import MANIFEST_NAME, StoreSettings, is_stored
from engine.data.store.ingest import WorkSettings, ingest
from engine.distributed import choose_device
from engine.errors import InputError
from engine.records import append_record, summarise
from engine.schema import apply_override, parse, read_yaml
from engine.tables import format_table

ENGINE = {"engine": "published", "engine flat": "flat", "engine flat bf16": "flat"}  # name -> model.form
BASELINES = ("torchvision", "paper recipe")
_QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
_WARMUP_STEPS = 3
_NEVER = 10**6  # epochs: what happens at the end of one is not part of the steps
_EPOCH = 20_000  # clips: few videos come so often in an epoch that no end of one falls among the timed steps


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant before it is built: its name and the videos it reads."""

    name: str
    source: str  # "store" or "files"
    manifest: Path | None  # None: as the config says
    weight: float = 1.0  # how often each video comes in an epoch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py train`."""
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="change keys of the config")
    parser.add_argument("--config", type=Path, help="of the training (default: the quickstart's; on a GPU the paper's)")
    parser.add_argument("--manifest", type=Path, help="store or raw videos (default: the config's, or drawn ones)")
    parser.add_argument("--raw", type=Path, help="manifest of the raw videos, for the baselines, where it is a store")
    parser.add_argument("--decoder", choices=("auto", "dali", "pyav"), help="of the engine (default: the config's)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if any")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant (default: 3)")
    parser.add_argument("--steps", type=int, default=None, help="timed in one turn (default: 30 on a GPU, 12 on a CPU)")
    parser.add_argument("--workers", type=int, default=None, help="of the baselines' DataLoader (default: the cores)")
    parser.add_argument("--only", choices=(*ENGINE, *BASELINES), action="append", help="may be repeated")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="the torchvision baseline (default: on a GPU)"
    )
    parser.add_argument("--trace", type=Path, help="write a profiler trace of three steps of the first to this file")
    parser.add_argument("--no-record", action="store_true", help="print only")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record.

    Raises:
        InputError: an option out of range, a config or manifest that cannot be used, no such device.
    """
    device = choose_device(arguments.device)
    steps = arguments.steps or (30 if device.type == "cuda" else 12)
    workers = default_threads() if arguments.workers is None else arguments.workers
    for name, value, least in (("rounds", arguments.rounds, 1), ("steps", steps, 1), ("workers", workers, 0)):
        if value < least:
            raise InputError(f"--{name} is {value}: it must be at least {least}")
    if arguments.trace is not None and not arguments.trace.parent.is_dir():
        raise InputError(f"--trace: there is no folder '{arguments.trace.parent}'")
    is_compiled = device.type == "cuda" if arguments.compile is None else arguments.compile
    with tempfile.TemporaryDirectory() as folder:
        tree = config_tree(arguments, device)
        entries = entries_of(arguments, tree, Path(folder))
        entries = [each for each in entries if each.name in (arguments.only or [*ENGINE, *BASELINES])]
        if not entries:
            raise InputError(f"--only {', '.join(arguments.only)}: nobody of that name takes part with these videos")
        config = entry_config(tree, entries[0], Path(folder), device)
        title = describe(config)
        print(f"{title}; {arguments.rounds} rounds of {steps} steps", flush=True)
        contestants: list[tuple[Entry, Contestant]] = []
        try:
            for place, entry in enumerate(entries):
                own = entry_config(tree, entry, Path(folder) / str(place), device)
                contestants.append((entry, _build(entry, own, device, workers, is_compiled=is_compiled)))
            rows = measure(contestants, arguments.rounds, steps, config.train.batch_size)
            if arguments.trace is not None:
                _trace(contestants[0][1], arguments.trace)
        finally:
            for _, contestant in contestants:
                contestant.close()
    for rival in BASELINES:
        rows = with_ratios(rows, rival, f"over_{rival.replace(' ', '_')}")
    print(format_table(*table(rows)))
    if not arguments.no_record:
        fields: dict[str, Any] = {"title": title, "steps": steps, "workers": workers, "compiled_rival": is_compiled}
        fields |= {"drawn": arguments.manifest is None and arguments.config is None, "device_type": device.type}
        path = append_record("train", n=arguments.rounds, results=[asdict(row) for row in rows], **fields)
        print(f"recorded in {Path(os.path.relpath(path))}")


def describe(config: Config) -> str:
    """The network and its batch, in one line."""
    model, clip = config.model, config.clip
    size = f"{clip.num_frames}x{clip.crop}x{clip.crop}"
    return f"{model.backbone}, width {model.width}, {config.train.batch_size} clips of {size} a step"


def config_tree(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The config as a tree, overrides applied, with all that happens between steps put off."""
    tree: dict[str, Any] = {"train": {"batch_size": 64}} if device.type == "cuda" else read_yaml(_QUICKSTART)
    if arguments.config is not None:
        tree = read_yaml(arguments.config)
    elif device.type == "cuda":
        tree["words"] = {"source": "random"}
    for override in arguments.overrides:
        apply_override(tree, override)
    parse(Config, tree)  # a wrong key should be told before anything is drawn
    for override in (
        f"train.epochs={_NEVER}",
        f"evaluate.every_epochs={_NEVER}",
        f"checkpoint.every_epochs={_NEVER}",
        "checkpoint.every_steps=0",
        "log.sample_clips=0",
        "run.resume=never",
        *([f"data.decoder={arguments.decoder}"] if arguments.decoder else []),
    ):
        apply_override(tree, override)
    return tree


def entries_of(arguments: argparse.Namespace, tree: dict[str, Any], folder: Path) -> list[Entry]:
    """Who takes part and reads what. Baselines cannot read a store.

    Raises:
        InputError: --raw without --manifest, or no videos to train on.
    """
    if arguments.raw is not None and arguments.manifest is None:
        raise InputError("--raw names the raw videos of a store: name the store's manifest with --manifest")
    own, raw = arguments.manifest, arguments.raw
    if own is None and arguments.config is None:
        own, raw = drawn_videos(tree, folder)
    sources = parse(Config, tree).data.train
    if own is None and not sources:
        raise InputError(f"'{arguments.config}' names no training set (data.train): give one with --manifest")
    where = own or Path(sources[0].manifest)
    videos = Manifest.load(where)
    weight = max(1.0, _EPOCH / len(videos)) if own else 1.0
    # On a GPU the engine's default is bf16 anyway; on a CPU it is fp32, and the torchvision baseline's is not.
    ours = list(ENGINE) if choose_device(arguments.device).type == "cpu" else list(ENGINE)[:2]
    if not is_stored(videos.strings("path")[0]):
        return [Entry(name, "files", own, weight) for name in (*ours, *BASELINES)]
    entries = [Entry(name, "store", own, weight) for name in ours]
    return entries if raw is None else entries + [Entry(name, "files", raw, weight) for name in ("engine", *BASELINES)]


def drawn_videos(tree: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Manifests of drawn videos: in a store, and as files. The quickstart's own where the config draws them."""
    clip = parse(Config, tree).clip
    if tree.get("procedural"):
        few = parse(ProceduralConfig, {**tree["procedural"], "folder": str(folder / "drawn"), "videos_per_class": 4})
        raw = write_procedural_dataset(few)
    else:
        draw_videos(folder / "raw", np.random.default_rng(0))
        raw = folder / "raw.parquet"
        index_folder(folder / "raw", raw)
    report = ingest(Manifest.load(raw), folder / "store", StoreSettings(short_side=clip.short_side), WorkSettings())
    if report.files:
        raise InputError(f"drawn videos could not be ingested: {report.files[:3]}")
    return folder / "store" / MANIFEST_NAME, raw


def entry_config(tree: dict[str, Any], entry: Entry, folder: Path, device: torch.device) -> Config:
    """The config of one contestant, whose run folder is new."""
    data = dict(tree.get("data", {}))
    if entry.manifest is not None:
        data |= {"train": [{"manifest": str(entry.manifest), "weight": entry.weight}], "tests": []}
    model = {**tree.get("model", {}), "form": ENGINE.get(entry.name, "published")}
    run_ = {**tree.get("run", {}), "folder": str(folder / "run"), "device": device.type}
    train = dict(tree.get("train", {})) | ({"precision": "bf16"} if entry.name.endswith("bf16") else {})
    return parse(Config, {**tree, "procedural": None, "data": data, "model": model, "run": run_, "train": train})


def _build(entry: Entry, config: Config, device: torch.device, workers: int, *, is_compiled: bool) -> Contestant:
    if entry.name in ENGINE:
        return EngineContestant(config, device)
    return BaselineContestant(entry.name, config, device, workers=workers, is_compiled=is_compiled)


def measure(contestants: list[tuple[Entry, Contestant]], rounds: int, steps: int, batch_size: int) -> list[Row]:
    """A row for each contestant, from turns that all take one after the other."""
    warmup_s = []
    for _, contestant in contestants:
        started = time.perf_counter()
        contestant.window(_WARMUP_STEPS, same_batch=False)
        warmup_s.append(time.perf_counter() - started)
    windows: list[list[tuple[Window, Window]]] = [[] for _ in contestants]
    for turn in range(rounds):
        for place in np.roll(range(len(contestants)), -turn):  # nobody is always after the same one
            contestant = contestants[place][1]
            pair = contestant.window(steps, same_batch=False), contestant.window(steps, same_batch=True)
            windows[place].append(pair)
    rows = []
    for (entry, contestant), pairs, warm in zip(contestants, windows, warmup_s, strict=True):
        seconds = summarise([fed.seconds / steps for fed, _ in pairs])
        values = {
            "clips_per_s": batch_size / seconds["p50"],
            "compute_clips_per_s": batch_size * steps / float(np.median([same.seconds for _, same in pairs])),
            "saturation": float(np.median([same.seconds / fed.seconds for fed, same in pairs])),
            "wait_share": float(np.median([fed.waited_s / fed.seconds for fed, _ in pairs])),
            "warmup_s": warm,
        }
        rows.append(Row(entry.source, entry.name, contestant.precision, seconds, values))
    return rows


def _trace(contestant: Contestant, path: Path) -> None:
    with torch.profiler.profile() as profile:
        contestant.window(3, same_batch=False)
    profile.export_chrome_trace(str(path))
