"""Embeddings -> zero-shot accuracy: each video's class is the nearest of the candidates (paper Sec. 3.2 and 4.3)."""

import numpy as np
import torch

from engine.data.batch import VideoDecoder
from engine.data.sets.sources import DataSet, class_lookup
from engine.errors import InputError
from engine.evaluation.embedding import EmbeddedVideos, Inference, embed_videos
from engine.evaluation.metrics import ZeroShotResult, evaluate_embeddings
from engine.models.embedder import Embedder
from engine.semantics.embeddings import ClassEmbeddings


def evaluate_source(
    model: Embedder,
    dataset: DataSet,
    classes: ClassEmbeddings,
    decoder: VideoDecoder,
    how: Inference,
    *,
    max_videos: int | None = None,
) -> ZeroShotResult:
    """Embed a data set and look for each video's class among `classes` (all of them are candidates).

    Collective: all ranks must call it, and all get the result.

    Args:
        classes: vectors of the candidate classes; those of the data set must be among them.
        max_videos: take only so many videos, always the same ones.

    Raises:
        InputError: a class of the data set has no vector; no video can be decoded.
    """
    check_classes(dataset, classes)
    check_dimension(model, classes)
    rows = choose_rows(len(dataset.manifest), max_videos)
    embedded = embed_videos(model, dataset.manifest, decoder, how, rows)
    return score(dataset, embedded, classes, how.device)


def score(dataset: DataSet, embedded: EmbeddedVideos, classes: ClassEmbeddings, device: torch.device) -> ZeroShotResult:
    """The accuracy of embeddings that were computed before; other class vectors cost no second decoding.

    Videos with features are named together (engine/evaluation/transductive.py).
    """
    check_classes(dataset, classes)
    labels = class_lookup(dataset.manifest, classes.names)[dataset.manifest.classes_of(embedded.rows.numpy())]
    return evaluate_embeddings(
        dataset.name,
        embedded.embeddings.to(device),
        torch.from_numpy(labels),
        classes.names,
        torch.as_tensor(classes.vectors, dtype=torch.float32, device=device),
        rows=embedded.rows,
        failures=embedded.failures,
        features=None if embedded.features is None else embedded.features.to(device),
    )


def check_classes(dataset: DataSet, classes: ClassEmbeddings) -> None:
    """Every class of the data set must have a vector."""
    missing = sorted(set(dataset.classes) - set(classes.names))
    if missing:
        raise InputError(f"test set '{dataset.name}': no class vector for {', '.join(repr(name) for name in missing)}")


def check_dimension(model: Embedder, classes: ClassEmbeddings) -> None:
    """Class vectors must live in the space the model embeds into; better said before hours of decoding."""
    if model.embed_dim != classes.vectors.shape[1]:
        raise InputError(
            f"the model embeds into {model.embed_dim} dimensions, but the class vectors have "
            f"{classes.vectors.shape[1]} ({classes.description}): take the word vectors it was trained with"
        )


def choose_rows(num_videos: int, max_videos: int | None) -> np.ndarray:
    """int64: all rows, or the same `max_videos` of them each time, spread at random."""
    if max_videos is None or max_videos >= num_videos:
        return np.arange(num_videos)
    return np.sort(np.random.RandomState(0).permutation(num_videos)[:max_videos])
