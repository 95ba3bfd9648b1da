"""The one benchmark program: each part of the engine measured on its own, with the limits it must keep.

    python tools/bench_throughput.py compute --batch 64          # the step, beside two baselines
    python tools/bench_throughput.py compute --roofline          # where a step's time goes
    python tools/bench_throughput.py train --manifest stores/k700/manifest.parquet --config my.yaml
    python tools/bench_throughput.py accuracy runs/k664          # accuracy against videos a second
    python tools/bench_throughput.py --suite cpu                 # all that says something about a CPU; also: gpu
    python tools/bench_throughput.py --suite gpu --part kernels --part compute
    python tools/bench_throughput.py --markdown                  # the newest records as tables for a document

Prints a table, appends one line per benchmark to benchmarks/records/NAME.jsonl (the numbers with their 20th, 50th
and 80th percentile, the machine, the versions, the commit and the command), and makes of that line a picture in
benchmarks/pictures.
"""

from bench import options, suites

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(options.read, __doc__)

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path

from bench.publish import completed, newest_as_markdown, publish, read_records

from engine.errors import InputError
from engine.processes.parts import running, stop_on_sigterm
from engine.records import recording_into


def main(arguments: argparse.Namespace) -> None:
    """Run one benchmark with its options, a suite, or show what was recorded."""
    out = arguments.out
    if arguments.markdown:
        for shown in newest_as_markdown(out / "records"):
            print(f"{shown}\n")
        return
    stop_on_sigterm()
    # Else torch's profiler writes lines of its own at every start and stop.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with recording_into(out / "records"):
        if arguments.benchmark:
            _run(arguments, out)
        else:
            _run_suite(arguments.suite, arguments.part, arguments.skip, out)


def _run(arguments: argparse.Namespace, out: Path) -> None:
    """One benchmark; what it recorded is published also where a part of it failed."""
    before = {name: len(records) for name, records in read_records(out / "records").items()}
    try:
        importlib.import_module(f"bench.{arguments.benchmark}").run(arguments)
    finally:
        for name, records in read_records(out / "records").items():
            for count in range(before.get(name, 0), len(records)):
                picture = publish(name, completed(records[: count + 1]), out / "pictures")
                print(f"picture {os.path.relpath(picture)}" if picture else "no picture", flush=True)


def _run_suite(name: str, parts: list[str] | None, skipped: list[str] | None, out: Path) -> None:
    """All parts of a suite, or those named, each in a process of its own; one that fails or crashes costs only itself.

    Raises:
        InputError: naming the parts that failed, or no part of the suite is among those named.
    """
    failures, begun = [], _clocks()
    suite = {words: suites.part_name(words) for words in suites.SUITES[name]}
    chosen = [words for words, part in suite.items() if (not parts or part in parts) and part not in (skipped or ())]
    if not chosen:
        raise InputError(f"--part, --skip: nothing is left of suite {name}, which has {', '.join(suite.values())}")
    for index, words in enumerate(chosen):
        print(f"\n== {' '.join(words)} ({index + 1} of {len(chosen)})", flush=True)
        started = _clocks()
        command = [sys.executable, str(Path(__file__).resolve()), "--out", str(out), *words]
        status = _run_part(command)
        if status:
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            failures.append(f"{' '.join(words)}: {how}")
        print(_since(started), flush=True)
    print(f"\nsuite {name}: {_since(begun)} in all")
    if failures:
        raise InputError(f"{len(failures)} of {len(chosen)} parts failed, as told above:\n" + "\n".join(failures))


def _run_part(command: list[str]) -> int:
    """Its exit status. It is told to stop where this process is, or is gone."""
    with running(command) as part:
        return part.wait()


def _clocks() -> tuple[float, float]:
    """Seconds by the clock, and of computing by this process and those it started and saw end."""
    spent = os.times()
    return spent.elapsed, spent.user + spent.system + spent.children_user + spent.children_system


def _since(start: tuple[float, float]) -> str:
    clock, computing = (now - then for now, then in zip(_clocks(), start, strict=True))
    return f"{clock:.0f} s, {computing:.0f} s of computing"


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
