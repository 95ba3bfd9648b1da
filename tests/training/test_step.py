"""The options of a step: each leaves the mathematics alone, or does to it exactly what it says."""

import dataclasses
import gc
from pathlib import Path

import pytest
import torch

from engine.config import load_config
from engine.data.loading.loader import ClipLoader
from engine.errors import InputError
from engine.evaluation.inference import load_model
from engine.processes.distributed import Ranks
from engine.processes.preemption import Preempted, StopVote
from engine.tasks import decoding
from engine.tasks.zero_shot.model import build_model
from engine.tasks.zero_shot.trained import load_for_inference
from engine.train import train
from engine.training.build import build_run
from engine.training.checkpoint import read_checkpoint
from engine.training.losses import squared
from engine.training.precision import choose_precision
from engine.training.resume import restore
from engine.training.run import Run, save_newest
from engine.training.step import step_seed, train_step
from tests import jobs
from tests.environment import UNFREEZE

CPU = Ranks(torch.device("cpu"))


def make_config(videos: Path, folder: Path, *overrides: str):
    """A narrow R(2+1)D on the small videos, in fp64 so that equal means equal."""
    path = jobs.write_config(
        folder / "config.yaml", videos, folder / "run",
        model={"backbone": "r2plus1d_18", "width": 4, "dropout": 0.3},
        train={"epochs": 2, "batch_size": 4, "lr": 1e-3, "milestones": [], "precision": "fp64"},
        evaluate={"every_epochs": 2, "num_snippets": 1}, log={"every_steps": 1, "sample_clips": 0},
    )  # fmt: skip
    return load_config(path, list(overrides))


@pytest.fixture
def steps(videos, tmp_path):
    """Some steps with options: (run, losses, gradients of the last step)."""
    loaders: list[ClipLoader] = []

    def go(*overrides: str, count: int = 3) -> tuple[Run, list[float], dict[str, torch.Tensor]]:
        run = build_run(make_config(videos, tmp_path / str(len(loaders)), *overrides), CPU, StopVote())
        loaders.append(run.task.batches(run))
        run.network.train()
        losses = []
        for _ in range(count):
            losses.append(train_step(run, next(loaders[-1])).item())
            run.step += 1
        gradients = {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}
        return run, losses, gradients

    yield go
    for loader in loaders:
        loader.close()


def assert_same(found: tuple[Run, list[float], dict], expected: tuple[Run, list[float], dict], rtol: float) -> None:
    assert found[1] == pytest.approx(expected[1], rel=rtol)
    for name, gradient in expected[2].items():
        difference = (found[2][name] - gradient).abs().max()
        assert difference <= rtol * gradient.abs().max(), name
    assert expected[2]["backbone.stem.0.weight"].any()


def test_recomputed_activations_change_no_loss_gradient_or_statistic(steps):
    """Bit for bit, dropout and the running statistics of batch-norm included, in both forms."""
    for form in ("published", "flat"):
        kept = steps(f"model.form={form}")
        again = steps(f"model.form={form}", "train.checkpoint_activations=true")
        assert kept[1] == again[1]
        assert all(torch.equal(gradient, again[2][name]) for name, gradient in kept[2].items())
        state = again[0].model.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in kept[0].model.state_dict().items())
        assert int(state["backbone.stem.1.num_batches_tracked"]) == 3


def test_the_form_changes_the_losses_by_rounding_only(steps):
    published, automatic = steps("model.form=published", count=1), steps("model.form=auto", count=1)
    assert any(line.startswith("form: flat (model.form is auto") for line in automatic[0].notes)
    assert_same(automatic, published, rtol=1e-8)
    assert steps("model.form=auto")[1] == pytest.approx(steps("model.form=published")[1], rel=1e-6)


@pytest.mark.parametrize("form", ["flat", "summed"])
def test_a_snippet_too_small_to_be_a_batch_is_told(steps, form):
    words = ("clip.num_frames=2", "clip.short_side=16", "clip.crop=16", f"model.form={form}", "train.accumulate=4")
    with pytest.raises(InputError, match=r"^train.batch_size: 1 snippet at a time gives batch-norm a single value"):
        steps(*words, count=1)
    assert len(steps(*words[:-1], count=1)[1]) == 1


def test_no_step_and_no_rank_draws_what_another_does():
    """In one run, nor in one of the next seed."""
    seeds = [step_seed(seed, step, rank, 4) for seed in (7, 8) for step in range(5) for rank in range(4)]
    assert len(set(seeds)) == len(seeds)


def test_cuda_graphs_are_refused_on_a_cpu(videos, tmp_path):
    config = make_config(videos, tmp_path, "train.compile=yes", "train.compile_mode=reduce-overhead")
    with pytest.raises(InputError, match="records CUDA graphs, which a CPU has not"):
        build_run(config, CPU, StopVote())


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_deterministic_run_asks_for_decoders_by_rule(videos, tmp_path, monkeypatch, deterministic):
    asked = []

    def choose(name, device, manifests, *, by_rule, motion):
        asked.append((name, len(manifests) > 1, by_rule))
        raise InputError("enough")

    monkeypatch.setattr(decoding, "choose_decoder", choose)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)
    with pytest.raises(InputError, match="enough"):
        build_run(make_config(videos, tmp_path, f"run.deterministic={str(deterministic).lower()}"), CPU, StopVote())
    assert asked == [("auto", True, deterministic)]


def test_c3d_is_not_deterministic_on_a_gpu_and_says_so(videos, tmp_path):
    config = make_config(videos, tmp_path, "model.backbone=c3d", "run.deterministic=true")
    gpu, clip = torch.device("cuda", 0), config.clip
    with pytest.raises(InputError, match="gradient of c3d's pooling is not deterministic on a GPU"):
        build_model(config, gpu, choose_precision("fp32", gpu), clip, 8, squared)


def test_gradients_of_cuda_graphs_are_added_up_outside_of_their_memory(steps):
    """The graphs themselves: tests/training/test_step_gpu.py."""
    expected = steps("train.accumulate=2", "model.dropout=0")
    run, _, _ = steps("train.accumulate=2", "model.dropout=0", count=0)
    graphs = dataclasses.replace(run.config.train, compile="yes", compile_mode="reduce-overhead")
    run.config = dataclasses.replace(run.config, train=graphs)
    loader = run.task.batches(run)
    losses, memory = [], []
    for _ in range(3):
        losses.append(train_step(run, next(loader)).item())
        memory.append([parameter.grad.data_ptr() for parameter in run.model.parameters()])
        run.step += 1
    loader.close()
    assert memory[0] == memory[1] == memory[2]
    assert_same((run, losses, {name: p.grad for name, p in run.model.named_parameters()}), expected, rtol=1e-12)


def test_a_run_resumes_in_fp16_though_it_was_saved_without_a_loss_scale(videos, tmp_path):
    run = build_run(make_config(videos, tmp_path), CPU, StopVote())
    save_newest(run)
    again = build_run(make_config(videos, tmp_path), CPU, StopVote())
    again.scaler = torch.amp.GradScaler("cpu")
    restore(again)
    assert again.scaler.get_scale() == torch.amp.GradScaler("cpu").get_scale()


class StopAfter(StopVote):
    """Asked to stop after some steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def agreed(self, group) -> bool:
        self.steps -= 1
        return self.steps < 0


def test_the_average_is_one_resumes_bit_for_bit_and_is_what_is_evaluated(videos, tmp_path, monkeypatch):
    seen = []  # the weights after each step, of the uninterrupted run

    def remember(run, batch):
        loss = train_step(run, batch)
        seen.append({name: value.clone() for name, value in run.model.state_dict().items()})
        return loss

    option = ["train.ema_decay=0.4", "data.tests=[]"]
    start = build_run(make_config(videos, tmp_path / "start", *option), CPU, StopVote()).model.state_dict()
    monkeypatch.setattr("engine.train.train_step", remember)
    config = make_config(videos, tmp_path / "whole", *option)
    train(config, CPU, StopVote())
    monkeypatch.undo()
    whole = read_checkpoint(max((tmp_path / "whole/run/checkpoints").glob("step_*.pt")))
    assert len(seen) == whole["step"] > 6
    expected = {name: value.clone() for name, value in start.items()}
    for step, weights in enumerate(seen, start=1):
        decay = min(0.4, (1 + step) / (10 + step))
        for name, value in weights.items():
            expected[name] = decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value
    assert decay == 0.4
    for name, value in expected.items():
        torch.testing.assert_close(whole["average"][name], value, rtol=1e-12, atol=1e-15, msg=name)
    assert not torch.equal(whole["average"]["linear.weight"], whole["model"]["linear.weight"])

    cut = make_config(videos, tmp_path / "cut", *option)
    with pytest.raises(Exception, match="stopped after step 4"):
        train(cut, CPU, StopAfter(4))
    train(cut, CPU, StopVote())
    assert "resumed at step 4 " in (tmp_path / "cut/run/log.txt").read_text()
    resumed = read_checkpoint(max((tmp_path / "cut/run/checkpoints").glob("step_*.pt")))
    for kind in ("model", "average"):
        assert all(torch.equal(value, resumed[kind][name]) for name, value in whole[kind].items())
    assert jobs.losses(tmp_path / "cut/run") == jobs.losses(tmp_path / "whole/run")

    best = read_checkpoint(tmp_path / "whole/run/checkpoints/best.pt")
    folder = tmp_path / "whole/run"
    for model, kind in (
        (load_for_inference(folder, CPU.device).model, "average"),
        (load_model(folder, CPU.device, overrides=["evaluate.weights=trained"]).model, "model"),
    ):
        assert torch.equal(model.linear.weight, best[kind]["linear.weight"].float())


def test_an_error_of_a_step_that_is_asked_to_stop_costs_that_step_alone(videos, tmp_path, monkeypatch):
    """A signal to all processes of a job ends a compiler too. Batch-norm's statistics have moved by then."""
    option = ["train.accumulate=2", "train.ema_decay=0.4", "data.tests=[]"]
    train(make_config(videos, tmp_path / "whole", *option), CPU, StopVote())
    cut, vote, backward, calls = make_config(videos, tmp_path / "cut", *option), StopVote(), torch.Tensor.backward, []

    def fail(loss):
        calls.append(loss)
        if len(calls) == 8:  # the second part of step 4
            vote.signal_name = "SIGTERM"
            raise RuntimeError("C++ compile error\n\nCommand:\ng++")
        backward(loss)

    monkeypatch.setattr(torch.Tensor, "backward", fail)
    with pytest.raises(Preempted):
        train(cut, CPU, vote)
    monkeypatch.undo()
    log = (tmp_path / "cut/run/log.txt").read_text()
    assert "step 4 was broken off while the run was asked to stop (RuntimeError: C++ compile error)\n" in log
    assert "stopped after step 3 as asked: the same command goes on from there" in log
    train(cut, CPU, StopVote())
    assert "resumed at step 3 " in (tmp_path / "cut/run/log.txt").read_text()
    whole, resumed = (
        read_checkpoint(max((tmp_path / name / "run/checkpoints").glob("step_*.pt"))) for name in ("whole", "cut")
    )
    for kind in ("model", "average"):
        assert all(torch.equal(value, resumed[kind][name]) for name, value in whole[kind].items())


def test_an_error_of_a_step_that_nobody_stops_is_left_as_it_is(videos, tmp_path, monkeypatch):
    def fail(_):
        raise RuntimeError("C++ compile error")

    monkeypatch.setattr(torch.Tensor, "backward", fail)
    with pytest.raises(RuntimeError, match=r"^C\+\+ compile error$"):
        train(make_config(videos, tmp_path, "data.tests=[]"), CPU, StopVote())
    assert not list((tmp_path / "run/checkpoints").glob("*.pt"))


def test_the_log_tells_warm_up_apart(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(gc, "unfreeze", UNFREEZE)
    train(make_config(videos, tmp_path, "train.epochs=1", "data.tests=[]"), CPU, StopVote())
    assert gc.isenabled() and gc.get_freeze_count() == 0
    (warm_up,) = jobs.events(tmp_path / "run", "warm_up")
    assert warm_up["seconds"] > 0
    logged = [event for event in jobs.events(tmp_path / "run", "scalars") if "train/loss" in event]
    assert ["speed/clips_per_second" in event for event in logged] == [False] + [True] * (len(logged) - 1)


def test_garbage_is_collected_only_between_counted_steps(videos, tmp_path, monkeypatch):
    collected, steps = [], []
    monkeypatch.setattr(gc, "collect", lambda *_: collected.append(len(steps)) or 0)
    monkeypatch.setattr("engine.train.train_step", lambda *a: steps.append(gc.isenabled()) or train_step(*a))
    train(make_config(videos, tmp_path, "train.gc_every_steps=2", "data.tests=[]", "train.epochs=1"), CPU, StopVote())
    assert not any(steps)
    assert set(range(2, len(steps), 2)) <= set(collected)
