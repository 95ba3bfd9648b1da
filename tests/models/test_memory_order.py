"""The weights of every network lie in memory as their gradients do: where they do not, DDP copies these in each step and warns."""

import pytest
import torch

from engine.config import Config
from engine.models.embedder import build_embedder
from engine.processes.distributed import Ranks
from engine.schema.parser import parse
from engine.training.network import placed
from engine.training.precision import choose_precision

RANKS = Ranks(torch.device("cpu"))
NETWORKS = {  # backbone and form -> pixels of a clip
    ("r2plus1d_18", "published"): 44,
    ("r2plus1d_18", "flat"): 44,
    ("r2plus1d_18", "summed"): 44,
    ("r2plus1d_18", "fused"): 44,
    ("mc3_18", "published"): 44,
    ("mc3_18", "flat"): 44,
    ("r3d_18", "published"): 44,
    ("c3d", "published"): 112,
    ("vit_tiny", "flat"): 32,
    ("timm:test_resnet", "flat"): 32,
    ("timm:mobilenetv3_small_100", "flat"): 32,  # kernels of one cell, and of one channel
}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize(("backbone", "form"), NETWORKS)
def test_gradients_have_the_strides_of_their_weights(backbone, form, precision):
    size = NETWORKS[backbone, form]
    width = {} if form == "flat" and "_18" not in backbone else {"width": 8}
    clip = {"num_frames": 16 if backbone == "c3d" else 4, "short_side": size, "crop": size}
    config = parse(Config, {"clip": clip, "model": {"backbone": backbone, "form": form, **width}})
    chosen = choose_precision(precision, RANKS.device)
    model = placed(build_embedder(config.model, config.clip, 7), config, RANKS, chosen)
    clips = torch.rand(2, 3, clip["num_frames"], size, size, dtype=chosen.compute)
    clips = clips.contiguous(memory_format=torch.channels_last_3d)
    with chosen.autocast(RANKS.device):
        model(clips).float().sum().backward()
    apart = [name for name, weight in model.named_parameters() if weight.grad.stride() != weight.stride()]
    assert not apart
