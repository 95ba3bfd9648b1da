"""The one benchmark program: each part of the engine measured on its own, with the limits it must keep.

    python tools/bench_throughput.py decode --manifest ucf15.parquet --threads 1
    python tools/bench_throughput.py compute --batch 64
    python tools/bench_throughput.py --suite cpu

Prints a table, appends one line per benchmark to benchmarks/records/NAME.jsonl (the numbers with their 20th, 50th
and 80th percentile, the machine, the versions, the commit and the command), and draws benchmarks/pictures/NAME.png.
"""

import argparse

from bench import compute, decode, ingest, kernels, manifest, memory

from engine.errors import InputError, run_command

BENCHMARKS = {
    "manifest": manifest,
    "decode": decode,
    "ingest": ingest,
    "memory": memory,
    "compute": compute,
    "kernels": kernels,
}
SUITES = {"cpu": ("manifest", "decode", "ingest", "memory", "compute", "kernels"), "gpu": ("compute", "kernels")}


def main() -> None:
    """Run one benchmark with its options, or a suite with the defaults of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, help="every benchmark that says something about such a machine")
    commands = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK")
    for name, module in BENCHMARKS.items():
        summary = module.__doc__.splitlines()[0]
        command = commands.add_parser(
            name, help=summary, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(command)
    arguments = parser.parse_args()
    if (arguments.suite is None) == (arguments.benchmark is None):
        raise InputError("name one benchmark or one --suite; --help lists them")
    if arguments.benchmark:
        BENCHMARKS[arguments.benchmark].run(arguments)
        return
    for name in SUITES[arguments.suite]:
        print(f"== {name}")
        BENCHMARKS[name].run(commands.choices[name].parse_args([]))


if __name__ == "__main__":
    run_command(main)
