"""Cores and memory of a process."""

import mmap

import pytest

from engine import machine
from engine.errors import InputError


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


@pytest.mark.parametrize(
    ("own", "others", "quota", "cores"),
    [
        (range(96), [range(96)] * 7, None, 12),  # torchrun: eight ranks, one mask
        (
            range(12, 24),
            [range(12 * n, 12 * n + 12) for n in (0, 2, 3)],
            None,
            12,
        ),  # srun --cpus-per-task: each its own
        (range(48), [range(48)] * 3 + [range(48, 96)] * 4, None, 12),  # a mask for each NUMA node
        (range(8), [range(4)], None, 6),  # one has only half
        (range(2), [range(2)] * 5, None, 1),
        (range(96), [range(96)] * 3, "1600000 100000", 4),  # a container's quota is of all its ranks
        (range(4), [range(4, 96)], "9900000 100000", 4),  # a quota that leaves more than the mask
    ],
)
def test_a_rank_shares_only_the_cores_that_others_have_too(own, others, quota, cores, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(own), raising=False)
    monkeypatch.setattr(machine, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(machine, "_masks", None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(1 + len(others)))
    if quota:
        machine._QUOTA.write_text(f"{quota}\n")
    machine.share_cores([set(own), *map(set, others)])
    assert machine.rank_cores() == cores
    machine.share_cores(None)
    assert machine.rank_cores() == max(1, machine.usable_cores() // (1 + len(others)))


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.0", "²"])
def test_a_variable_of_torchrun_that_is_no_such_number_is_named(text, monkeypatch):
    monkeypatch.setattr(machine, "_masks", None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", text)
    with pytest.raises(InputError, match=rf"LOCAL_WORLD_SIZE is '{text}': unset it, or start the ranks with torchrun"):
        machine.rank_cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "")  # as a shell's script may leave it
    assert machine.rank_cores() == machine.usable_cores()


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
