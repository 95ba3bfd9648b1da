"""How accurate a zero-shot run has become.

The best checkpoint is chosen on held-out *training* data: by zero-shot accuracy on held-out training
classes where there are some, else by accuracy on held-out videos of the training classes. Test classes
are measured and shown, but they choose nothing.
"""

from engine.data.batch import VideoDecoder
from engine.evaluation.embedding import Inference
from engine.evaluation.evaluate import evaluate_source
from engine.evaluation.metrics import ZeroShotResult
from engine.processes.watchdog import WAITING
from engine.results.accuracy import MEASURES
from engine.tasks.task import Measured
from engine.tasks.zero_shot.sets import MeasuredSet, Sets
from engine.training.run import Run

NEWEST = "newest"  # what the best checkpoint is chosen by, where nothing is held out


def measure(run: Run, sets: Sets) -> Measured:
    """Accuracy on what is held out and on the test sets, while training. Collective: all ranks call it."""
    evaluate = run.config.evaluate
    how = inference(run, evaluate.during_snippets)
    decoder = sets.decoding.open(evaluate.batch_size)
    try:
        results = {each.key: evaluate_set(run, each, decoder, how, evaluate.max_videos) for each in sets.measured}
    finally:
        decoder.close()
    wholes = {key: result.all_classes for key, result in results.items()}
    scalars = {f"{key}/{of}": getattr(whole, of) for key, whole in wholes.items() for of in MEASURES}
    told = "  ".join(
        f"{key} {whole.shown(whole.mean_class)} (chance {whole.shown(whole.chance_top1)})"
        for key, whole in wholes.items()
    )
    held_out = (sets.held_out_classes, sets.held_out_videos)
    chooser = next((each.key for each in held_out if each is not None and len(each.classes) > 1), None)
    if chooser is None:
        return Measured(scalars, f"mean-class {told}", 0.0, NEWEST)
    return Measured(scalars, f"mean-class {told}", wholes[chooser].top1, f"{chooser} top-1")


def inference(run: Run, num_snippets: int) -> Inference:
    """How the run embeds videos; it can be asked to stop between batches."""
    config = run.config

    def stop() -> bool:  # asked between batches
        run.watchdog.beat(run.step, "evaluating")
        return run.stop.requested()

    return Inference(
        clip=config.clip,
        num_snippets=num_snippets,
        batch_size=config.evaluate.batch_size,
        device=run.ranks.device,
        dtype=run.precision.compute,
        stop=stop,
        waits=lambda: run.watchdog.beat(run.step, WAITING),
    )


def evaluate_set(
    run: Run, measured: MeasuredSet, decoder: VideoDecoder, how: Inference, max_videos: int | None = None
) -> ZeroShotResult:
    """The accuracy of one set. Collective: all ranks call it."""
    return evaluate_source(run.evaluated, measured.data, measured.classes, decoder, how, max_videos=max_videos)
