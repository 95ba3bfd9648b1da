"""The stream of training batches of one rank: plan -> requests -> decode ahead -> `ClipBatch`.

A background thread keeps `prefetch_batches` decoded batches ready; the decoders do their own work in
parallel. A sample that cannot be decoded is replaced by another of the same epoch, by a rule that
depends on nothing but (seed, epoch, position), and reported with the batch.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch

from engine.data.batch import (
    ClipBatch,
    ClipFormat,
    CropMotion,
    DecodedClips,
    SampleFailure,
    SnippetRequest,
    VideoDecoder,
)
from engine.data.config import DataConfig
from engine.data.loading.ahead import Prefetcher, decode_in_order
from engine.data.loading.transfer import DeviceCopier
from engine.data.manifests.manifest import Manifest
from engine.data.remote.ahead import read_ahead_of
from engine.data.sampling.plans import PLANS, Draw
from engine.data.sampling.sampler import replacement_position, stream_slice
from engine.data.sampling.weights import RowWeights
from engine.errors import InputError

MAX_REPLACEMENTS = 10  # in a row for one sample; more means that the data set is not there


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What the stream of one rank is a function of, besides the manifest. plan: its version, see `sampling/plans.py`."""

    seed: int
    batch_size: int  # snippets of a step over all ranks
    rank: int
    world_size: int
    flip: bool
    plan: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.world_size:
            raise InputError(
                f"train.batch_size {self.batch_size} does not divide over {self.world_size} ranks: "
                f"use a multiple of {self.world_size}"
            )


@dataclass(frozen=True, slots=True)
class _Planned:
    """A batch of this rank before it is decoded."""

    places: list[tuple[int, int]]  # (epoch, position in it)
    rows: list[int]
    requests: list[SnippetRequest]


class ClipLoader:
    """Endless iterator of the `ClipBatch`es of one rank, from (epoch, position) on.

    Args:
        manifest: the training videos.
        labels: int64 [C], the label of each class of the manifest.
        decoder: decodes onto the training device.
        clip, stream, data: what to decode, in which order, and the `data` section.
        epoch, position: where to start (the two integers of a checkpoint).
        weights: how often each video comes in an epoch (default: once).
    """

    def __init__(
        self,
        manifest: Manifest,
        labels: np.ndarray,
        decoder: VideoDecoder,
        clip: ClipFormat,
        stream: StreamPlan,
        data: DataConfig,
        *,
        epoch: int = 0,
        position: int = 0,
        weights: RowWeights | None = None,
    ) -> None:
        self.manifest, self.labels, self.decoder = manifest, labels, decoder
        self.stream, self.data, self.clip = stream, data, clip
        draw = Draw(stream.seed, clip.span, stream.flip, data.clips_per_epoch)
        self.plan = PLANS[stream.plan](manifest, weights or RowWeights.of_sets([(1.0, len(manifest))]), draw)
        self.epoch_size = self.plan.epoch_size
        self.num_samples = self.num_replaced = 0
        self._next = (epoch, position)
        self._copy: DeviceCopier | None = None
        self._batches = Prefetcher(self._decode(), data.prefetch_batches, "clip-loader")

    def __iter__(self) -> "ClipLoader":
        return self

    def __next__(self) -> ClipBatch:
        batch = next(self._batches)
        self.num_samples += len(batch)
        self.num_replaced += batch.num_replaced
        self._check_bad_share(batch)
        return batch

    def close(self) -> None:
        """Stop decoding ahead and release the decoder."""
        self._batches.close()
        self.decoder.close()

    def _decode(self) -> Iterator[ClipBatch]:
        planned: deque[_Planned] = deque()

        def requests() -> Iterator[list[SnippetRequest]]:
            while True:
                planned.append(self._plan_batch())
                yield planned[-1].requests

        with closing(read_ahead_of(self.decoder, requests(), self.clip)) as batches:
            for decoded in decode_in_order(self.decoder, batches):
                yield self._finish(planned.popleft(), decoded)

    def _plan_batch(self) -> _Planned:
        epochs, positions = stream_slice(*self._next, self.stream.batch_size, self.epoch_size)
        ahead = stream_slice(*self._next, self.stream.batch_size + 1, self.epoch_size)
        self._next = (int(ahead[0][-1]), int(ahead[1][-1]))
        mine = slice(self.stream.rank, None, self.stream.world_size)
        indices = list(zip(epochs[mine].tolist(), positions[mine].tolist(), strict=True))
        return _Planned(indices, *self._requests(epochs[mine], positions[mine]))

    def _finish(self, planned: _Planned, decoded: DecodedClips) -> ClipBatch:
        """The batch, with stand-ins for what did not decode."""
        indices, rows, requests = planned.places, planned.rows, planned.requests
        failures: list[SampleFailure] = []
        pending = decoded.failures
        for attempt in range(MAX_REPLACEMENTS + 1):
            failures += [SampleFailure(requests[i].video.path, reason) for i, reason in pending.items()]
            if not pending:
                break
            if attempt == MAX_REPLACEMENTS:
                raise InputError(_nothing_decodes(failures))
            for i in pending:
                epoch, position = indices[i]
                stand_in = replacement_position(self.stream.seed, epoch, position, attempt, self.epoch_size)
                (rows[i],), (requests[i],) = self._requests(np.array([epoch]), np.array([stand_in]))
            again = list(pending)
            replaced = self.decoder.decode([requests[i] for i in again])
            decoded.frames[again] = replaced.frames
            if decoded.motion is not None:
                decoded.motion[again] = replaced.motion
            pending = {again[j]: reason for j, reason in replaced.failures.items()}
        return self._batch(decoded, rows, requests, failures)

    def _requests(self, epochs: np.ndarray, positions: np.ndarray) -> tuple[list[int], list[SnippetRequest]]:
        """The rows at some places of the stream, and what to decode of them."""
        plan = self.plan.at(epochs, positions)
        rows = plan.video.tolist()
        drawn = zip(
            plan.start, plan.crop_y, plan.crop_x, plan.flip, plan.motion, self.manifest.videos(rows), strict=True
        )
        requests = [
            SnippetRequest(
                video,
                start=int(start),
                crop_y=float(crop_y),
                crop_x=float(crop_x),
                flip=bool(flip),
                motion=CropMotion(*motion.tolist()) if video.is_still else None,
            )
            for start, crop_y, crop_x, flip, motion, video in drawn
        ]
        return rows, requests

    def _batch(
        self,
        decoded: DecodedClips,
        rows: list[int],
        requests: list[SnippetRequest],
        failures: list[SampleFailure],
    ) -> ClipBatch:
        if self._copy is None:
            self._copy = DeviceCopier(decoded.frames.device)  # the decoder's device is known by what it decodes
        labels = self._copy(torch.from_numpy(self.labels[self.manifest.classes_of(np.array(rows))]))
        starts = torch.tensor([request.start for request in requests])
        videos = torch.tensor(rows)
        return ClipBatch(decoded.frames, labels, videos, starts, failures, len(decoded.failures), decoded.motion)

    def _check_bad_share(self, batch: ClipBatch) -> None:
        # Held against at least one epoch, so that one bad file among the first hundred stops nothing.
        seen = max(self.num_samples, self.epoch_size // self.stream.world_size)
        if batch.failures and self.num_replaced > max(1.0, self.data.max_bad_share * seen):
            last = batch.failures[-1]
            raise InputError(
                f"{self.num_replaced} of {self.num_samples} samples could not be decoded, more than data.max_bad_share = "
                f"{self.data.max_bad_share:g} of an epoch; the last: {last.path}: {last.reason}. Index the data set "
                "again to drop the bad files, or raise data.max_bad_share"
            )


def _nothing_decodes(failures: list[SampleFailure]) -> str:
    lines = "; ".join(f"{failure.path}: {failure.reason}" for failure in failures[-3:])
    return (
        f"{MAX_REPLACEMENTS} samples in a row could not be decoded, so the data set cannot be read as the manifest says "
        f"(data.train.N.root moves it): {lines}"
    )
