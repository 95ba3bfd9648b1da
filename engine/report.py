"""What a run says about itself as it goes: what it is, what is skipped, how accurate it has become.

The best checkpoint is chosen on held-out *training* data: by zero-shot accuracy on held-out training
classes where there are some, else by accuracy on held-out videos of the training classes. Test classes
are measured and shown, but they choose nothing.
"""

import shlex

import torch

from engine import __version__, pictures
from engine.checkpoint import clip_format
from engine.data.batch import ClipBatch, VideoDecoder
from engine.data.sources import DataSet
from engine.distributed import gather
from engine.errors import InputError
from engine.evaluate import Inference, evaluate_source
from engine.finite import FOLDER, write_origins
from engine.metrics import ZeroShotResult
from engine.network import is_compiled
from engine.run import Run, make_decoder, save_run
from engine.schema import to_tree
from engine.semantics.classes import build_class_embeddings
from engine.telemetry import Telemetry, escaped


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
        f"{run.model.weights_from}, {run.precision.name}{', compiled' if is_compiled(run.config, device) else ''}",
        f"decoder: {run.decoder.name} ({run.decoder.why})",
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


def tell_decoder(run: Run, telemetry: Telemetry, *, sums: bool = False) -> None:
    """Say what this rank's decoders have found out since the last time; with `sums`, what each has decoded so far."""
    routes = run.decoder.routes
    if routes is None:
        return
    while routes.share.news:
        telemetry.message(routes.share.news.popleft())
    if sums:
        told = ", ".join(f"{name} {count:,}" for name, count in sorted(routes.clips.items()))
        failed = f"; {run.decoder.name} failed {routes.num_failed:,}, the last: {routes.last_failure}"
        telemetry.message(f"decoder: clips so far: {told}{failed if routes.num_failed else ''}")


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
        f"`python tools/replay_batch.py {shlex.quote(str(folder))}`. The last checkpoint is intact"
    )


def measure(run: Run, telemetry: Telemetry, epoch: int) -> bool:
    """Accuracy on what is held out and on the test sets, while training. Returns whether this is the best so far.

    Collective: all ranks call it.
    """
    how = inference(run, run.config.evaluate.during_snippets)
    decoder = make_decoder(run, run.config.evaluate.batch_size)
    try:
        results = {}
        for key, data, is_seen in (
            ("seen", run.data.seen, True),
            ("held_out_classes", run.data.unseen, False),
            *((f"unseen/{test.name}", test, False) for test in run.tests),
        ):
            if data is not None:
                results[key] = evaluate_set(run, data, decoder, how, is_seen, run.config.evaluate.max_videos)
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


def inference(run: Run, num_snippets: int) -> Inference:
    """How the run embeds videos; it can be asked to stop between batches."""
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


def evaluate_set(
    run: Run, data: DataSet, decoder: VideoDecoder, how: Inference, is_seen: bool, max_videos: int | None = None
) -> ZeroShotResult:
    """The accuracy of one set. Collective: all ranks call it."""
    # Videos of training classes compete among all training classes, unseen ones among the classes of their test set.
    classes = run.classes if is_seen else build_class_embeddings(data.classes, run.config.words)
    return evaluate_source(run.evaluated, data, classes, decoder, how, max_videos=max_videos)
