"""What a moment run reached, beside what is reached without the model, without the query, and without training."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.models.embedder import Embedder
from engine.moments.measures import IOUS, RANKS, Measured, measure
from engine.moments.prior import fit_prior
from engine.moments.retrieval import high_moments, relevance
from engine.moments.search import MEASURED, MomentFinder
from engine.processes.distributed import broadcast_from_main, gather
from engine.processes.watchdog import WAITING
from engine.results.record import FILE, read_tree_of, replacing
from engine.results.table import Table
from engine.tasks.moments.data import MomentData, MomentSet
from engine.training.checkpoint import checkpoint_file
from engine.training.run import Run

_AT_ONCE = 256  # queries between two looks of the watchdog
# Of the config, that a record tells.
_OPTIONS = ("fusion", "frame_weight", "frame_score", "boundary_noise", "noise_seed", "max_overlap")


@dataclass(frozen=True)
class SplitResult:
    """A test split: the model, the model asked with queries of other videos, and cosine alone (None: features and words do not
    share a space). prior: R@1 at each of `IOUS` of the query-blind interval, fitted on the training queries."""

    model: Measured
    wrong_queries: Measured | None
    untrained: Measured | None
    prior: Mapping[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        parts = {"model": self.model, "wrong_queries": self.wrong_queries, "untrained": self.untrained}
        prior = {f"R@1_IoU{at:g}": value for at, value in self.prior.items()}
        return {name: part.to_dict() if part else None for name, part in parts.items()} | {"prior": prior}


@dataclass(frozen=True)
class MomentResults:
    """results.json of a moment run. facts: what was evaluated, and how. tests: by split."""

    facts: Mapping[str, Any]
    tests: Mapping[str, Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**self.facts, "tests": dict(self.tests)}


@dataclass(frozen=True)
class MomentOutcome:
    """What `conclude` returns: the run's folder and its record."""

    folder: Path
    results: MomentResults


def finder(run: Run, data: MomentData) -> MomentFinder:
    """The model that is measured, ready to search."""
    return MomentFinder(run.evaluated, data.queries, data.config, run.ranks.device, run.precision)


def find_all(run: Run, data: MomentData, part: MomentSet, tokens: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The `MEASURED` best moments of each query of a set, its tokens given apart. Collective: every rank finds its share."""
    search, ranks = finder(run, data), run.ranks
    mine = range(ranks.rank, len(part), ranks.world_size)
    found = []
    for begin in range(0, len(mine), _AT_ONCE):
        run.watchdog.beat(run.step, "evaluating")
        rows = mine[begin : begin + _AT_ONCE]
        found += search.find_pairs(
            [(data.segments(part.annotations.videos[row]), tokens[row]) for row in rows], MEASURED
        )
    run.watchdog.beat(run.step, WAITING)
    of_all = gather(found)
    return [of_all[row % ranks.world_size][row // ranks.world_size] for row in range(len(part))]


def evaluate_split(run: Run, data: MomentData, part: MomentSet) -> SplitResult:
    """Collective: all ranks call it and get the same."""
    true = part.annotations.windows
    model = measure(find_all(run, data, part, part.tokens), true)
    other = other_queries(part.annotations.videos)
    wrong = None
    if len(other):
        swapped = [part.tokens[row] for row in other]
        found = find_all(run, data, part, swapped)
        wrong = measure(found, true)
    known = data.train.annotations
    prior = fit_prior(known).recall(part.annotations)
    return SplitResult(model, wrong, untrained(data, part), prior)


def other_queries(videos: Sequence[str]) -> np.ndarray:
    """For each query a query of another video, each used once: int64 [N]; empty where one video has more than half of them."""
    if why_not_others(videos):
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(np.array(videos, dtype=object), kind="stable")
    other = np.empty(len(videos), dtype=np.int64)
    other[order] = np.roll(order, _most(videos))
    return other


def why_not_others(videos: Sequence[str]) -> str | None:
    """Why not each query can be asked of another video; None if it can."""
    most = _most(videos)
    return f"{most} of its {len(videos)} queries are of one video, more than half" if 2 * most > len(videos) else None


def _most(videos: Sequence[str]) -> int:
    """Queries of the video that has the most."""
    return max(Counter(videos).values())


def _projection(data: MomentData) -> Embedder | None:
    """The network that the features come from, if it has a linear layer to bring them beside words."""
    network = data.encoder.model if data.encoder else None
    return None if network is None or network.linear is None else network


def why_not_untrained(data: MomentData) -> str | None:
    """Why the features cannot be held against words as they are; None if they can."""
    network, words = _projection(data), data.queries.dim
    if network is not None and network.embed_dim != words:
        return f"their network points into {network.embed_dim} numbers, a word of the queries has {words}"
    if network is None and data.features.stamp.width != words:
        return (
            f"they have {data.features.stamp.width} numbers, a word of the queries has {words}, and moments.encoder names no "
            "network with a linear layer between them"
        )
    return None


def untrained(data: MomentData, part: MomentSet) -> Measured | None:
    """Cosine of windows and queries, where the features can be held against words: by the linear layer of the network that they
    come from, or as they are if they are as long as a word's vector."""
    if why_not_untrained(data):
        return None
    network = _projection(data)
    found = []
    for video, query in zip(part.annotations.videos, part.annotations.queries, strict=True):
        segments = data.segments(video)
        points = segments.features
        if network is not None:
            with torch.inference_mode():
                points = network.project(torch.from_numpy(points).to(network.linear.weight.device)).cpu().numpy()
        curve = relevance(points, data.queries.sentence(query))
        found.append(high_moments(curve, segments.edges, count=MEASURED, max_overlap=data.config.max_overlap))
    return measure(found, part.annotations.windows)


def conclude(run: Run, data: MomentData) -> MomentOutcome:
    """Measure the best checkpoint on all test splits and write results.json. Collective."""
    tests = {part.name: evaluate_split(run, data, part) for part in data.tests}
    results = MomentResults(facts(run, data), {name: result.to_dict() for name, result in tests.items()})
    if run.ranks.is_main:
        with replacing(run.folder, results):
            pass
    return MomentOutcome(run.folder, results)


def recorded(run: Run, data: MomentData) -> MomentOutcome | None:
    """What an earlier start has concluded of this very evaluation. Collective."""
    found = None
    if run.ranks.is_main and (run.folder / FILE).is_file():
        wanted = facts(run, data)
        tree = read_tree_of(run.folder, wanted) or {}
        if "tests" in tree:
            found = MomentOutcome(run.folder, MomentResults(wanted, tree["tests"]))
    return broadcast_from_main(found)


def facts(run: Run, data: MomentData) -> dict[str, Any]:
    """What is evaluated, and how."""
    videos = {part.name: digest for part in (data.train, *data.tests) if (digest := data.videos_digest(part))}
    return {
        "task": "moments",
        "checkpoint": str(checkpoint_file(run.folder).relative_to(run.folder)),
        "step": run.best["step"],
        "best": dict(run.best),
        "trained_steps": run.step,
        "weights": run.config.evaluate.weights,
        "features": {"model": data.features.stamp.model, "digest": data.features.stamp.digest},
        "queries": data.queries.description,
        "training_queries": len(data.train),
        "test_queries": {part.name: len(part) for part in data.tests},
        "annotations": {part.name: part.annotations.digest for part in (data.train, *data.tests)},
        **({"videos": videos} if videos else {}),
        "moments_of_a_query": MEASURED,
        "options": {name: value for name, value in asdict(data.config).items() if name in _OPTIONS},
    }


def show(outcome: MomentOutcome) -> None:
    """The closing table: the model beside prior, wrong queries and no training."""
    for split, result in outcome.results.tests.items():
        rows = []
        told = (
            ("model", "model"),
            ("queries of other videos", "wrong_queries"),
            ("no training", "untrained"),
            ("no query", "prior"),
        )
        for title, key in told:
            numbers = result[key]
            if numbers is not None:
                recall = [numbers.get(f"R@{k}_IoU{at:g}") for k in RANKS for at in IOUS]
                rows.append([title, *recall, numbers.get("mean_IoU"), numbers.get("mAP")])
        header = [split, *(f"R@{k} {at:g}" for k in RANKS for at in IOUS), "mean IoU", "mAP"]
        print("\n" + Table(header, rows).text())
    rows = [["checkpoint", checkpoint_file(outcome.folder)], ["results", outcome.folder / FILE]]
    print("\n" + Table(["what", "where"], rows).text(), flush=True)
