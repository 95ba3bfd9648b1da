"""Each form of an export refuses clips that are no clips, of which it would make points that mean nothing."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from engine.export.formats import LOADING, write_model
from engine.export.program import sample_clips, trace, video_model
from tests.export.test_program import NETWORKS, loaded_model

CROP = 32


@pytest.fixture(scope="module")
def traced():
    section, frames, crop, _ = NETWORKS["difference"]
    return trace(video_model(loaded_model(section, frames, crop)), frames, crop)


@pytest.mark.parametrize("form", LOADING)
def test_clips_of_another_kind_are_refused(form, traced, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    run, clips = write_model(traced, tmp_path, form), sample_clips(CROP, CROP, 2)
    assert run(clips).shape == (1, 12)
    wrong = {
        "float": clips.float() / 255,
        "integers": clips.long(),
        "channels first": clips.movedim(-1, -3),
        "rows of channels": clips.movedim(-1, -2),
        "one snippet of one video": clips[0],
        "four channels": torch.cat([clips, clips[..., :1]], dim=-1),
        "no snippet": clips[:, :0],
        "no frame": clips[:, :, :0],
        "too few frames": clips[:, :, :1],
    }
    for what, each in wrong.items():
        with pytest.raises(Exception) as refused:
            run(each)
        told = str(refused.value)
        if form == "safetensors":
            asked = f"must be a Tensor of torch.uint8 [videos, snippets, frames, {CROP}, {CROP}, 3]"
            assert type(refused.value) is ValueError and asked in told, what
            assert f"clips are a Tensor of {each.dtype} {[*each.shape]}" in told, what
        if form == "torch.export" and each.dtype != clips.dtype:
            assert re.search("dtype mismatch! Expected: Byte, Got: (float|long)", told, re.IGNORECASE)
    if form == "safetensors":
        with pytest.raises(ValueError, match="clips are a ndarray of uint8"):
            run(np.asarray(clips))


@pytest.mark.parametrize(
    ("frames", "multiple", "fewest", "taken"),
    [(4, 1, 1, [4]), (None, 1, 2, [2, 3, 4, 5]), (None, 2, 1, [2, 4]), (None, 2, 4, [4]), (None, 2, 3, [4])],
)
def test_which_numbers_of_frames_a_program_takes(frames, multiple, fewest, taken, traced):
    found = dataclasses.replace(traced, frames=frames, frame_multiple=multiple, fewest_frames=fewest).lengths
    assert [number for number in range(6) if number in found] == taken
