"""Videos embedded by a pool: some videos a piece, the model loaded once a worker; the batches are those of one process."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from engine.cluster.pool import LONG_PIECE_S, Pool
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.evaluation.embedding import EmbeddedVideos, embed_rows, merge_parts
from engine.evaluation.inference import inference_settings
from engine.features.encoder import digest_of
from engine.processes.distributed import choose_device
from engine.processes.process_pool import Lost
from engine.schema.keys import with_keys
from engine.tasks.decoding import choose_decoding
from engine.tasks.zero_shot.trained import LoadedModel
from engine.terminal.progress import Progress

_FEWEST_VIDEOS = 32  # of a piece


@dataclass(frozen=True)
class PieceOfVideos:
    """Some rows of a manifest: where they are in it, and a manifest of them alone, in memory: files that are mapped stay here."""

    rows: np.ndarray
    manifest: Manifest


@dataclass
class EmbedPiece:
    """Called in a worker, which keeps the model.

    load: the model on a device, importable by name. device: auto, cpu or cuda. cpus: cores that a worker has.
    """

    load: Callable[[torch.device], LoadedModel]
    device: str
    cpus: int
    _kept: list[tuple[LoadedModel, str]] = field(default_factory=list)

    def __call__(self, piece: PieceOfVideos) -> tuple[torch.Tensor | None, dict[int, str], str]:
        """Embeddings of the rows on the CPU (None where there is none), why places in them failed, the weights' digest."""
        device = choose_device(self.device)
        if not self._kept:
            torch.set_num_threads(self.cpus)
            loaded = self.load(device)
            loaded.model.eval()
            config = with_keys(loaded.config, {"data.decode_threads": self.cpus})
            loaded = dataclasses.replace(loaded, config=config)
            self._kept.append((loaded, weights_digest(loaded)))
        loaded, digest = self._kept[0]
        how = inference_settings(loaded.config, device, progress=False)
        decoder = choose_decoding(loaded.config, device, [piece.manifest]).open(how.batch_size)
        try:
            rows = np.arange(len(piece.manifest))
            return (*embed_rows(loaded.model, piece.manifest, rows, decoder, how, show=False), digest)
        finally:
            decoder.close()


def weights_digest(loaded: LoadedModel) -> str:
    """Of a model's weights."""
    return digest_of(loaded.model.state_dict(), loaded.config.clip, "")


def embed_by(
    pool: Pool, load: Callable[[torch.device], LoadedModel], loaded: LoadedModel, device: str, manifest: Manifest
) -> EmbeddedVideos:
    """As `engine.evaluation.embedding.embed_videos`, by a pool. A piece that crashes is done once more, each of its videos alone.

    Args:
        load: as `EmbedPiece` takes it. loaded: what it loads, as this process has it.
    """
    evaluate = loaded.config.evaluate
    whole = evaluate.batch_size // math.gcd(evaluate.batch_size, evaluate.num_snippets)  # videos that fill batches
    size = whole * math.ceil(_FEWEST_VIDEOS / whole)
    rows = np.arange(len(manifest))
    pieces = (_piece(manifest, rows[first : first + size]) for first in range(0, len(rows), size))
    work, digest = EmbedPiece(load, device, pool.cpus), weights_digest(loaded)
    parts: list[Any] = []
    num_failed = 0
    with Progress(len(rows), "video", label="embed") as progress:
        while True:
            alone: list[np.ndarray] = []
            for piece, done in pool.run(work, pieces, LONG_PIECE_S):
                if isinstance(done, Lost) and len(piece.rows) > 1:
                    alone += np.split(piece.rows, len(piece.rows))
                    continue
                if isinstance(done, Lost):
                    done = None, {0: f"it cannot be decoded ({done.text})"}, digest
                embeddings, failed, theirs = done
                if theirs != digest:
                    raise InputError(
                        "--cluster: a node's model has other weights under the same name: put the same there"
                    )
                parts.append((piece.rows, embeddings, failed))
                num_failed += len(failed)
                progress.advance(num_failed, len(piece.rows))
            if not alone:
                return merge_parts(manifest, parts, loaded.model)
            pieces = (_piece(manifest, each) for each in alone)


def _piece(manifest: Manifest, rows: np.ndarray) -> PieceOfVideos:
    return PieceOfVideos(rows, manifest.select(rows).settled())
