"""What a zero-shot run measures while it trains, and what chooses its best checkpoint."""

from types import SimpleNamespace

import pytest

from engine.results.accuracy import Accuracy
from engine.tasks.zero_shot import measuring


@pytest.fixture
def measured(monkeypatch):
    """`measure` of sets with these accuracies (top-1, mean-class), and what it asked for."""
    asked = []
    monkeypatch.setattr(measuring, "inference", lambda run, snippets: snippets)

    def evaluated(run, each, decoder, how, max_videos=None):
        asked.append((each.key, how, max_videos))
        top1, mean_class = each.data
        return SimpleNamespace(all_classes=Accuracy(len(each.classes), 8, top1, 1.0, mean_class, 0.5))

    monkeypatch.setattr(measuring, "evaluate_set", evaluated)
    evaluate = SimpleNamespace(during_snippets=3, num_snippets=25, batch_size=2, max_videos=7)
    run = SimpleNamespace(config=SimpleNamespace(evaluate=evaluate))

    def of(**accuracies):
        sets = {key: SimpleNamespace(key=key, data=values, classes=["a", "b"]) for key, values in accuracies.items()}
        decoding = SimpleNamespace(open=lambda size: SimpleNamespace(close=lambda: None))
        return measuring.measure(run, SimpleNamespace(
            measured=list(sets.values()), decoding=decoding,
            held_out_videos=sets.get("seen"), held_out_classes=sets.get("held_out_classes"),
        ))  # fmt: skip

    return of, asked


def test_held_out_classes_choose_the_best_checkpoint_then_held_out_videos_and_never_a_test(measured):
    of, asked = measured
    found = of(seen=(0.9, 0.8), held_out_classes=(0.4, 0.3), test=(0.7, 0.6))
    assert (found.metric, found.value) == ("held_out_classes top-1", 0.4)
    assert asked == [(key, 3, 7) for key in ("seen", "held_out_classes", "test")]  # during_snippets, max_videos
    found = of(seen=(0.9, 0.8), test=(0.7, 0.6))
    assert (found.metric, found.value) == ("seen top-1", 0.9)
    found = of(test=(0.7, 0.6))
    assert (found.metric, found.value) == (measuring.NEWEST, 0.0)
    assert found.scalars["test/mean_class"] == 0.6
