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
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.apart import Apart, check_limit
from bench.contestants import Entry, Pair, Warm, build
from bench.material import drawn_manifest
from bench.rows import Row, line, table, with_ratios
from bench.suites import BASELINES, ENGINE
from bench.turns import Turns
from engine.config import Config
from engine.data.config import ProceduralConfig
from engine.data.drawn.procedural import write_procedural_dataset
from engine.data.manifests.manifest import Manifest
from engine.data.store.index import MANIFEST_NAME, StoreSettings, is_stored
from engine.data.store.ingest import WorkSettings, ingest
from engine.errors import InputError
from engine.machine import rank_cores
from engine.processes.distributed import choose_device
from engine.records import GrowingRecord, summarise
from engine.schema.files import apply_override, read_yaml
from engine.schema.parser import parse

_QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
_WARMUP_STEPS = 3
_NEVER = 10**6  # epochs: what happens at the end of one is not part of the steps
EPOCH = 20_000  # clips: few videos come so often in an epoch that no end of one falls among the timed steps


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record.

    Raises:
        InputError: an option out of range, a config or manifest that cannot be used, no such device.
    """
    device = choose_device(arguments.device)
    steps = arguments.steps or (30 if device.type == "cuda" else 12)
    workers = rank_cores() if arguments.workers is None else arguments.workers
    for name, value, least in (("rounds", arguments.rounds, 1), ("steps", steps, 1), ("workers", workers, 0)):
        if value < least:
            raise InputError(f"--{name} is {value}: it must be at least {least}")
    check_limit(arguments.limit)
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
        fields: dict[str, Any] = {"title": title, "steps": steps, "workers": workers, "compiled_rival": is_compiled}
        fields |= {"drawn": arguments.manifest is None and arguments.config is None, "device_type": device.type}
        record = None if arguments.no_record else GrowingRecord("train")
        warm: dict[Entry, Warm | None] = {}
        with Turns[Apart, Pair](close=Apart.close) as turns:
            for index, entry in enumerate(entries):
                own = entry_config(tree, entry, Path(folder) / str(index), device)
                start = partial(Apart, build, entry, own, device, workers, is_compiled, limit_s=arguments.limit)
                warm[entry] = turns.enter(str(entry), start, lambda each: each.call("warm_up", _WARMUP_STEPS))
                tell_warm(entry, warm[entry], turns)
            rows: dict[Entry, Row] = {}
            for name, _ in turns.take(arguments.rounds, lambda each: each.call("turn", steps)):
                rows = rows_of(turns, warm, config.train.batch_size)
                show_turn(name, rows, turns, record, fields)
            if arguments.trace is not None and turns.contestants:
                next(iter(turns.contestants.values())).call("trace", str(arguments.trace.resolve()))
    print(table(list(rows.values())).text())
    if turns.failures:
        raise InputError("; ".join(f"'{name}': {reason}" for name, reason in turns.failures.items()))


def tell_warm(entry: Entry, warm: Warm | None, turns: Turns[Any, Pair]) -> None:
    """Print how long it took and who decodes; of one that failed it is told already."""
    if warm is not None:
        print(
            "; ".join(filter(None, [f"{entry}: warm after {turns.warmup_s[str(entry)]:.0f} s", warm.decoder])),
            flush=True,
        )


def show_turn(
    name: str,
    rows: Mapping[Entry, Row],
    turns: Turns[Any, Pair],
    record: GrowingRecord | None,
    fields: Mapping[str, Any],
) -> None:
    """Print the row of the one that has just had its turn, and keep all rows so far."""
    print(line(next(row for entry, row in rows.items() if str(entry) == name)), flush=True)
    if record is not None:
        rounds = max(len(pairs) for pairs in turns.samples.values())
        record.write(results=[asdict(row) for row in rows.values()], n=rounds, **fields)


def rows_of(turns: Turns[Any, Pair], warm: Mapping[Entry, Warm | None], batch_size: int) -> dict[Entry, Row]:
    """A row for each that has had a turn."""
    rows = {}
    for entry, found_warm in warm.items():
        if found_warm is None or not (pairs := turns.samples.get(str(entry))):
            continue
        seconds = summarise([fed.seconds / fed.steps for fed, _ in pairs])
        values = {
            "clips_per_s": batch_size / seconds["p50"],
            "compute_clips_per_s": batch_size / float(np.median([same.seconds / same.steps for _, same in pairs])),
            "saturation": float(np.median([same.seconds / fed.seconds for fed, same in pairs])),
            "wait_share": float(np.median([fed.waited_s / fed.seconds for fed, _ in pairs])),
            "warmup_s": turns.warmup_s[str(entry)],
        }
        rows[entry] = Row(entry.source, entry.name, found_warm.precision, seconds, values, found_warm.decoder)
    found = list(rows.values())
    for rival in BASELINES:
        found = with_ratios(found, rival, f"over_{rival.replace(' ', '_')}")
    return dict(zip(rows, found, strict=True))


def describe(config: Config) -> str:
    """The network and its batch, in one line."""
    model, clip = config.model, config.clip
    size = f"{clip.num_frames}x{clip.crop}x{clip.crop}"
    return f"{model}, {config.train.batch_size} clips of {size} a step"


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
    weight = max(1.0, EPOCH / len(videos)) if own else 1.0
    # On a GPU the engine's default is bf16 anyway; on a CPU it is fp32, and the torchvision baseline's is not.
    # There both forms compile, so that the one that `model.form: auto` takes stands for the engine.
    ours = list(ENGINE) if choose_device(arguments.device).type == "cpu" else ["engine flat"]
    if not is_stored(videos.strings("path")[0]):
        return [Entry(name, "files", own, weight) for name in (*ours, *BASELINES)]
    entries = [Entry(name, "store", own, weight) for name in ours]
    return entries if raw is None else entries + [Entry(name, "files", raw, weight) for name in (ours[0], *BASELINES)]


def drawn_videos(tree: dict[str, Any], folder: Path, *, motion: bool = False) -> tuple[Path, Path]:
    """Manifests of drawn videos: in a store (with their motion), and as files. The quickstart's own where the config draws
    them."""
    clip = parse(Config, tree).clip
    if tree.get("procedural"):
        few = parse(ProceduralConfig, {**tree["procedural"], "folder": str(folder / "drawn"), "videos_per_class": 4})
        raw = write_procedural_dataset(few)
    else:
        raw = drawn_manifest(folder, np.random.default_rng(0))
    report = ingest(
        Manifest.load(raw), folder / "store", StoreSettings(short_side=clip.short_side), WorkSettings(motion=motion)
    )
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
