"""Train a video model end to end, for zero-shot recognition unless the config names another task.

    torchrun engine/train.py CONFIG [section.key=value ...]
    torchrun --nproc-per-node 8 engine/train.py configs/kinetics_r2plus1d.yaml run.folder=runs/k664
    python   engine/train.py configs/kinetics_r2plus1d.yaml --ranks 8      (the same, and without torchrun's tracebacks)
    python   engine/train.py configs/quickstart.yaml train.epochs=4

Reads the config, indexes nothing (tools/index_dataset.py does), trains from random snippets, measures
seen and unseen classes as it goes, resumes by itself when it is started again, and leaves in the run
folder: config.yaml, log.txt, log.jsonl, tensorboard/, checkpoints/, results.json, report.html and pictures.
"""

from engine.errors import read_command, run_command
from engine.processes import early_signals
from engine.training import options

if __name__ == "__main__":  # before the imports below, which take seconds
    early_signals.keep()
    early_signals.stop_with_launcher()
    CONFIG = read_command(options.read, __doc__)

import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.config import Config, save_config
from engine.data.batch import Batch
from engine.data.remote.settings import given_up_when
from engine.errors import InputError, SourceGone
from engine.processes.distributed import Ranks, barrier, broadcast_buffers, done_by_main, session
from engine.processes.preemption import Preempted, StopVote, stop_on_signals
from engine.provenance import append_provenance
from engine.tasks.catalogue import find_task
from engine.training import report
from engine.training.alone import alone_in
from engine.training.build import build_run
from engine.training.garbage import collected_by_hand
from engine.training.in_hand import next_batch
from engine.training.optim import learning_rate, set_learning_rate
from engine.training.resume import begin_course
from engine.training.run import Run, load_best, save_best, save_newest
from engine.training.step import train_step, warmup_steps
from engine.training.telemetry import Telemetry


def main(config: Config) -> None:
    """Train, evaluate and report."""
    task = find_task(config.task)
    with (
        session(config.run) as ranks,
        stop_on_signals() as stop,
        given_up_when(stop.requested),
        alone_in(Path(config.run.folder), ranks),  # to the end of its control, which is reported there
    ):
        earlier, reached, control = task.before(config), None, None
        try:
            for each in filter(None, (earlier, config)):
                if each.procedural is not None:
                    _write_videos(each, ranks)
            if earlier is not None:
                _train_beside(earlier, ranks, stop)
            reached = train(config, ranks, stop)
            beside = task.control(config, reached)
            if beside is not None:
                if ranks.is_main:
                    task.show_before_control(reached)
                control = _train_beside(beside, ranks, stop)
        except (Preempted, SourceGone) as ended:  # exit status 0: a scheduler should not count it as a failure
            if isinstance(ended, SourceGone) and not stop.requested():
                raise
            if reached is not None and ranks.is_main:
                print("the run itself is finished, as told above: only its control is not", flush=True)
            if stop.signal_name == "SIGINT":  # but what a user breaks off is not done
                raise KeyboardInterrupt from None
            return
        if ranks.is_main:
            task.show(reached, control)


def _train_beside(config: Config, ranks: Ranks, stop: StopVote) -> Any:
    """The run that another one needs, or its control: in a folder of its own."""
    with alone_in(Path(config.run.folder), ranks):
        return train(config, ranks, stop)


def _write_videos(config: Config, ranks: Ranks) -> None:
    from engine.data.drawn.procedural import write_procedural_dataset

    done_by_main(ranks, lambda: write_procedural_dataset(config.procedural))


def train(config: Config, ranks: Ranks, stop: StopVote) -> Any:
    """One model, from its first (or last saved) step to its final evaluation. Returns what its task concludes.

    Raises:
        Preempted: it was asked to stop; what was done is saved.
    """
    run = build_run(config, ranks, stop)
    is_unmeasured = run.measures_now and run.measured < run.step  # it was stopped in that evaluation
    if run.step >= run.total_steps and not is_unmeasured:
        reached = run.task.recorded(run)
        if reached is not None:
            stop.finish()
            run.watchdog.close()
            return reached
    run.notes += run.task.rehearse()
    telemetry = Telemetry(
        run.folder,
        ranks,
        every_steps=config.log.every_steps,
        batch_size=config.train.batch_size,
        total_steps=run.total_steps,
        first_step=run.step,
        steps_of_control=run.total_steps if run.task.has_control else 0,
        warmup_steps=warmup_steps(config, ranks.device),
    )
    if ranks.is_main:
        begin_course(run)
        save_config(config, run.folder / "config.yaml")
        append_provenance(run.folder, config, ranks, run.step)
    try:
        if is_unmeasured:
            _end_epoch(run, run.stream_position[0], telemetry)
        if run.step < run.total_steps:
            batches = run.task.batches(run)
            try:
                report.introduce(run, telemetry)
                with collected_by_hand(config.train.gc_every_steps > 0):
                    train_steps(run, batches, telemetry)
            finally:
                batches.close()
        best = load_best(run)
        telemetry.message(f"evaluating {best.name} (step {run.best['step']}, chosen by {run.best['metric']})")
        return run.task.conclude(run, telemetry)
    except Preempted:
        telemetry.message(f"stopped after step {run.step} as asked: the same command goes on from there")
        telemetry.event("stopped", step=run.step, signal=stop.signal_name)
        raise
    finally:
        stop.finish()
        run.watchdog.close()
        telemetry.close()


def train_steps(run: Run, batches: Iterator[Batch], telemetry: Telemetry) -> None:
    """From the step where the run stands to its last, with what is due after each.

    Args:
        batches: the batches of the steps, in order.

    Raises:
        Preempted: it was asked to stop; what was done is saved.
        SourceGone: the store of the videos does not come back; what was done is saved.
    """
    config = run.config
    run.network.train()
    while run.step < run.total_steps:
        if run.stop.agreed(run.ranks.gloo):
            _save(run, save_newest, telemetry, is_needed=True)
            raise Preempted(f"stopped after step {run.step}")
        waiting = time.perf_counter()
        try:
            batch = next_batch(run, batches)
        except (Preempted, SourceGone) as ended:
            _save(run, save_newest, telemetry, is_needed=True)
            if isinstance(ended, SourceGone):
                telemetry.message(f"the videos are gone after step {run.step}, which is saved")
            if run.task.is_remote:
                barrier()  # whoever ends first has the launcher end the others
            raise
        waited_s = time.perf_counter() - waiting
        if run.step == 0:
            run.task.show_first(run, batch, telemetry)
        lr = learning_rate(config.train, run.step * config.train.batch_size / run.epoch_size)
        set_learning_rate(run.optimizer, lr)
        run.guard.remember(run.step, batch)
        try:
            loss = train_step(run, batch)
        except Preempted as ended:
            telemetry.message(str(ended))
            if not run.ranks.is_main:  # what rank 0 tells may be that it lost this one
                print(f"rank {run.ranks.rank}: {ended}", file=sys.stderr, flush=True)
            _save(run, save_newest, telemetry, is_needed=True)
            raise
        run.step += 1
        if run.average:
            run.average.update(run.step)
        shown = telemetry.step(run.step, loss, lr, waited_s, batch)
        if shown is not None:
            report.tell_beside_loss(run, telemetry)
            report.tell_news(run, telemetry)
            report.tell_skipped(run, telemetry)
        if config.train.gc_every_steps and run.step % config.train.gc_every_steps == 0:
            gc.collect()
        if run.ends_epoch:
            _end_epoch(run, run.stream_position[0], telemetry)
        elif config.checkpoint.every_steps and run.step % config.checkpoint.every_steps == 0:
            _save(run, save_newest, telemetry)


def _save(run: Run, write: Callable[[Run], None], telemetry: Telemetry, *, is_needed: bool = False) -> bool:
    """Rank 0 writes a checkpoint. A full disk costs this one (False) and not the run, unless nothing comes after it."""
    if not run.ranks.is_main:
        return True
    try:
        write(run)
    except InputError as error:
        if is_needed:
            raise
        telemetry.message(f"step {run.step}: {error}; training goes on, the last good checkpoint is kept")
        telemetry.event("checkpoint_failed", step=run.step, reason=str(error))
        return False
    return True


def _save_best(run: Run, best: dict[str, Any], telemetry: Telemetry, *, is_needed: bool) -> None:
    """The best is what is kept as such: where this one cannot be written, the one before."""
    before, run.best = run.best, best
    if not _save(run, save_best, telemetry, is_needed=is_needed):
        run.best = before


def _end_epoch(run: Run, epoch: int, telemetry: Telemetry) -> None:
    """After an epoch: measure every so often, keep the best, save."""
    started = time.perf_counter()
    is_end = run.step == run.total_steps
    report.tell_news(run, telemetry, sums=True)
    if run.measures_now:
        if run.measured < run.step:  # a kill or a signal in the evaluation costs no step
            _save(run, save_newest, telemetry)
        broadcast_buffers(run.evaluated)
        best = report.measure(run, telemetry, epoch)
        if best is not None:
            _save_best(run, best, telemetry, is_needed=is_end)
    if epoch % run.config.checkpoint.every_epochs == 0 or is_end:
        _save(run, save_newest, telemetry, is_needed=is_end)
    run.network.train()
    if run.config.train.gc_every_steps:
        gc.collect()
    telemetry.pause(time.perf_counter() - started)


if __name__ == "__main__":
    run_command(main, CONFIG)
