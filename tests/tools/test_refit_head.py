"""tools/refit_head.py as a user runs it: a run folder with a new last layer, which the other tools take."""

import json
import shutil

import pytest
import torch

from engine.heads.ridge_regression import choose_ridge
from engine.tasks.zero_shot.trained import load_for_inference
from engine.training.build import build_run
from engine.training.checkpoint import read_checkpoint, save_checkpoint
from engine.training.run import save_best
from tests.jobs import write_config, write_videos
from tests.small_run import call_tool, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run over six procedural classes, as it stands before its first step."""
    from engine.config import load_config
    from engine.processes.distributed import Ranks
    from engine.processes.preemption import StopVote

    here = tmp_path_factory.mktemp("refit")
    manifest = write_videos(here / "videos")
    config = load_config(write_config(here / "config.yaml", manifest, here / "run", loss={"name": "aurl"}), [])
    save_best(build_run(config, Ranks(torch.device("cpu")), StopVote()))
    return here


def test_the_new_layer_is_the_ridge_of_the_training_features(folder, monkeypatch, capsys):
    run = folder / "run"
    assert call_tool("refit_head.py", run, "--device", "cpu", monkeypatch=monkeypatch) == 0
    assert "18 videos of 6 training classes; chance among classes held out 0.500" in capsys.readouterr().out
    before, after = (read_checkpoint(path / "checkpoints" / "best.pt") for path in (run, run / "ridge"))
    assert "optimizer" not in after and before["train_classes"] == after["train_classes"]
    changed = [n for n, tensor in after["model"].items() if not torch.equal(tensor, before["model"][n])]
    assert changed == ["linear.weight", "linear.bias"]

    # from the engine's own parts, called directly
    from engine.data.sets.sources import class_lookup
    from engine.data.sets.trained import load_trained
    from engine.evaluation.embedding import embed_features
    from engine.evaluation.inference import inference_settings
    from engine.semantics.classes import build_class_embeddings
    from engine.tasks.decoding import choose_decoding

    loaded = load_for_inference(run, torch.device("cpu"))
    data = load_trained(loaded.config.data, loaded.train_classes, loaded.footage).train
    decoder = choose_decoding(loaded.config, torch.device("cpu"), []).open(loaded.config.evaluate.batch_size)
    how = inference_settings(loaded.config, torch.device("cpu"), progress=False)
    embedded = embed_features(loaded.model, data.manifest, decoder, how)
    decoder.close()
    assert not loaded.model.training and embedded.embeddings.shape == (18, loaded.model.backbone.feature_dim)
    label = torch.from_numpy(class_lookup(data.manifest, loaded.train_classes)[data.manifest.class_index])
    head = choose_ridge(
        embedded.embeddings, label, build_class_embeddings(loaded.train_classes, loaded.config.words).vectors
    )
    scale = after["model"]["linear.weight"].norm() / head.weight.norm()
    torch.testing.assert_close(after["model"]["linear.weight"], (scale * head.weight).float(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(after["model"]["linear.bias"], (scale * head.bias).float(), rtol=1e-4, atol=1e-7)
    told = json.loads((run / "ridge" / "ridge.json").read_text())
    assert told["strength"] == head.strength and len(told["held_out_accuracy"]) == len(head.scores)


def test_of_averaged_weights_the_new_layer_joins_the_network_that_its_features_are_of(folder, monkeypatch):
    from engine.config import load_config
    from engine.processes.distributed import Ranks
    from engine.processes.preemption import StopVote

    words = ["run.folder=" + str(folder / "averaged"), "train.ema_decay=0.9", "evaluate.weights=average"]
    averaged = build_run(load_config(folder / "config.yaml", words), Ranks(torch.device("cpu")), StopVote())
    with torch.no_grad():
        for parameter in averaged.model.parameters():
            parameter.mul_(-0.5)  # what was trained last is far from its average
    save_best(averaged)
    assert call_tool("refit_head.py", folder / "averaged", "--device", "cpu", monkeypatch=monkeypatch) == 0
    new = load_for_inference(folder / "averaged" / "ridge", torch.device("cpu"), "auto").model.state_dict()
    kept = averaged.average.model.state_dict()
    changed = [name for name, tensor in new.items() if not torch.equal(tensor, kept[name])]
    assert changed == ["linear.weight", "linear.bias"]
    assert call_tool("evaluate.py", folder / "averaged" / "ridge", "--device", "cpu", monkeypatch=monkeypatch) == 0


def test_other_tools_take_it(folder, monkeypatch, capsys):
    run = folder / "run"
    assert call_tool("refit_head.py", run, "--out", folder / "mixed", "--keep", 0.5, monkeypatch=monkeypatch) == 0
    assert call_tool("evaluate.py", folder / "mixed", "--out", folder / "out", monkeypatch=monkeypatch) == 0
    content = json.loads((folder / "out" / "results.json").read_text())
    assert content["tests"]["combinations"]["all_classes"]["num_classes"] == 3
    assert content["checkpoint"] == str(folder / "mixed" / "checkpoints" / "best.pt")
    capsys.readouterr()
    assert (
        call_tool("refit_head.py", folder / "run", "--keep", 1, "--out", folder / "kept", monkeypatch=monkeypatch) == 0
    )
    kept, own = (read_checkpoint(folder / name / "checkpoints" / "best.pt")["model"] for name in ("kept", "run"))
    direction = torch.nn.functional.cosine_similarity(
        kept["linear.weight"].flatten(), own["linear.weight"].flatten(), dim=0
    )
    assert direction == pytest.approx(1, abs=1e-6)


def test_the_runs_own_checkpoint_is_not_overwritten(folder, monkeypatch, capsys):
    before = (folder / "run" / "checkpoints" / "best.pt").read_bytes()
    assert call_tool("refit_head.py", folder / "run", "--out", folder / "run", monkeypatch=monkeypatch) == 2
    assert "--out is the run's own folder" in capsys.readouterr().err
    assert (folder / "run" / "checkpoints" / "best.pt").read_bytes() == before


def test_a_checkpoint_outside_a_run_gets_its_new_layer_beside_it(folder, monkeypatch):
    copy = folder / "copies" / "model.pt"
    copy.parent.mkdir()
    shutil.copy(folder / "run" / "checkpoints" / "best.pt", copy)
    assert call_tool("refit_head.py", copy, "--device", "cpu", monkeypatch=monkeypatch) == 0
    assert (folder / "copies" / "model_ridge" / "checkpoints" / "best.pt").is_file()
    assert not (folder / "ridge").exists()


def test_a_network_that_diverged_is_told(folder, monkeypatch, capsys):
    state = read_checkpoint(folder / "run" / "checkpoints" / "best.pt")
    for name, tensor in state["model"].items():
        if name.startswith("backbone") and tensor.ndim > 1:
            tensor.fill_(torch.nan)
    save_checkpoint(folder / "diverged" / "checkpoints" / "best.pt", state)
    assert call_tool("refit_head.py", folder / "diverged", "--device", "cpu", monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert "the training videos: the embeddings of 18 of 18 videos are not finite numbers" in said
    assert not (folder / "diverged" / "ridge" / "checkpoints").exists()


def test_a_run_without_a_last_layer_is_told_before_its_videos_are_read(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "run", embed_dim=32, model={"backbone": "r3d_18", "width": 4, "linear": False})
    assert call_tool("refit_head.py", tmp_path / "run", "--device", "cpu", monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert "has no last layer to choose anew (model.linear: false): fit one" in said and said.count("\n") == 1
    assert not (tmp_path / "run" / "ridge").exists()


@pytest.mark.parametrize(
    ("option", "says"),
    [(("--snippets", 0), "num_snippets' is 0"), (("--seed", -1), "--seed is -1"), (("--out", __file__), "--out: ")],
)
def test_mistakes_are_told_before_the_videos_are_read(folder, option, says, monkeypatch, capsys):
    assert call_tool("refit_head.py", folder / "run", *option, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
