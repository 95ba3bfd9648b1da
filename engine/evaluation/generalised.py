"""Generalised zero-shot evaluation: seen and unseen classes compete for every video (Xian et al., PAMI 2018).

In the paper's protocols only unseen classes are candidates. A user's video may be of either kind, and a
model that was trained on the seen ones tends to answer with those: here the candidates are both. How much of that is a bias
for seen classes, and what a bias against them gains, `calibration` tells; it is chosen where the run held whole classes out
of its training, never on videos that are measured with it.

    videos of seen classes, held out ──┐                                     ┌──▶ seen accuracy S   ──┐
    videos of unseen classes ──────────┴──▶ nearest of *all* class vectors ──┴──▶ unseen accuracy U ──┴──▶ 2SU / (S + U)
"""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.data.manifests.contents import file_identities
from engine.data.sets.sources import DataSet
from engine.errors import InputError
from engine.evaluation.calibration import (
    Contest,
    area_under_curve,
    best_bias,
    harmonic_mean,
    seen_accuracy,
    unseen_accuracy,
)
from engine.evaluation.embedding import EmbeddedVideos
from engine.evaluation.metrics import ZeroShotResult, evaluate_embeddings
from engine.results.accuracy import Accuracy
from engine.results.table import Table
from engine.semantics.embeddings import ClassEmbeddings
from kernels.cosine_topk import cosine_topk

Embedded = tuple[DataSet, EmbeddedVideos]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a bias against seen classes gave that other videos chose: those that the run held out.

    bias: what is taken off the cosine of a seen class, mean of `biases`, one chosen with each half of the held-out videos
        of seen classes (halves by contents; all of the held-out classes' videos are in both). A seen video is measured with
        the bias of the half that it is not in, unseen videos with both.
    seen, unseen: mean-class accuracies. classes: the held-out classes. num_videos: that chose, of both kinds.
    """

    bias: float
    biases: tuple[float, float]
    seen: float
    unseen: float
    harmonic_mean: float
    classes: tuple[str, ...]
    num_videos: int


@dataclass(frozen=True, slots=True)
class GeneralisedResult:
    """What seen and unseen videos gave when all classes were candidates.

    seen, unseen: accuracy of the videos of each kind.
    unseen_as_seen: share of the unseen classes' videos that were given a seen class.
    left_out: classes of the test set that were trained on, by vector or name: they are not unseen, and in no number.
    area: under the curve of seen over unseen mean-class accuracy for all biases. calibrated: at the bias that held-out
        videos chose; None where no class was held out.
    """

    name: str
    num_seen_classes: int
    num_unseen_classes: int
    seen: Accuracy
    unseen: Accuracy
    unseen_as_seen: float
    left_out: tuple[str, ...]
    area: float
    calibrated: Calibrated | None = None

    @property
    def harmonic_mean(self) -> float:
        """Of the mean-class accuracies of both kinds, without a bias; 0 if one of them is."""
        return harmonic_mean(self.seen.mean_class, self.unseen.mean_class)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**dataclasses.asdict(self), "harmonic_mean": self.harmonic_mean}


def evaluate_generalised(
    seen: Embedded,
    unseen: Embedded,
    seen_classes: ClassEmbeddings,
    unseen_classes: ClassEmbeddings,
    device: torch.device,
    trained: Collection[str] = (),
    held: tuple[Embedded, Embedded, ClassEmbeddings] | None = None,
) -> GeneralisedResult:
    """Score embeddings that were computed before.

    Seen classes with equal vectors (one class in two training sets, spelt differently) count as one.

    Args:
        seen: held-out videos of the training classes; unseen: a test set.
        seen_classes: all classes of the training; unseen_classes: all of the test set.
        trained: classes of the test set that were trained on by another name or with another vector.
        held: what may choose a bias: held-out videos of the training classes, those of held-out classes, and the vectors
            of these. Held-out classes that are in the test set, by name, vector or file, choose nothing.

    Raises:
        InputError: a class of the videos has no vector, no class of the test set is unseen, or there is no video.
    """
    vectors, first_alike, is_unseen = find_unseen(unseen[0].name, seen_classes, unseen_classes, device, trained)
    num_seen, names = len(seen_classes), np.array(unseen_classes.names, dtype=object)
    kept = np.concatenate([np.ones(num_seen, dtype=bool), is_unseen])
    index = np.cumsum(kept) - 1  # of a kept candidate among the kept
    candidates = [*seen_classes.names, *names[is_unseen]]
    seen_lookup = {name: int(index[first_alike[i]]) for i, name in enumerate(seen_classes.names)}
    unseen_lookup = {
        name: int(index[first_alike[num_seen + i]]) for i, name in enumerate(unseen_classes.names) if is_unseen[i]
    }
    chosen = vectors[torch.from_numpy(kept).to(device)]
    seen_result = _evaluate(*seen, seen_lookup, candidates, chosen)
    unseen_result = _evaluate(*unseen, unseen_lookup, candidates, chosen, left_out=set(names[~is_unseen]))
    kinds = chosen[:num_seen], chosen[num_seen:]
    measured = _contest(seen_result, kinds, is_seen=True), _contest(unseen_result, kinds, is_seen=False)
    return GeneralisedResult(
        name=unseen[0].name,
        num_seen_classes=len(set(seen_lookup.values())),
        num_unseen_classes=int(is_unseen.sum()),
        seen=seen_result.all_classes,
        unseen=unseen_result.all_classes,
        unseen_as_seen=float((unseen_result.predicted[:, 0] < num_seen).mean()),
        left_out=tuple(names[~is_unseen]),
        area=area_under_curve(*measured),
        calibrated=held
        and _calibrated(held, measured, seen, unseen, kinds[0], seen_lookup, (names, vectors[num_seen:])),
    )


def find_unseen(
    name: str, seen: ClassEmbeddings, tested: ClassEmbeddings, device: torch.device, trained: Collection[str]
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Which classes of a test set are unseen; no video is asked for.

    Args:
        seen: all classes of the training; tested: all of the test set of that name. trained: as in `evaluate_generalised`.

    Returns:
        The vectors of both, float32 [S + C, D] on the device, the seen ones first; of each the first with the same vector,
        int64 [S + C]; and which classes of the test set are unseen, bool [C].

    Raises:
        InputError: none is unseen.
    """
    vectors = torch.cat([seen.vectors, tested.vectors]).to(device=device, dtype=torch.float32)
    # The first of all candidates with the same vector, which is also what the nearest-class search answers.
    first_alike = cosine_topk(vectors, vectors, 1)[1][:, 0].cpu().numpy()
    names = np.array(tested.names, dtype=object)
    known = np.concatenate([np.ones(len(seen), dtype=bool), np.isin(names, list(trained))])
    is_unseen = ~(known[len(seen) :] | known[first_alike[len(seen) :]])
    if not is_unseen.any():
        raise InputError(f"test set '{name}': every class is a training class, so none is unseen")
    return vectors, first_alike, is_unseen


def _contest(result: ZeroShotResult, kinds: tuple[torch.Tensor, torch.Tensor], *, is_seen: bool) -> Contest:
    points = torch.from_numpy(result.embeddings).to(kinds[0].device)
    labels = torch.from_numpy(result.labels - (0 if is_seen else len(kinds[0])))
    return Contest.of(points, labels, *kinds, is_seen=is_seen)


def _calibrated(
    held: tuple[Embedded, Embedded, ClassEmbeddings],
    measured: tuple[Contest, Contest],
    seen: Embedded,
    unseen: Embedded,
    seen_vectors: torch.Tensor,
    seen_lookup: dict[str, int],
    test_classes: tuple[np.ndarray, torch.Tensor],
) -> Calibrated | None:
    """The result at the bias that held-out videos choose; None where too few are left to choose one."""
    (held_seen, held_points), (others, other_points), classes = held
    names, test_vectors = test_classes
    vectors = classes.vectors.to(seen_vectors)
    known = torch.cat([seen_vectors, test_vectors])
    is_new = (cosine_topk(vectors, known, 1)[0][:, 0] < 1 - 1e-6).cpu().numpy() & ~np.isin(classes.names, names)
    files = _files(others, other_points)
    tested = np.unique(others.manifest.class_index[other_points.rows.numpy()][np.isin(files, _files(*unseen))])
    is_new &= ~np.isin(classes.names, [others.classes[index] for index in tested])
    if not is_new.any():
        return None
    rivals = seen_vectors, vectors[torch.from_numpy(is_new).to(vectors.device)]
    kept = [name for name, new in zip(classes.names, is_new, strict=True) if new]
    sides = []
    for (data, embedded), lookup in (((held_seen, held_points), seen_lookup), ((others, other_points), {})):
        lookup = lookup or {name: index for index, name in enumerate(kept)}
        label = np.array([lookup.get(name, -1) for name in data.classes], np.int64)[embedded.class_index.numpy()]
        usable = torch.from_numpy(label >= 0)
        points = embedded.embeddings[usable].to(seen_vectors.device)
        sides.append(Contest.of(points, torch.from_numpy(label)[usable], *rivals, is_seen=data is held_seen))
    known_files = np.unique(held_files := _files(held_seen, held_points))
    if len(known_files) < 2 or not len(sides[1]):
        return None

    def half(files: np.ndarray) -> np.ndarray:
        return np.searchsorted(known_files, files) % 2  # equal contents are in one half

    biases = tuple(best_bias(sides[0].where(half(held_files) == which), sides[1]) for which in (0, 1))
    seen_value = seen_accuracy(measured[0], np.array(biases)[1 - half(_files(*seen))])
    unseen_value = float(np.mean([unseen_accuracy(measured[1], bias) for bias in biases]))
    mean = harmonic_mean(seen_value, unseen_value)
    bias, number = float(np.mean(biases)), sum(map(len, sides))
    return Calibrated(bias, biases, seen_value, unseen_value, mean, tuple(kept), number)


def _files(data: DataSet, embedded: EmbeddedVideos) -> np.ndarray:
    """int64: the contents of each video that has a point."""
    return file_identities(data.manifest)[embedded.rows.numpy()]


def generalised_table(results: Sequence[GeneralisedResult]) -> Table:
    """Mean-class accuracy of seen and unseen classes among all candidates, harmonic means, area under the curve."""
    rows = [
        [r.name, f"{r.num_seen_classes} + {r.num_unseen_classes}", r.seen.mean_class, r.unseen.mean_class,
         r.harmonic_mean, *_calibrated_cells(r.calibrated), r.area, r.unseen_as_seen, len(r.left_out)]
        for r in results
    ]  # fmt: skip
    header = [
        "generalised",
        "seen + unseen classes",
        "seen",
        "unseen",
        "harmonic mean",
        "calibrated: bias",
        "harmonic mean",
        "AUSUC",
        "unseen taken for seen",
        "left out",
    ]
    return Table(header, rows)


def _calibrated_cells(found: Calibrated | None) -> tuple[float | None, float | None]:
    return (None, None) if found is None else (found.bias, found.harmonic_mean)


def _evaluate(
    dataset: DataSet,
    embedded: EmbeddedVideos,
    lookup: dict[str, int],
    candidates: list[str],
    vectors: torch.Tensor,
    left_out: frozenset[str] | set[str] = frozenset(),
) -> ZeroShotResult:
    """Both kinds of videos against all candidates; `lookup`: class name -> candidate."""
    missing = sorted(set(dataset.classes) - set(lookup) - left_out)
    if missing:
        raise InputError(f"set '{dataset.name}': no class vector for {', '.join(map(repr, missing))}")
    labels = np.array([lookup.get(name, -1) for name in dataset.classes], dtype=np.int64)[embedded.class_index.numpy()]
    keep = torch.from_numpy(labels >= 0)
    embeddings = embedded.embeddings[keep].to(vectors.device)
    return evaluate_embeddings(dataset.name, embeddings, torch.from_numpy(labels)[keep], candidates, vectors)
