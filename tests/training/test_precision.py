"""The floating types of a run."""

import pytest
import torch

from engine.errors import InputError
from engine.training.precision import choose_precision, precision_notes

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
def test_wrong_gradients_of_bf16_on_a_cpu_are_warned_of(name, device, form, is_warned, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    notes = precision_notes(choose_precision(name, torch.device(device)), torch.device(device), form)
    assert bool(notes) == is_warned
    assert all("model.form=flat" in note for note in notes)


@pytest.mark.parametrize(("name", "capability", "is_warned"), [
    ("bf16", "AVX2", True), ("bf16", "AVX512", False), ("bf16", "DEFAULT", False), ("fp32", "AVX2", False),
])  # fmt: skip
def test_bf16_on_a_cpu_without_it_is_warned_of(name, capability, is_warned, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    notes = precision_notes(choose_precision(name, CPU), CPU, "flat")
    assert [("no AVX-512" in note and "fp32" in note) for note in notes] == [True] * is_warned
