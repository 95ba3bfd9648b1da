"""The contestants that benchmarks have by name, and the suites: which benchmarks say something about which machine.

Nothing is imported here that imports torch, as in `options`.
"""

ENGINE = {"engine": "published", "engine flat": "flat", "engine flat bf16": "flat"}  # of `train`: name -> model.form
BASELINES = ("torchvision", "paper recipe")
# The engine's default is bf16 on a GPU that has it, and fp32 on a CPU, where the flat form only loses when it is compiled.
# On a GPU those that compile come first: they say most, and a session there may end early.
GPU_TRAINERS = (
    "engine fused compiled", "engine summed compiled", "engine flat compiled", "torchvision", "engine compiled",
    "engine flat fp16 compiled", "engine flat", "engine", "engine fp16", "paper recipe",
)  # fmt: skip
CPU_TRAINERS = ("engine", "engine flat", "engine flat bf16", "engine compiled", *BASELINES)
SUITES: dict[str, tuple[tuple[str, ...], ...]] = {  # the command lines of each
    "cpu": (  # within ten minutes on two idle cores
        ("manifest", "--repeats", "3"),
        ("decode", "--num-videos", "20", "--repeats", "3", "--snippets", "96"),
        ("ingest", "--num-videos", "2", "--repeats", "2", "--variants", "4", "--snippets", "16"),
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
        ("pretrain", "--device", "cuda", "--rounds", "2", "--steps", "20"),
        ("accuracy", "--train", "--device", "cuda", "--clips", "1", "--clips", "5", "--clips", "25", "--precision", "fp32",
         "--precision", "fp16", "--precision", "bf16"),
    ),
}  # fmt: skip


def part_name(words: tuple[str, ...]) -> str:
    """What a part of a suite is called."""
    return "roofline" if "--roofline" in words else words[0]
