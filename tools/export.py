"""Export a trained model, so that it runs without this package.

    python tools/export.py runs/k664 --format torch.export --out exported/k664
    python tools/export.py runs/k664 --format onnx --out exported/onnx --classes "kayaking, surfing"
    python tools/export.py installed --format safetensors --out exported/objects --classes "kayaking, surfing"

FOLDER gets the model, the vectors of the classes (classes.npz), and a card (README.md) made from the run's own records: how
to load it in three lines, a function that makes clips of a video as the run does, what it was trained on, its accuracy beside
chance and control, what was not unseen, licences.

    torch.export   model.pt2, opened by torch alone
    onnx           model.onnx, for onnxruntime and others; to write it: pip install onnx onnxscript onnxruntime
    safetensors    model.safetensors with the tensors under the network's own names (torchvision's, timm's), and model.py
                   with the operations on them as Python that imports torch and safetensors alone

All take uint8 frames, normalise within, and give the points that the run itself gives: a point of a video is made of any
number of its snippets, of any number of frames where the network allows it. What was written is opened and compared with the
run before it gets its name.

RUN is a finished run, a checkpoint file, installed[:lite2], kinetics400[:FILE], or a config of a model without training. Without
--classes the vectors are those of the classes it was trained and tested on.
"""

import options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(options.export, __doc__)

import argparse
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from predict import class_names

from engine.errors import InputError
from engine.evaluation.inference import class_vectors, load_model
from engine.export.card import Exported, run_results, write_card
from engine.export.formats import write_model
from engine.export.program import compare, sample_clips, trace, video_model
from engine.files.atomic_file import atomic_write
from engine.naming.untrained import is_untrained
from engine.results.record import Results
from engine.tasks.zero_shot.trained import LoadedModel
from engine.terminal.command_line import check_local, output_folder


def main(arguments: argparse.Namespace) -> None:
    """Load, export, compare, say where it lies."""
    check_local(arguments.out, "--out")
    if arguments.out.exists() and any(output_folder(arguments.out, "--out").iterdir()):
        raise InputError(f"--out: '{arguments.out}' is not empty: name a new folder")
    loaded = load_model(arguments.run, torch.device("cpu"), overrides=arguments.set)
    results = None if is_untrained(arguments.run) else run_results(loaded, arguments.run)
    classes = class_vectors(loaded, _names(arguments, loaded, results))
    output_folder(arguments.out.parent, "--out")
    with atomic_write(arguments.out) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporters, of their own making
        folder.mkdir()
        exported = _write(folder, loaded, classes.names, arguments.format)
        np.savez(folder / "classes.npz", names=np.array(classes.names), vectors=classes.vectors.numpy())
        write_card(folder, loaded, results, exported)
    print(f"exported to '{arguments.out}' as {arguments.format}; how to load it: {arguments.out / 'README.md'}")
    print(
        f"its points lie {exported.difference:.1e} of their length from the run's own ({exported.allowed:.1e} is allowed)"
    )


def _names(arguments: argparse.Namespace, loaded: LoadedModel, results: Results | None) -> Sequence[str]:
    if arguments.classes or arguments.classes_file:
        return class_names(",".join(arguments.classes or ()), arguments.classes_file)
    tested = [row.name for test in (results.tests.values() if results else ()) for row in test.per_class]
    names = list(dict.fromkeys([*loaded.train_classes, *tested]))
    if not names:
        raise InputError(f"'{arguments.run}' was trained on no classes of its own: name some with --classes")
    return names


def _write(folder: Path, loaded: LoadedModel, names: Sequence[str], form: str) -> Exported:
    """Write the model, open it again and compare."""
    logging.getLogger("torch").setLevel(logging.ERROR)
    clip = loaded.config.clip
    model = video_model(loaded)
    traced = trace(model, clip.num_frames, clip.crop)
    opened = write_model(traced, folder, form)
    difference, allowed = compare(model, opened, sample_clips(clip.num_frames, clip.crop))
    if not difference <= allowed:
        raise RuntimeError(f"the exported model is off by {difference:.1e}, {allowed:.1e} is allowed: not kept")
    return Exported(form, traced.frames, traced.frame_multiple, traced.fewest_frames, names, difference, allowed)


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
