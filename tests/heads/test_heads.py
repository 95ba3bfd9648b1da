"""Each head on a constructed problem: unseen classes are named where words mean something, at chance where they do not."""

from collections.abc import Callable

import feature_options
import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.data.config import ClassSplitConfig
from engine.data.sets.class_splits import draw_classes, split_classes
from engine.errors import InputError
from engine.evaluation.transductive import name_together
from engine.heads import splits as splits_module
from engine.heads import tarn
from engine.heads.action2vec import Action2VecHead, ranking
from engine.heads.after_url import AfterUrlHead, jensen_shannon
from engine.heads.catalogue import HEADS
from engine.heads.classes import Classes, RandomClasses, WordClasses, has_words
from engine.heads.head import Components, Standard, batches, seeded
from engine.heads.labelled import LabelledFeatures
from engine.heads.sequences import Sequences
from engine.heads.splits import RANDOM, TRAINED, WORDS, Measured, accuracy, measure, summarise
from engine.heads.tarn import TarnHead
from engine.semantics.config import WordsConfig, WordSourceConfig

VERBS, THINGS, UNSEEN, DIM, WIDTH, EACH = 7, 6, 6, 12, 24, 8
TOTAL = VERBS * THINGS
SEEN = TOTAL - UNSEEN


def said(words: Sequences) -> Callable[[], Sequences]:
    return lambda: words


def problem(seed: int = 0) -> tuple[Sequences, torch.Tensor, Classes]:
    """Videos of one to five windows, noisy linear functions of class vectors; a class is a verb and a thing.

    The last classes are the unseen; they have a verb and a thing each that others have, in no pair that others are.
    """
    generator = torch.Generator().manual_seed(seed)
    words = functional.normalize(torch.randn(VERBS + THINGS, DIM, generator=generator), dim=1)
    pairs = torch.cartesian_prod(torch.arange(VERBS), VERBS + torch.arange(THINGS))
    pairs = pairs[torch.randperm(TOTAL, generator=generator)]
    vectors = functional.normalize(words[pairs].sum(dim=1), dim=1)
    mixer = torch.randn(DIM, WIDTH, generator=generator)
    label = torch.arange(TOTAL).repeat_interleave(EACH)
    lengths = torch.randint(1, 6, (len(label),), generator=generator)
    steps = vectors[label].repeat_interleave(lengths, dim=0) @ mixer
    features = steps + 0.4 * torch.randn(steps.shape, generator=generator)
    names = tuple(f"class {index:02}" for index in range(TOTAL))
    return (
        Sequences(5 + 0.1 * features, lengths),
        label,
        Classes(names, vectors, said(Sequences.of(list(words[pairs]))), None),
    )


def part(classes: Classes, chosen: slice) -> Classes:
    rows = torch.arange(len(classes))[chosen]
    return Classes(classes.names[chosen], classes.vectors[chosen], said(classes.words[rows]), None)


BRIEF = {  # heads whose fit takes seconds, a tenth as long: for tests that ask nothing of what they learn
    "action2vec": lambda: Action2VecHead(epochs=2),
    "tarn": lambda: TarnHead(episodes=20),
    "after_url": lambda: AfterUrlHead(steps=50),
}


def fitted(name: str, videos, label, classes, seed: int = 0, heads=HEADS):
    head = heads[name]()
    head.fit(videos[label < SEEN], label[label < SEEN], part(classes, slice(SEEN)), seed)
    return head


def named(name: str, videos, label, classes, seed: int = 0) -> float:
    scores = fitted(name, videos, label, classes, seed).rank(videos[label >= SEEN], part(classes, slice(SEEN, None)))
    return accuracy(scores, label[label >= SEEN] - SEEN).mean_class


def test_a_feature_that_never_changed_says_nothing_of_any_video():
    """Not even of one where it is another; the deviation of the others is that of the videos themselves."""
    standard = Standard.of(torch.tensor([[0.0, 5.0], [2.0, 5.0]]))
    assert standard(torch.tensor([[3.0, 9.0]])).tolist() == [[2.0, 0.0]]


def test_draws_come_from_the_seed_whatever_was_drawn_before():
    """Of weights and of order alike; a number that is drawn behind them is what it would have been without."""

    def drawn(before: int, seed: int) -> list[float]:
        torch.manual_seed(before)
        with seeded(seed) as order:
            found = [torch.rand(()).item(), torch.rand((), generator=order).item()]
        torch.manual_seed(before)
        expected = torch.rand(()).item()
        torch.manual_seed(before)
        with seeded(seed):
            torch.rand(())
        assert torch.rand(()).item() == expected
        return found

    assert drawn(1, 5) == drawn(2, 5)
    assert not {*drawn(1, 5)} & {*drawn(1, 6)}


def test_the_command_line_knows_the_catalogue():
    assert tuple(HEADS) == feature_options.HEAD_NAMES and feature_options.TRAINED_HEAD_NAME == TRAINED


@pytest.mark.parametrize("name", HEADS)
def test_unseen_classes_are_named_and_random_words_are_not(name):
    """Chance is a sixth. The control scatters by classes, not by videos: a class is found whole or not at all."""
    videos, label, classes = problem()
    controls = [named(name, videos, label, RandomClasses(seed)(classes.names), seed) for seed in range(2)]
    assert named(name, videos, label, classes) > 0.6 > 0.4 > sum(controls) / 2


@pytest.fixture(scope="module", params=HEADS)
def head(request):
    """A fitted head with its name, and the state of torch's generator before and after the fit."""
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = fitted(request.param, *dead_problem(), seed=1, heads={**HEADS, **BRIEF})
    return request.param, first, before, torch.random.get_rng_state()


def dead_problem():
    """With a feature that never changes."""
    videos, label, classes = problem()
    return videos.map(lambda values: torch.cat([values, torch.full((len(values), 1), 3.0)], dim=1)), label, classes


def test_a_fit_is_repeatable_and_leaves_the_generator_alone(head):
    name, first, before, after = head
    videos, label, classes = dead_problem()
    unseen = videos[label >= SEEN], part(classes, slice(SEEN, None))
    again = fitted(name, videos, label, classes, seed=1, heads={**HEADS, **BRIEF})
    scores = [each.rank(*unseen) for each in (first, again)]
    assert torch.equal(*scores) and torch.isfinite(scores[0]).all()
    assert torch.equal(before, after)


def test_padding_changes_nothing(head):
    """Each video and each class by itself, where nothing is padded, has the score that it has among longer ones."""
    _, first, _, _ = head
    videos, label, classes = dead_problem()
    few = videos[(label >= SEEN).nonzero()[::9, 0]]
    lengths = torch.tensor([1, 3, 2, 5, 1, 2])
    words = Sequences.of([torch.randn(length, DIM, generator=torch.Generator().manual_seed(0)) for length in lengths])
    unseen = part(classes, slice(SEEN, None))
    unseen = Classes(unseen.names, unseen.vectors, said(words), None)
    together = first.rank(few, unseen)
    assert len(few.lengths.unique()) > 2 and together.std(dim=0).min() > 1e-3
    for row in range(len(few)):
        alone = first.rank(few[torch.tensor([row])], unseen)
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-5)
    for index in range(UNSEEN):
        one = Classes(
            unseen.names[index : index + 1],
            unseen.vectors[[index]],
            said(words[torch.tensor([index])]),
            None,
        )
        torch.testing.assert_close(first.rank(few, one)[:, 0], together[:, index], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["action2vec", "tarn"])
def test_the_order_of_windows_counts_in_recurrent_heads(name):
    """Classes whose windows are the same in opposite orders are told apart; their means are equal."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(2).repeat_interleave(60)
    rising = torch.linspace(-1, 1, 6)[:, None] * torch.randn(8, generator=generator)
    videos = Sequences.of([
        (rising if of == 0 else rising.flip(0)) + 0.1 * torch.randn(6, 8, generator=generator) for of in label
    ])  # fmt: skip
    classes = RandomClasses(0)(["up", "down"])
    head = HEADS[name]()
    head.fit(videos, label, classes, 0)
    assert accuracy(head.rank(videos, classes), label).mean_class > 0.95


def test_what_is_said_of_names():
    classes = WordClasses(WordsConfig(source="glove"))(["PlayingCello", "Surfing"])
    assert classes.words.lengths.tolist() == [2, 1] and classes.vectors.shape == (2, 50)
    torch.testing.assert_close(classes.words.values[2], classes.vectors[1])
    torch.testing.assert_close(classes.words.values.norm(dim=1), torch.ones(3))
    random = RandomClasses(0)(["PlayingCello", "PlayingPiano", "!"])
    assert random.words.lengths.tolist() == [2, 2, 2]  # and no word in common
    assert (random.words.values @ random.words.values.T).fill_diagonal_(0).abs().max() < 0.5


def test_words_are_made_where_a_head_asks_for_them(tmp_path):
    """Ready vectors have none of single words; definitions are of classes, and their words are read as names are."""
    names = ["playing cello", "surfing"]
    np.savez(tmp_path / "own.npz", names=np.array(names), vectors=np.eye(2))
    (tmp_path / "own.json").write_text('{"playing cello": "a qwertzing bow", "surfing": "on a wave"}')
    ready = WordSourceConfig(source="npz", path=str(tmp_path / "own.npz"))
    for words in (WordsConfig(source="npz", path=ready.path), WordsConfig(also=ready)):
        classes = WordClasses(words)(names)
        assert len(classes.vectors) == 2 and not has_words(words)
        with pytest.raises(InputError, match="no vector for these classes"):
            _ = classes.words
    defined = {"source": "sentence", "text": "definition", "definitions": [str(tmp_path / "own.json")]}
    for words in (
        WordsConfig(**defined),
        WordsConfig(also=WordSourceConfig(**defined)),
        WordsConfig(**defined, also=WordSourceConfig()),
    ):
        assert has_words(words) and len(WordClasses(words)(names).words) == 2


def test_standard_features_components_and_batches():
    features = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    assert Standard.of(features)(features).tolist() == [[-1, 0], [1, 0]]
    spread = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) @ torch.randn(4, 9)
    found = Components.of(spread, 3)(spread)
    products = found.T @ found / len(found)
    assert found.shape == (50, 3) and products.diagonal().mean() == pytest.approx(1, abs=1e-5)
    assert products.diagonal().tolist() == sorted(products.diagonal().tolist(), reverse=True)
    assert (products - products.diagonal().diag()).abs().max() < 1e-5
    assert Components.of(spread, 99)(spread).shape == (50, 9)
    parts = list(batches(5, 2, 2, torch.Generator().manual_seed(0)))
    assert [len(part) for part in parts] == [2, 2, 1, 2, 2, 1]
    assert all(torch.cat(parts[i : i + 3]).sort().values.tolist() == [0, 1, 2, 3, 4] for i in (0, 3))


def test_losses_by_hand():
    vectors = torch.eye(3)
    points = torch.tensor([[2.0, 0, 0], [1, 1, 0]])
    assert ranking(points, vectors, torch.tensor([0, 0]), 0.2) == pytest.approx((0.2 + 0) / 4)
    assert ranking(points, vectors[:1], torch.tensor([0, 0]), 0.2) == 0
    apart = jensen_shannon(torch.tensor([[1 - 1e-7, 1e-7]]), torch.tensor([[1e-7, 1 - 1e-7]]))
    assert apart.item() == pytest.approx(0.6931, abs=1e-3)
    assert jensen_shannon(torch.tensor([[0.3, 0.7]]), torch.tensor([[0.3, 0.7]])).abs() < 1e-7
    torch.manual_seed(0)
    points, vectors = torch.randn(3, 4), functional.normalize(torch.randn(5, 4), dim=1)
    own = torch.tensor([0, 3, 3])
    assert ranking(7 * points, vectors, own, 0.2) == pytest.approx(ranking(points, vectors, own, 0.2).item())  # cosines


def test_a_long_video_is_read_at_as_many_windows_as_are_asked_for():
    """Evenly spread ones, and a short one whole."""
    head = Action2VecHead(windows=2)
    head.inputs = lambda values: 10 * values
    found = head._inputs(Sequences.of([torch.arange(8.0)[:, None], torch.ones(1, 1)]))
    assert found.values[:, 0].tolist() == [20, 60, 10] and found.lengths.tolist() == [2, 1]


@pytest.mark.parametrize("comparison", ["product", "difference"])
@torch.inference_mode()
def test_a_relation_by_hand(comparison):
    """Of one video with one class, whatever stands beside them."""
    torch.manual_seed(0)
    network = tarn._Network(5, 4, 3, comparison)
    videos = [torch.randn(length, 5) for length in (3, 2)]
    names = [torch.randn(length, 4) for length in (2, 1, 3)]
    for video, relations in zip(videos, network(Sequences.of(videos), Sequences.of(names)), strict=True):
        for words, relation in zip(names, relations, strict=True):
            seen, read = network.video(video[None])[0][0], network.words(words[None])[0][0]
            attended = (network.bilinear(seen) @ read.T).softmax(dim=1) @ read
            compared = seen * attended if comparison == "product" else seen - attended
            assert relation == pytest.approx(network.linear(network.relation(compared[None])[1][0, 0]).item(), abs=1e-6)


def test_accuracy_counts_classes_alike():
    scores = torch.eye(3)[[0, 0, 0, 1]]
    assert accuracy(scores, torch.tensor([0, 0, 0, 2])).mean_class == 0.5


def test_splits_are_those_of_all_tools_and_differences_are_paired():
    videos, label, classes = problem()
    data = LabelledFeatures(videos, label, classes.names)
    splits = [ClassSplitConfig(seed, SEEN) for seed in range(2)]
    found = list(measure(data, splits, ["ridge", "linear"], WordsConfig(source="random", dim=DIM)))
    assert [(m.split, m.words, m.head) for m in found[:4]] == [
        (0, words, head) for words in (WORDS, RANDOM) for head in ("ridge", "linear")
    ]
    assert {m.largest for m in found} == {1 / UNSEEN}
    rows = list(summarise(found, "ridge"))
    assert [row["difference"] for row in rows if row["head"] == "ridge"] == [0, 0]
    with pytest.raises(InputError, match="none would be unseen"):
        list(measure(data, [ClassSplitConfig(0, TOTAL)], ["ridge"], WordsConfig(source="random")))


def test_accuracy_over_the_number_of_seen_classes_is_on_the_same_unseen_ones(monkeypatch):
    """Fewer are part of more, all of them are the split's; kinds of unseen classes make up the whole."""
    videos, label, classes = problem()
    data, fits = LabelledFeatures(videos, label, classes.names), []

    class Asked:
        def fit(self, videos, label, classes, seed) -> None:
            fits.append((set(classes.names), len(videos)))
            self.head = HEADS["ridge"]()
            self.head.fit(videos, label, classes, seed)

        def rank(self, videos, classes):
            assert len(videos) == UNSEEN * EACH and len(classes) == UNSEEN
            return self.head.rank(videos, classes)

    monkeypatch.setattr(splits_module, "HEADS", {"ridge": Asked})
    words, split = WordsConfig(source="random", dim=DIM), ClassSplitConfig(4, SEEN)
    unseen = split_classes(classes.names, split)["unseen"]
    apart = {"some": set(unseen[:2]), "others": set(classes.names) - set(unseen[:2]), "none": set()}
    found = list(measure(data, [split], ["ridge"], words, counts=[5, 20, SEEN], apart=apart))
    sets = [names for names, _ in fits[::2]]
    assert [len(names) for names in sets] == [5, 20, SEEN] and sets[0] < sets[1] < sets[2]
    assert sets[2] == set(classes.names) - set(unseen) and [num for _, num in fits[::2]] == [
        EACH * len(s) for s in sets
    ]
    assert sets[0] == set(draw_classes(sorted(sets[2]), 5, (4, 0)))  # as tools/experiments.py draws them
    assert [(m.words, m.count, m.seen, m.of) for m in found[:4]] == [
        (WORDS, 5, 5, "all"), (WORDS, 5, 5, "some"), (WORDS, 5, 5, "others"), (RANDOM, 5, 5, "all"),
    ]  # fmt: skip
    for whole, some, others in zip(found[::3], found[1::3], found[2::3], strict=True):
        assert whole.top1 == pytest.approx((2 * some.top1 + (UNSEEN - 2) * others.top1) / UNSEEN)
        assert {some.chance, others.chance} == {1 / UNSEEN}
    rows = list(summarise(found, "ridge"))
    assert [(row["words"], row["count"], row["of"]) for row in rows] == [(m.words, m.count, m.of) for m in found]
    assert rows[0]["difference_low"] is None  # of one split
    with pytest.raises(InputError, match=f"split 4 has {SEEN} seen classes .*: {SEEN + 1} are asked for"):
        list(measure(data, [split], ["ridge"], words, counts=[SEEN + 1]))


def test_videos_named_together_stand_beside_videos_named_alone(monkeypatch):
    """Of classes that have not as many videos each; some classes may have none, and are candidates still."""
    videos, label, classes = problem()
    some = torch.rand(len(label), generator=torch.Generator().manual_seed(0)) < 0.6
    data, asked = LabelledFeatures(videos[some], label[some], classes.names), []

    class Guessing:
        def fit(self, *given) -> None: ...

        def rank(self, videos, classes):
            asked.append((videos, torch.randn(len(videos), len(classes), generator=torch.Generator().manual_seed(1))))
            return asked[-1][1]

    monkeypatch.setattr(splits_module, "HEADS", {"ridge": Guessing})
    split, words = ClassSplitConfig(0, SEEN), WordsConfig(source="random", dim=DIM)
    unseen = split_classes(classes.names, split)["unseen"]
    for occurring in (None, 4):
        found = list(measure(data, [split], ["ridge"], words, transductive=True, occurring=occurring))
        given, scores = asked[-1]
        truth = data.among(unseen[:occurring])[1]
        expected = [accuracy(each, truth) for each in (scores, name_together(given.means(), scores))]
        assert [each.head for each in found[:2]] == ["ridge", "ridge, transductive"] and len(given) == len(truth)
        told = [(each.top1, each.mean_class, each.chance, each.largest) for each in found[:2]]
        assert told == [(each.top1, each.mean_class, 1 / UNSEEN, each.largest_class) for each in expected]
        assert len({each.top1 for each in expected} | {each.mean_class for each in expected}) == 4


def test_the_control_is_drawn_anew_in_every_split_and_classes_from_all_sets(monkeypatch):
    videos, label, classes = problem()
    data, fits = LabelledFeatures(videos, label, classes.names), []
    also = LabelledFeatures(videos[label < 3], label[label < 3], ("x", "y", "z"))

    class Asked:
        def fit(self, videos, label, classes, seed) -> None:
            fits.append(dict(zip(classes.names, classes.vectors, strict=True)))

        def rank(self, videos, classes):
            return torch.rand(len(videos), len(classes))

    monkeypatch.setattr(splits_module, "HEADS", {"ridge": Asked})
    splits = [ClassSplitConfig(seed, SEEN) for seed in range(2)]
    words = WordsConfig(source="random", dim=DIM)
    list(measure(data, splits, ["ridge"], words, also=[also], counts=[SEEN + 1]))
    assert all(len(fit) == SEEN + 1 and {"x", "y", "z"} & set(fit) for fit in fits)
    for (one, other), is_same in ((fits[::2], True), (fits[1::2], False)):
        shared = [name for name in one if name in other]
        assert shared and all(torch.equal(one[name], other[name]) == is_same for name in shared)


def test_two_sets_as_one():
    videos, label, classes = problem()
    first = LabelledFeatures(videos[label < 3], label[label < 3], classes.names[:3])
    second = LabelledFeatures(
        videos[(label > 1) & (label < 4)], label[(label > 1) & (label < 4)] - 2, classes.names[2:4]
    )
    both = first.joined(second)
    assert both.classes == classes.names[:4] and both.label.tolist() == [0] * 8 + [1] * 8 + [2] * 16 + [3] * 8
    assert torch.equal(both.among(classes.names[3:4])[0].values, videos[label == 3].values)


@pytest.mark.parametrize("joined", [False, True])
def test_a_video_that_is_asked_about_is_not_learnt_from_under_another_name(joined, monkeypatch):
    """By what it shows: a class that has no other video is not learnt from at all, one that has is learnt from those."""
    videos, label, classes = problem()
    shown, asked, told = torch.arange(len(label)), [], []
    data = LabelledFeatures(videos, label, classes.names, shown)
    split, words = ClassSplitConfig(0, SEEN), WordsConfig(source="random", dim=DIM)
    unseen = split_classes(classes.names, split)["unseen"]
    copied = (label == classes.names.index(unseen[0])).nonzero()[:, 0]
    other = LabelledFeatures(
        videos[torch.cat([copied, torch.tensor([0, 1])])],
        torch.tensor([0] * (EACH // 2) + [1] * (EACH // 2 + 2)),
        ("copies", "some copies"),
        torch.cat([shown[copied], torch.tensor([-1, -2])]),
    )

    class Asked:
        def fit(self, videos, label, classes, seed) -> None:
            asked.append((classes.names, len(videos), label.bincount()[-1].item()))

        def rank(self, videos, classes):
            return torch.rand(len(videos), len(classes))

    monkeypatch.setattr(splits_module, "HEADS", {"ridge": Asked})
    if joined:
        both = data.joined(other)
        monkeypatch.setattr(splits_module, "split_classes", lambda *_: {
            "train": [name for name in both.classes if name not in unseen], "unseen": unseen})  # fmt: skip
        found = list(measure(both, [split], ["ridge"], words, tell=told.append))
    else:
        found = list(measure(data, [split], ["ridge"], words, also=[other], tell=told.append))
    assert told == [
        f"warning: {EACH} videos to learn from, over 1 split, show what one of an unseen class of the split does, by their "
        "contents: left out of what is learnt"
    ]
    assert {each.left_out for each in found} == {EACH} and {each.seen for each in found} == {SEEN + 1}
    names, number, of_last = asked[0]
    assert names[-1] == "some copies" and "copies" not in names and (number, of_last) == (SEEN * EACH + 2, 2)
    copies = LabelledFeatures(
        *data.only(unseen).among(unseen), tuple(f"copy of {name}" for name in unseen), data.shown_by(unseen)
    )
    monkeypatch.setattr(splits_module, "split_classes", lambda *_: {"train": list(copies.classes), "unseen": unseen})
    with pytest.raises(InputError, match="split 0: every video to learn from shows what one of an unseen class does"):
        list(measure(data.only(unseen).joined(copies), [split], ["ridge"], words))


@pytest.mark.parametrize("name", HEADS)
def test_unseen_videos_are_not_seen_before_they_are_named(name, monkeypatch):
    """Other features of the unseen videos change nothing of what was fitted: here what it says of videos of its own."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(8).repeat_interleave(6)
    lengths = torch.randint(1, 4, (48,), generator=generator)
    videos = Sequences(torch.rand(int(lengths.sum()), WIDTH, generator=generator), lengths)
    split, said = ClassSplitConfig(3, 5), []
    unseen = torch.isin(label, torch.tensor(np.random.RandomState(3).permutation(8)[5:]))
    probe = videos[unseen]
    other = Sequences(videos.values + 3 * unseen.repeat_interleave(lengths)[:, None], lengths)

    class Asked:
        def __init__(self) -> None:
            self.head = {**HEADS, **BRIEF}[name]()

        def fit(self, *given) -> None:
            self.head.fit(*given)

        def rank(self, given, classes):
            said.append(self.head.rank(probe, classes))
            return self.head.rank(given, classes)

    monkeypatch.setattr(splits_module, "HEADS", {name: Asked})
    names = ("archery", "diving", "juggling", "playing cello", "punch", "surfing", "swing", "typing")
    for features in (videos, other):
        data = LabelledFeatures(features, label, names)
        assert len(list(measure(data, [split], [name], WordsConfig(source="glove")))) == 2
    assert torch.equal(said[0], said[2]) and torch.equal(said[1], said[3])
    assert said[0].std() > 0


def test_a_summary_by_hand():
    values = {"a": (0.2, 0.4), "b": (0.5, 0.5)}
    found = [Measured(h, WORDS, s, 0.1, m, 0.2, 0.3, 1.0) for h, each in values.items() for s, m in enumerate(each)]
    first, second = summarise(found, "a")
    assert (first["mean_class"], first["mean_class_sd"]) == (pytest.approx(0.3), pytest.approx(0.2 / 2**0.5))
    assert (second["difference"], second["largest"]) == (pytest.approx(0.2), pytest.approx(0.3))
    reach = 12.7062 * 0.1  # Student's t of one degree of freedom, times the standard error
    assert (second["difference_low"], second["difference_high"]) == pytest.approx((0.2 - reach, 0.2 + reach), abs=1e-4)


def test_few_windows_still_tell_videos_apart():
    """Three videos of four classes: fewer windows than kernels."""
    videos, label, classes = problem()
    few = (label < 4).nonzero()[:, 0][::3]
    head = HEADS["after_url"]()
    head.fit(videos[few], label[few], part(classes, slice(4)), 0)
    assert head.rank(videos[label >= SEEN], part(classes, slice(SEEN, None))).std(dim=0).min() > 1e-3
