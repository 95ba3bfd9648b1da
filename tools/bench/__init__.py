"""The benchmarks of tools/bench_throughput.py: one file each, with `add_arguments(parser)` and `run(arguments)`."""
