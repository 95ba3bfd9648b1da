"""Domain shift: what is learnt within a source, what across, and that nothing else differs."""

from dataclasses import replace

import pytest
import torch

from engine.errors import InputError
from engine.heads.classes import WordClasses
from engine.heads.labelled import LabelledFeatures
from engine.heads.ridge import RidgeHead
from engine.heads.sequences import Sequences
from engine.heads.shift import measure_shift, shared_classes, shift_table
from engine.semantics.config import WordsConfig

NAMES = ("archery", "diving", "juggling", "surfing", "swing", "typing")
WORDS = WordClasses(WordsConfig(source="glove"))
WIDTH, EACH = 12, 12


def source(names, moved=(), seed=0) -> LabelledFeatures:
    """Videos near the place of their class; those of `moved` at the place of the class after it: another source."""
    places = 3 * torch.randn(len(NAMES), WIDTH, generator=torch.Generator().manual_seed(1))
    index = [(NAMES.index(name) + (name in moved)) % len(NAMES) for name in names]
    label = torch.arange(len(names)).repeat_interleave(EACH)
    noise = 0.1 * torch.randn(len(label), WIDTH, generator=torch.Generator().manual_seed(seed))
    return LabelledFeatures(Sequences.of(list((places[index][label] + noise)[:, None])), label, tuple(names))


GROUPS = [f"g{place // 3}" for place in range(EACH)] * len(NAMES)  # four of each class


def test_a_source_that_looks_alike_loses_nothing_and_one_that_does_not_much():
    here = source(NAMES)
    there = source(("typing", "swing"), moved=("typing",), seed=2)
    shared = shared_classes(here.classes, there.classes, WORDS, 0.05)
    assert shared == {"swing": "swing", "typing": "typing"}
    found = {each.name: each for each in measure_shift(here, GROUPS, there, shared, RidgeHead, WORDS)}
    assert (found["swing"].within, found["swing"].across, found["typing"].within) == (1, 1, 1)
    assert found["typing"].across <= 0.5  # what lies where nothing was learnt gets any name
    assert {(each.videos, each.learnt, each.chance) for each in found.values()} == {(EACH, EACH / 2, 1 / len(NAMES))}
    table = shift_table("ridge", list(found.values())).rows
    assert [row[0] for row in table] == ["swing", "typing", "mean"] and table[0][6] == "+0.000"
    assert table[1][6] == f"{found['typing'].across - 1:+.3f}"
    assert table[2][4] == 1 and table[2][6].startswith("-0.") and "to" in table[2][6]


def test_no_group_stands_on_both_sides_and_both_ways_learn_as_much():
    here, there = source(NAMES), source(("typing",), seed=2)
    there = LabelledFeatures(there.videos[torch.arange(4)], there.label[:4], there.classes)  # fewer than half
    asked = []

    class Asked(RidgeHead):
        def fit(self, videos, label, classes, seed):
            super().fit(videos, label, classes, seed)
            self.learnt = (label.bincount().tolist(), {tuple(each.tolist()) for each in videos.values})

        def rank(self, videos, classes):
            asked.append((*self.learnt, {tuple(each.tolist()) for each in videos.values}))
            return super().rank(videos, classes)

    (found,) = measure_shift(here, GROUPS, there, {"typing": "typing"}, Asked, WORDS)
    assert found.learnt == 4 and len(asked) == 4
    assert all(counts == [EACH] * 5 + [4] and not learnt & tested for counts, learnt, tested in asked)
    typing = here.videos.values[here.label == 5]
    group_of = {tuple(each.tolist()): GROUPS[60 + place] for place, each in enumerate(typing)}
    for _, learnt, tested in asked:
        sides = [{group_of[each] for each in side if each in group_of} for side in (learnt, tested)]
        assert not sides[0] & sides[1] and len(sides[1]) == 2
    assert asked[0][2] == asked[1][2] and asked[0][2] | asked[2][2] == set(group_of)  # each half once


def test_what_is_asked_about_is_not_learnt_across():
    """Of a source that has the very videos, whatever is asked about is learnt from neither way; without others nothing is."""
    here = source(NAMES)
    here = replace(here, shown=torch.arange(len(here.label)))
    asked = []

    class Asked(RidgeHead):
        def fit(self, videos, label, classes, seed):
            super().fit(videos, label, classes, seed)
            self.learnt = {tuple(each.tolist()) for each in videos.values}

        def rank(self, videos, classes):
            asked.append(self.learnt & {tuple(each.tolist()) for each in videos.values})
            return super().rank(videos, classes)

    (found,) = measure_shift(here, GROUPS, here, {"typing": "typing"}, Asked, WORDS)
    assert (found.learnt, found.left_out) == (EACH / 2, EACH) and not any(asked) and len(asked) == 4
    fewer = here.only(["typing"])
    fewer = replace(fewer, label=torch.where(torch.arange(EACH) < 3, 0, -1))  # one group, which one half asks about
    with pytest.raises(
        InputError, match="class 'typing' of the other source has no video but those that are asked about"
    ):
        measure_shift(here, GROUPS, fewer, {"typing": "typing"}, Asked, WORDS)


def test_a_class_is_learnt_from_what_it_is_called_there():
    """And from nothing else, though that source has a class of its own name too."""
    there = source(("typing", "swing"), seed=2)
    theirs, swing = ({tuple(each.tolist()) for each in there.videos[there.label >= least].values} for least in (0, 1))
    learnt = []

    class Learning(RidgeHead):
        def fit(self, videos, label, classes, seed):
            learnt.append({tuple(each.tolist()) for each in videos.values})
            super().fit(videos, label, classes, seed)

    (found,) = measure_shift(source(NAMES), GROUPS, there, {"typing": "swing"}, Learning, WORDS)
    assert found.there == "swing" and not (learnt[0] | learnt[2]) & theirs
    assert all(across & theirs and across & theirs <= swing for across in (learnt[1], learnt[3]))


def test_a_seed_decides_which_groups_are_learnt_from():
    asked: list[torch.Tensor] = []

    class Asked(RidgeHead):
        def rank(self, videos, classes):
            asked.append(videos.values)
            return super().rank(videos, classes)

    for seed in (0, 0, 1, 2, 3):
        measure_shift(source(NAMES), GROUPS, source(NAMES, seed=2), {"typing": "typing"}, Asked, WORDS, seed)
    first, again, *others = asked[::4]  # of each: two halves, learnt in two ways
    assert torch.equal(first, again) and not all(torch.equal(first, other) for other in others)


def test_equal_names_are_shared_though_their_cosine_is_rounded():
    names = ("archery", "apply lipstick", "playing cello", "walking with a dog", "horse riding", "sky diving", "typing")
    shared = shared_classes(names, ["swing", *reversed(names)], WORDS, 0.0)
    assert shared == {name: name for name in names} and tuple(shared) == names


def test_two_classes_that_are_one_class_there_do_not_learn_its_videos_twice():
    there = ("surfing", "PlayingGuitar")
    shared = shared_classes(("surfing", "playing guitar", "play the guitar"), there, WORDS, 0.05)
    assert sorted(shared.values()) == sorted(there) and set(shared) < {"surfing", "playing guitar", "play the guitar"}


def test_what_cannot_be_measured():
    with pytest.raises(InputError, match=r"no class of the one set lies within 0\.05"):
        shared_classes(NAMES, ["knitting"], WORDS, 0.05)
    with pytest.raises(InputError, match="class 'swing' has one group of videos alone"):
        measure_shift(source(NAMES), ["g0"] * EACH * 6, source(("swing",)), {"swing": "swing"}, RidgeHead, WORDS)
