"""Masked pretraining end to end from a store: clips/s with each mask, and what reading the motion costs.

    python tools/bench_throughput.py pretrain
    python tools/bench_throughput.py pretrain --manifest stores/k700/manifest.parquet --config my.yaml train.batch_size=256
    python tools/bench_throughput.py pretrain --mask mgm --mask tube

The engine runs engine/train.py's own loop with every mask, in turns. Each turn is timed twice: fed by the loader, and with one
batch, masks and all, again and again in its place. All masks take part with the motion of the clips (`clip.motion`), which
mgm needs, and those that need none also without. What motion costs is the median over the rounds of the time that steps of
the same mask take with it over that without, less one: time by the clock on a GPU; on a CPU computing time of all threads,
which other load disturbs less.

Without --manifest or --config videos are drawn and ingested with their motion, and the network is that of
configs/mgm_quickstart.yaml with 4 clips a step; on a GPU that of configs/mgm_kinetics.yaml with 256.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.contestants import EngineContestant, Entry, Pair, Warm
from bench.material import check_counts
from bench.rows import Row, table
from bench.train import EPOCH, config_tree, describe, drawn_videos, entry_config, rows_of, show_turn, tell_warm
from bench.turns import Turns
from engine.config import Config
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.processes.distributed import choose_device
from engine.records import GrowingRecord
from engine.schema.keys import with_keys
from engine.tasks.masked.config import KINDS

_CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_BATCH = {"cpu": 4, "cuda": 256}  # clips of a step, where no config says it
_WARMUP_STEPS = 3
WITH, WITHOUT = "with motion", "without motion"


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record.

    Raises:
        InputError: an option out of range, a config or manifest that cannot be used, no such device.
    """
    device = choose_device(arguments.device)
    check_counts(arguments, "rounds", "steps")
    steps = arguments.steps or (30 if device.type == "cuda" else 8)
    with tempfile.TemporaryDirectory() as folder:
        entries = entries_of(arguments, device, Path(folder))
        config = next(iter(entries.values()))
        title = describe(config)
        print(f"{title}; {arguments.rounds} rounds of {steps} steps", flush=True)
        fields: dict[str, Any] = {"title": title, "steps": steps, "device_type": device.type}
        fields |= {"drawn": arguments.manifest is None and arguments.config is None, "masked": asdict(config.masked)}
        record = None if arguments.no_record else GrowingRecord("pretrain")
        with Turns[EngineContestant, Pair](close=EngineContestant.close) as turns:
            warm: dict[Entry, Warm | None] = {}
            for entry, own in entries.items():
                start = partial(EngineContestant, own, device)
                warm[entry] = turns.enter(str(entry), start, lambda each: each.warm_up(_WARMUP_STEPS))
                tell_warm(entry, warm[entry], turns)
            rows: dict[Entry, Row] = {}
            for name, _ in turns.take(arguments.rounds, lambda each: each.turn(steps)):
                rows = rows_of(turns, warm, config.train.batch_size)
                rows = with_motion_costs(turns, rows, "seconds" if device.type == "cuda" else "computed_s")
                show_turn(name, rows, turns, record, fields)
    print(table(list(rows.values())).text())


def entries_of(arguments: argparse.Namespace, device: torch.device, folder: Path) -> dict[Entry, Config]:
    """Who takes part, each with its config.

    Raises:
        InputError: a config of another task, or one that trains on nothing.
    """
    is_drawn = arguments.manifest is None and arguments.config is None
    default = "mgm_kinetics.yaml" if device.type == "cuda" else "mgm_quickstart.yaml"
    config_file = arguments.config or _CONFIGS / default
    small = () if arguments.config else (f"train.batch_size={_BATCH[device.type]}", "train.accumulate=1")
    given = vars(arguments) | {"config": config_file, "overrides": [*small, *arguments.overrides]}
    tree = config_tree(argparse.Namespace(**given), device)
    if tree.get("task") != "masked":
        raise InputError(
            f"'{config_file}' is of the task {tree.get('task', 'zero_shot')}: name a config of the task masked"
        )
    manifest = drawn_videos(tree, folder, motion=True)[0] if is_drawn else arguments.manifest
    weight = max(1.0, EPOCH / len(Manifest.load(manifest))) if manifest else 1.0
    entries = {}
    for number, (mask, source) in enumerate(_variants(arguments.mask or KINDS)):
        entry = Entry(mask, source, manifest, weight)
        config = entry_config(tree, entry, folder / str(number), device)
        keys = {"masked.mask": mask, "clip.motion": source == WITH, "data.validation.video_share": 0.0}
        entries[entry] = with_keys(config, keys)
    return entries


def _variants(masks: list[str] | tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for mask in masks:
        yield mask, WITH
        if mask != "mgm":
            yield mask, WITHOUT


def with_motion_costs(turns: Turns[EngineContestant, Pair], rows: dict[Entry, Row], time: str) -> dict[Entry, Row]:
    """The rows of masks that had turns with and without motion with what it costs, as a share of the step without.

    Args:
        time: the field of `Window` that is compared.
    """
    found = dict(rows)
    for entry, row in rows.items():
        pairs = turns.samples[str(entry)]
        others = turns.samples.get(str(replace(entry, source=WITHOUT)), [])
        if entry.source == WITH and others:
            fed = zip(pairs, others, strict=False)  # within a round one has had its turn and the other not yet
            ratios = [getattr(one, time) / getattr(other, time) for (one, _), (other, _) in fed]
            found[entry] = replace(row, values=row.values | {"motion_costs": float(np.median(ratios)) - 1})
    return found
