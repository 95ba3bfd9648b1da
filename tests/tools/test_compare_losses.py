"""What "changes nothing" means: curves and weights equal to the bit, and where they are not, the step at which they part."""

import json
import shutil
import signal
import subprocess
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from bench.resources import process_tree

from engine.training.checkpoint import list_checkpoints, read_checkpoint, save_checkpoint
from tests import jobs
from tests.environment import ROOT, is_alive, wait_until
from tests.small_run import call_tool, start_tool

SHORT = {"train": {"epochs": 2, "batch_size": 4, "lr": 1e-3, "milestones": []}}
CONFIGS = {"r3d": SHORT, "c3d": jobs.EXACT}  # with batch-norm, and without
SPEED_ALONE = {
    "data": {"decode_threads": 2, "decode_processes": True, "prefetch_batches": 3},
    "train": {"gc_every_steps": 5},
    "checkpoint": {"every_steps": 4, "keep": 1},
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return jobs.write_videos(tmp_path_factory.mktemp("videos"))


def train(name, manifest, folder):
    """A run of that config, in the folder of its name."""
    jobs.run(jobs.write_config(folder / f"{name}.yaml", manifest, folder / name, **CONFIGS[name]))
    return folder / name


@pytest.fixture(scope="module")
def trained(tmp_path_factory, manifest):
    """A folder with the run `r3d`."""
    return train("r3d", manifest, tmp_path_factory.mktemp("trained")).parent


@pytest.fixture
def compare(monkeypatch, capsys):
    def call(*words):
        status = call_tool("compare_losses.py", *words, monkeypatch=monkeypatch)
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err

    return call


@pytest.mark.parametrize("name", ["r3d", pytest.param("c3d", marks=pytest.mark.slow)])
def test_keys_of_speed_change_no_loss_and_no_weight(name, trained, manifest, tmp_path, compare):
    sections = {section: {**CONFIGS[name].get(section, {}), **keys} for section, keys in SPEED_ALONE.items()}
    config = jobs.write_config(tmp_path / "fast.yaml", manifest, tmp_path / "run", **{**CONFIGS[name], **sections})
    plain = trained / name if name == "r3d" else train(name, manifest, tmp_path)
    status, lines, _ = compare(plain, config, "--out", tmp_path)
    told = dict(line.split(maxsplit=1) for line in lines if " " in line)
    assert told["train/loss"].startswith("equal in ") and told["weights"].startswith("equal in ")
    assert (status, lines[-1]) == (0, "all equal, bit for bit")
    assert len(jobs.losses(tmp_path / "b")) >= 9  # every step is logged


def test_a_commit_is_trained_with_its_own_code(trained, manifest, tmp_path, compare):
    """Whatever is not committed yet must not reach it; here it gives what the checkout as it is gives."""
    if subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, check=False).returncode:
        pytest.skip("no git repository")
    config = jobs.write_config(tmp_path / "config.yaml", manifest, tmp_path / "run", **SHORT)
    copies = subprocess.run(["git", "-C", ROOT, "worktree", "list"], capture_output=True, text=True, check=True).stdout
    status, lines, _ = compare(f"HEAD:{config}", trained / "r3d", "--out", tmp_path, "--set", "train.epochs=1")
    assert status == 1 and "steps only one side has, the first is step 6" in "\n".join(lines)
    provenance = json.loads((tmp_path / "a" / "provenance.jsonl").read_text().splitlines()[0])
    assert f"{ROOT}/engine" not in provenance["command"] and not provenance["dirty"]
    after = subprocess.run(["git", "-C", ROOT, "worktree", "list"], capture_output=True, text=True, check=True).stdout
    assert after == copies  # its copy is gone


@pytest.mark.slow
def test_nothing_is_left_where_it_is_stopped(manifest, tmp_path):
    """No training goes on, and git keeps no copy of the commit."""
    config = jobs.write_config(
        tmp_path / "c.yaml", manifest, tmp_path / "run", train={"epochs": 100_000, "batch_size": 4}
    )
    copies = ["git", "-C", ROOT, "worktree", "list"]
    before = subprocess.run(copies, capture_output=True, text=True, check=True).stdout
    tool = start_tool("compare_losses.py", f"HEAD:{config}", config, "--out", tmp_path)
    wait_until((tmp_path / "a" / "log.jsonl").is_file)
    processes = process_tree(tool.pid)
    assert len(processes) > 1
    tool.send_signal(signal.SIGTERM)
    _, said = tool.communicate()
    assert (tool.returncode, said.splitlines()[-1]) == (130, "interrupted")
    wait_until(lambda: not any(map(is_alive, processes)), 10)
    assert subprocess.run(copies, capture_output=True, text=True, check=True).stdout == before


def test_where_two_runs_part_is_told(trained, tmp_path, compare):
    other = shutil.copytree(trained / "r3d", tmp_path / "other")
    events = [json.loads(line) for line in (other / "log.jsonl").read_text().splitlines()]
    for event in events:
        if event["event"] == "scalars" and "train/loss" in event:
            event["train/loss"] *= {4: 1 + 1e-6, 7: 1 + 1e-3}.get(event["step"], 1)
    (other / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"event": "sc')
    newest = list_checkpoints(other)[0]
    state = read_checkpoint(newest)
    state["model"]["linear.bias"] = state["model"]["linear.bias"] * 1.01
    save_checkpoint(newest, state)
    status, lines, _ = compare(trained / "r3d", other)
    told = {line.split()[0]: line for line in lines if line}
    assert status == 1 and lines[-1].startswith("2 of ")
    assert "parts at step 4: " in told["train/loss"] and told["train/loss"].endswith("0.001, at step 7")
    assert "1 of " in told["weights"] and "the most linear.bias, by 0.0099 " in told["weights"]
    status, lines, _ = compare(trained / "r3d", other, "--tolerance", "0.0005")
    assert status == 1 and "parts at step 7: " in "\n".join(lines)
    assert compare(trained / "r3d", other, "--tolerance", "0.02")[0] == 0


def test_not_a_number_is_equal_to_itself_alone(trained, tmp_path, compare):
    sides = []
    for name, value in (("a", "NaN"), ("b", "NaN"), ("c", "1.0")):
        side = shutil.copytree(trained / "r3d", tmp_path / name)
        (side / "log.jsonl").write_text(f'{{"event": "scalars", "step": 1, "train/loss": {value}}}\n')
        sides.append(side)
    assert compare(*sides[:2])[0] == 0
    assert compare(*sides[1:], "--tolerance", "0.9")[0] == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{r3d}", "missing.yaml"], "'missing.yaml' is no run folder, and there is no config 'missing.yaml'"),
        (["nowhere:configs/quickstart.yaml", "{r3d}"], "git cannot check out 'nowhere'"),
        (["{r3d}", "{r3d}", "--ranks", "0"], "--ranks is 0"),
        (["{r3d}", "{broken}", "--out", "{tmp}/made"], "its training ended with status 2"),
        (["{r3d}", "{empty}"], "has no loss of any step"),
    ],
)
def test_what_cannot_be_compared_is_told(words, told, trained, tmp_path, compare):
    broken, empty = tmp_path / "broken.yaml", tmp_path / "empty"
    broken.write_text("trian: {}\n")
    empty.mkdir()
    (empty / "log.jsonl").touch()
    names = {"r3d": trained / "r3d", "broken": broken, "empty": empty, "tmp": tmp_path}
    status, _, err = compare(*(word.format(**names) for word in words))
    assert status == 2 and told in err


def test_a_side_is_never_trained_over_an_older_one(trained, tmp_path, compare):
    (tmp_path / "a").mkdir()
    status, _, err = compare(trained / "r3d.yaml", trained / "r3d", "--out", tmp_path)
    assert status == 2 and f"'{tmp_path / 'a'}' is there already" in err


def test_a_config_is_first_looked_for_where_one_is(tmp_path, monkeypatch):
    """The checkout has one of the same name."""
    import compare_losses

    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.yaml").touch()
    calls = []
    training = nullcontext(SimpleNamespace(wait=lambda: 0))
    monkeypatch.setattr(compare_losses, "running", lambda command, **_: calls.append(command) or training)
    asked = SimpleNamespace(ranks=1, set=[])
    for folder, found in ((tmp_path, tmp_path), (tmp_path / "configs", ROOT)):
        monkeypatch.chdir(folder)
        compare_losses.train_side("configs/quickstart.yaml", tmp_path / "out", asked)
        assert calls.pop()[2] == str(found / "configs" / "quickstart.yaml")


def test_weights_of_other_shapes_part():
    import sys

    sys.path.insert(0, str(ROOT / "tools"))
    sys.argv = ["compare_losses.py"]
    from compare_losses import compare_weights

    a, b = {"w": torch.zeros(2, 3)}, {"w": torch.zeros(3, 2)}
    assert compare_weights(a, b, 0.5) == [("weights", "w is [2, 3] against [3, 2]", True)]
    assert compare_weights(a, {"v": a["w"]}, 0.5)[0][1] == "2 tensors only one side has, the first is v"
    assert not compare_weights(a, {"w": torch.zeros(2, 3)}, 0.0)[0][2]
