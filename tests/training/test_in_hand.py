"""Ranks that must all have their batch before a step."""

from types import SimpleNamespace

import pytest
import torch.distributed as dist

from engine.errors import SourceGone
from engine.training.in_hand import next_batch
from tests import jobs


class _Gone:
    def __next__(self) -> object:
        raise SourceGone("the store is gone")


def test_a_rank_that_loses_its_videos_asks_nobody_who_does_not_listen(monkeypatch):
    """Ranks whose videos cannot go away are in the step, and would be waited for in vain."""
    monkeypatch.setattr(dist, "all_reduce", None)
    monkeypatch.setattr(dist, "all_gather_object", None)
    run = SimpleNamespace(
        step=3, watchdog=SimpleNamespace(beat=lambda *_: None), stop=SimpleNamespace(requested=lambda: False),
        ranks=SimpleNamespace(gloo=object()), task=SimpleNamespace(is_remote=False),
    )  # fmt: skip
    with pytest.raises(SourceGone, match=r"^the store is gone$"):
        next_batch(run, _Gone())


TWO = """
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch.distributed as dist

from engine.errors import SourceGone
from engine.training.in_hand import next_batch

dist.init_process_group("gloo", timeout=timedelta(seconds=60))
rank = dist.get_rank()


def batches():
    yield "a batch"
    if rank == 1:
        raise SourceGone("the store is gone")
    yield "a batch"


run = SimpleNamespace(
    step=3, watchdog=SimpleNamespace(beat=lambda *_: None), stop=SimpleNamespace(requested=lambda: False),
    ranks=SimpleNamespace(gloo=dist.group.WORLD), task=SimpleNamespace(is_remote=True),
)
mine, told = batches(), []
for _ in range(2):
    try:
        told.append(next_batch(run, mine))
    except SourceGone as gone:
        told.append(str(gone))
Path(sys.argv[1], f"{rank}.txt").write_text("; ".join(told))
dist.destroy_process_group()
"""


@pytest.mark.distributed
def test_from_object_storage_all_have_a_batch_or_none(tmp_path):
    jobs.run_script(TWO, tmp_path, ranks=2, timeout_s=120)
    for rank in (0, 1):
        assert (tmp_path / f"{rank}.txt").read_text() == "a batch; the store is gone (rank 1 of 2)"
