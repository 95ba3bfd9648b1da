"""What the report reads from a run's folder."""

import pytest
import torch

from engine.config import Config
from engine.errors import InputError
from engine.evaluation.metrics import evaluate_embeddings
from engine.processes.distributed import Ranks
from engine.provenance import append_provenance
from engine.results.record import Results, read_control, replacing
from engine.results.visual_report.run_folder import RunFacts, read_run_facts


def results_of(num_snippets: int, **sizes: int) -> Results:
    tests = {}
    for name, num_videos in sizes.items():
        labels = torch.arange(num_videos) % 2
        tests[name] = evaluate_embeddings(name, torch.eye(2)[labels], labels, ["a", "b"], torch.eye(2))
    return Results(checkpoint="", class_vectors="", num_snippets=num_snippets, tests=tests)


def test_the_newest_start_and_the_config_are_told(tmp_path):
    ranks = Ranks(torch.device("cpu"))
    append_provenance(tmp_path, Config(), ranks, 0)
    append_provenance(tmp_path, Config(), ranks, 12)
    (tmp_path / "config.yaml").write_text("run: {seed: 3}\n")
    facts = read_run_facts(tmp_path / "checkpoints" / "best.pt", results_of(25))
    rows = dict(facts.provenance)
    assert rows["started"].endswith("at step 12")
    assert rows["software"].startswith("Python 3.")
    assert rows["seeds"].startswith("run.seed 0, ")
    assert facts.packages["torch"]
    assert facts.config == "run: {seed: 3}\n"
    assert facts.control == {}


def test_a_control_counts_only_for_the_same_test(tmp_path):
    (tmp_path / "control").mkdir()
    with replacing(tmp_path / "control", results_of(5, first=4, second=8)):
        pass
    assert read_run_facts(tmp_path / "checkpoints" / "best.pt", results_of(5, first=4, second=6)).control == {
        "first": 1.0
    }
    assert read_run_facts(tmp_path / "checkpoints" / "best.pt", results_of(25, first=4, second=6)).control == {}


def test_a_checkpoint_outside_of_a_run_folder_has_no_facts(tmp_path):
    (tmp_path / "config.yaml").write_text("something: else\n")
    assert read_run_facts(tmp_path / "best.pt", results_of(25)) == RunFacts()


def test_what_is_damaged_in_a_run_folder_is_left_out(tmp_path):
    append_provenance(tmp_path, Config(), Ranks(torch.device("cpu")), 0)
    with (tmp_path / "provenance.jsonl").open("a") as file:
        file.write('{"time": "now"}\n')
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "results.json").write_text("{")
    facts = read_run_facts(tmp_path / "checkpoints" / "best.pt", results_of(25))
    assert dict(facts.provenance)["started"].endswith("at step 0") and facts.control == {}
    with pytest.raises(InputError, match="not what a run writes at its end"):
        read_control(tmp_path, results_of(25))
