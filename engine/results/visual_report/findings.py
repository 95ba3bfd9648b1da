"""What there is to see of an evaluated test set, gathered once for the HTML file and for TensorBoard."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.sets.sources import DataSet
from engine.errors import InputError
from engine.evaluation.metrics import ZeroShotResult
from engine.results.table import Table
from engine.results.visual_report.contact_sheets import ContactSheet, contact_sheets
from engine.results.visual_report.embedding_map import EmbeddingMap, embedding_map
from engine.semantics.class_lists import NamedClasses
from engine.semantics.embeddings import ClassEmbeddings
from engine.semantics.overlap import Neighbour, Words, nearest_of_any


@dataclass(frozen=True, slots=True)
class NearestSeen:
    """The class that the model was trained on whose name is nearest to an unseen class; cosine distance in [0, 2]."""

    name: str
    source: str
    distance: float


@dataclass(frozen=True, slots=True)
class Findings:
    """Of one test set.

    result: whose `seen_classes` are all that count as seen here. seen_told: how these were seen.
    nearest_seen: for each class, in the order of `result.classes`; empty where the reason is in `no_distance`.
    best, worst: the videos with the largest margin, right and wrong.
    plane: t-SNE; None where there is too little to show.
    """

    result: ZeroShotResult
    nearest_seen: tuple[NearestSeen, ...]
    no_distance: str
    best: tuple[ContactSheet, ...]
    worst: tuple[ContactSheet, ...]
    plane: EmbeddingMap | None
    seen_told: str = "trained on"

    @property
    def classes_told(self) -> str:
        """How many classes, and whether they are unseen."""
        total, seen = self.result.all_classes.num_classes, len(self.result.seen_classes or ())
        return f"{total} classes, {seen} of them {self.seen_told}" if seen else f"{total} unseen classes"


def find(
    datasets: Sequence[DataSet],
    results: Sequence[ZeroShotResult],
    classes: Sequence[ClassEmbeddings],
    seen: Sequence[NamedClasses],
    words: Words,
    pretrained: Table | None = None,
) -> list[Findings]:
    """Look closer at the results of test sets; decodes their best and worst videos anew.

    Args:
        datasets: the test sets of `results`, in their order.
        classes: of each result, the class vectors that it was measured with.
        seen: sets of classes that the model was trained or pretrained on.
        words: what measures the distance of two class names.
        pretrained: of a model that was not trained here: which classes of which sets its weights had seen (`seen_before`).
    """
    found, seen_told = [], "trained on" if pretrained is None else "seen in pretraining"
    for dataset, result, embedded in zip(datasets, results, classes, strict=True):
        nearest, no_distance = (), ""
        try:
            nearest = nearest_seen(result.classes, seen, words)
        except InputError as error:  # vectors that know only the test classes: the rest of the report is as good
            no_distance = str(error)
        best, worst = contact_sheets(dataset, result, embedded.vectors)
        plane = embedding_map(result, embedded.vectors)
        result = dataclasses.replace(result, seen_classes=_seen_classes(result, pretrained))
        found.append(Findings(result, nearest, no_distance, tuple(best), tuple(worst), plane, seen_told))
    return found


def _seen_classes(result: ZeroShotResult, pretrained: Table | None) -> list[str]:
    """The classes of a test set that are not unseen, by its result or by what the pretrained weights had seen."""
    before = {name for name, test_set, *_ in (pretrained.rows if pretrained else ()) if test_set == result.name}
    return [name for name in result.classes if name in before.union(result.seen_classes or ())]


def nearest_seen(classes: Sequence[str], seen: Sequence[NamedClasses], words: Words) -> tuple[NearestSeen, ...]:
    """For each class the nearest one of `seen` (the distance of paper Eq. 4); empty if nothing was seen.

    Raises:
        InputError: a class has no vector.
    """
    found: dict[str, Neighbour] = {row.name: row for row in nearest_of_any([("", classes)], seen, words)}
    if not found:
        return ()
    rows = [found[name] for name in classes]
    return tuple(NearestSeen(row.test_class, row.test_set, row.distance) for row in rows)
