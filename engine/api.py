"""The door for Python code and notebooks: name a video, embed videos and class names, look for the nearest.

    from engine.api import load, nearest

    namer = load()
    namer.name("clip.mp4", ["surfing", "archery", "playing the cello"])

What it prints for real clips: docs/python.md.
"""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path
from urllib.parse import unquote_to_bytes

import torch
from torch import Tensor

from engine.errors import InputError
from engine.evaluation.inference import EmbeddedFiles, class_vectors, embed_files, load_model, seen_in_pretraining
from engine.evaluation.transductive import WithFeatures, check_together, nearest_classes
from engine.files.addresses import shown
from engine.models.building import on_cpu
from engine.processes.distributed import choose_device
from engine.tasks.zero_shot.trained import LoadedModel
from kernels.cosine_topk import MAX_K, PreparedClasses, cosine_topk, prepare_classes

__all__ = ["Model", "load", "nearest", "prepare"]

_FILE = "file://"


def load(model: str | os.PathLike[str] = "installed", *settings: str, device: str | torch.device = "auto") -> "Model":
    """A model that names videos.

    Args:
        model: a run folder, a checkpoint file, installed (a network of ImageNet that comes with the package),
            installed:lite2 (a larger one: extra `large`), kinetics400[:FILE], or a config of a model that needs no training.
        settings: `section.key=value` of the sections data, words and evaluate, as `evaluate.num_snippets=4`.
        device: auto, cpu, cuda (the first GPU) or cuda:N, as a text or as torch's.

    Raises:
        InputError: there is no such model or device, or a setting is wrong.
    """
    _check_named(model, settings)
    place = _place(device)
    # Any format that FFmpeg reads, and photos, as in tools/predict.py.
    return Model(load_model(Path(model), place, overrides=["data.decoder=pyav", *settings]), place)


class Model:
    """A video model and the words of its classes: both give points of one space, to be compared by cosine.

    loaded: the model with its config and the classes it was trained on. device: where it computes.
    """

    def __init__(self, loaded: LoadedModel, device: torch.device) -> None:
        self.loaded = loaded
        self.device = device

    @on_cpu()
    def name(self, video: str | os.PathLike[str], classes: Iterable[str], k: int = 5) -> list[tuple[str, float]]:
        """The k nearest of the classes with their cosines, nearest first; all of them where they are fewer.

        A cosine is not a probability: it says which class is nearest, even if none fits.

        Raises:
            InputError: the video cannot be used, a class has no vector, or k is not in 1 .. 32.
        """
        _check_k(k)
        paths, names = _paths([video]), _class_names(classes)
        vectors = self.embed_classes(names)
        embedded = embed_files(self.loaded, paths, self.device, progress=False)
        _check_used(embedded, paths, "Name another")
        scores, indices = nearest(embedded.embeddings, vectors, min(k, len(names)))
        return [(names[i], score) for i, score in zip(indices[0].tolist(), scores[0].tolist(), strict=True)]

    @on_cpu()
    def name_together(
        self, videos: Iterable[str | os.PathLike[str]], classes: Iterable[str], k: int = 5
    ) -> list[list[tuple[str, float]]]:
        """For each video the k classes with the largest shares, largest first: those that look alike get the same name.

        Right more often than `name` where each of the classes is shown by several of the videos, wrong more often where most
        are not. A video's shares of all classes sum to 1.

        Raises:
            InputError: as `name`; fewer videos than classes.
        """
        _check_k(k)
        paths, names = _paths(videos), _class_names(classes)
        vectors = self.embed_classes(names)
        check_together(len(paths), len(names), "videos", "name_together")
        model = WithFeatures(self.loaded.model).eval()
        embedded = embed_files(dataclasses.replace(self.loaded, model=model), paths, self.device, progress=False)
        _check_used(embedded, paths, "Leave it out")
        scores, indices = nearest_classes(embedded.embeddings, vectors, min(k, len(names)), embedded.features)
        rows = zip(indices.tolist(), scores.tolist(), strict=True)
        return [[(names[i], score) for i, score in zip(*row, strict=True)] for row in rows]

    @on_cpu()
    def embed_videos(self, videos: Iterable[str | os.PathLike[str]], *, skip: bool = False) -> Tensor:
        """Files of videos, or of photos -> their points, float32 [V, D] on the CPU, in their order.

        Args:
            skip: a file that cannot be used gets a row of NaN, which `nearest` puts behind all others.

        Raises:
            InputError: a file cannot be used; names the first of them.
        """
        paths = _paths(videos)
        embedded = embed_files(self.loaded, paths, self.device, progress=False)
        if not skip:
            _check_used(embedded, paths, "Leave it out, or give skip=True")
        points = torch.full((len(paths), self.loaded.model.embed_dim), torch.nan, dtype=torch.float32)
        points[embedded.indices] = embedded.embeddings
        return points

    @on_cpu()
    def embed_classes(self, names: Iterable[str]) -> Tensor:
        """Class names -> their points, float32 [C, D] of length 1 on the CPU, in their order.

        Raises:
            InputError: a class has no vector; near words are named.
        """
        return class_vectors(self.loaded, _class_names(names)).vectors

    @on_cpu()
    def seen_in_pretraining(self, classes: Iterable[str]) -> str:
        """Which of the classes the weights had seen before any training here, for people: those are not unseen."""
        return seen_in_pretraining(self.loaded, [("classes", _class_names(classes))])


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
    _check_tensor("queries", queries)
    if not isinstance(candidates, PreparedClasses):
        _check_tensor("candidates", candidates)
    if not _is_whole(k):
        raise ValueError(f"k must be a whole number, not {_shown(k)}")
    return cosine_topk(queries, candidates, k)


def prepare(candidates: Tensor) -> PreparedClasses:
    """Candidates, fp16, bf16 or fp32 [C, D], that are asked more than once: `nearest` then need not prepare them again.

    Raises:
        ValueError: shape or type is not as above.
    """
    _check_tensor("candidates", candidates)
    return prepare_classes(candidates)


def _check_named(model: str | os.PathLike[str], settings: Sequence[str]) -> None:
    if not isinstance(model, str | os.PathLike) or not str(model):
        raise InputError(
            f"the model is {_shown(model)}: it must be the path of a run folder, a checkpoint file or a config, or installed, "
            "installed:lite2 or kinetics400"
        )
    for setting in settings:
        if not isinstance(setting, str):
            raise InputError(f"setting {_shown(setting)}: it must be a text, as 'evaluate.num_snippets=4'")


def _place(device: str | torch.device) -> torch.device:
    name, colon, number = str(device).partition(":")
    if name not in ("auto", "cpu", "cuda") or (colon and not (name == "cuda" and number.isdecimal())):
        raise InputError(
            f"device={str(device)!r}: it must be auto, cpu, cuda or cuda:N, N being the number of a GPU from 0"
        )
    if name != "cuda":
        return choose_device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        seen = f"only {count} GPU{'s'[: count != 1]}" if count else "no GPU"
        raise InputError(f"device={str(device)!r}: torch sees {seen}: give another, auto or cpu, or check the driver")
    return choose_device(name, int(number or 0))


def _check_k(k: int) -> None:
    if not _is_whole(k) or not 1 <= k <= MAX_K:
        raise InputError(f"k is {_shown(k)}: it must be a whole number from 1 to {MAX_K}")


def _is_whole(k: object) -> bool:
    """Whether it is a number without fractions, of Python's or numpy's; True and False are none."""
    return isinstance(k, Integral) and not isinstance(k, bool)


def _check_tensor(what: str, given: object) -> None:
    if not isinstance(given, Tensor):
        raise ValueError(f"{what} must be a torch Tensor, not {type(given).__name__}: torch.as_tensor makes one of it")


def _check_used(embedded: EmbeddedFiles, paths: Sequence[Path], mend: str) -> None:
    """Raises InputError where a file cannot be used; names the first of them."""
    if embedded.failures:
        first = min(embedded.failures)
        others = f" (and {len(embedded.failures) - 1} more)" if len(embedded.failures) > 1 else ""
        raise InputError(f"'{shown(paths[first])}' cannot be used{others}: {embedded.failures[first]}. {mend}")


def _class_names(given: Iterable[str]) -> list[str]:
    """Class names as a list of plain texts, in the order in which they are given."""
    names = _listed(given, "class names")
    for place, name in enumerate(names, start=1):
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"class name {place} of {len(names)} is {_shown(name)}: a class name is a text of words")
    return [str(name) for name in names]  # numpy's texts among them


def _paths(given: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Paths of videos as a list, in the order in which they are given; file:///PATH is one too."""
    videos = _listed(given, "videos")
    for place, video in enumerate(videos, start=1):
        if not isinstance(video, str | os.PathLike) or not str(video):
            raise InputError(f"video {place} of {len(videos)} is {_shown(video)}: a video is the path of its file")
    texts = [os.fsdecode(video) for video in videos]
    return [Path(_of_uri(text) if text.startswith(f"{_FILE}/") else text) for text in texts]


def _of_uri(text: str) -> str:
    """The path of a file:///PATH, whose escaped bytes need not be UTF-8."""
    return os.fsdecode(unquote_to_bytes(os.fsencode(text.removeprefix(_FILE))))


def _listed(given: Iterable, what: str) -> list:
    """A list of what was given, of whatever kind: a text or a path alone would else be read letter by letter."""
    if isinstance(given, str | bytes | os.PathLike):
        raise InputError(f"{what} are given as a list: [{str(given)!r}], not {str(given)!r}")
    if not isinstance(given, Iterable):
        raise InputError(f"{what} are given as a list, not as {_shown(given)}")
    listed = list(given)
    if not listed:
        raise InputError(f"no {what} are given")
    return listed


def _shown(value: object) -> str:
    """The beginning of what it is, on one line."""
    return " ".join(repr(value).split())[:60]
