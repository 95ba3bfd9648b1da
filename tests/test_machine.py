"""Cores and memory of a process."""

import mmap

import pytest

from engine import machine


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("150000 100000", 2), ("1000 100000", 1), ("9900000 100000", 12), ("max 100000", 12), (None, 12)],
)
def test_cores_are_those_of_the_mask_and_of_the_quota(quota, cores, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(12)), raising=False)
    monkeypatch.setattr(machine, "_QUOTA", tmp_path / "cpu.max")
    if quota:
        machine._QUOTA.write_text(f"{quota}\n")
    assert machine.usable_cores() == cores


@pytest.mark.skipif(not machine.resident_bytes(), reason="needs Linux's /proc")
def test_memory_in_use_and_its_peak():
    before = machine.resident_bytes()
    size = 64 << 20
    with mmap.mmap(-1, size) as held:  # of the system, and not what the process had before
        held.write(bytes(size))
        after = machine.resident_bytes()
        assert size * 0.9 < after - before < size * 2.5
    assert machine.resident_bytes() < after - size // 2
    assert machine.resident_bytes("VmHWM") > after - (1 << 20)  # Linux counts it now and then
    assert machine.resident_bytes(pid=2**31 - 1) == 0  # of no process
