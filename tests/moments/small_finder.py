"""A moment run that nobody trained, with the network of its features beside it: in seconds what `engine/train.py` leaves."""

from dataclasses import asdict
from pathlib import Path

import torch

from engine.config import Config
from engine.features.cache import Stamp
from engine.features.encoder import build_encoder
from engine.features.windows import WindowGrid
from engine.moments.network import MomentNetwork
from engine.moments.queries import open_queries
from engine.schema.parser import parse, to_tree
from engine.training.checkpoint import save_checkpoint
from tests.small_run import write_run

GRID = WindowGrid(8, 4)


def write_moment_run(folder: Path, *, is_word_space: bool = True, seed: int = 0) -> Path:
    """folder/moments, a run whose features are of folder/network; with or without a linear layer into the words' space."""
    words = {"words": {"source": "glove"}, "embed_dim": 50} if is_word_space else {}
    write_run(folder / "network", **words)
    encoder = build_encoder(str(folder / "network"), torch.device("cpu"))
    stamp = Stamp(encoder.name, encoder.digest, encoder.width, encoder.normalised, GRID, "float16")
    tree = {
        "task": "moments",
        "run": {"folder": str(folder / "moments"), "device": "cpu"},
        "moments": {
            "features": "features/x", "annotations": "x.moments.parquet", "width": 16, "heads": 2, "segments": 16,
        },
    }  # fmt: skip
    config = parse(Config, tree)
    torch.manual_seed(seed)
    dims = {"video_dim": stamp.width, "query_dim": open_queries(config.words).dim}
    network = MomentNetwork(*dims.values(), config.moments)
    state = {
        "model": network.state_dict(), "config": to_tree(config), "features": asdict(stamp), "num_queries": 864, **dims,
        "features_digest": stamp.digest, "step": 5, "epoch": 1, "position": 0,
    }  # fmt: skip
    save_checkpoint(folder / "moments" / "checkpoints" / "best.pt", state)
    return folder / "moments"
