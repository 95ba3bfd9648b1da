"""Generalised zero-shot evaluation: seen and unseen classes compete for every video (Xian et al., PAMI 2018).

In the paper's protocols only unseen classes are candidates. A user's video may be of either kind, and a
model that was trained on the seen ones tends to answer with those: here the candidates are both.

    videos of seen classes, held out ──┐                                     ┌──▶ seen accuracy S   ──┐
    videos of unseen classes ──────────┴──▶ nearest of *all* class vectors ──┴──▶ unseen accuracy U ──┴──▶ 2SU / (S + U)
"""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.data.config import DataConfig, SourceConfig
from engine.data.footage import Footage, file_identities
from engine.data.sources import DataSet, load_held_out, load_source
from engine.errors import InputError
from engine.evaluate import EmbeddedVideos
from engine.metrics import ZeroShotResult, evaluate_embeddings
from engine.results.accuracy import Accuracy
from engine.results.table import Table
from engine.semantics.classes import ClassEmbeddings
from kernels.cosine_topk import cosine_topk


@dataclass(frozen=True, slots=True)
class GeneralisedResult:
    """What seen and unseen videos gave when all classes were candidates.

    seen, unseen: accuracy of the videos of each kind.
    unseen_as_seen: share of the unseen classes' videos that were given a seen class.
    left_out: classes of the test set that were trained on, by vector or name: they are not unseen, and in no number.
    """

    name: str
    num_seen_classes: int
    num_unseen_classes: int
    seen: Accuracy
    unseen: Accuracy
    unseen_as_seen: float
    left_out: tuple[str, ...]

    @property
    def harmonic_mean(self) -> float:
        """Of the mean-class accuracies of both kinds; 0 if one of them is."""
        seen, unseen = self.seen.mean_class, self.unseen.mean_class
        return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**dataclasses.asdict(self), "harmonic_mean": self.harmonic_mean}


def seen_videos(
    config: DataConfig, train_classes: Sequence[str], footage: Footage | None, source: SourceConfig | None = None
) -> tuple[DataSet, list[str]]:
    """Videos of seen classes that were not trained on: those of `source`, or those that the run itself held out.

    Args:
        footage: what the model was trained on and what was held out of it; None, with a `source`, where nothing tells.

    Returns:
        The videos, and lines that say what was left out of them.

    Raises:
        InputError: none were held out, all were trained on, or `source` has a class that was not trained on.
    """
    if source is None:
        data = load_held_out(config, train_classes, footage)
        seen, notes = data.held_out_videos, [f"warning: {change}: left out" for change in data.changes]
    else:
        seen, notes = load_source(source), []
        unknown = sorted(set(seen.classes) - set(train_classes))
        if unknown:
            raise InputError(
                f"videos of seen classes, '{seen.name}': the model was not trained on {', '.join(unknown)}"
            )
    if footage is None:
        return seen, notes
    trained = np.isin(file_identities(seen.manifest), footage.trained_files)
    if trained.all():
        raise InputError(f"videos of seen classes, '{seen.name}': all {len(trained)} were trained on: name new videos")
    if trained.any():
        notes.append(
            f"warning: {trained.sum()} of {len(trained)} videos of '{seen.name}' were trained on, by their contents: left out"
        )
        seen = DataSet(seen.name, seen.manifest.select(~trained))
    return seen, notes


def evaluate_generalised(
    seen: tuple[DataSet, EmbeddedVideos],
    unseen: tuple[DataSet, EmbeddedVideos],
    seen_classes: ClassEmbeddings,
    unseen_classes: ClassEmbeddings,
    device: torch.device,
    trained: Collection[str] = (),
) -> GeneralisedResult:
    """Score embeddings that were computed before.

    Seen classes with equal vectors (one class in two training sets, spelt differently) count as one.

    Args:
        seen: held-out videos of the training classes; unseen: a test set.
        seen_classes: all classes of the training; unseen_classes: all of the test set.
        trained: classes of the test set that were trained on by another name or with another vector.

    Raises:
        InputError: a class of the videos has no vector, no class of the test set is unseen, or there is no video.
    """
    vectors = torch.cat([seen_classes.vectors, unseen_classes.vectors]).to(device=device, dtype=torch.float32)
    # The first of all candidates with the same vector, which is also what the nearest-class search answers.
    first_alike = cosine_topk(vectors, vectors, 1)[1][:, 0].cpu().numpy()
    num_seen = len(seen_classes)
    names = np.array(unseen_classes.names, dtype=object)
    known = np.concatenate([np.ones(num_seen, dtype=bool), np.isin(names, list(trained))])
    is_unseen = ~(known[num_seen:] | known[first_alike[num_seen:]])
    if not is_unseen.any():
        raise InputError(f"test set '{unseen[0].name}': every class is a training class, so none is unseen")
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
    return GeneralisedResult(
        name=unseen[0].name,
        num_seen_classes=len(set(seen_lookup.values())),
        num_unseen_classes=int(is_unseen.sum()),
        seen=seen_result.all_classes,
        unseen=unseen_result.all_classes,
        unseen_as_seen=float((unseen_result.predicted[:, 0] < num_seen).mean()),
        left_out=tuple(names[~is_unseen]),
    )


def generalised_table(results: Sequence[GeneralisedResult]) -> Table:
    """Mean-class accuracy of seen and unseen classes among all candidates, and the harmonic mean."""
    rows = [
        [r.name, f"{r.num_seen_classes} + {r.num_unseen_classes}", r.seen.mean_class, r.unseen.mean_class,
         r.harmonic_mean, r.unseen_as_seen, len(r.left_out)]
        for r in results
    ]  # fmt: skip
    header = [
        "generalised",
        "seen + unseen classes",
        "seen",
        "unseen",
        "harmonic mean",
        "unseen taken for seen",
        "left out",
    ]
    return Table(header, rows)


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
