"""What encoders give once they are told few labels: a row for each, with paired differences over the seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from engine.results.spread import Difference, difference
from engine.results.table import Table


@dataclass(frozen=True)
class Measured:
    """Unseen classes after an encoder was told some labels.

    share: of the labelled videos of each class; labels: how many those are, on average. largest: what naming all videos by
    one class can give. seen: mean-class accuracy among the training classes, control: with random class vectors; None where
    that is not measured.
    """

    use: str
    encoder: str
    share: float
    labels: float
    seed: int
    top1: float
    mean_class: float
    chance: float
    largest: float
    seen: float | None = None
    control: float | None = None


def summarise(found: Sequence[Measured]) -> Iterator[Mapping[str, object]]:
    """A row for each use, number of labels and encoder: mean and standard deviation over the seeds, paired differences.

    less_NAME: difference in mean-class accuracy to the encoder NAME in the same seeds, and the ends of its 95 % interval
    (None of one seed), for the untrained encoder and the first mask.
    """
    groups: dict[tuple[str, float], dict[str, dict[int, Measured]]] = {}
    for each in found:
        groups.setdefault((each.use, each.share), {}).setdefault(each.encoder, {})[each.seed] = each
    for (use, share), by_encoder in groups.items():
        for encoder, mine in by_encoder.items():
            row: dict[str, object] = {"use": use, "share": share, "encoder": encoder, "seeds": len(mine)}
            for name in ("labels", "top1", "mean_class", "chance", "largest", "seen", "control"):
                values = [value for each in mine.values() if (value := getattr(each, name)) is not None]
                row[name] = float(np.mean(values)) if values else None
                row[f"{name}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
            for other in list(by_encoder)[:2]:
                pairs = [
                    (mine[seed].mean_class, its.mean_class) for seed, its in by_encoder[other].items() if seed in mine
                ]
                is_told = other != encoder and len(pairs) > 1
                row[f"less_{other}"] = astuple(difference(pairs)) if is_told else None
            yield row


def show(rows: Sequence[Mapping[str, object]]) -> Table:
    """The rows of `summarise`, for people."""
    others = list(dict.fromkeys(key for row in rows for key in row if key.startswith("less_")))

    def spread(row: Mapping[str, object], name: str) -> str | None:
        sd = row[f"{name}_sd"]
        return None if row[name] is None else f"{row[name]:.3f}" + ("" if sd is None else f" ± {sd:.3f}")

    shown = [
        [row["use"], f"{row['labels']:.3g}", row["encoder"], row["seeds"], spread(row, "top1"), spread(row, "mean_class"),
         *(str(Difference(*row[key])) if row.get(key) else None for key in others), spread(row, "seen"), spread(row, "control")]
        for row in rows
    ]  # fmt: skip
    header = ["use", "labels a class", "encoder", "seeds", "top-1", "mean-class",
              *(f"{key.replace('_', ' ')} (95 %)" for key in others), "seen classes", "control"]  # fmt: skip
    chance, largest = (float(np.mean([row[name] for row in rows])) for name in ("chance", "largest"))
    return Table(header, shown, f"unseen classes: chance {chance:.3f}, largest class {largest:.3f}")
