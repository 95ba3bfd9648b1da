"""The floating types of a run."""

import pytest
import torch

from engine.errors import InputError
from engine.precision import choose_precision, precision_notes

CPU = torch.device("cpu")


def test_a_cpu_computes_in_fp32_unless_told_otherwise():
    assert choose_precision("auto", CPU).name == "fp32"
    assert choose_precision("bf16", CPU).dtype is torch.bfloat16
    assert choose_precision("fp64", CPU).compute is torch.float64
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        choose_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("name", "device", "form", "is_warned"),
    [
        ("bf16", "cpu", "published", True),
        ("bf16", "cpu", "flat", False),
        ("fp32", "cpu", "published", False),
        ("bf16", "cuda", "published", False),
    ],
)
def test_wrong_gradients_of_bf16_on_a_cpu_are_warned_of(name, device, form, is_warned):
    notes = precision_notes(choose_precision(name, torch.device(device)), torch.device(device), form)
    assert bool(notes) == is_warned
    assert all("model.form=flat" in note for note in notes)
