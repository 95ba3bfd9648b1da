"""The benchmarks of tools/bench_throughput.py: one file each, with `run(arguments)`; their options are in options.py."""
