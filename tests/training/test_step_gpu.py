"""What only a GPU can show of a step: that the host never waits in it, that clips arrive whole beside it, that the
compiled step and the one with CUDA graphs train as the eager one does."""

from types import SimpleNamespace

import pytest
import torch

from engine.config import Config
from engine.data.batch import ClipBatch
from engine.data.loading.transfer import DeviceCopier
from engine.processes.distributed import Ranks
from engine.schema.parser import parse
from engine.semantics.embeddings import ClassEmbeddings
from engine.tasks.zero_shot.task import ZeroShot
from engine.training.finite import FiniteGuard
from engine.training.network import as_called, placed
from engine.training.optim import build_optimizer
from engine.training.precision import choose_precision
from engine.training.step import train_step

BATCH, DIM = 8, 16
GPU = torch.device("cuda", 0)


def make_run(
    precision: str = "auto",
    form: str = "flat",
    backbone: str = "r2plus1d_18",
    loss: str = "squared",
    device: torch.device = GPU,
    clip: tuple[int, int] | None = None,
    **train,
) -> SimpleNamespace:
    """What `train_step` reads of a run."""
    ranks = Ranks(device)
    frames, side = clip or ((16, 32) if backbone == "c3d" else (8, 56))
    config = parse(
        Config,
        {
            "clip": {"num_frames": frames, "short_side": side, "crop": side},
            "model": {"backbone": backbone, "width": 12, "dropout": 0.0, "form": form},
            "loss": {"name": loss},
            "train": {"batch_size": BATCH, "lr": 1e-3, "precision": precision, "compile": "no", **train},
        },
    )
    chosen = choose_precision(config.train.precision, device)
    task = ZeroShot(
        config,
        ranks,
        chosen,
        SimpleNamespace(classes=make_classes(), prior_classes=(), notes=[], train=SimpleNamespace(manifest=())),
    )
    torch.manual_seed(config.run.seed)
    model = placed(task.build_model(), config, ranks, chosen)
    return SimpleNamespace(
        config=config, ranks=ranks, step=0, task=task, model=model, network=as_called(model, config, ranks),
        optimizer=build_optimizer(model, config.train, device),
        scaler=torch.amp.GradScaler(device.type, enabled=chosen.name == "fp16"),
        guard=FiniteGuard(10, 10, device), precision=chosen,
    )  # fmt: skip


def make_classes() -> ClassEmbeddings:
    vectors = torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(0)).numpy()
    return ClassEmbeddings.from_raw([f"class {i}" for i in range(BATCH)], vectors, "random", [()] * BATCH)


def make_batch(device: torch.device, config: Config) -> ClipBatch:
    clip, generator = config.clip, torch.Generator().manual_seed(0)
    size = (BATCH, clip.num_frames, clip.crop, clip.crop, 3)
    frames = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator).to(device)
    nowhere = torch.zeros(BATCH, dtype=torch.int64)
    return ClipBatch(frames, torch.arange(BATCH, device=device), video=nowhere, start=nowhere)


def curve(run: SimpleNamespace, steps: int) -> list[float]:
    batch = make_batch(run.ranks.device, run.config)
    losses = [train_step(run, batch) for _ in range(steps)]
    return [loss.item() for loss in losses]


def test_the_runs_of_these_tests_train_on_a_cpu_too():
    """So that they are not found to be out of date when there is a GPU at last."""
    losses = curve(make_run("fp32", device=torch.device("cpu")), 6)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "auto", "fp16"])
@pytest.mark.parametrize("loss", ["squared", "aurl"])
@pytest.mark.parametrize("backbone", ["r2plus1d_18", "r3d_18", "mc3_18", "c3d"])
def test_every_network_learns_its_batch_in_every_precision(backbone, loss, precision):
    losses = curve(make_run(precision, "auto", backbone, loss), 12)
    assert min(losses[-3:]) < 0.9 * losses[0]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "auto", "fp16"])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "grad_clip": 1.0}, {"checkpoint_activations": True}])
def test_the_host_never_waits_within_a_step(precision, options):
    run = make_run(precision, **options)
    batch = make_batch(GPU, run.config)
    train_step(run, batch)  # constants reach the device once, cuDNN chooses
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        loss = train_step(run, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.item() > 0


@pytest.mark.gpu
def test_clips_copied_beside_a_busy_step_arrive_whole_and_do_not_wait_for_it():
    device = torch.device("cuda", 0)
    copier = DeviceCopier(device)
    copier(copier.empty((4, 16, 112, 112, 3), torch.uint8))  # the driver's own allocations may wait for kernels
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
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("default", {}),
        ("default", {"form": "fused"}),
        ("reduce-overhead", {}),
        ("reduce-overhead", {"accumulate": 2}),
        ("reduce-overhead", {"checkpoint_activations": True}),
    ],
)
def test_compiled_steps_train_as_eager_ones_do(monkeypatch, mode, options):
    """`reduce-overhead` records CUDA graphs; they are replayed from the fourth step on."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # its roundings would grow from step to step
    eager = curve(make_run("fp32", lr=1e-4, **options), 10)
    compiled = curve(make_run("fp32", lr=1e-4, compile="yes", compile_mode=mode, **options), 10)
    assert compiled == pytest.approx(eager, rel=2e-2)
    assert eager[-1] < 0.9 * eager[0]
    torch.compiler.reset()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_fused_form_trains_as_the_flat_one_does(precision):
    """Whose kernels run in half precision only; both are eager here."""
    flat, fused = (curve(make_run(precision, form, lr=1e-4), 10) for form in ("flat", "fused"))
    assert fused == pytest.approx(flat, rel=5e-2)
    assert flat[-1] < 0.9 * flat[0]


@pytest.mark.gpu
@pytest.mark.slow
def test_the_fused_form_compiled_learns_its_batch():
    losses = curve(make_run("bf16", "fused", compile="yes"), 12)
    assert min(losses[-3:]) < 0.9 * losses[0]
    torch.compiler.reset()
