"""The door for Python code and notebooks: name a video, embed videos and class names, look for the nearest.

    from engine.api import load, nearest

    namer = load()
    namer.name("clip.mp4", ["surfing", "archery", "playing the cello"])

What it prints for real clips: docs/python.md.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine.distributed import choose_device
from engine.errors import InputError
from engine.inference import EmbeddedFiles, class_vectors, embed_files, load_model, seen_in_pretraining
from engine.tasks.zero_shot.trained import LoadedModel
from engine.transductive import WithFeatures, check_together, nearest_classes
from kernels.cosine_topk import MAX_K, PreparedClasses, cosine_topk, prepare_classes

__all__ = ["Model", "load", "nearest", "prepare"]

prepare = prepare_classes  # candidates that are asked more than once: `nearest` then need not prepare them again


def load(model: str | os.PathLike[str] = "installed", *settings: str, device: str = "auto") -> "Model":
    """A model that names videos.

    Args:
        model: a run folder, a checkpoint file, installed (a network of ImageNet that comes with the package),
            installed:lite2 (a larger one: extra `large`), kinetics400[:FILE], or a config of a model that needs no training.
        settings: `section.key=value` of the sections data, words and evaluate, as `evaluate.num_snippets=4`.
        device: auto, cpu or cuda.

    Raises:
        InputError: there is no such model, or a setting is wrong.
    """
    place = choose_device(device)
    # Any format that FFmpeg reads, and photos, as in tools/predict.py.
    return Model(load_model(Path(model), place, overrides=["data.decoder=pyav", *settings]), place)


class Model:
    """A video model and the words of its classes: both give points of one space, to be compared by cosine.

    loaded: the model with its config and the classes it was trained on. device: where it computes.
    """

    def __init__(self, loaded: LoadedModel, device: torch.device) -> None:
        self.loaded = loaded
        self.device = device

    def name(self, video: str | os.PathLike[str], classes: Sequence[str], k: int = 5) -> list[tuple[str, float]]:
        """The k nearest of the classes with their cosines, nearest first; all of them where they are fewer.

        A cosine is not a probability: it says which class is nearest, even if none fits.

        Raises:
            InputError: the video cannot be used, a class has no vector, or k is not in 1 .. 32.
        """
        _check_k(k)
        vectors = self.embed_classes(classes)
        scores, indices = nearest(self.embed_videos([video]), vectors, min(k, len(classes)))
        return [(classes[i], score) for i, score in zip(indices[0].tolist(), scores[0].tolist(), strict=True)]

    def name_together(
        self, videos: Sequence[str | os.PathLike[str]], classes: Sequence[str], k: int = 5
    ) -> list[list[tuple[str, float]]]:
        """For each video the k classes with the largest shares, largest first: those that look alike get the same name.

        Right more often than `name` where each of the classes is shown by several of the videos, wrong more often where most
        are not. A video's shares of all classes sum to 1.

        Raises:
            InputError: as `name`; fewer videos than classes.
        """
        _check_k(k)
        paths = [Path(video) for video in _listed(videos, "videos")]
        vectors = self.embed_classes(classes)
        check_together(len(paths), len(classes), "videos")
        model = WithFeatures(self.loaded.model).eval()
        embedded = embed_files(dataclasses.replace(self.loaded, model=model), paths, self.device, progress=False)
        _check_used(embedded, paths, "Leave it out")
        scores, indices = nearest_classes(embedded.embeddings, vectors, min(k, len(classes)), embedded.features)
        rows = zip(indices.tolist(), scores.tolist(), strict=True)
        return [[(classes[i], score) for i, score in zip(*row, strict=True)] for row in rows]

    def embed_videos(self, videos: Sequence[str | os.PathLike[str]], *, skip: bool = False) -> Tensor:
        """Files of videos, or of photos -> their points, float32 [V, D] on the CPU, in their order.

        Args:
            skip: a file that cannot be used gets a row of NaN, which `nearest` puts behind all others.

        Raises:
            InputError: a file cannot be used; names the first of them.
        """
        paths = [Path(video) for video in _listed(videos, "videos")]
        embedded = embed_files(self.loaded, paths, self.device, progress=False)
        if not skip:
            _check_used(embedded, paths, "Leave it out, or give skip=True")
        points = torch.full((len(paths), self.loaded.model.embed_dim), torch.nan)
        points[embedded.indices] = embedded.embeddings
        return points

    def embed_classes(self, names: Sequence[str]) -> Tensor:
        """Class names -> their points, float32 [C, D] of length 1 on the CPU, in their order.

        Raises:
            InputError: a class has no vector; near words are named.
        """
        return class_vectors(self.loaded, _listed(names, "class names")).vectors

    def seen_in_pretraining(self, classes: Sequence[str]) -> str:
        """Which of the classes the weights had seen before any training here, for people: those are not unseen."""
        return seen_in_pretraining(self.loaded, [("classes", _listed(classes, "class names"))])


def nearest(queries: Tensor, candidates: Tensor | PreparedClasses, k: int = 5) -> tuple[Tensor, Tensor]:
    """The k candidates of the largest cosine with each query, best first: videos for names, names for a video, either
    for its own kind. Scores of all pairs are never held.

    Args:
        queries: fp16, bf16 or fp32 [N, D].
        candidates: fp16, bf16 or fp32 [C, D] on the same device, or what `prepare` made of them.
        k: 1 .. min(32, C).

    Returns:
        cosines float32 [N, k] and indices int64 [N, k]; NaN where a query or a candidate is not finite, after all numbers.

    Raises:
        ValueError: shapes, types, devices or k are not as above.
    """
    return cosine_topk(queries, candidates, k)


def _check_k(k: int) -> None:
    if not 1 <= k <= MAX_K:
        raise InputError(f"k is {k}: it must be from 1 to {MAX_K}")


def _check_used(embedded: EmbeddedFiles, paths: Sequence[Path], mend: str) -> None:
    """Raises InputError where a file cannot be used; names the first of them."""
    if embedded.failures:
        first = min(embedded.failures)
        others = f" (and {len(embedded.failures) - 1} more)" if len(embedded.failures) > 1 else ""
        raise InputError(f"'{paths[first]}' cannot be used{others}: {embedded.failures[first]}. {mend}")


def _listed(given: Sequence, what: str) -> list:
    """A list of what was given: a text or a path alone would else be read letter by letter."""
    if isinstance(given, str | os.PathLike):
        raise InputError(f"{what} are given as a list: ['{given}'], not '{given}'")
    if not len(given):
        raise InputError(f"no {what} are given")
    return list(given)
