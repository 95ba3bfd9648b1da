"""A training step as torch.compile writes it for an H100, which need not be there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import engine
from engine.errors import InputError
from engine.models.backbones import RESNETS
from engine.results.table import Table

KINDS = {  # of launches, as `bench.step_program.kind_of` names them, and their columns
    "convolutions": "convolutions", "own kernels": "our kernels", "sums": "the compiler's sums",
    "element-wise": "its element-wise passes", "other": "other",
}  # fmt: skip
_HERE = Path(__file__).parent
_SHOWN = 5e7  # bytes
_GB_PER_S = 3000.0  # an H100's memory, as far as kernels reach it


@dataclass(frozen=True, slots=True)
class Step:
    """Forward and backward of a step.

    bytes: that launches of a kind (`KINDS`) read and write, each tensor once. launches: how many there are.
    """

    bytes: dict[str, int]
    launches: dict[str, int]


def compiled_step(backbone: str, form: str, batch: int = 64, stages: int = 0) -> Step:
    """What torch.compile makes of a step in bf16 with clips of 16x112x112.

    Args:
        form: as `model.form`; or "torchvision", its own network.
        stages: only so many of `Backbone.stages`; 0: the network.

    Raises:
        InputError: there is no C compiler, torch is not for CUDA 13, or the compiler fails.
    """
    if not (torch.version.cuda or "").startswith("13.") or sys.platform != "linux":
        raise InputError(f"this needs torch for CUDA 13 on Linux, not {torch.__version__}; a GPU it does not need")
    command = [sys.executable, "-m", "bench.step_program", backbone, form, str(batch), str(stages)]
    with tempfile.TemporaryDirectory() as folder:
        settings = {  # the library by its name alone: in its path a blank would part two names
            "LD_PRELOAD": _before(_library(Path(folder)).name, "LD_PRELOAD"),
            "LD_LIBRARY_PATH": _before(folder, "LD_LIBRARY_PATH"),
            "PYTHONPATH": _before(f"{_HERE.parent}:{Path(engine.__file__).parents[1]}", "PYTHONPATH"),
        }
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings}, cwd=folder)
    if done.returncode:
        raise InputError(f"torch's compiler fails on {backbone}, {form}: {_reason(done.stderr)}")
    return Step(**json.loads(done.stdout.splitlines()[-1]))


def c_compiler() -> list[str] | None:
    """The command of a C compiler, with what CC says before its own options."""
    found = os.environ.get("CC") or next((name for name in ("gcc", "clang", "cc") if shutil.which(name)), None)
    return None if found is None else shlex.split(found)


def _library(folder: Path) -> Path:
    compiler = c_compiler()
    if compiler is None:
        raise InputError("no C compiler is found, which makes the GPU that is pretended: install gcc, or set CC")
    library = folder / "libcuda.so.1"
    flags = ["-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", str(library), str(_HERE / "absent_gpu.c")]
    try:
        done = subprocess.run([*compiler, *flags], capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"CC is '{os.environ.get('CC')}', which cannot be started: {error.strerror}") from None
    if done.returncode:
        raise InputError(f"{shlex.join(compiler)} fails on {_HERE / 'absent_gpu.c'}: {_reason(done.stderr)}")
    return library


def _before(first: str, variable: str) -> str:
    return ":".join([first, *filter(None, [os.environ.get(variable)])])


def _reason(text: str) -> str:
    lines = text.strip().splitlines() or [""]
    told = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line) or " error: " in line]
    return (told or lines)[-1].strip()


def compiled_steps(backbone: str, batch: int) -> Iterator[tuple[str, Step]]:
    """A network's forms and torchvision's network, as they are compiled.

    Raises:
        InputError: as `compiled_step`.
    """
    is_residual = backbone in RESNETS
    for form in ("torchvision", "published", "flat", "summed", "fused") if is_residual else ("auto",):
        name = form if form == "torchvision" else f"engine {form}" if is_residual else "engine"
        yield name, compiled_step(backbone, form, batch)


def tables_of(record: Mapping[str, Any]) -> dict[str, Table]:
    """Of a record of `compute --compiled`: its one table."""
    return {"": table_of(record["steps"])}


def table_of(steps: Mapping[str, Mapping[str, Any]]) -> Table:
    """A line for each step, given as a mapping of what `Step` holds; what moves next to nothing in all has no column."""
    kinds = [kind for kind in KINDS if any(step["bytes"].get(kind, 0) > _SHOWN for step in steps.values())]
    rows = []
    for name, step in steps.items():
        total = sum(step["bytes"].values())
        cells = [f"{size / 1e9:.1f}" for size in (*(step["bytes"].get(kind, 0) for kind in kinds), total)]
        rows.append([name, *cells, sum(step["launches"].values()), f"{total / _GB_PER_S / 1e6:.0f}"])
    headings = [KINDS[kind] for kind in kinds]
    return Table(["GB of a step", *headings, "all", "launches", f"ms at {_GB_PER_S / 1000:g} TB/s"], rows)
