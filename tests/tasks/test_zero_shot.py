"""Zero-shot recognition as a task: its class vectors are made once, its control differs in nothing but them."""

from collections import Counter

import torch

from engine.config import Config, load_config
from engine.distributed import Ranks
from engine.preemption import StopVote
from engine.semantics.averaged_words import AveragedWords
from engine.semantics.classes import KeptVectors, build_class_embeddings
from engine.semantics.config import WordsConfig
from engine.tasks.zero_shot.control import control_config, random_vectors
from engine.train import train
from tests import jobs

CPU = Ranks(0, 1, 0, 1, torch.device("cpu"))


def test_class_vectors_of_a_set_are_made_once_in_a_run(videos, tmp_path, monkeypatch):
    """Whatever asks for them: the check for overlap, the loss, four evaluations, the report."""
    asked, embed = Counter(), AveragedWords.embed

    def count(source, names):
        asked[tuple(names)] += 1
        return embed(source, names)

    monkeypatch.setattr(AveragedWords, "embed", count)
    path = jobs.write_config(
        tmp_path / "config.yaml", videos, tmp_path / "run",
        data={
            "train": [{"manifest": str(videos), "splits": ["train"]}], "decode_threads": 1,
            "tests": [{"manifest": str(videos), "splits": ["unseen"], "name": "combinations"}],
            "validation": {"video_share": 0.25, "num_classes": 2},
        },
        evaluate={"every_epochs": 1, "num_snippets": 1}, log={"report": True},
    )  # fmt: skip
    outcome = train(load_config(path, []), CPU, StopVote())
    assert outcome.page.findings[0].nearest_seen  # the report has asked too
    assert sorted(map(len, asked)) == [2, 3, 4, 6]  # held out, test, training, and all of training against the test
    assert set(asked.values()) == {1}


def test_kept_vectors_are_those_of_their_words():
    names, words = ["riding a horse", "playing the piano"], WordsConfig()
    kept = KeptVectors(words)
    first = build_class_embeddings(names, kept)
    assert torch.equal(first.vectors, build_class_embeddings(names, words).vectors)
    assert build_class_embeddings(tuple(names), kept) is first
    assert build_class_embeddings(names[:1], kept).names == ("riding a horse",)


def test_the_control_is_the_same_run_towards_random_vectors():
    config = Config()
    assert control_config(config, reached=None) is None  # run.control is off
    control = random_vectors(config, 50)
    assert (control.words.source, control.words.dim, control.run.folder) == ("random", 50, "runs/unnamed/control")
    assert control.train.exclude_overlap.words == config.words  # so that it trains on the same classes
    assert (control.model, control.data, control.loss, control.clip) == (
        config.model, config.data, config.loss, config.clip,
    )  # fmt: skip
