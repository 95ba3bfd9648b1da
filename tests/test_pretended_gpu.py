"""What can be said of the way to a GPU without one: nothing mixes devices, no step has the host wait."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.api import load
from engine.config import load_config
from engine.models.backbones import VideoResNet
from engine.training.step import train_step
from tests import jobs
from tests.encoded import write_colors
from tests.pretended_gpu import CPU, GPU, DevicesMixed, only_without_gpu, pretended_gpu, trained_there
from tests.small_run import write_run
from tests.training.test_step_gpu import curve, make_batch, make_run

pytestmark = only_without_gpu


def test_what_a_gpu_refuses_is_refused():
    with pretended_gpu() as waits:
        there, here = torch.arange(6.0, device="cuda"), torch.arange(6.0)
        for call in (
            lambda: there + here, lambda: torch.cat([here, there]), lambda: here[there.long()],
            lambda: torch.nn.functional.linear(there, torch.eye(6)), lambda: there.numpy(), lambda: torch.equal(there, here),
            lambda: torch.rand(2, device=GPU, generator=torch.Generator()), lambda: there.uniform_(generator=torch.Generator()),
        ):  # fmt: skip
            with pytest.raises(DevicesMixed):
                call()
        assert not waits
        assert (there + torch.tensor(1.0)).cpu().tolist() == [1, 2, 3, 4, 5, 6]
        assert there.device == there.to("cuda").device == (there * 2).device == torch.zeros_like(there).device == GPU
        assert there.cpu().device == there.to(here).device == CPU


@pytest.mark.parametrize(
    "call",
    [
        torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.nonzero, lambda x: x[x > 0], bool,
        lambda x: x[torch.zeros(1, dtype=torch.int64)], lambda x: x.copy_(torch.ones(1)),
        lambda x: torch.tensor([1.0], device=x.device),
    ],
)  # fmt: skip
def test_where_the_host_waits_is_noted(call):
    with pretended_gpu() as waits:
        there = torch.ones(1, device=GPU)
        assert not waits
        call(there)
        assert len(waits) == 1
        assert "test_pretended_gpu.py" in waits[0]
        for each in (there + 1, there.to(CPU, non_blocking=True), there.sum(), there[0], there.copy_(there)):
            assert each is not None
        assert len(waits) == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate": 2, "grad_clip": 1.0, "checkpoint_activations": True},
        {"backbone": "c3d", "form": "published", "loss": "aurl", "clip": (16, 32)},
    ],
)
def test_a_step_has_the_host_wait_for_nothing_and_gives_the_loss_of_the_cpu(options):
    options = {"clip": (4, 24), **options}
    expected = curve(make_run("fp64", device=CPU, **options), 2)
    with pretended_gpu() as waits:
        run = make_run("fp64", **options)
        batch = make_batch(GPU, run.config)
        losses = [train_step(run, batch)]  # constants reach the device once
        waits.clear()
        losses.append(train_step(run, batch))
        assert waits == []
        assert [value.item() for value in losses] == pytest.approx(expected, rel=1e-12)


class Copies(TorchDispatchMode):
    """Notes the shapes of what is copied within."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if operation.overloadpacket in (torch.ops.aten.copy_, torch.ops.aten.clone):
            self.shapes.append(tuple(result.shape))
        return result


@pytest.mark.parametrize("form", ["published", "flat", "summed", "fused"])
def test_a_step_copies_no_activation(form):
    """As autograd does three times with a view that is changed in place, such as what a batch-norm of clips returns."""
    with pretended_gpu():
        model = VideoResNet("r2plus1d_18", 8, form=form).to(GPU, memory_format=torch.channels_last_3d)
        clips = torch.randn(5, model.clip_channels, 3, 32, 32, device=GPU).contiguous(
            memory_format=torch.channels_last_3d
        )
        with Copies() as copies:
            model(clips).sum().backward()
    assert [shape for shape in copies.shapes if len(shape) >= 4 and shape[0] % 5 == 0] == []
    assert all(weight.grad is not None for weight in model.parameters())


def test_loss_scaling_of_fp16_has_the_host_wait_for_nothing():
    with pretended_gpu() as waits:
        run = make_run("auto", clip=(4, 24))
        assert run.precision.name == "fp16"
        batch = make_batch(GPU, run.config)
        train_step(run, batch)
        waits.clear()
        assert train_step(run, batch).device == GPU
        assert waits == []


def test_a_whole_training_stays_on_its_device(videos, tmp_path, monkeypatch):
    path = jobs.write_config(tmp_path / "config.yaml", videos, tmp_path / "run", words={"source": "random", "dim": 8},
                             train={"epochs": 2}, run={"device": "auto", "control": False})  # fmt: skip
    results = trained_there(load_config(path, []), monkeypatch)
    assert results


def test_videos_are_named_there_as_on_the_cpu(tmp_path):
    write_run(tmp_path / "run")
    videos = []
    for name, color in {"sea": (0, 40, 220), "meadow": (0, 200, 40)}.items():
        write_colors(tmp_path / f"{name}.mp4", [color] * 9)
        videos.append(tmp_path / f"{name}.mp4")
    on_cpu = load(tmp_path / "run", device="cpu")
    with pretended_gpu():
        there = load(tmp_path / "run", device="cuda")
        assert there.embed_videos(videos).device == CPU
        torch.testing.assert_close(
            there.embed_videos(videos), on_cpu.embed_videos(videos), rtol=2e-2, atol=2e-3
        )  # fp16
        names = [there.name(video, ["sea", "meadow", "red"]) for video in videos]
    for found, expected in zip(names, [on_cpu.name(video, ["sea", "meadow", "red"]) for video in videos], strict=True):
        assert dict(found) == pytest.approx(dict(expected), abs=5e-3)
