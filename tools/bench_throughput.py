"""The one benchmark program: each part of the engine measured on its own, with the limits it must keep.

    python tools/bench_throughput.py compute --batch 64          # the step, beside two baselines
    python tools/bench_throughput.py compute --roofline          # where a step's time goes
    python tools/bench_throughput.py train --manifest stores/k700/manifest.parquet --config my.yaml
    python tools/bench_throughput.py accuracy runs/k664          # top-1 and top-5 against videos a second
    python tools/bench_throughput.py --suite cpu                 # all that says something about a CPU; also: gpu
    python tools/bench_throughput.py --suite gpu --part kernels --part compute
    python tools/bench_throughput.py --markdown                  # the newest records as tables for a document

Prints a table, appends one line per benchmark to benchmarks/records/NAME.jsonl (the numbers with their 20th, 50th
and 80th percentile, the machine, the versions, the commit and the command), and makes of that line a picture in
benchmarks/pictures and points of curves in benchmarks/tensorboard.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from bench import accuracy, compute, decode, decode_gpu, ingest, kernels, manifest, memory, recovery, train
from bench.publish import markdown, newest, publish, read_records

from engine.command_line import Parser
from engine.errors import InputError, run_command
from engine.records import RECORDS, recording_into

BENCHMARKS = {
    "manifest": manifest,
    "decode": decode,
    "decode_gpu": decode_gpu,
    "ingest": ingest,
    "memory": memory,
    "compute": compute,
    "train": train,
    "kernels": kernels,
    "accuracy": accuracy,
    "recovery": recovery,
}
SUITES: dict[str, tuple[tuple[str, ...], ...]] = {  # the command lines of each
    "cpu": (  # within ten minutes on two idle cores
        ("manifest", "--repeats", "3"),
        ("decode", "--num-videos", "20", "--repeats", "3", "--snippets", "96"),
        ("ingest", "--num-videos", "2", "--repeats", "2", "--variants", "4", "--snippets", "16"),
        ("memory", "--snippets", "2000"),
        ("kernels", "--device", "cpu"),
        ("train", "--device", "cpu"),
        ("compute", "--device", "cpu", "--limit", "75"),
        ("compute", "--roofline", "--device", "cpu"),
        ("accuracy", "--train", "--device", "cpu"),
    ),
    "gpu": (  # part by part in docs/gpu_checklist.md
        ("compute", "--device", "cuda", "--steps", "20", "--limit", "240"),
        ("kernels", "--device", "cuda", "--repeats", "20"),
        ("compute", "--roofline", "--device", "cuda", "--steps", "5"),
        ("decode_gpu", "--snippets", "512", "--repeats", "3", "--hevc", "--limit", "240"),
        ("train", "--device", "cuda", "--rounds", "2", "--steps", "20"),
        (
            "accuracy",
            "--train",
            "--device",
            "cuda",
            "--clips",
            "1",
            "--clips",
            "5",
            "--clips",
            "25",
            "--precision",
            "fp32",
            "--precision",
            "fp16",
            "--precision",
            "bf16",
        ),
    ),
}


def main() -> None:
    """Run one benchmark with its options, a suite, or show what was recorded."""
    parser = _parser()
    arguments = parser.parse_args()
    if (arguments.part or arguments.skip) and not arguments.suite:
        raise InputError("--part and --skip name parts of a suite: name the suite with --suite")
    chosen = [arguments.benchmark, arguments.suite, arguments.markdown]
    if sum(bool(each) for each in chosen) != 1:
        raise InputError("name one benchmark, one --suite, or --markdown; --help lists them")
    out, tensorboard = arguments.out, arguments.logdir or arguments.out / "tensorboard"
    if arguments.markdown:
        for label, record in newest(read_records(out / "records")).items():
            print(f"{markdown(label, record)}\n")
        return
    # Else torch's profiler writes lines of its own at every start and stop.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with recording_into(out / "records"):
        if arguments.benchmark:
            _run(arguments, out, tensorboard)
        else:
            _run_suite(arguments.suite, arguments.part, arguments.skip, out, tensorboard)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, help="every benchmark that says something about such a machine")
    parts = sorted({_part(words) for suite in SUITES.values() for words in suite})
    parser.add_argument("--part", choices=parts, action="append", help="only this part of the suite; may be repeated")
    parser.add_argument("--skip", choices=parts, action="append", help="not this part; may be repeated")
    parser.add_argument("--markdown", action="store_true", help="print the newest record of each benchmark as a table")
    parser.add_argument(
        "--out", type=Path, default=RECORDS.parent, help="for records and pictures (default: benchmarks)"
    )
    parser.add_argument("--logdir", type=Path, help="of TensorBoard (default: tensorboard in --out)")
    commands = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK")
    for name, module in BENCHMARKS.items():
        command = commands.add_parser(
            name,
            help=module.__doc__.splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return parser


def _run(arguments: argparse.Namespace, out: Path, tensorboard: Path) -> None:
    """One benchmark; what it recorded is published also where a part of it failed."""
    before = {name: len(records) for name, records in read_records(out / "records").items()}
    try:
        BENCHMARKS[arguments.benchmark].run(arguments)
    finally:
        for name, records in read_records(out / "records").items():
            for place in range(before.get(name, 0), len(records)):
                picture = publish(name, records[place], place, out / "pictures", tensorboard)
                print(f"picture {os.path.relpath(picture)}" if picture else "no picture", flush=True)


def _part(words: tuple[str, ...]) -> str:
    """What a part of a suite is called."""
    return "roofline" if "--roofline" in words else words[0]


def _run_suite(name: str, parts: list[str] | None, skipped: list[str] | None, out: Path, tensorboard: Path) -> None:
    """All parts of a suite, or those named, each in a process of its own; one that fails or crashes costs only itself.

    Raises:
        InputError: naming the parts that failed, or no part of the suite is among those named.
    """
    failures, begun = [], _clocks()
    chosen = [
        words for words in SUITES[name] if (not parts or _part(words) in parts) and _part(words) not in (skipped or ())
    ]
    if not chosen:
        raise InputError(
            f"--part, --skip: nothing is left of suite {name}, which has {', '.join(map(_part, SUITES[name]))}"
        )
    for place, words in enumerate(chosen):
        print(f"\n== {' '.join(words)} ({place + 1} of {len(chosen)})", flush=True)
        started = _clocks()
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--out",
            str(out),
            "--logdir",
            str(tensorboard),
            *words,
        ]
        status = subprocess.run(command, check=False).returncode
        if status:
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            failures.append(f"{' '.join(words)}: {how}")
        print(_since(started), flush=True)
    print(f"\nsuite {name}: {_since(begun)} in all")
    if failures:
        raise InputError(f"{len(failures)} of {len(chosen)} parts failed, as told above:\n" + "\n".join(failures))


def _clocks() -> tuple[float, float]:
    """Seconds by the clock, and of computing by this process and those it started and saw end."""
    spent = os.times()
    return spent.elapsed, spent.user + spent.system + spent.children_user + spent.children_system


def _since(start: tuple[float, float]) -> str:
    clock, computing = (now - then for now, then in zip(_clocks(), start, strict=True))
    return f"{clock:.0f} s, {computing:.0f} s of computing"


if __name__ == "__main__":
    run_command(main)
