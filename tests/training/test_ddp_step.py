"""A step over two real processes: gradients meet once a step whatever the micro-batches, statistics before evaluation."""

import json

import pytest

from tests import jobs

WORKER = """
import json, sys, warnings
from types import SimpleNamespace
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from engine.config import Config, RunConfig
from engine.data.batch import ClipBatch
from engine.processes.distributed import session, broadcast_buffers
from engine.errors import InputError
from engine.training.finite import FiniteGuard
from engine.training.network import as_called, placed
from engine.training.optim import build_optimizer
from engine.training.precision import choose_precision
from engine.schema.parser import parse
from engine.semantics.embeddings import ClassEmbeddings
from engine.training.step import train_step
from engine.tasks.zero_shot.task import ZeroShot

def config(**train):
    model = {"backbone": "r2plus1d_18", "width": 4, "dropout": 0.0}
    clip = {"num_frames": 4, "short_side": 24, "crop": 24}
    return parse(Config, {"clip": clip, "model": model, "train": {"batch_size": 8, "precision": "fp64", **train}})

def run_of(config, ranks):
    precision = choose_precision("fp64", ranks.device)
    vectors = torch.randn(4, 5, generator=torch.Generator().manual_seed(9)).numpy()
    classes = ClassEmbeddings.from_raw("abcd", vectors, "random", [()] * 4)
    nothing = SimpleNamespace(manifest=())
    sets = SimpleNamespace(classes=classes, prior_classes=(), notes=[], train=nothing)
    task = ZeroShot(config, ranks, precision, sets)
    torch.manual_seed(config.run.seed)
    model = placed(task.build_model(), config, ranks, precision)
    return SimpleNamespace(
        config=config, ranks=ranks, step=0, task=task, model=model, network=as_called(model, config, ranks),
        optimizer=build_optimizer(model, config.train, ranks.device), scaler=torch.amp.GradScaler("cpu", enabled=False),
        guard=FiniteGuard(10, 10, ranks.device), precision=precision,
    )

warnings.simplefilter("error", FutureWarning)  # what torch is going to drop
with session(RunConfig(device="cpu")) as ranks:
    generator = torch.Generator().manual_seed(ranks.rank)
    frames = torch.randint(0, 256, (4, 4, 24, 24, 3), dtype=torch.uint8, generator=generator)
    batch = ClipBatch(frames, torch.arange(4), torch.arange(4), torch.arange(4))
    seen = {}
    for accumulate in (1, 2):
        run = run_of(config(accumulate=accumulate), ranks)
        reduced = []
        run.network.register_comm_hook(None, lambda state, bucket: reduced.append(bucket.index()) or allreduce_hook(state, bucket))
        for _ in range(3):
            train_step(run, batch)
        seen[f"reduced {accumulate}"] = reduced
        seen[f"weights {accumulate}"] = run.model.linear.weight.sum().item()
        seen["is_view"] = run.network.gradient_as_bucket_view
    norm = run.model.backbone.stem[1]
    seen["statistics before"] = norm.running_mean.tolist()
    broadcast_buffers(run.model)
    seen["statistics after"] = norm.running_mean.tolist()
    try:
        run_of(config(sync_bn=True), ranks)
    except InputError as error:
        seen["sync_bn"] = str(error)
    with open(f"{sys.argv[1]}/{ranks.rank}.json", "w") as file:
        json.dump(seen, file)
"""


@pytest.mark.distributed
def test_a_step_over_two_ranks(tmp_path):
    jobs.run_script(WORKER, tmp_path, ranks=2, timeout_s=300)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    once = first["reduced 1"]
    assert len(once) >= 3
    # DDP may cut its buckets anew after the first step; micro-batches must not add any.
    assert first["reduced 2"] == once
    for accumulate in (1, 2):
        assert first[f"weights {accumulate}"] == second[f"weights {accumulate}"]
    assert first["is_view"]
    assert first["statistics before"] != second["statistics before"]
    assert first["statistics after"] == second["statistics after"] == first["statistics before"]
    assert "train.sync_bn needs GPUs" in first["sync_bn"]
