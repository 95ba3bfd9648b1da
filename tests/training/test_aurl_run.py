"""A whole run with `loss.name: aurl`: its class centres are trained, shared between ranks, saved and left behind."""

import shutil
from pathlib import Path

import pytest
import torch

from engine.tasks.zero_shot.trained import load_for_inference
from engine.training.checkpoint import network_weights, read_checkpoint
from tests.jobs import EXACT, final_weights, losses, run, same_weights, write_config


@pytest.fixture(scope="module")
def finished(videos, tmp_path_factory) -> tuple[Path, Path]:
    """(config, run folder) of an uninterrupted run that keeps every checkpoint."""
    here = tmp_path_factory.mktemp("aurl")
    loss = {"name": "aurl", "synthetic_classes": 9}
    config = write_config(
        here / "config.yaml", videos, here / "run", loss=loss, checkpoint={"every_steps": 5, "keep": 99},
        train={"epochs": 6, "batch_size": 4, "lr": 3e-3, "milestones": []},
    )  # fmt: skip
    run(config)
    return config, here / "run"


def train_classes(folder: Path) -> list[str]:
    return read_checkpoint(folder / "checkpoints" / "best.pt")["train_classes"]


def test_loss_falls_and_centres_move(finished):
    _, folder = finished
    curve = losses(folder)
    steps = sorted(curve)
    assert sum(curve[step] for step in steps[-5:]) < 0.9 * sum(curve[step] for step in steps[:5])
    first = read_checkpoint(min((folder / "checkpoints").glob("step_*.pt")))["model"]["loss.centres"]
    last = final_weights(folder)["loss.centres"]
    assert first.shape == (6, 50) and not torch.equal(first, last)


def test_resumed_run_draws_the_same_synthetic_classes(finished, tmp_path):
    config, folder = finished
    kept = sorted((folder / "checkpoints").glob("step_*.pt"))
    middle = kept[len(kept) // 2 - 1]
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(middle, tmp_path / "checkpoints")
    run(config, f"run.folder={tmp_path}")
    assert "resumed at step" in (tmp_path / "log.txt").read_text()
    assert same_weights(folder, tmp_path)


def test_a_trained_model_is_used_without_its_centres(finished, videos, tmp_path):
    _, folder = finished
    model = load_for_inference(folder, torch.device("cpu")).model
    trained = read_checkpoint(folder / "checkpoints" / "best.pt")["model"]
    assert model.state_dict().keys() == network_weights(trained).keys() == trained.keys() - {"loss.centres"}
    sources = [{"manifest": str(videos), "splits": ["train"], "exclude_classes": [train_classes(folder)[0]]}]
    fewer = {"train": sources, "tests": [], "validation": {"video_share": 0.25}, "decode_threads": 1}
    for name in ("squared", "aurl"):  # goes on from there with other classes, with either loss
        config = write_config(
            tmp_path / f"{name}.yaml", videos, tmp_path / name, loss={"name": name},
            train={"epochs": 1, "batch_size": 4, "lr": 0.0, "init_from": str(folder)}, data=fewer,
        )  # fmt: skip
        run(config)
        found = final_weights(tmp_path / name)
        assert torch.equal(found["linear.weight"], trained["linear.weight"])
        assert ("loss.centres" in found) == (name == "aurl")


@pytest.mark.distributed
def test_two_ranks_train_the_centres_of_one(videos, tmp_path):
    """Without synthetic classes, which each rank draws by itself as it does dropout."""
    ends = []
    for ranks in (1, 2):
        folder = tmp_path / f"{ranks}"
        config = write_config(
            tmp_path / f"{ranks}.yaml", videos, folder, **EXACT, loss={"name": "aurl", "synthetic_weight": 0.0}
        )
        run(config, ranks=ranks)
        ends.append((losses(folder), final_weights(folder)["loss.centres"]))
    assert ends[1][0] == pytest.approx(ends[0][0], rel=1e-4)
    torch.testing.assert_close(ends[1][1], ends[0][1], rtol=1e-3, atol=1e-4)
