"""Heads over random splits of the classes of a data set: who names the unseen classes how well, and by how much.

The splits are those of `tools/untrained_splits.py`. In each split every head is fitted to the seen classes' videos twice: with
the class vectors, and with random ones (the control, drawn anew in every split), which must stay at chance.

Videos of further data sets may be learnt from in every split. With a `tau`, all seen classes, wherever they are from, that
overlap with an unseen class of the split are left out of it: within `tau` by their words, or sharing words
(engine/semantics/overlap.py). A video that shows what one of an unseen class does, whatever it is called, is never learnt from.
Of the classes that are left, some may be drawn: fewer are part of more, so that accuracy over the number of seen classes is
measured on the same unseen ones.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch

from engine.data.config import ClassSplitConfig
from engine.data.sets.class_splits import draw_classes, split_classes
from engine.errors import InputError
from engine.evaluation import metrics
from engine.evaluation.transductive import name_together
from engine.heads.catalogue import HEADS, OBJECT_HEADS
from engine.heads.classes import RANDOM_DIM, Classes, RandomClasses, WordClasses
from engine.heads.head import Head
from engine.heads.labelled import LabelledFeatures
from engine.heads.objects import KnownObjects
from engine.heads.sequences import Sequences
from engine.heads.trained import TrainedHead
from engine.models.embedder import Embedder
from engine.models.image_weights import INSTALLED, imagenet_classes, installed_network
from engine.naming.known_classes import known_vectors
from engine.results.spread import difference, mean_of
from engine.semantics.config import WordsConfig
from engine.semantics.same_names import shares_words
from engine.terminal.wording import counted

WORDS, RANDOM = "words", "random words"
TRAINED = "trained"  # the head that a run brings with it
ALL = "all"  # of the unseen classes


Part = tuple[LabelledFeatures, Sequence[str]]  # and the classes of it that are learnt from
Learnt = tuple[Sequences, torch.Tensor, list[str]]  # videos, the class of each as an index, what the classes are called


@dataclass(frozen=True, slots=True)
class Measured:
    """A head in a split: accuracy on the videos of some of the unseen classes, named among all of these; chance; the share of
    the largest of those; seconds of fitting; the classes learnt from; the videos that were not, for one of the unseen classes shows
    the same."""

    head: str
    words: str
    split: int
    top1: float
    mean_class: float
    chance: float
    largest: float
    fit_s: float
    seen: int = 0
    count: int | None = None  # as many of the seen classes were drawn; None: all
    of: str = ALL  # the unseen classes whose videos these are
    left_out: int = 0


def measure(
    data: LabelledFeatures,
    splits: Sequence[ClassSplitConfig],
    heads: Sequence[str],
    words: WordsConfig,
    also: Sequence[LabelledFeatures] = (),
    tau: float | None = None,
    trained: Embedder | None = None,
    counts: Sequence[int] = (),
    apart: Mapping[str, Collection[str]] | None = None,
    model: str = INSTALLED,
    *,
    transductive: bool = False,
    occurring: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[Measured]:
    """Each head in each split, with the class vectors of `words` and with random ones.

    Args:
        also: further videos to learn from, of features of the same kind.
        tau: cosine distance of two names up to which they overlap; None: no seen class is left out.
        trained: the model whose features these are and whose words `words` are, for the head `TRAINED`.
        counts: numbers of seen classes to draw, all measured; none: all that a split has.
        apart: kinds of classes, by what they are called; the videos of those unseen are also measured by themselves.
        model: of the features, as their stamp has it; asked for by object heads alone.
        transductive: behind each head also its answers when it names the videos of a split together.
        occurring: ask about the videos of so many of a split's unseen classes, the first ones; all stay candidates.
        tell: is told, before anything is fitted, how many videos are not learnt from, for they are asked about.

    Raises:
        InputError: too few classes for the split, a count or a head, nothing is left to learn from, or a class without a vector.
    """
    named = WordClasses(words)
    objects = _objects(words, model) if set(heads) & set(OBJECT_HEADS) else None
    sides = {split.seed: split_classes(data.classes, split) for split in splits}
    sets = {seed: _left(data, also, side, named, tau, seed) for seed, side in sides.items()}
    for seed, (parts, _) in sets.items():
        _check_counts(seed, len(_names(parts)), counts, len(sides[seed]["unseen"]), occurring)
    if left_out := sum(count for _, count in sets.values()):
        tell(
            f"warning: {counted(left_out, 'video')} to learn from, over {counted(len(sets), 'split')}, show what one of an unseen "
            "class of the split does, by their contents: left out of what is learnt"
        )
    for seed, side in sides.items():
        question = _Question.of(data, side["unseen"], occurring, apart or {})
        control = RandomClasses(seed, trained.embed_dim if trained else RANDOM_DIM)
        parts, left_out = sets[seed]
        for count in counts or [None]:
            learnt = together(_drawn(parts, count, seed))
            for kind, source in ((WORDS, named), (RANDOM, control)):
                known = objects if kind == WORDS or objects is None else _objects(source.source.config, model)
                makers = _makers(known, trained)
                asked = _answers({name: makers[name] for name in heads}, learnt, source, seed, question, transductive)
                for way, scores, seconds in asked:
                    for of, got in question.accuracies(scores):
                        shares = (got.top1, got.mean_class, 1 / len(question.unseen), got.largest_class)
                        yield Measured(way, kind, seed, *shares, seconds, len(set(learnt[2])), count, of, left_out)


def _check_counts(seed: int, num_seen: int, counts: Sequence[int], num_unseen: int, occurring: int | None) -> None:
    """Refuse to draw more classes than a split has, seen ones to learn from or unseen ones to ask about."""
    if (most := max(counts, default=0)) > num_seen:
        raise InputError(f"split {seed} has {num_seen} seen classes without those that overlap: {most} are asked for")
    if (occurring or 0) > num_unseen:
        raise InputError(
            f"split {seed} has {num_unseen} unseen classes: {occurring} of them cannot occur (--occurring)"
        )


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked in a split: which of its unseen classes each of `videos` shows.

    truth: int64 [V], their classes as indices into `unseen`. kinds: of kinds of unseen classes, which videos are theirs, bool [V].
    """

    unseen: list[str]
    videos: Sequences
    truth: torch.Tensor
    kinds: Mapping[str, torch.Tensor]

    @classmethod
    def of(
        cls, data: LabelledFeatures, unseen: list[str], occurring: int | None, apart: Mapping[str, Collection[str]]
    ) -> Self:
        """About the videos of the first `occurring` of the unseen classes, or of all; by kinds of `apart` too."""
        videos, truth = data.among(unseen)
        if occurring is not None:
            videos, truth = videos[truth < occurring], truth[truth < occurring]
        kinds = {ALL: unseen, **apart}
        of_kind = {of: torch.tensor([name in names for name in unseen])[truth] for of, names in kinds.items()}
        return cls(unseen, videos, truth, of_kind)

    def accuracies(self, scores: torch.Tensor) -> Iterator[tuple[str, metrics.Accuracy]]:
        """Of scores [V, K]: for each kind of unseen classes that has videos."""
        for of, rows in self.kinds.items():
            if rows.any():
                yield of, accuracy(scores[rows], self.truth[rows])


def _answers(
    heads: Mapping[str, Callable[[], Head]],
    learnt: Learnt,
    source: Callable[[Sequence[str]], Classes],
    seed: int,
    question: _Question,
    transductive: bool,
) -> Iterator[tuple[str, torch.Tensor, float]]:
    """What each head, fitted to what is learnt, answers: what it is called, its scores [V, K], and seconds of fitting."""
    videos, label, names = learnt
    for name, make in heads.items():
        head, seen = make(), source(names)
        started = time.perf_counter()
        head.fit(videos, label, seen, seed)
        seconds = time.perf_counter() - started
        scores = head.rank(question.videos, source(question.unseen))
        yield name, scores, seconds
        if transductive:
            yield f"{name}, transductive", name_together(question.videos.means(), scores), seconds


def _left(
    data: LabelledFeatures,
    also: Sequence[LabelledFeatures],
    sides: Mapping[str, list[str]],
    words: WordClasses,
    tau: float | None,
    seed: int,
) -> tuple[list[Part], int]:
    """What a split may learn from: the seen classes of each set that overlap with no unseen one, without the videos that show what
    one of an unseen class does; and how many these are."""
    parts: list[Part] = [(data, sides["train"]), *((each, each.classes) for each in also)]
    if tau is not None:
        parts = [(each, apart_from(sides["unseen"], names, words, tau)) for each, names in parts]
    if not any(names for _, names in parts):
        raise InputError(f"split {seed}: every seen class overlaps with an unseen one at a distance of {tau:g}")
    found = [_unasked(part, data.shown_by(sides["unseen"])) for part in parts]
    if not any(names for (_, names), _ in found):
        raise InputError(
            f"split {seed}: every video to learn from shows what one of an unseen class does, by its contents"
        )
    return [part for part, _ in found], sum(count for _, count in found)


def _unasked(part: Part, asked: torch.Tensor | None) -> tuple[Part, int]:
    """A part without the videos that show one of `asked`, and without classes that have no others; how many videos these are."""
    data, names = part
    rest = data.without(asked)
    before, after = data.counts(), rest.counts()
    return (rest, [name for name in names if after[name] or not before[name]]), sum(before[n] - after[n] for n in names)


def _names(parts: Sequence[Part]) -> list[str]:
    return list(dict.fromkeys(name for _, names in parts for name in names))


def _drawn(parts: Sequence[Part], count: int | None, seed: int) -> Sequence[Part]:
    """The parts with so many of their classes, drawn as tools/experiments.py draws them for its first subset."""
    if count is None:
        return parts
    chosen = set(draw_classes(_names(parts), count, (seed, 0)))
    return [(data, [name for name in names if name in chosen]) for data, names in parts]


def head_makers(heads: Sequence[str], words: WordsConfig, model: str) -> dict[str, Callable[[], Head]]:
    """What makes each of these heads over features of `model`, by name, with the class vectors of `words`."""
    return _makers(_objects(words, model) if set(heads) & set(OBJECT_HEADS) else None, None)


def _makers(known: KnownObjects | None, trained: Embedder | None) -> dict[str, Callable[[], Head]]:
    """What makes each head, by name; of those only that what is at hand serves."""
    of_objects = {name: partial(make, known) for name, make in OBJECT_HEADS.items()} if known else {}
    return {**HEADS, **of_objects, **({TRAINED: partial(TrainedHead, trained)} if trained else {})}


def apart_from(unseen: Sequence[str], names: Sequence[str], words: WordClasses, tau: float) -> list[str]:
    """Those of the names that overlap with no unseen class, neither by the distance of their vectors nor by their words."""
    near = (words(names).vectors @ words(unseen).vectors.T).max(dim=1).values
    return [
        name
        for name, cosine in zip(names, near.tolist(), strict=True)
        if 1 - cosine > tau and not any(shares_words(name, other) for other in unseen)
    ]


def together(parts: Sequence[Part]) -> Learnt:
    """The videos of some classes of each set, their classes as indices, and what these are: all those names in turn.

    One name of two sets stays two classes.
    """
    videos, labels, names = [], [], []
    for data, chosen in parts:
        own, label = data.among(chosen)
        videos.append(own)
        labels.append(label + len(names))
        names += chosen
    return Sequences.joined(videos), torch.cat(labels), names


def _objects(words: WordsConfig, model: str) -> KnownObjects:
    """What the installed network of that name knows, named in `words`."""
    return KnownObjects(*installed_network(model).classifier(), known_vectors(imagenet_classes(), words))


def accuracy(scores: torch.Tensor, label: torch.Tensor) -> metrics.Accuracy:
    """Of scores [V, K] of videos of classes int64 [V]; mean-class over those that have videos."""
    return metrics.accuracy(scores.argmax(dim=1, keepdim=True).numpy(), label.numpy(), scores.shape[1])


def summarise(found: Sequence[Measured], baseline: str) -> Iterator[Mapping[str, object]]:
    """A row for each head, kind of words, number of seen classes and kind of unseen ones: mean and standard deviation over
    the splits, and the paired difference.

    difference: mean-class accuracy less that of `baseline` in the same split with all else the same, mean over the splits;
    difference_low and _high: its 95 % interval (Student's t). Splits share classes and videos and are no independent draws,
    so it is too narrow. One split has neither interval nor standard deviation: they are None.
    """
    values: dict[tuple[str, str, int | None, str], dict[int, Measured]] = {}
    for each in found:
        values.setdefault((each.head, each.words, each.count, each.of), {})[each.split] = each
    for (head, *rest), mine in values.items():
        base = values[baseline, *rest]
        row: dict[str, object] = dict(zip(("head", "words", "count", "of"), (head, *rest), strict=True))
        row["splits"] = len(mine)
        for name in ("top1", "mean_class", "chance", "largest", "fit_s", "seen"):
            numbers = mean_of([getattr(each, name) for each in mine.values()])
            row |= {name: numbers.value, f"{name}_sd": numbers.spread}
        gap = difference([(each.mean_class, base[split].mean_class) for split, each in mine.items()])
        yield row | {"difference": gap.value, "difference_low": gap.low, "difference_high": gap.high}
