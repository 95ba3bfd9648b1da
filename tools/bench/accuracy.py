"""Zero-shot accuracy of checkpoints against throughput: mean-class, top-1 and top-5 over clips and videos a second.

    python tools/bench_throughput.py accuracy
    python tools/bench_throughput.py accuracy runs/k664 runs/k664_c3d --data data/ucf101.parquet --clips 1 --clips 25

For each checkpoint and precision, every number of clips a video is a whole evaluation of its own, as
tools/evaluate.py does it: clips are decoded, embedded and averaged, and the nearest class vector is the answer. The
clock runs from the first decoded clip to the last embedding. Without RUN it is the quickstart's run.
"""

import argparse
import dataclasses
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from bench.material import check_counts
from bench.peaks import DTYPES
from bench.rows import Row, table
from bench.settling import decoder_line, until_settled
from bench.trainers import reduced_precision
from engine.data.batch import VideoDecoder
from engine.data.config import SourceConfig
from engine.data.sets.sources import DataSet, load_tests
from engine.errors import InputError
from engine.evaluation.embedding import Inference, embed_videos
from engine.evaluation.evaluate import check_dimension, choose_rows, score
from engine.evaluation.inference import inference_settings, load_model
from engine.processes.distributed import choose_device
from engine.processes.parts import running
from engine.records import append_record, summarise
from engine.results.accuracy import MEASURES
from engine.results.record import FILE
from engine.semantics.classes import build_class_embeddings
from engine.semantics.embeddings import ClassEmbeddings
from engine.tasks.decoding import Decoding, choose_decoding
from engine.tasks.zero_shot.trained import LoadedModel
from engine.training.checkpoint import checkpoint_file

CLIPS = (1, 3, 5, 10, 25)
_SETTLING_VIDEOS = 256  # at a time
_ROOT = Path(__file__).resolve().parents[2]
_QUICKSTART, _TRAINED_HERE = Path("runs/quickstart"), Path("runs/quickstart_bench")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record.

    Raises:
        InputError: an option out of range, no checkpoint, no test set, or no such device.
    """
    device, clips = choose_device(arguments.device), arguments.clips or CLIPS
    check_counts(arguments, "repeats", "max_videos")
    if min(clips) < 1:
        raise InputError(f"--clips is {min(clips)}: it must be at least 1")
    runs = arguments.runs or [default_run(is_trained=arguments.train)]
    precisions = arguments.precision or ["fp32", reduced_precision(device)]
    if "fp16" in precisions and device.type == "cpu":
        raise InputError("--precision fp16 needs a GPU: use fp32 or bf16 on a CPU")
    rows: list[Row] = []
    decoders: dict[str, str] = {}
    for path in runs:
        loaded = load_model(path, device, tests=[SourceConfig.parse(text) for text in arguments.data])
        label = _label(path, loaded)
        found, decoders[label] = measure(
            loaded, label, device, precisions, clips, arguments.max_videos, arguments.repeats
        )
        rows += found
    print(table(rows).text())
    for label, line in decoders.items():
        if line:
            print(f"{label}: {line}")
    if not arguments.no_record:
        fields = {"device_type": device.type, "max_videos": arguments.max_videos, "decoders": decoders}
        path = append_record("accuracy", n=arguments.repeats, results=[asdict(row) for row in rows], **fields)
        print(f"recorded in {Path(os.path.relpath(path))}")


def default_run(*, is_trained: bool) -> Path:
    """The quickstart's run folder.

    Args:
        is_trained: where there is none, train it (half its epochs, without its control) in a folder of its own.

    Raises:
        InputError: there is none, and it is not to be trained; or the training failed.
    """
    for folder in (_QUICKSTART, _TRAINED_HERE):
        if (folder / FILE).is_file():
            return folder
    if not is_trained:
        raise InputError(
            f"no RUN is named and '{_QUICKSTART}' holds no finished run: train it with `torchrun engine/train.py "
            "configs/quickstart.yaml`, name another run, or let --train do it"
        )
    print(f"training the quickstart, half its epochs, in {_TRAINED_HERE}", flush=True)
    command = [sys.executable, str(_ROOT / "engine" / "train.py"), str(_ROOT / "configs" / "quickstart.yaml")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}
    overrides = [f"run.folder={_TRAINED_HERE}", "run.control=false", "train.epochs=10"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with running([*command, *overrides], env=environment, **quiet) as training:
        said = training.communicate()[1].decode(errors="replace")
    if training.returncode:
        raise InputError(f"the quickstart could not be trained: {(said.strip().splitlines() or ['?'])[-1]}")
    return _TRAINED_HERE


def _label(path: Path, loaded: LoadedModel) -> str:
    """A run by its folder, with the network."""
    folder = checkpoint_file(path).parent.parent.name
    return f"{folder} ({loaded.config.model})"


def measure(
    loaded: LoadedModel,
    label: str,
    device: torch.device,
    precisions: list[str],
    clips: list[int] | tuple[int, ...],
    max_videos: int | None,
    repeats: int,
) -> tuple[list[Row], str]:
    """A row for each test set, precision and number of clips; and who decodes, if there was a choice."""
    datasets = load_tests(loaded.config.data.tests)
    if not datasets:
        raise InputError(f"{label}: its config names no test set (data.tests): give one with --data MANIFEST")
    decoding = choose_decoding(loaded.config, device, [dataset.manifest for dataset in datasets])
    decoder = decoding.open(loaded.config.evaluate.batch_size)
    rows = []
    try:
        line = settle(loaded, datasets, decoding, decoder, device, max_videos)
        for dataset in datasets:
            classes = build_class_embeddings(dataset.classes, loaded.config.words)
            check_dimension(loaded.model, classes)
            case = label if len(datasets) == 1 else f"{label}, {dataset.name}"
            for precision in precisions:
                how = inference_settings(loaded.config, device, progress=False)
                how = dataclasses.replace(how, dtype=DTYPES[precision])
                for count in clips:
                    now = dataclasses.replace(how, num_snippets=count)
                    found = evaluate(loaded, dataset, classes, decoder, now, max_videos, repeats)
                    rows.append(Row(case, f"{count} clip{'s' * (count > 1)}", precision, *found))
    finally:
        decoder.close()
    return rows, line


def settle(
    loaded: LoadedModel,
    datasets: Sequence[DataSet],
    decoding: Decoding,
    decoder: VideoDecoder,
    device: torch.device,
    max_videos: int | None,
) -> str:
    """Untimed evaluations until it is chosen who decodes, so that all rows are timed with the same decoders. Returns which."""
    how, rounds = inference_settings(loaded.config, device, progress=False), itertools.cycle(datasets)
    for _ in until_settled(decoding):
        manifest = next(rounds).manifest
        rows = choose_rows(len(manifest), min(max_videos or _SETTLING_VIDEOS, _SETTLING_VIDEOS))
        embed_videos(loaded.model, manifest, decoder, how, rows)
    return decoder_line(decoding)


def evaluate(
    loaded: LoadedModel,
    dataset: DataSet,
    classes: ClassEmbeddings,
    decoder: VideoDecoder,
    how: Inference,
    max_videos: int | None,
    repeats: int,
) -> tuple[dict[str, float | int], dict[str, float], str]:
    """Seconds, values and note of a row. The videos of one batch go through first, untimed."""
    chosen = choose_rows(len(dataset.manifest), max_videos)
    embed_videos(loaded.model, dataset.manifest, decoder, how, chosen[: -(-how.batch_size // how.num_snippets)])
    samples = []
    for _ in range(repeats):
        started = time.perf_counter()
        embedded = embed_videos(loaded.model, dataset.manifest, decoder, how, chosen)
        samples.append(time.perf_counter() - started)
    whole, seconds = score(dataset, embedded, classes, how.device).all_classes, summarise(samples)
    videos_per_s = len(chosen) / seconds["p50"]
    values = {
        "videos_per_s": videos_per_s,
        "clips_per_s": videos_per_s * how.num_snippets,
        **{of: getattr(whole, of) for of in MEASURES},
    }
    return seconds, values, f"{whole.num_videos} videos, {whole.num_classes} classes, chance {whole.chance_top1:.1%}"
