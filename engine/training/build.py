"""From a config to a run that is ready to go on: its task, its model on the device, the state it resumes from."""

import os
from pathlib import Path

import torch

from engine.config import Config
from engine.data.remote.settings import use
from engine.processes.distributed import Ranks
from engine.processes.preemption import StopVote
from engine.processes.watchdog import Watchdog
from engine.tasks.catalogue import find_task
from engine.terminal.command_line import output_folder
from engine.training.ema import build_average
from engine.training.finite import FiniteGuard
from engine.training.network import as_called, placed
from engine.training.optim import build_optimizer
from engine.training.precision import choose_precision
from engine.training.resume import restore
from engine.training.run import Run


def build_run(config: Config, ranks: Ranks, stop: StopVote) -> Run:
    """Build the task and the model of a run, and resume it if it was started before.

    Raises:
        InputError: of the task (data, words, weights), of an option this device has not, of a checkpoint that is not its own.
    """
    if ranks.is_main:
        output_folder(Path(config.run.folder), "run.folder")
    if config.run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may add in another order
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.run.deterministic  # tries cuDNN's algorithms once for each shape
    use(config.data.remote)
    precision = choose_precision(config.train.precision, ranks.device)
    task = find_task(config.task).build(config, ranks, precision)
    torch.manual_seed(config.run.seed)
    model = placed(task.build_model(), config, ranks, precision)
    run = Run(
        config=config,
        ranks=ranks,
        stop=stop,
        watchdog=Watchdog(ranks.store, ranks.rank, ranks.world_size, config.run.timeout_s),
        folder=Path(config.run.folder),
        task=task,
        model=model,
        network=model,
        average=build_average(model, config),
        optimizer=build_optimizer(model, config.train, ranks.device),
        scaler=torch.amp.GradScaler(ranks.device.type, enabled=precision.name == "fp16"),
        guard=FiniteGuard(config.train.max_skipped_steps, config.log.every_steps, ranks.device),
        precision=precision,
        notes=list(task.notes),
    )
    restore(run)
    run.network = as_called(run.model, config, ranks)
    return run
