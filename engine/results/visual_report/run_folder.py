"""What a run's folder tells a report besides its checkpoint: how it was started, its config, its control."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.files.json_lines import read_json_lines, understood
from engine.provenance import FILE as PROVENANCE
from engine.results.record import Results, read_control


@dataclass(frozen=True, slots=True)
class RunFacts:
    """All empty where the folder does not have them.

    provenance: (what, value) of the newest start. packages: name -> version, of that start.
    config: as YAML. control: test set -> mean-class accuracy of the control run.
    """

    provenance: Sequence[tuple[str, str]] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    control: Mapping[str, float] = field(default_factory=dict)


def read_run_facts(checkpoint: Path, results: Results) -> RunFacts:
    """Read them from the run folder of a checkpoint (RUN/checkpoints/FILE); a checkpoint elsewhere has none.

    Args:
        results: of the run, which tell whether its control was measured alike.
    """
    if checkpoint.parent.name != "checkpoints":
        return RunFacts()
    folder = checkpoint.parent.parent
    *_, (rows, packages) = ((), {}), *understood(read_json_lines(folder / PROVENANCE), _start)
    try:
        found = read_control(folder, results)
    except InputError:  # damaged: the rest of the report is as good
        found = None
    control = {name: test.all_classes.mean_class for name, test in found.tests.items()} if found else {}
    return RunFacts(rows, packages, _text(folder / "config.yaml"), control)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _start(line: Mapping[str, Any]) -> tuple[list[tuple[str, str]], Mapping[str, str]]:
    """The provenance and the packages of a start."""
    device = line["device"]
    commit = line["commit"] or "not a git checkout"
    cuda = f", CUDA {line['cuda']}" if line["cuda"] else ""
    seeds = ", ".join(f"{name} {seed}" for name, seed in line["seeds"].items())
    gpus = ", ".join(device["gpus"]) or "no GPU"
    rows = [
        ("started", f"{line['time']}, at step {line['step']}"),
        ("command", line["command"]),
        ("commit", commit + (", with changes" if line["dirty"] else "")),
        ("software", f"Python {line['python'].split()[0]}, torch {line['torch']}{cuda}"),
        ("hardware", f"{device['cpu']}, {device['cores']} cores; {gpus}; {line['world_size']} rank(s)"),
        ("seeds", seeds + ("; deterministic" if line["deterministic"] else "")),
        *((f"SHA-256 of {path}", digest) for path, digest in line["manifests"].items()),
    ]
    return rows, dict(line.get("packages", {}))
