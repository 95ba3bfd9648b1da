"""What a run says about itself: what it is, how it does as it goes, and what it reached.

The best checkpoint is chosen on held-out *training* data: by zero-shot accuracy on held-out training
classes where there are some, else by accuracy on held-out videos of the training classes. Test classes
are measured and shown, but they choose nothing.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch

from engine import __version__, pictures
from engine.checkpoint import checkpoint_file, clip_format, read_checkpoint
from engine.data.batch import ClipBatch, VideoDecoder
from engine.data.sources import DataSet
from engine.distributed import barrier, gather
from engine.ema import evaluated_weights
from engine.errors import InputError
from engine.evaluate import Inference, evaluate_source
from engine.finite import FOLDER, write_origins
from engine.metrics import ZeroShotResult
from engine.run import Run, make_decoder, save_run
from engine.schema import to_tree
from engine.semantics.classes import build_class_embeddings
from engine.tables import format_table
from engine.telemetry import Telemetry, escaped


@dataclass(frozen=True)
class Outcome:
    """What a finished run reached, with its best checkpoint.

    seen: accuracy on held-out videos of the training classes, among all training classes; None if none were held out.
    tests: one result per test set of unseen classes.
    examples: some test videos with what the model says of them.
    clips_per_second: median over the logged steps of this process, 0 if it trained nothing (already finished).
    """

    folder: Path
    embed_dim: int
    seen: ZeroShotResult | None
    tests: dict[str, ZeroShotResult]
    examples: list[pictures.Strip]
    clips_per_second: float


def introduce(run: Run, telemetry: Telemetry) -> None:
    """The first lines of the log: what is trained, on what, how. Also the class vectors for TensorBoard's projector."""
    device = run.ranks.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    train = run.data.train.manifest
    parameters = sum(p.numel() for p in run.model.parameters())
    for line in (
        f"unseen {__version__}, torch {torch.__version__}, {run.ranks.world_size} rank(s), {name}",
        f"training: {len(train)} videos of {len(run.data.train.classes)} classes ({run.data.train.name}); "
        f"{run.total_steps} steps of {run.config.train.batch_size} snippets, {run.config.train.epochs} epochs",
        *(f"unseen: {len(s.manifest)} videos of {len(s.classes)} classes ({s.name})" for s in _unseen_sets(run)),
        f"class vectors: {run.classes.description}",
        f"model: {run.config.model.backbone}, width {run.config.model.width}, {parameters:,} parameters, "
        f"{run.model.weights_from}, {run.precision.name}{', compiled' if run.config.train.compile else ''}",
        f"decoder: {run.decoder} ({run.decoder_why})",
        *run.notes,
    ):
        telemetry.message(line)
    telemetry.event("start", step=run.step, total_steps=run.total_steps, config=to_tree(run.config))
    if telemetry.writer is not None and run.step == 0:
        telemetry.writer.add_embedding(
            run.classes.vectors, [escaped(name) for name in run.classes.names], tag="class_vectors"
        )


def _unseen_sets(run: Run) -> list[DataSet]:
    return [s for s in (run.data.unseen, *run.tests) if s is not None]


def show_clips(run: Run, batch: ClipBatch, telemetry: Telemetry) -> None:
    """The first training snippets as pictures in TensorBoard, with their class names."""
    count = min(run.config.log.sample_clips, len(batch))
    if telemetry.writer is None or count == 0:
        return
    names = [run.data.train.classes[index] for index in batch.class_index[:count].tolist()]
    telemetry.writer.add_figure("training_snippets", pictures.sample_sheet(batch.frames[:count], names), run.step)


def tell_skipped(run: Run, telemetry: Telemetry) -> None:
    """Say what was skipped since the last time; end the run if too many steps in a row were. All ranks call it.

    Raises:
        InputError: with the folder in which the bad batches and the state they met are kept for replay.
    """
    skipped = run.guard.read(run.scaler)
    if run.scaler.is_enabled():
        telemetry.scalars(run.step, {"train/loss_scale": skipped.scale})
    if skipped.new:
        telemetry.scalars(run.step, {"train/skipped_steps": float(skipped.total)})
        telemetry.message(
            f"step {run.step}: {skipped.new} step(s) skipped, loss or gradient was not finite ({skipped.total} so far)"
        )
    if run.scaler.is_enabled() and skipped.scale <= 1:
        telemetry.message(
            f"step {run.step}: the fp16 loss scale has collapsed to {skipped.scale:g}: gradients overflow all the same"
        )
    if skipped.in_a_row < run.guard.limit:
        return
    folder, done = run.folder / FOLDER, run.step
    run.step -= skipped.in_a_row  # nothing has changed since: this is the state that the first bad batch met
    origins = gather(run.guard.origins(run.step))
    if run.ranks.is_main:
        save_run(run, folder / "checkpoint.pt")
        manifest = run.data.train.manifest
        paths = manifest.table.column("path").to_pylist()
        write_origins(folder, origins, paths, [manifest.classes[index] for index in manifest.class_index])
    telemetry.event("not_finite", step=done, in_a_row=skipped.in_a_row, scale=skipped.scale)
    raise InputError(
        f"loss or gradient was not finite in {skipped.in_a_row} steps in a row, from step {run.step + 1} on: lower "
        "train.lr, set train.grad_clip, or use train.precision=fp32; see which batch, sample and layer with "
        f"`python tools/replay_batch.py {folder}`. The last checkpoint is intact"
    )


def measure(run: Run, telemetry: Telemetry, epoch: int) -> bool:
    """Accuracy on what is held out and on the test sets, while training. Returns whether this is the best so far.

    Collective: all ranks call it.
    """
    how = _inference(run, run.config.evaluate.during_snippets)
    decoder = make_decoder(run, run.config.evaluate.batch_size)
    try:
        results = {}
        for key, data, is_seen in (
            ("seen", run.data.seen, True),
            ("held_out_classes", run.data.unseen, False),
            *((f"unseen/{test.name}", test, False) for test in run.tests),
        ):
            if data is not None:
                results[key] = _evaluate(run, data, decoder, how, is_seen, run.config.evaluate.max_videos)
    finally:
        decoder.close()
    values = {f"{key}/top1": result.all_classes.top1 for key, result in results.items()}
    values |= {f"{key}/top5": result.all_classes.top5 for key, result in results.items()}
    telemetry.scalars(run.step, values)
    told = "  ".join(
        f"{key} {r.all_classes.top1:.3f} (chance {r.all_classes.chance_top1:.3f})" for key, r in results.items()
    )
    telemetry.message(f"epoch {epoch}: top-1 {told}")
    chooser = next((key for key in ("held_out_classes", "seen") if key in results), "")
    value = results[chooser].all_classes.top1 if chooser else 0.0
    run.measured = run.step
    if value < run.best["value"]:
        return False
    # The later of two equal ones: it has been trained longer.
    run.best = {"value": value, "step": run.step, "metric": f"{chooser} top-1" if chooser else "newest"}
    return True


def _inference(run: Run, num_snippets: int) -> Inference:
    config = run.config

    def stop() -> bool:  # asked between batches
        run.watchdog.beat(run.step, "evaluating")
        return run.stop.requested()

    return Inference(
        clip=clip_format(config),
        num_snippets=num_snippets,
        batch_size=config.evaluate.batch_size,
        device=run.ranks.device,
        dtype=run.precision.compute,
        stop=stop,
    )


def _evaluate(
    run: Run, data: DataSet, decoder: VideoDecoder, how: Inference, is_seen: bool, max_videos: int | None = None
) -> ZeroShotResult:
    # Videos of training classes compete among all training classes, unseen ones among the classes of their test set.
    classes = run.classes if is_seen else build_class_embeddings(data.classes, run.config.words)
    return evaluate_source(run.evaluated, data, classes, decoder, how, max_videos=max_videos)


def conclude(run: Run, telemetry: Telemetry) -> Outcome:
    """Evaluate the best checkpoint with all snippets; write results.json, pictures and TensorBoard's hparams."""
    barrier()
    best = checkpoint_file(run.folder)
    weights = evaluated_weights(read_checkpoint(best), run.config.evaluate.weights, best)
    run.evaluated.load_state_dict(weights)
    telemetry.message(f"evaluating {best.name} (step {run.best['step']}, chosen by {run.best['metric']})")
    decoder = make_decoder(run, run.config.evaluate.batch_size)
    how = _inference(run, run.config.evaluate.num_snippets)
    try:
        seen = _evaluate(run, run.data.seen, decoder, how, is_seen=True) if run.data.seen else None
        tests = {test.name: _evaluate(run, test, decoder, how, is_seen=False) for test in run.tests}
        examples = []
        if run.ranks.is_main and run.tests:
            examples = pictures.example_strips(run.tests[0], tests[run.tests[0].name], decoder, how.clip)
    finally:
        decoder.close()
    speed = statistics.median(telemetry.clips_per_second) if telemetry.clips_per_second else 0.0
    outcome = Outcome(run.folder, run.classes.vectors.shape[1], seen, tests, examples, speed)
    if run.ranks.is_main:
        _write(run, outcome, telemetry)
    return outcome


def _write(run: Run, outcome: Outcome, telemetry: Telemetry) -> None:
    content = {
        "checkpoint": str(checkpoint_file(run.folder).relative_to(run.folder)),
        "best": run.best,
        "clips_per_second": outcome.clips_per_second,
        "num_snippets": run.config.evaluate.num_snippets,
        "class_vectors": run.classes.description,
        "seen": outcome.seen.to_dict() if outcome.seen else None,
        "tests": {name: result.to_dict() for name, result in outcome.tests.items()},
    }
    (run.folder / "results.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for name, result in outcome.tests.items():
        figure = pictures.confusion_figure(result)
        pictures.save_figure(figure, run.folder / f"confusion_{pictures.file_name(name)}.png")
        if telemetry.writer is not None:
            telemetry.writer.add_image(
                f"confusion/{escaped(name)}", pictures.figure_array(figure), run.step, dataformats="HWC"
            )
    if telemetry.writer is not None:
        metrics = {f"final/{escaped(name)}_top1": result.all_classes.top1 for name, result in outcome.tests.items()}
        if outcome.seen is not None:
            metrics["final/seen_top1"] = outcome.seen.all_classes.top1
        telemetry.writer.add_hparams(_flat(to_tree(run.config)), metrics, run_name=".")


def _flat(tree: dict[str, dict[str, object]]) -> dict[str, bool | str | float]:
    """Single values of the sections that are hyper-parameters, by dotted name."""
    flat: dict[str, bool | str | float] = {}
    for section in ("run", "clip", "model", "words", "loss", "train"):
        for key, value in tree[section].items():
            flat[f"{section}.{key}"] = value if isinstance(value, bool | int | float) else escaped(str(value))
    return flat


def show(outcome: Outcome, control: Outcome | None) -> None:
    """The closing table: seen and unseen accuracy beside chance and control, speed, and where things lie."""
    rows = []
    if outcome.seen is not None:
        rows.append(["seen classes, new videos", *_numbers(outcome.seen, control.seen if control else None)])
    for name, result in outcome.tests.items():
        rows.append([f"UNSEEN classes ({name})", *_numbers(result, control.tests[name] if control else None)])
    print("\n" + format_table(["top-1 accuracy", "classes", "videos", "model", "chance", "control"], rows))
    if control is not None:
        print("control: the same network trained towards random class vectors, which say nothing of an unseen class")
    picture = outcome.folder / "result.png"
    pictures.save_figure(pictures.result_page(_title(outcome), outcome.examples, _bars(outcome, control)), picture)
    places = [
        ["training speed", f"{outcome.clips_per_second:.1f} clips/s" if outcome.clips_per_second else "trained before"],
        ["checkpoint", checkpoint_file(outcome.folder)],
        ["TensorBoard", f"tensorboard --logdir {outcome.folder}"],
        ["results", outcome.folder / "results.json"],
        ["picture", picture],
        ["your own video", f'python tools/predict.py VIDEO --model {outcome.folder} --classes "one, another"'],
    ]
    print("\n" + format_table(["what", "where"], places), flush=True)


def _numbers(result: ZeroShotResult, control: ZeroShotResult | None) -> list[object]:
    accuracy = result.all_classes
    beside = f"{control.all_classes.top1:.3f}" if control else "-"
    return [accuracy.num_classes, accuracy.num_videos, accuracy.top1, accuracy.chance_top1, beside]


def _title(outcome: Outcome) -> str:
    if not outcome.tests:
        return "No test set was named (data.tests)"
    accuracy = next(iter(outcome.tests.values())).all_classes
    return f"{accuracy.num_classes} classes the network never saw: top-1 {accuracy.top1:.0%} (chance {accuracy.chance_top1:.0%})"


def _bars(outcome: Outcome, control: Outcome | None) -> list[pictures.Bar]:
    bars = []
    for name, result in outcome.tests.items():
        bars.append(pictures.Bar(f"{name}", result.all_classes.top1))
        if control is not None:
            bars.append(pictures.Bar("control", control.tests[name].all_classes.top1, color=pictures.OTHER))
        bars.append(pictures.Bar("chance", result.all_classes.chance_top1, color=pictures.NEUTRAL))
    if outcome.seen is not None:
        bars.append(pictures.Bar("seen classes", outcome.seen.all_classes.top1))
    return bars
