"""What the report reads from a run's folder."""

import torch

from engine.config import Config
from engine.distributed import Ranks
from engine.metrics import evaluate_embeddings
from engine.provenance import append_provenance
from engine.results.record import Results, replacing
from engine.visual_report.run_folder import RunFacts, read_control, read_run_facts


def result_of(name: str, num_videos: int):
    labels = torch.arange(num_videos) % 2
    return evaluate_embeddings(name, torch.eye(2)[labels], labels, ["a", "b"], torch.eye(2))


def test_the_newest_start_and_the_config_are_told(tmp_path):
    ranks = Ranks(0, 1, 0, 1, torch.device("cpu"))
    append_provenance(tmp_path, Config(), ranks, 0)
    append_provenance(tmp_path, Config(), ranks, 12)
    (tmp_path / "config.yaml").write_text("run: {seed: 3}\n")
    facts = read_run_facts(tmp_path / "checkpoints" / "best.pt", [], 25)
    rows = dict(facts.provenance)
    assert rows["started"].endswith("at step 12")
    assert rows["software"].startswith("Python 3.")
    assert rows["seeds"].startswith("run.seed 0, ")
    assert facts.packages["torch"]
    assert facts.config == "run: {seed: 3}\n"
    assert facts.control == {}


def test_a_control_counts_only_for_the_same_test(tmp_path):
    first, second = result_of("first", 4), result_of("second", 6)
    (tmp_path / "control").mkdir()
    tests = {"first": result_of("first", 4), "second": result_of("second", 8)}
    with replacing(tmp_path / "control", Results(checkpoint="", class_vectors="", num_snippets=5, tests=tests)):
        pass
    assert read_control(tmp_path, [first, second], 5) == {"first": 1.0}
    assert read_control(tmp_path, [first, second], 25) == {}


def test_a_checkpoint_outside_of_a_run_folder_has_no_facts(tmp_path):
    (tmp_path / "config.yaml").write_text("something: else\n")
    assert read_run_facts(tmp_path / "best.pt", [], 25) == RunFacts()
