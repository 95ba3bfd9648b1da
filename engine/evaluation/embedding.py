"""Videos -> embeddings: the inference side of the paper (Sec. 3.2, 4.4).

    manifest ──T evenly spaced snippets each──▶ decode ahead ──▶ features [N, F]
             ──mean over a video's snippets──▶ linear layer ──▶ embeddings [V, D]

Works under several ranks: each embeds every world_size-th video and all get the whole result, every
video exactly once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from engine.data.batch import ClipFormat, SampleFailure, VideoDecoder
from engine.data.manifests.manifest import Manifest
from engine.errors import SourceGone
from engine.evaluation.snippets import decode_ahead, video_requests
from engine.evaluation.transductive import WithFeatures
from engine.models.embedder import Embedder
from engine.processes.distributed import gather
from engine.processes.preemption import Preempted
from engine.terminal.progress import Progress


@dataclass(frozen=True, slots=True)
class EmbeddedVideos:
    """The videos of a manifest as points in word space; the same on every rank.

    embeddings: float32 [V, D] on the CPU. class_index: int64 [V], into the manifest's classes.
    rows: int64 [V], ascending rows of the manifest: those asked for, less the failures.
    failures: videos of which a snippet could not be decoded. They have no embedding.
    features: float32 [V, F], what the videos are compared by, of a model `WithFeatures`.
    """

    embeddings: torch.Tensor
    class_index: torch.Tensor
    rows: torch.Tensor
    failures: list[SampleFailure]
    features: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Inference:
    """How videos are embedded.

    num_snippets: T evenly spaced snippets of a video, averaged (paper: 25).
    batch_size: snippets in one forward pass; a batch may cut through a video.
    dtype: what the network computes in; means and the linear layer are float32.
    progress: show a bar where there is a terminal.
    """

    clip: ClipFormat
    num_snippets: int
    batch_size: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    progress: bool = True
    stop: Callable[[], bool] | None = None  # asked between batches; once true, `Preempted` is raised on all ranks
    waits: Callable[[], None] | None = None  # told when this rank has done its share, and waits for the others


def embed_videos(
    model: Embedder, manifest: Manifest, decoder: VideoDecoder, how: Inference, rows: np.ndarray | None = None
) -> EmbeddedVideos:
    """Embed each video (paper Sec. 4.4): mean of f_v over its snippets, then the linear layer f_s.

    Centre crop, no mirroring. The model is put in eval mode meanwhile. Collective: all ranks must call it.

    Args:
        model: on `how.device`.
        decoder: decodes to `how.clip`.
        rows: int [V], which rows of the manifest; default all.
    """
    rows = np.arange(len(manifest)) if rows is None else np.sort(rows)
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    mine = rows[rank::world_size]
    was_training = model.training
    model.eval()
    try:
        embeddings, failed = embed_rows(model, manifest, mine, decoder, how, show=how.progress and rank == 0)
    finally:
        model.train(was_training)
    is_stopped = how.stop is not None and how.stop()
    if how.waits is not None:
        how.waits()
    parts = gather((mine, embeddings, failed, is_stopped))
    if any(stopped for *_, stopped in parts):
        raise Preempted("asked to stop while videos were embedded")
    return merge_parts(manifest, [part for *part, _ in parts], model)


def embed_features(model: Embedder, manifest: Manifest, decoder: VideoDecoder, how: Inference) -> EmbeddedVideos:
    """As `embed_videos`, but without the linear layer: `embeddings` are the means of f_v, float32 [V, F]."""
    return embed_videos(_FeaturesOnly(model), manifest, decoder, how)


class _FeaturesOnly(nn.Module):
    """A model without its linear layer, as `embed_videos` sees it."""

    def __init__(self, model: Embedder) -> None:
        super().__init__()
        self.model = model
        self.features = model.features
        self.normalisation, self.tokens = model.normalisation, model.tokens
        self.training = model.training  # `embed_videos` puts back what it finds

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """The features as they are."""
        return features


def embed_rows(
    model: Embedder, manifest: Manifest, rows: np.ndarray, decoder: VideoDecoder, how: Inference, *, show: bool
) -> tuple[torch.Tensor | None, dict[int, str]]:
    """Embeddings [len(rows), D] on the CPU (None for no rows) and why places in `rows` failed; theirs hold no meaning."""
    means = _SnippetMeans(how.num_snippets)
    embeddings: list[torch.Tensor] = []
    failed: dict[int, str] = {}
    num_seen = 0
    requests = video_requests(manifest, rows, how.clip, how.num_snippets)
    with torch.inference_mode(), Progress(len(rows), "video", label="embed", is_shown=show) as progress:
        try:
            for decoded in decode_ahead(decoder, requests, how.batch_size, how.clip):
                if how.stop is not None and how.stop():
                    return None, {}
                for index, reason in decoded.failures.items():
                    failed.setdefault((num_seen + index) // how.num_snippets, reason)
                done = means.add(snippet_features(model, decoded.frames, how, decoded.motion, num_seen))
                num_seen += len(decoded.frames)
                if len(done):
                    embeddings.append(model.project(done).float())
                    progress.advance(len(failed), len(done))
        except SourceGone:  # also of a store that is not waited for any more
            if how.stop is not None and how.stop():
                return None, {}
            raise
        # One copy at the end: a copy per batch would make the host wait for the GPU each time.
        return (torch.cat(embeddings).cpu() if embeddings else None), failed


def snippet_features(
    model: Embedder, frames: torch.Tensor, how: Inference, motion: torch.Tensor | None = None, first: int = 0
) -> torch.Tensor:
    """Snippets uint8 [N, T, H, W, C] on any device -> features float32 [N, F] before the linear layer.

    Args:
        motion, first: uint8 [N, T, h, w] of the snippets, and how many came before them: a model that is shown some tokens of a
            clip selects them so.
    """
    frames = frames.to(how.device, non_blocking=True)
    shown = {}
    if model.tokens is not None:
        shown["visible"] = model.tokens.evaluated(first, len(frames), how.num_snippets, motion, how.device)
    with torch.autocast(how.device.type, how.dtype, enabled=how.dtype.itemsize < 4):
        return model.features(model.normalisation(frames, how.dtype), **shown).float()


class _SnippetMeans:
    """Mean of the features over each video's snippets, where batches cut through videos."""

    def __init__(self, num_snippets: int) -> None:
        self.num_snippets = num_snippets
        self._begun: torch.Tensor | None = None  # [n, F], n < num_snippets: of the video a batch cut

    def add(self, features: torch.Tensor) -> torch.Tensor:
        """Take the next [N, F]; return the means [M, F] of the videos that are now complete."""
        if self._begun is not None:
            features = torch.cat([self._begun, features])
        whole = len(features) // self.num_snippets
        self._begun = features[whole * self.num_snippets :]
        return features[: whole * self.num_snippets].unflatten(0, (whole, self.num_snippets)).mean(dim=1)


def merge_parts(
    manifest: Manifest, parts: Sequence[tuple[np.ndarray, torch.Tensor | None, dict[int, str]]], model: nn.Module
) -> EmbeddedVideos:
    """What all ranks embedded with a model, in the order of the manifest."""
    good_rows, embeddings, failures = [], [], {}
    for rows, part, failed in parts:
        good = np.array([index for index in range(len(rows)) if index not in failed], dtype=np.int64)
        failures.update({int(rows[index]): reason for index, reason in failed.items()})
        if part is not None:
            good_rows.append(rows[good])
            embeddings.append(part[torch.from_numpy(good)])
    rows = np.concatenate(good_rows) if good_rows else np.zeros(0, dtype=np.int64)
    order = np.argsort(rows)
    points, features = torch.cat(embeddings)[torch.from_numpy(order)] if embeddings else torch.zeros(0, 0), None
    if isinstance(model, WithFeatures):
        points, features = model.apart(points)
    return EmbeddedVideos(
        embeddings=points,
        class_index=torch.from_numpy(manifest.classes_of(rows[order])),
        rows=torch.from_numpy(rows[order]),
        failures=[SampleFailure(manifest.video(row).path, failures[row]) for row in sorted(failures)],
        features=features,
    )
