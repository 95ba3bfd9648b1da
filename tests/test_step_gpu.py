"""What only a GPU can show of a step: that the host never waits in it, that clips arrive whole beside it, that the
compiled step and the one with CUDA graphs train as the eager one does."""

from types import SimpleNamespace

import pytest
import torch

from engine.config import Config
from engine.data.batch import ClipBatch, ClipFormat
from engine.data.transfer import DeviceCopier
from engine.distributed import Ranks
from engine.finite import FiniteGuard
from engine.losses import build_loss
from engine.network import as_called, build_model
from engine.optim import build_optimizer
from engine.precision import choose_precision
from engine.schema import parse
from engine.step import train_step

BATCH, DIM = 8, 16


def make_run(precision: str = "auto", form: str = "flat", **train) -> SimpleNamespace:
    """What `train_step` reads of a run, on the first GPU."""
    ranks = Ranks(0, 1, 0, 1, torch.device("cuda", 0))
    config = parse(
        Config,
        {
            "model": {"backbone": "r2plus1d_18", "width": 12, "dropout": 0.0, "form": form},
            "train": {"batch_size": BATCH, "lr": 1e-4, "precision": precision, **train},
        },
    )
    chosen = choose_precision(config.train.precision, ranks.device)
    model, _ = build_model(config, ranks, chosen, ClipFormat(8, 1, 56, 56), DIM)
    return SimpleNamespace(
        config=config, ranks=ranks, step=0, model=model, network=as_called(model, config.train, ranks),
        optimizer=build_optimizer(model, config.train, ranks.device),
        scaler=torch.amp.GradScaler("cuda", enabled=chosen.name == "fp16"),
        guard=FiniteGuard(10, 10, ranks.device), precision=chosen, loss=build_loss(config.loss),
    )  # fmt: skip


def make_batch() -> tuple[ClipBatch, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (BATCH, 8, 56, 56, 3), dtype=torch.uint8, generator=generator).cuda()
    targets = torch.nn.functional.normalize(torch.randn(BATCH, DIM, generator=generator), dim=1).cuda()
    nowhere = torch.zeros(BATCH, dtype=torch.int64)
    return ClipBatch(frames, torch.arange(BATCH, device="cuda"), video=nowhere, start=nowhere), targets


def curve(run: SimpleNamespace, steps: int) -> list[float]:
    batch, targets = make_batch()
    losses = [train_step(run, batch, targets) for _ in range(steps)]
    return [loss.item() for loss in losses]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "auto", "fp16"])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "grad_clip": 1.0}, {"checkpoint_activations": True}])
def test_the_host_never_waits_within_a_step(precision, options):
    run, (batch, targets) = make_run(precision, **options), make_batch()
    train_step(run, batch, targets)  # constants reach the device once, cuDNN chooses
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        loss = train_step(run, batch, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.item() > 0


@pytest.mark.gpu
def test_clips_copied_beside_a_busy_step_arrive_whole_and_do_not_wait_for_it():
    device = torch.device("cuda", 0)
    copier = DeviceCopier(device)
    busy = torch.randn(4096, 4096, device=device)
    for round_ in range(5):
        host = copier.empty((4, 16, 112, 112, 3), torch.uint8)
        host.random_(0, 256, generator=torch.Generator().manual_seed(round_))
        assert host.is_pinned()
        for _ in range(200):
            busy = torch.nn.functional.normalize(busy @ busy)
        done = torch.cuda.Event()
        done.record()
        copied = copier(host)
        assert not done.query(), "the copy waited for the kernels of the step"
        doubled = copied.to(torch.int16) * 2  # on the step's stream, behind its kernels
        expected = host.to(torch.int16) * 2
        del copied, host  # the memory must not go to the next round before it was read
        assert torch.equal(doubled.cpu(), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["published", "flat"])
def test_the_flat_forms_padding_on_a_gpu_changes_nothing(form):
    """Channels are filled to multiples of 8 there, those of the clips included."""
    run = make_run("fp64", form)
    assert run.model.backbone.clip_channels == (8 if form == "flat" else 3)
    assert curve(run, 3) == pytest.approx(curve(make_run("fp64", "published"), 3), rel=1e-7)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"checkpoint_activations": True}])
def test_compiled_steps_train_as_eager_ones_do(mode, options):
    """`reduce-overhead` records CUDA graphs; they are replayed from the fourth step on."""
    eager = curve(make_run("fp32", **options), 10)
    compiled = curve(make_run("fp32", compile=True, compile_mode=mode, **options), 10)
    assert compiled == pytest.approx(eager, rel=2e-2)
    assert eager[-1] < 0.9 * eager[0]
    torch.compiler.reset()
