"""Rows of encoders that were told few labels."""

import numpy as np
import pytest

from engine.experiments.few_labels import Measured, show, summarise


def test_rows_have_paired_differences():
    accuracies = {"none": (0.1, 0.2, 0.3), "tube": (0.2, 0.3, 0.4), "mgm": (0.1, 0.2, 0.6)}
    found = [
        Measured("probe", encoder, share, 2, seed, value, value, 0.1, 0.1, control=0.1)
        for share in (1.0, 0.5) for encoder, values in accuracies.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    rows = list(summarise(found))
    assert [(row["share"], row["encoder"]) for row in rows] == [(s, each) for s in (1.0, 0.5) for each in accuracies]
    none, tube, mgm = rows[:3]
    assert (none["less_none"], tube["less_tube"], tube["seen"]) == (None, None, None)
    assert tube["less_none"] == pytest.approx((0.1, 0.1, 0.1)) and none["less_tube"] == pytest.approx((-0.1,) * 3)
    half = 4.302653 * 0.3 / 3  # of 0, 0, 0.3: standard deviation 0.3 / sqrt(3)
    assert mgm["less_none"] == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    assert mgm["mean_class_sd"] == pytest.approx(np.std((0.1, 0.2, 0.6), ddof=1))
    assert list(summarise([each for each in found if each.seed == 0]))[1]["less_none"] is None
    fewer = list(summarise([each for each in found if (each.encoder, each.seed) != ("mgm", 2)]))
    assert (fewer[2]["seeds"], fewer[2]["less_none"]) == (2, (0.0, 0.0, 0.0))  # of the seeds that both have
    told = show(rows).text()
    assert "less none (95 %)" in told and "+0.100 (-0.330 to +0.530)" in told and "less tube (95 %)" in told
