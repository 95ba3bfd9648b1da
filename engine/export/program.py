"""A video model as a program of torch operations alone: from frames to points of the word space.

    clips uint8 [V, S, T, H, W, 3] ──▶ normalise ──▶ features of V * S snippets ──mean──▶ linear layer ──▶ float32 [V, D]

V videos, S snippets of each and T frames of a snippet are free where the network allows it; H and W are `clip.crop`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config

from engine.errors import InputError
from engine.models.backbone import Backbone
from engine.models.embedder import Embedder, build_embedder
from engine.naming.classifier import Classifier
from engine.tasks.zero_shot.trained import LoadedModel
from kernels.clip_normalize import scales_and_shifts

_ROUNDINGS = 8
_TRACED_FRAMES = 16  # at least: where stages halve them down to one, one is all that the program would take


class VideoModel(nn.Module):
    """What is exported: uint8 [V, S, T, H, W, 3] -> points [V, D], as `embed_videos` makes them of decoded frames."""

    def __init__(self, model: Embedder | Classifier) -> None:
        super().__init__()
        self.model = model
        scale, shift = scales_and_shifts(model.normalisation.mean, model.normalisation.std)
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("shift", torch.tensor(shift))

    def forward(self, clips: Tensor) -> Tensor:
        torch.ops.aten._assert_tensor_metadata(clips, dtype=torch.uint8)
        clips = _at_least(clips, 1, 1)
        clips = _at_least(clips, 2, _network(self).fewest_frames)
        videos, snippets = clips.shape[:2]
        frames = torch.addcmul(self.shift, clips.flatten(0, 1).to(self.scale.dtype), self.scale)
        features = self.model.features(frames.permute(0, 4, 1, 2, 3))
        return self.model.project(features.unflatten(0, (videos, snippets)).mean(dim=1))


def _at_least(clips: Tensor, dimension: int, fewest: int) -> Tensor:
    """The same clips, taken so that the program refuses any with fewer in a dimension: the first are taken one by one."""
    first = [clips.select(dimension, index).unsqueeze(dimension) for index in range(fewest)]
    return torch.cat([*first, clips.narrow(dimension, fewest, clips.shape[dimension] - fewest)], dim=dimension)


def video_model(loaded: LoadedModel) -> VideoModel:
    """The model of a run in fp32 on the CPU, in the published form, which computes the same from the same parameters.

    Raises:
        InputError: it is shown some tokens of a clip, and whoever runs the program would have to select them.
    """
    model = loaded.model
    if model.tokens is not None:
        raise InputError(
            f"'{loaded.path}' takes {loaded.config.model.tokens.share:g} of a clip's tokens (model.tokens), selected outside of "
            "the network: a program of the network alone cannot be exported. Train one with model.tokens.share=1"
        )
    if isinstance(model, Embedder):
        config = replace(loaded.config.model, form="published", weights=None)
        dim = model.linear.out_features if model.linear is not None else model.backbone.feature_dim
        model = build_embedder(config, loaded.config.clip, dim)
        model.load_state_dict(loaded.model.state_dict())
    return VideoModel(model).float().cpu().eval().requires_grad_(False)


@dataclass(frozen=True)
class Traced:
    """A program of `crop` x `crop` pixels; `frames` are those of a snippet that it takes, None where any multiple of
    `frame_multiple` from `fewest_frames` on will do."""

    program: ExportedProgram
    frames: int | None
    frame_multiple: int
    fewest_frames: int
    crop: int

    @property
    def lengths(self) -> range:
        """The numbers of frames that it takes."""
        if self.frames is not None:
            return range(self.frames, self.frames + 1)
        first = -(-self.fewest_frames // self.frame_multiple) * self.frame_multiple
        return range(first, 2**31, self.frame_multiple)


def trace(model: VideoModel, num_frames: int, crop: int) -> Traced:
    """The operations of a model.

    Args:
        num_frames, crop: of the snippets that it was trained on.
    """
    network = _network(model)
    any_length, multiple, fewest = network.any_length, network.frame_multiple, network.fewest_frames
    frames = max(num_frames, _TRACED_FRAMES) if any_length else num_frames
    clips = torch.zeros(2, 3, frames, crop, crop, 3, dtype=torch.uint8)
    length = multiple * Dim("length") if multiple > 1 else Dim.DYNAMIC
    shapes = {"clips": {0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 2: length if any_length else Dim.STATIC}}
    # Else it is taken for granted that no dimension is 1 that is not 1 here.
    with torch.no_grad(), _config.patch(backed_size_oblivious=True):
        program = torch.export.export(model, (clips,), dynamic_shapes=shapes, strict=False)
    for node in list(program.graph.nodes):
        is_assertion = node.target is torch.ops.aten._assert_tensor_metadata.default
        if is_assertion and "device" in node.kwargs:  # that everything is on the CPU
            program.graph.erase_node(node)
        elif node.target is torch.ops.aten.view.default:  # convolutions may choose another memory order than was traced
            node.target = torch.ops.aten.reshape.default
    program.graph_module.recompile()
    program._guards_code = []  # on products of sizes, which choose a kernel for a batch of one; those on each size stay
    return Traced(program, None if any_length else num_frames, multiple, fewest, crop)


def _network(model: VideoModel) -> Backbone:
    return model.model.backbone if isinstance(model.model, Embedder) else model.model.network


def sample_clips(num_frames: int, crop: int, snippets: int = 2) -> Tensor:
    """Random clips of one video, uint8 [1, snippets, num_frames, crop, crop, 3], always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, snippets, num_frames, crop, crop, 3), dtype=torch.uint8, generator=generator)


def compare(model: VideoModel, exported: Callable[[Tensor], Tensor], clips: Tensor) -> tuple[float, float]:
    """How far the points of an exported model lie from those of the model itself, and how far they may.

    Both are distances over the length of the point, the largest of all videos. The same sums in another order are rounded
    otherwise, by about as much as fp32 itself is off: the allowed distance is 8 times what the model's own fp32 points
    lie from those in float64, and not under 8 units of fp32's last place.
    """
    with torch.no_grad():
        own = model(clips).double()
        exact = copy.deepcopy(model).double()(clips)
        theirs = exported(clips).double()
    length = exact.norm(dim=1)
    rounding = float(((own - exact).norm(dim=1) / length).max())
    return (
        float(((theirs - own).norm(dim=1) / length).max()),
        _ROUNDINGS * max(rounding, torch.finfo(torch.float32).eps),
    )
