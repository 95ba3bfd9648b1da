"""Two trainings in one run folder: the second is refused, whoever it is, and the first is left alone."""

import errno
import fcntl
import os
import signal
import threading

import pytest

from engine.errors import InputError
from engine.files.locks import lock_file, try_lock
from engine.processes.distributed import Ranks, choose_device
from engine.training import alone
from engine.training.alone import alone_in
from tests import jobs

MAIN = Ranks(choose_device("cpu"))
REFUSED = "another process trains in it: wait for it or stop it, or name another run.folder"


def test_a_second_training_in_one_folder_is_refused_and_the_first_goes_on(videos, whole, tmp_path):
    config = jobs.write_config(tmp_path / "config.yaml", videos, tmp_path / "run")
    first = jobs.start(config)
    jobs.wait_for_step(tmp_path / "run", 1, first)
    first.send_signal(signal.SIGSTOP)  # a slow one
    try:
        lines = (tmp_path / "run" / "log.jsonl").read_bytes()
        second, several = jobs.start(config), jobs.start_ranks(2, config)
        assert second.communicate(timeout=120)[0] == f"error: run folder '{tmp_path / 'run'}': {REFUSED}\n"
        printed = [rank.communicate(timeout=120)[0] for rank in several]
        assert [second.returncode, *(rank.returncode for rank in several)] == [2, 2, 2]
        assert "".join(printed).count(REFUSED) == 1
        assert (tmp_path / "run" / "log.jsonl").read_bytes() == lines
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.communicate(timeout=120) and first.returncode == 0
    assert jobs.same_weights(whole, tmp_path / "run")


def test_a_folder_is_free_again_and_one_process_may_train_in_two(tmp_path, monkeypatch):
    monkeypatch.setattr(alone, "_WAIT_S", 0.1)
    for _ in range(2):
        with alone_in(tmp_path / "run", MAIN), alone_in(tmp_path / "run" / "control", MAIN):
            held = lock_file(tmp_path / "run" / "lock")  # an experiment's own lock of its cell
            assert held is not None
            os.close(held)
            with pytest.raises(InputError, match=REFUSED), alone_in(tmp_path / "run", MAIN):
                pass


def test_it_waits_for_a_training_that_is_about_to_end(tmp_path):
    dying = os.open(tmp_path, os.O_RDONLY)
    assert try_lock(dying)
    end = threading.Timer(0.5, os.close, [dying])
    end.start()
    with alone_in(tmp_path, MAIN):
        assert end.finished.is_set()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_keeps_nobody_out(tmp_path, monkeypatch, number):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with alone_in(tmp_path, MAIN), alone_in(tmp_path, MAIN):
        pass
    for _ in range(2):
        held = lock_file(tmp_path / "lock")
        assert held is not None and try_lock(held)
        os.close(held)
