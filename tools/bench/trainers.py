"""The trainers that `compute` compares; as a program, one of them measured in this process.

The engine's is `engine.train.train_step` itself, given the parts of a run that it reads. The others are written here
as their users write them.
"""

import json
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from bench.peaks import DTYPES, time_calls
from engine.config import Config
from engine.data.batch import ClipBatch, ClipFormat
from engine.finite import FiniteGuard
from engine.losses import build_loss
from engine.models.backbones import PUBLISHED_WIDTH, build_backbone
from engine.models.embedder import build_embedder
from engine.optim import build_optimizer
from engine.precision import choose_precision
from engine.schema import parse
from engine.train import train_step
from kernels.clip_normalize import KINETICS_MEAN, KINETICS_STD

TRAINERS = ("engine", "engine flat", "engine compiled", "engine flat compiled", "torchvision", "paper recipe")
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


Step = Callable[[], torch.Tensor]  # one optimiser step on the same batch; returns the loss, on the device


def reduced_precision(device: torch.device) -> str:
    """bf16 where it is native (and on CPUs), else fp16."""
    return "bf16" if device.type == "cpu" else choose_precision("auto", device).name


def flop_per_clip(setting: Setting) -> float:
    """FLOP of a training step per clip: three times those of the forward pass, counted without computing it."""
    model = parse(Config, {"model": {"backbone": setting.backbone, "width": setting.width}}).model
    with torch.device("meta"):
        backbone = build_backbone(model, ClipFormat(setting.frames, 1, setting.crop, setting.crop))
        network = nn.Sequential(backbone, nn.Linear(backbone.feature_dim, EMBED_DIM))
        clip = torch.empty(1, 3, setting.frames, setting.crop, setting.crop)
    with FlopCounterMode(display=False) as counter:
        network.eval()(clip)  # in training mode batch-norm may refuse a single clip
    return 3.0 * counter.get_total_flops()


def build_step(setting: Setting) -> tuple[Step, str]:
    """A trainer's step, and the precision of its arithmetic."""
    device = torch.device(setting.device)
    generator = torch.Generator().manual_seed(0)
    size = (setting.batch, setting.frames, setting.crop, setting.crop, 3)
    frames = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator).to(device)
    targets = functional.normalize(torch.randn(setting.batch, EMBED_DIM, generator=generator), dim=1).to(device)
    torch.manual_seed(0)
    if setting.trainer.startswith("engine"):
        return _engine_step(setting, frames, targets)
    if setting.trainer == "torchvision":
        return _torchvision_step(setting, frames, targets)
    return _paper_step(setting, frames, targets)


def _engine_step(setting: Setting, frames: torch.Tensor, targets: torch.Tensor) -> tuple[Step, str]:
    device, is_compiled = frames.device, "compiled" in setting.trainer
    form = "flat" if "flat" in setting.trainer else "published"
    config = parse(
        Config,
        {
            "model": {"backbone": setting.backbone, "width": setting.width, "form": form},
            "clip": {"num_frames": setting.frames, "short_side": setting.crop, "crop": setting.crop},
            "train": {
                "batch_size": setting.batch,
                "precision": reduced_precision(device) if is_compiled else "auto",
                "compile": is_compiled,
            },
        },
    )
    clip = ClipFormat(setting.frames, 1, setting.crop, setting.crop)
    model = build_embedder(config.model, clip, EMBED_DIM).to(device, memory_format=torch.channels_last_3d)
    precision = choose_precision(config.train.precision, device)
    run = SimpleNamespace(  # what `train_step` reads of an engine.run.Run
        config=config,
        ranks=SimpleNamespace(device=device, rank=0, world_size=1),
        step=0,
        model=model,
        network=torch.compile(model) if is_compiled else model,
        optimizer=build_optimizer(model, config.train, device),
        scaler=torch.amp.GradScaler(device.type, enabled=precision.name == "fp16"),
        guard=FiniteGuard(config.train.max_skipped_steps, config.log.every_steps, device),
        precision=precision,
        loss=build_loss(config.loss, targets),
    )
    nowhere = torch.zeros(setting.batch, dtype=torch.int64)
    batch = ClipBatch(frames, torch.arange(setting.batch, device=device), video=nowhere, start=nowhere)
    return (lambda: train_step(run, batch, targets)), precision.name


def _torchvision_step(setting: Setting, frames: torch.Tensor, targets: torch.Tensor) -> tuple[Step, str]:
    device, precision = frames.device, reduced_precision(frames.device)
    model = _published_network(setting).to(device, memory_format=torch.channels_last_3d)
    network = torch.compile(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    mean, std = (torch.tensor(values, device=device) for values in (KINETICS_MEAN, KINETICS_STD))

    def step() -> torch.Tensor:
        clips = ((frames.float() / 255 - mean) / std).permute(0, 4, 1, 2, 3)  # channels_last_3d as it comes
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, DTYPES[precision]):
            loss = functional.mse_loss(network(clips).float(), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return step, precision


def _paper_step(setting: Setting, frames: torch.Tensor, targets: torch.Tensor) -> tuple[Step, str]:
    model = _published_network(setting).to(frames.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    mean, std = (torch.tensor(values, device=frames.device) for values in (KINETICS_MEAN, KINETICS_STD))

    def step() -> torch.Tensor:
        clips = ((frames.float() / 255 - mean) / std).permute(0, 4, 1, 2, 3).contiguous()
        optimizer.zero_grad()
        loss = functional.mse_loss(functional.normalize(model(clips), dim=1), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, "fp32"


def _published_network(setting: Setting) -> nn.Module:
    """torchvision's own model where it has one; of other widths, and C3D, the engine's, which is put together alike."""
    if setting.width == PUBLISHED_WIDTH and setting.backbone != "c3d":
        return torchvision.models.get_model(setting.backbone, num_classes=EMBED_DIM)
    model = parse(Config, {"model": {"backbone": setting.backbone, "width": setting.width}}).model
    backbone = build_backbone(model, ClipFormat(setting.frames, 1, setting.crop, setting.crop))
    return nn.Sequential(backbone, nn.Linear(backbone.feature_dim, EMBED_DIM))


def measure(setting: Setting) -> dict[str, object]:
    """Seconds of every step, of the warm-up (first steps, compilation included), memory in MB (1e6 bytes), and whether the
    losses stayed finite."""
    device = torch.device(setting.device)
    step, precision = build_step(setting)
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
        "precision": precision,
        "step_s": step_s,
        "warmup_s": warmup_s,
        "peak_mb": _peak_bytes(device) / 1e6,
        "is_finite": all(math.isfinite(loss) for loss in losses),
    }


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)[1]) * 1024


if __name__ == "__main__":  # a fresh process of `compute`
    print(json.dumps(measure(Setting(**json.loads(sys.argv[1])))))
