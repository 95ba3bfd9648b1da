"""What a pretraining run reached: results.json, pictures, and the closing table."""

import shlex
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.processes.distributed import broadcast_from_main
from engine.results.figures import save_figure
from engine.results.record import FILE, read_tree_of, replacing
from engine.results.table import Table
from engine.tasks.masked.measuring import Filled, Measuring
from engine.tasks.masked.pictures import filled_sheet
from engine.training.checkpoint import checkpoint_file
from engine.training.run import Run
from engine.training.telemetry import Telemetry

PICTURE = "filled_in.png"
_EXAMPLES = 4


@dataclass(frozen=True)
class MaskedResults:
    """What results.json says. filled: of held-out videos; None if none are held out."""

    facts: Mapping[str, Any]
    filled: Mapping[str, Any] | None

    @property
    def doubts(self) -> list[str]:
        """Why nothing may have been learnt, for people."""
        filled = self.filled
        if filled is None or filled["loss"] < filled["constant"]:
            return []
        return [
            f"the loss on held-out videos ({filled['loss']:.4f}) is not below a constant's ({filled['constant']:.4f}): "
            "nothing was learnt"
        ]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**self.facts, "held_out": self.filled, "doubts": self.doubts}


@dataclass(frozen=True)
class MaskedOutcome:
    """A finished run."""

    folder: Path
    results: MaskedResults


def conclude(run: Run, held_out: Measuring | None, shown: Measuring, telemetry: Telemetry) -> MaskedOutcome:
    """Measure the best checkpoint, draw what it fills in, write results.json. Collective."""
    filled: Filled | None = None
    if held_out is not None:
        filled = held_out.filled(run.config.evaluate.num_snippets, None)
        telemetry.message(f"held out: {filled}")
    rates = telemetry.clips_per_second
    facts = {**_facts(run), "clips_per_second": statistics.median(rates) if rates else _speed_before(run)}
    results = MaskedResults(facts, asdict(filled) if filled else None)
    if run.ranks.is_main:
        figure = filled_sheet(shown.examples(_EXAMPLES))
        with replacing(run.folder, results):
            pixels = save_figure(figure, run.folder / PICTURE)
            if telemetry.writer is not None:
                telemetry.writer.add_image("filled_in", pixels, run.step, dataformats="HWC")
    return MaskedOutcome(run.folder, results)


def _speed_before(run: Run) -> float | None:
    """Of the training that an earlier start has done and recorded; None where that is not known."""
    trained = {name: value for name, value in _facts(run).items() if name in ("task", "best", "trained_steps")}
    return (read_tree_of(run.folder, trained) or {}).get("clips_per_second")


def recorded(run: Run) -> MaskedOutcome | None:
    """What an earlier start has concluded of this very run. Collective."""
    found = None
    if run.ranks.is_main and (run.folder / FILE).is_file() and (run.folder / PICTURE).is_file():
        tree = read_tree_of(run.folder, _facts(run)) or {}
        if "held_out" in tree:
            filled = tree.pop("held_out")
            tree.pop("doubts", None)
            found = MaskedOutcome(run.folder, MaskedResults(tree, filled))
    return broadcast_from_main(found)


def _facts(run: Run) -> dict[str, Any]:
    """What is evaluated, and how."""
    return {
        "task": "masked",
        "checkpoint": str(checkpoint_file(run.folder).relative_to(run.folder)),
        "step": run.best["step"],
        "best": dict(run.best),
        "trained_steps": run.step,
        "num_snippets": run.config.evaluate.num_snippets,
        "weights": run.config.evaluate.weights,
        "backbone": run.config.model.backbone,
        "masked": asdict(run.config.masked),
        "training_videos": len(run.task.data.train.manifest),
    }


def show(outcome: MaskedOutcome) -> None:
    """The closing table, and how to go on."""
    facts, filled = outcome.results.facts, outcome.results.filled
    checkpoint = checkpoint_file(outcome.folder)
    folder = shlex.quote(str(outcome.folder))  # to be copied to a command line
    told = ["nothing was held out"] if filled is None else [f"{filled['loss']:.4f}", f"{filled['constant']:.4f}"]
    names = ["loss on held-out videos", "a constant's loss"]
    mask = facts["masked"]
    rows = [
        ["masks", f"{mask['mask']}, ratio {mask['ratio']:g}"],
        *([name, value] for name, value in zip(names, told, strict=False)),
        ["checkpoint", f"{checkpoint} (step {facts['step']})"],
        ["pictures", outcome.folder / PICTURE],
        ["results", outcome.folder / FILE],
        ["next", f"model.backbone={facts['backbone']} model.weights={folder} in a zero-shot run"],
    ]
    print("\n" + Table(["what", "value"], rows).text(), flush=True)
    for doubt in outcome.results.doubts:
        print(f"{doubt} (docs/pretraining.md: train longer, on more videos, or at another train.lr)", flush=True)
