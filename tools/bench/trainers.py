"""The trainers that `compute` and `train` compare.

The engine's is `engine.train.train_step` itself on an `engine.training.run.Run`. The others are written here as their users
write them.
"""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from bench.manifest import synthetic_manifest
from bench.peaks import DTYPES, time_calls
from engine.config import Config
from engine.data.batch import ClipBatch
from engine.machine import resident_bytes
from engine.models.backbone import build_backbone
from engine.models.backbones import PUBLISHED_WIDTH, RESNETS
from engine.processes.distributed import Ranks
from engine.processes.preemption import StopVote
from engine.schema.parser import parse
from engine.train import train_step
from engine.training.build import build_run
from engine.training.precision import choose_precision
from engine.training.run import Run
from kernels.clip_normalize import KINETICS_MEAN, KINETICS_STD

EMBED_DIM = 300
_WARMUP_STEPS = 3


@dataclass(frozen=True, slots=True)
class Setting:
    """What is trained, on what."""

    trainer: str
    device: str
    backbone: str
    width: int
    frames: int
    crop: int
    batch: int
    steps: int
    trace: str | None = field(default=None)


Call = Callable[[], torch.Tensor]  # one optimiser step on the same batch; returns the loss, on the device
Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # the same from frames [N, T, H, W, 3] and targets [N, D]


def reduced_precision(device: torch.device) -> str:
    """bf16 where it is native (and on CPUs), else fp16."""
    return "bf16" if device.type == "cpu" else choose_precision("auto", device).name


def setting_config(setting: Setting, folder: Path) -> Config:
    """The config of a run of the engine as the setting says; `folder` holds a manifest whose videos are never read."""
    manifest = folder / "manifest.parquet"
    if not manifest.is_file():
        synthetic_manifest(1000).save(manifest)
    is_compiled = "compiled" in setting.trainer
    is_reduced = is_compiled or "bf16" in setting.trainer
    precision = reduced_precision(torch.device(setting.device)) if is_reduced else "auto"
    tree = {
        "run": {"folder": str(folder / "run"), "device": setting.device},
        "data": {"train": [{"manifest": str(manifest)}], "decoder": "pyav"},
        "model": {
            "backbone": setting.backbone,
            "width": setting.width,
            "form": next((form for form in ("flat", "summed", "fused") if form in setting.trainer), "published"),
        },
        "clip": {"num_frames": setting.frames, "short_side": setting.crop, "crop": setting.crop},
        "words": {"source": "random", "dim": EMBED_DIM},
        "train": {
            "batch_size": setting.batch,
            "precision": "fp16" if "fp16" in setting.trainer else precision,
            "compile": is_compiled,
        },
    }
    return parse(Config, tree)


def flop_per_clip(config: Config) -> float:
    """FLOP of a training step per clip: three times those of the forward pass."""
    return 3.0 * sum(_forward_flop(config).values())


def _forward_flop(config: Config) -> dict[str, int]:
    """FLOP of a clip's forward pass by operation, counted without computing it."""
    clip = config.clip
    with torch.device("meta"):
        backbone = build_backbone(config.model, clip)
        network = nn.Sequential(backbone, nn.Linear(backbone.feature_dim, EMBED_DIM))
        clips = torch.empty(1, 3, clip.num_frames, clip.crop, clip.crop)
    with FlopCounterMode(display=False) as counter:
        network.eval()(clips)  # in training mode batch-norm may refuse a single clip
    return {str(operation): flop for operation, flop in counter.get_flop_counts()["Global"].items()}


def build_call(setting: Setting, folder: Path) -> tuple[Call, str]:
    """A trainer's step on one drawn batch, and the precision of its arithmetic."""
    config, device = setting_config(setting, folder), torch.device(setting.device)
    generator = torch.Generator().manual_seed(0)
    size = (setting.batch, setting.frames, setting.crop, setting.crop, 3)
    frames = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator).to(device)
    if setting.trainer.startswith("engine"):
        run = bench_run(config, device)
        return engine_call(run, frames), run.precision.name
    targets = functional.normalize(torch.randn(setting.batch, EMBED_DIM, generator=generator), dim=1).to(device)
    torch.manual_seed(0)
    step, precision = build_baseline(setting.trainer, config, EMBED_DIM, device)
    return (lambda: step(frames, targets)), precision


def bench_run(config: Config, device: torch.device) -> Run:
    """A run of one rank that nothing stops, ready to train."""
    run = build_run(config, Ranks(device), StopVote())
    run.network.train()
    return run


def engine_call(run: Run, frames: torch.Tensor) -> Call:
    """The engine's step on one batch of frames whose classes are 0, 1, 2, ..."""
    nowhere = torch.zeros(len(frames), dtype=torch.int64)
    labels = torch.arange(len(frames), device=frames.device) % len(run.task.targets)
    batch = ClipBatch(frames, labels, video=nowhere, start=nowhere)
    return lambda: train_step(run, batch)


def build_baseline(
    name: str, config: Config, embed_dim: int, device: torch.device, *, is_compiled: bool = True
) -> tuple[Step, str]:
    """The step of "torchvision" or of the "paper recipe", and the precision of its arithmetic."""
    torch.backends.cudnn.benchmark = True  # as torchvision's own training script does, and the engine
    if name == "torchvision":
        return _torchvision_step(published_network(config, embed_dim), device, is_compiled)
    return _paper_step(published_network(config, embed_dim), device)


def _torchvision_step(model: nn.Module, device: torch.device, is_compiled: bool) -> tuple[Step, str]:
    precision = reduced_precision(device)
    model = model.to(device, memory_format=torch.channels_last_3d)
    network = torch.compile(model) if is_compiled else model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    mean, std = (torch.tensor(values, device=device) for values in (KINETICS_MEAN, KINETICS_STD))

    def step(frames: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        clips = ((frames.float() / 255 - mean) / std).permute(0, 4, 1, 2, 3)  # channels_last_3d as it comes
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, DTYPES[precision]):
            loss = functional.mse_loss(network(clips).float(), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return step, precision


def _paper_step(model: nn.Module, device: torch.device) -> tuple[Step, str]:
    model = model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    mean, std = (torch.tensor(values, device=device) for values in (KINETICS_MEAN, KINETICS_STD))

    def step(frames: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        clips = ((frames.float() / 255 - mean) / std).permute(0, 4, 1, 2, 3).contiguous()
        optimizer.zero_grad()
        loss = functional.mse_loss(functional.normalize(model(clips), dim=1), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, "fp32"


def published_network(config: Config, embed_dim: int) -> nn.Module:
    """torchvision's own model where it has one; else (another width, C3D, a transformer, timm's) the engine's."""
    model = config.model
    if model.width == PUBLISHED_WIDTH and model.backbone in RESNETS:
        return torchvision.models.get_model(model.backbone, num_classes=embed_dim)
    published = parse(Config, {"model": {"backbone": model.backbone, "width": model.width, "form": "published"}}).model
    backbone = build_backbone(published, config.clip)
    return nn.Sequential(backbone, nn.Linear(backbone.feature_dim, embed_dim))


def arithmetic(precision: str, device: torch.device, config: Config) -> str:
    """What most of a network called fp32 computes in: TF32 on GPUs that have it where torch allows it, which by default is in
    convolutions and not in matrix products."""
    if precision != "fp32" or device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return precision
    flop = _forward_flop(config)
    is_convolutional = 2 * flop.get("aten.convolution", 0) > sum(flop.values())
    is_allowed = torch.backends.cudnn.allow_tf32 if is_convolutional else torch.backends.cuda.matmul.allow_tf32
    return "tf32" if is_allowed else precision


class Trainer:
    """One of them, in the process that is its own."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def measure(self) -> dict[str, Any]:
        """Seconds of every step, of the warm-up (first steps, compilation included), memory in MB (1e6 bytes), and whether
        the losses stayed finite."""
        with tempfile.TemporaryDirectory() as folder:
            return _measure(self._setting, Path(folder))


def _measure(setting: Setting, folder: Path) -> dict[str, Any]:
    device = torch.device(setting.device)
    step, precision = build_call(setting, folder)
    start = time.perf_counter()
    losses = [step().item() for _ in range(_WARMUP_STEPS)]
    warmup_s = time.perf_counter() - start
    step_s = time_calls(step, device, warmup=0, repeats=setting.steps)
    losses.append(step().item())
    if losses[-1] == losses[0]:
        raise RuntimeError(f"the losses {losses} are not those of a network that is trained")
    if setting.trace:
        with torch.profiler.profile() as profile:
            time_calls(step, device, warmup=0, repeats=3)
        profile.export_chrome_trace(setting.trace)
    return {
        "precision": arithmetic(precision, device, setting_config(setting, folder)),
        "step_s": step_s,
        "warmup_s": warmup_s,
        "peak_mb": _peak_bytes(device) / 1e6,
        "is_finite": all(math.isfinite(loss) for loss in losses),
    }


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident_bytes("VmHWM")
