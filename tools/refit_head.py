"""Choose the last layer of a trained model anew, for classes it has not seen.

    python tools/refit_head.py runs/ucf15/split_0
    python tools/evaluate.py runs/ucf15/split_0/ridge

A network trained on few classes fits them, and its linear layer with them. This replaces that
layer by a ridge regression from the features of the training videos (mean over evenly spaced snippets) to the class vectors.
The strength of the regression is chosen by accuracy on training classes held out of it, as the test classes are held out of
the training. No test class and no held-out video is used. It takes one pass over the training videos and seconds of linear
algebra (engine/heads/ridge_regression.py).

OUT (default: RUN/ridge; of a checkpoint file outside a run's folder, NAME_ridge beside it) is a run folder like any other, for
tools/evaluate.py and tools/predict.py. checkpoints/best.pt is the model with its new layer, and ridge.json has the accuracy of
every strength tried.

With --keep SHARE the layer is a mix of the new one and the trained one, SHARE of it the trained one (0: the new alone). That
share cannot be chosen on training classes, which the trained layer has learnt.
"""

import options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(options.refit_head, __doc__)

import argparse
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import torch

from engine.config import save_config
from engine.data.sets.sources import class_lookup
from engine.data.sets.trained import load_trained
from engine.errors import InputError, writing
from engine.evaluation.embedding import embed_features
from engine.evaluation.evaluate import check_dimension
from engine.evaluation.inference import inference_settings, load_model
from engine.evaluation.metrics import check_finite
from engine.evaluation.snippets import check_readable
from engine.heads.ridge_regression import RidgeLayer, check_enough_classes, choose_ridge
from engine.processes.distributed import choose_device
from engine.results.table import Table
from engine.schema.keys import with_keys
from engine.semantics.classes import build_class_embeddings
from engine.tasks.decoding import choose_decoding
from engine.tasks.zero_shot.trained import LoadedModel, known_footage
from engine.terminal.called import as_called
from engine.terminal.command_line import output_folder
from engine.training.checkpoint import (
    best_checkpoint,
    checkpoint_file,
    network_weights,
    read_checkpoint,
    save_checkpoint,
)
from engine.training.ema import KEY as AVERAGE
from engine.training.ema import evaluated_weights


def main(arguments: argparse.Namespace) -> None:
    """Fit the layer, write the run folder, print the table of strengths."""
    device = choose_device(arguments.device)
    overrides = [f"evaluate.num_snippets={arguments.snippets}"] if arguments.snippets is not None else []
    loaded = load_model(arguments.run, device, overrides=[*overrides, *arguments.set])
    if loaded.known:
        raise InputError(f"'{arguments.run}' has no last layer of ours to fit: name a run folder or a checkpoint file")
    if loaded.model.linear is None:
        raise InputError(
            f"'{arguments.run}' has no last layer to choose anew (model.linear: false): fit one to its features with "
            f"{as_called('python tools/fit_head.py')} --run, or train with model.linear: true"
        )
    out = arguments.out or default_folder(loaded.path)
    if out.resolve() == loaded.path.parent.parent.resolve():
        raise InputError(f"--out is the run's own folder '{out}': name another, its checkpoint is not to be lost")
    output_folder(out, "--out")
    features, label, vectors = training_features(loaded, device)
    head = choose_ridge(features, label, vectors, seed=arguments.seed)
    write(out, loaded, head, arguments.keep, features)
    rows = [
        [f"{strength:.4g}", f"{score:.3f}", "chosen" if strength == head.strength else ""]
        for strength, score in head.scores.items()
    ]
    print(
        f"{len(features)} videos of {len(vectors)} training classes; chance among classes held out {head.chance:.3f}\n"
    )
    print(Table(["strength", "held-out training classes", ""], rows).text())
    print(f"\n{out}: now evaluate it, {as_called('python tools/evaluate.py')} {shlex.quote(str(out))}")


def default_folder(checkpoint: Path) -> Path:
    """`ridge/` in the folder of the run that a checkpoint is of; a folder beside one that lies elsewhere."""
    if checkpoint.parent.name == "checkpoints":
        return checkpoint.parent.parent / "ridge"
    return checkpoint.with_name(f"{checkpoint.stem}_ridge")


def training_features(loaded: LoadedModel, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features float32 [V, F] of the videos that the model was trained on, their classes int64 [V], the class vectors [C, D].

    Raises:
        InputError: too few training classes, the training videos are not where they were, the class vectors are of
            another length, or the features are not finite.
    """
    config = loaded.config
    check_enough_classes(len(loaded.train_classes))
    trained = load_trained(config.data, loaded.train_classes, known_footage(loaded))
    for change in trained.changes:
        print(f"warning: {change}: left out", file=sys.stderr)
    data = trained.train
    if len(data.classes) < len(loaded.train_classes):
        gone = sorted(set(loaded.train_classes) - set(data.classes))
        raise InputError(
            f"no video is left of the training classes {', '.join(map(repr, gone))}: {'; '.join(trained.changes)}"
        )
    check_readable([data], config.clip)
    classes = build_class_embeddings(loaded.train_classes, config.words)
    check_dimension(loaded.model, classes)
    decoder = choose_decoding(config, device, [data.manifest]).open(config.evaluate.batch_size)
    try:
        embedded = embed_features(loaded.model, data.manifest, decoder, inference_settings(config, device))
    finally:
        decoder.close()
    check_finite(embedded.embeddings, "the training videos")
    label = class_lookup(data.manifest, loaded.train_classes)[data.manifest.classes_of(embedded.rows.numpy())]
    return embedded.embeddings, torch.from_numpy(label), classes.vectors


def write(out: Path, loaded: LoadedModel, head: RidgeLayer, keep: float, features: torch.Tensor) -> None:
    """Write the run folder `out`: config.yaml, checkpoints/best.pt with the new layer, ridge.json."""
    path = checkpoint_file(loaded.path)
    state = read_checkpoint(path)
    model = network_weights(evaluated_weights(state, loaded.config.evaluate.weights, path))
    parts = [(1 - keep, head.weight, head.bias), (keep, model["linear.weight"].double(), model["linear.bias"].double())]
    # Each layer counts by the length of its points, so that a share means the same for any strength.
    lengths = [(features.double() @ weight.T + bias).norm(dim=1).mean() for _, weight, bias in parts]
    for index, name in ((1, "linear.weight"), (2, "linear.bias")):
        mixed = sum(part[0] / length * part[index] for part, length in zip(parts, lengths, strict=True))
        model[name] = mixed.to(model[name].dtype)
    kept = {key: value for key, value in state.items() if key not in ("optimizer", "scaler", AVERAGE)}
    kept |= {"videos": known_footage(loaded).to_state()}  # its folder has no record of the manifests
    kept["config"].setdefault("evaluate", {})["weights"] = "auto"  # there are no others now
    save_checkpoint(best_checkpoint(out), kept | {"model": model})
    save_config(with_keys(loaded.config, {"evaluate.weights": "auto"}), out / "config.yaml")
    content = {
        "from": str(loaded.path), "strength": head.strength, "kept_of_the_trained_layer": keep, "chance": head.chance,
        "held_out_accuracy": [{"strength": s, "top1": float(np.round(v, 5))} for s, v in head.scores.items()],
    }  # fmt: skip
    with writing(out / "ridge.json"):
        (out / "ridge.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
