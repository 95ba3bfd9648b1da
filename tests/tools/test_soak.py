"""The soak: its fit on curves that are known, and a short one of a real decoder in a process of its own."""

import json
import os
import sys

import numpy as np
import pytest
import torch

from engine.errors import InputError
from engine.records import recording_into
from tests.small_run import ROOT, call_tool


@pytest.fixture
def resources(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from bench import resources

    return resources


def an_hour(resources, memory, files=lambda k: 9.0):
    return [
        resources.Sample(5.0 * k, 100 * k, {"memory": memory(k), "open files": files(k), "threads": 4.0})
        for k in range(720)
    ]


def test_growth_is_found_under_peaks_and_a_warm_up_is_not_growth(resources):
    noise = np.random.default_rng(0).normal(0, 3, 720)

    def leaking(k):  # 60 MB an hour, under evaluations that take 300 MB for every tenth sample
        return 500 + k / 12 + noise[k] + 300 * (k % 10 == 0)

    def warming(k):
        return 500 - 200 * np.exp(-k / 10) + noise[k] + 300 * (k % 10 == 0)

    found = resources.trends(an_hour(resources, leaking, files=lambda k: 9 + k // 300), warm_up=0.1)
    assert found["memory"].per_hour == pytest.approx(60, rel=0.03)
    assert found["memory"].per_1000_snippets == pytest.approx(60 / 72, rel=0.03)
    assert [found[name].is_flat for name in ("memory", "open files", "threads")] == [False, False, True]
    assert all(half == pytest.approx(60, rel=0.15) for half in found["memory"].halves)
    assert resources.trends(an_hour(resources, warming), warm_up=0.1)["memory"].is_flat
    with pytest.raises(InputError, match="samples with no work"):
        resources.trends(an_hour(resources, warming)[:8], warm_up=0.5)


from engine.records import recording_into
from tests.small_run import ROOT, call_tool
