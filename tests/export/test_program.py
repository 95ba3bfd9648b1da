"""Exported programs give the model's own points, for any number of videos, snippets and (where it allows it) frames."""

from types import SimpleNamespace

import pytest
import torch
from torch.export import ExportedProgram

from engine.config import Config
from engine.evaluation.embedding import Inference, snippet_features
from engine.export.program import compare, sample_clips, trace, video_model
from engine.models.embedder import build_embedder
from engine.models.image_network import ImageNetwork
from engine.naming.classifier import Classifier
from engine.schema.parser import parse

NETWORKS = {  # name -> (model section, frames, crop, whether other numbers of frames will do)
    "flat": ({"backbone": "mc3_18", "width": 4, "form": "flat", "unit_norm": True}, 2, 16, True),
    "r3d": ({"backbone": "r3d_18", "width": 4}, 4, 24, True),
    "c3d": ({"backbone": "c3d", "width": 4}, 16, 32, False),
    "difference": ({"backbone": "timm:test_resnet", "temporal": "difference"}, 3, 32, True),
    "transformer": ({"backbone": "vit_tiny"}, 4, 32, True),
    "shift": ({"backbone": "timm:test_resnet", "temporal": "shift"}, 4, 32, False),
}


def loaded_model(section, frames, crop):
    config = parse(Config, {"clip": {"num_frames": frames, "short_side": crop, "crop": crop}, "model": section})
    torch.manual_seed(0)
    model = build_embedder(config.model, config.clip, 12).eval()
    with torch.no_grad():  # statistics and scales as after a training, not those of the start
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
    return SimpleNamespace(model=model, config=config)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_is_the_model_for_other_numbers_of_everything(name):
    section, frames, crop, any_length = NETWORKS[name]
    loaded = loaded_model(section, frames, crop)
    model = video_model(loaded)
    traced = trace(model, frames, crop)
    assert isinstance(traced.program, ExportedProgram) and traced.frames == (None if any_length else frames)
    run, other = traced.program.module(), traced.frame_multiple
    assert other == (2 if name == "transformer" else 1)
    lengths = ((2, other * (2 * frames + 3)), (1, other * 33)) if any_length else ()
    for snippets, length in ((1, frames), (4, frames), *lengths):
        clips = torch.cat([sample_clips(length, crop, snippets), sample_clips(length, crop, snippets).flip(1, 3)])
        difference, allowed = compare(model, run, clips)
        assert difference <= allowed < 1e-4
        assert (run(clips)[0] - run(clips)[1]).norm() > 100 * allowed * run(clips)[0].norm()
        torch.testing.assert_close(run(clips[:1]), run(clips)[:1])  # a video alone is no other
    assert traced.fewest_frames == (2 if name == "difference" else 1)
    if name == "difference":
        with pytest.raises(IndexError, match="index 1 out of range"):
            run(sample_clips(1, crop))
    if not any_length or other > 1:
        with pytest.raises((AssertionError, RuntimeError)):
            run(sample_clips(frames + 1, crop))


@pytest.mark.parametrize("name", ["flat", "difference"])
def test_the_model_that_is_exported_is_the_one_that_evaluates(name):
    section, frames, crop, _ = NETWORKS[name]
    loaded = loaded_model(section, frames, crop)
    clips = sample_clips(frames, crop, 5)
    how = Inference(loaded.config.clip, 5, 8, torch.device("cpu"))
    with torch.inference_mode():
        own = loaded.model.project(snippet_features(loaded.model, clips[0], how).mean(dim=0, keepdim=True))
        exported = video_model(loaded)(clips)
    torch.testing.assert_close(exported, own, rtol=1e-4, atol=1e-5)


def test_a_single_picture_through_a_classifier():
    network = ImageNetwork("timm:test_resnet", 1, 32, with_classifier=True)
    model = video_model(SimpleNamespace(model=Classifier(network).eval()))
    run = trace(model, 1, 32).program.module()
    for clips in (sample_clips(1, 32, 1), sample_clips(5, 32, 3)):
        difference, allowed = compare(model, run, clips)
        assert difference <= allowed
    assert run(clips).shape == (1, network.feature_dim + 2)


def test_a_model_that_is_off_is_seen():
    model = video_model(loaded_model(*NETWORKS["difference"][:3]))
    clips = sample_clips(3, 32)
    difference, allowed = compare(model, lambda clips: model(clips) * (1 + 1e-4), clips)
    assert difference == pytest.approx(1e-4, rel=0.1) and difference > allowed
    assert not compare(model, lambda clips: torch.full_like(model(clips), torch.nan), clips)[0] <= allowed
