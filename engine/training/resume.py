"""Where a run begins: at its own newest checkpoint, at another's weights, or at random ones."""

from pathlib import Path
from typing import Any

from engine.config import Config
from engine.errors import InputError
from engine.processes.distributed import barrier, broadcast_from_main
from engine.schema.keys import changes, decisive
from engine.schema.parser import parse, to_tree
from engine.training.checkpoint import (
    UnreachableCheckpoint,
    best_checkpoint,
    check_fields,
    checkpoint_file,
    list_checkpoints,
    network_weights,
    newest_checkpoint,
    read_checkpoint,
    saved_config,
    set_aside,
    step_checkpoint,
    step_of,
)
from engine.training.ema import KEY as AVERAGE
from engine.training.ema import own_weights
from engine.training.optim import load_optimizer
from engine.training.run import Run


def restore(run: Run) -> None:
    """Resume from the run's own checkpoint, or start from another's weights, or from nothing. Changes no file."""
    resume = run.config.run.resume
    state = start = None
    file = run.folder
    if resume == "never":
        taken, _ = newest_checkpoint(run.folder)
        if taken is not None:
            raise InputError(
                f"run.resume is 'never' but '{run.folder}' holds checkpoints (step {taken['step']}): "
                "choose another run.folder, or remove the old one"
            )
    else:
        state, file, passed_over = _chosen(run, resume)
        run.notes += [f"passed over: {line}" for line in passed_over]
        steps = broadcast_from_main(state["step"] if state else None)
        if steps != (state["step"] if state else None):
            raise InputError(
                f"ranks see different checkpoints in '{run.folder}': it must lie on a disk that all nodes share"
            )
    if state is not None:
        is_own = file.parent.parent.resolve() == run.folder.resolve()
        _resume(run, state, file)
        run.best = broadcast_from_main(_best_so_far(run) if is_own and run.ranks.is_main else run.best)
        if run.step >= run.total_steps and not is_own:
            raise InputError(
                f"run.resume: '{resume}' is at step {run.step} of {run.total_steps}, so nothing is left to train in "
                f"'{run.folder}': raise train.epochs, or take its weights for a new run with train.init_from"
            )
    elif run.config.train.init_from:
        source = checkpoint_file(Path(run.config.train.init_from))
        start = read_checkpoint(source)
        run.notes.append(f"weights from {source}{_load_weights(run, start, source)}")
    if run.average:
        run.average.model.load_state_dict((state or {}).get(AVERAGE, run.model.state_dict()))
    run.notes += run.task.begin(resumed=state, source=start)
    barrier()


def _chosen(run: Run, resume: str) -> tuple[dict[str, Any] | None, Path, list[str]]:
    """The checkpoint to go on from, its file, and what is newer but cannot be read.

    A named checkpoint is where a command begins: given again, the same command goes on from its own newest one.
    """
    if resume == "auto":
        state, passed_over = newest_checkpoint(run.folder)
        return state, step_checkpoint(run.folder, state["step"] if state else 0), passed_over
    try:
        state, passed_over = newest_checkpoint(run.folder)
        if state is not None and parse(Config, state["config"]) == run.config:
            return state, step_checkpoint(run.folder, state["step"]), passed_over
    except UnreachableCheckpoint:
        raise
    except InputError:  # none of its own can be read, or compared
        pass
    file = checkpoint_file(Path(resume))
    return read_checkpoint(file), file, []


def _best_so_far(run: Run) -> dict[str, Any]:
    """The best that is kept of the course up to `run.step`: what best.pt says, which a later step may have overwritten."""
    try:
        kept = read_checkpoint(best_checkpoint(run.folder))
    except UnreachableCheckpoint:
        raise
    except InputError:
        return run.best
    return kept.get("best", run.best) if kept["step"] <= run.step else run.best


def begin_course(run: Run) -> None:
    """Before the first step (rank 0 only): rename checkpoints of a course that was given up, and those that cannot be read.

    Left in place, later ones would count among the newest, and the ones now written would be dropped for them; and a better
    best.pt would be taken for this course's.
    """
    set_aside(path for path in list_checkpoints(run.folder) if step_of(path) > run.step)
    if not run.best["metric"]:
        set_aside([best_checkpoint(run.folder)])


def _resume(run: Run, state: dict[str, Any], file: Path) -> None:
    saved = saved_config(state, file)
    different = changes(decisive(saved), decisive(run.config), run.task.sections)
    wrong = [f"{change.name} ({change.told(' there, ')} here)" for change in different if change.is_fixed]
    if run.config.task != saved.task:
        wrong = [f"task ({saved.task} there)"]  # which may have none of the fields of this one
    else:
        check_fields(state, run.task.fields, run.folder)
        run.task.plan = state.get("plan", 1)  # checkpoints of before do not say: there was one
        run.notes += run.task.recall(state, file.parent.parent)
        of_task = run.task.changes(state)
        wrong += of_task
        if not of_task and run.epoch_size != state.get("epoch_size", run.epoch_size):
            wrong.append("length of an epoch (data.train.N.weight, data.clips_per_epoch)")
    if wrong:
        raise InputError(
            f"run folder '{run.folder}' holds a run with another {', '.join(wrong)}: choose another run.folder, "
            "remove that one, or undo the change"
        )
    missing = [key for key in ("optimizer", "scaler") if key not in state]
    if missing:
        raise InputError(
            f"run.resume: '{file}' has no {', '.join(missing)} (tools/refit_head.py keeps none), so no run goes on from it: take "
            "its weights for a new run with train.init_from"
        )
    run.notes += [f"resumed with another {change.name}: {change.told(' -> ')}" for change in different]
    run.model.load_state_dict(state["model"])
    load_optimizer(run.optimizer, state["optimizer"])
    if state["scaler"]:  # empty: saved in another precision than fp16, by another GPU perhaps
        run.scaler.load_state_dict(state["scaler"])
    run.step = state["step"]
    run.measured = state.get("measured", run.step)
    run.guard.restore(state.get("skipped_steps", 0))
    run.notes.append(f"resumed at step {run.step} (epoch {state['epoch']}, position {state['position']})")


def _load_weights(run: Run, start: dict[str, Any], source: Path) -> str:
    """Give the model the weights of a checkpoint of another run; which they are, for the log."""
    task = start["config"].get("task", run.config.task)
    if task != run.config.task:
        raise InputError(
            f"train.init_from: '{source}' is of the task {task}: take its backbone alone, with model.weights={source}"
        )
    chosen, which = own_weights(start, source)
    weights = network_weights(chosen)
    own = network_weights(run.model.state_dict())
    wrong = [key for key in own if key not in weights or weights[key].shape != own[key].shape]
    if wrong:
        theirs, mine = start["config"]["model"], to_tree(run.config)["model"]
        differ = [
            f"{key} {theirs[key]} there, {mine[key]} here" for key in ("backbone", "width") if theirs[key] != mine[key]
        ]
        raise InputError(
            f"train.init_from: '{source}' is of another model ({'; '.join(differ) or f'{run.task.output} of another length'}): "
            f"{len(wrong)} tensors do not fit, the first is {wrong[0]}"
        )
    run.model.load_state_dict(weights, strict=False)
    return which
