"""Programs in processes of their own that start at once: forked by a server that has imported what they import.

Importing torch, torchvision and the engine takes a process some four seconds of computing. The server (Python's own
`multiprocessing.forkserver`) does it once a session; each program is then a fork of it, with its own arguments,
environment, output, signals and exit status, as if it had been started by its file's name. That a file can be started
so is tested in tests/tools/test_help.py, and by all that torchrun starts. The workers that a program spawns are forked by
the same server (they print where it does); that a program does it with a server of its own is tested in
tests/processes/test_process_pool.py and tests/tools/test_compare_losses.py.
"""

import errno
import gc
import multiprocessing
import operator
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from importlib.machinery import ModuleSpec
from multiprocessing import forkserver, reduction
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import IO
from unittest import mock

from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

from tests.environment import ROOT, environment

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        *("pytest", "torch._dynamo", "torch.distributed.run", "matplotlib.pyplot", "pyarrow.dataset"),
        *("engine.train", "tests.preloaded", "tests.forked"),
    ]
)


def server_pid() -> int:
    """The server's process, whose children all forked programs are."""
    return forkserver._forkserver._forkserver_pid


def _received_fds(connection: socket.socket, count: int) -> list[int]:
    """In the server, which would end with an EOFError: a program that is killed as it asks for a process asks for none."""
    try:
        return _RECEIVE_FDS(connection, count)
    except EOFError as error:
        raise ConnectionAbortedError(errno.ECONNABORTED, "who asked is gone") from error


def _running_server() -> dict[str, object]:
    """What `multiprocessing` must know of the server to reach it from another process; it is started if need be."""
    with mock.patch.dict(os.environ, environment()):  # the server's, which must not compute with more threads
        forkserver.ensure_running()
    known = vars(forkserver._forkserver)
    return {name: known[name] for name in ("_forkserver_address", "_forkserver_authkey") if name in known}


_RECEIVE_FDS, reduction.recvfds = reduction.recvfds, _received_fds
gc.freeze()  # the server imports this file last: no collection of a fork looks through what they share, and so copies it


class _Running:
    """A forked process: what `subprocess.Popen` has for it in any case."""

    def __init__(self, args: Sequence[str], process: BaseProcess) -> None:
        self.args, self._process, self.pid = args, process, process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.poll()


class Forked(_Running):
    """A program that runs: what `subprocess.Popen` has of methods, with the output as text.

    Args:
        program: a Python file; it runs as __main__.
        variables: its environment, whole.
        merged: its stderr goes where its stdout goes.
        fresh: ranks that it starts by torchrun's launcher import all anew, as a user's do; else the server forks them too.
    """

    def __init__(
        self,
        program: Path,
        *words: object,
        variables: Mapping[str, str],
        merged: bool,
        cwd: Path = ROOT,
        fresh: bool = False,
    ) -> None:
        args = [str(program), *map(str, words)]
        read_out, write_out = _CONTEXT.Pipe(duplex=False)
        read_err, write_err = (None, write_out) if merged else _CONTEXT.Pipe(duplex=False)
        server = _running_server()
        process = _CONTEXT.Process(
            target=_become,
            args=(
                args,
                dict(variables),
                str(cwd),
                write_out,
                write_err,
                server,
                fresh,
            ),
        )
        process.start()
        super().__init__(args, process)
        for pipe in {write_out, write_err}:
            pipe.close()
        self.stdout, self.stderr = (pipe and os.fdopen(os.dup(pipe.fileno())) for pipe in (read_out, read_err))

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str | None]:
        """What it printed, to its end: (stdout, stderr, None where that is merged)."""
        found: dict[str, str] = {}
        pipes = {"stdout": self.stdout, "stderr": self.stderr}
        readers = [
            Thread(target=lambda name=name, pipe=pipe: found.update({name: pipe.read()}), daemon=True)
            for name, pipe in pipes.items()
            if pipe is not None
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(timeout)
        return found["stdout"], found.get("stderr")

    def completed(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Wait for its end; one that takes longer is killed."""
        try:
            out, err = self.communicate(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return subprocess.CompletedProcess(self.args, self.returncode, out, err)


class ForkedPopen(_Running):
    """What `subprocess.Popen` gives where the command runs a Python file in a session of its own: forked by the server.

    In its /proc/PID/comm a rank says whose it is: rank0@PID.

    Args:
        args: this Python, a file and its words.
        stdout: an open file; stderr goes there too, if it is `subprocess.STDOUT`. Default: as this process's.
        pass_fds: stay open in the process, by other numbers.
    """

    def __init__(self, args: Sequence[str], *, env: Mapping[str, str], stdout: IO | None = None, stderr: int | None = None,
                 stdin: int = subprocess.DEVNULL, pass_fds: Sequence[int] = (), start_new_session: bool) -> None:  # fmt: skip
        assert args[0] == sys.executable and stderr in (None, subprocess.STDOUT)
        assert stdin == subprocess.DEVNULL and start_new_session
        words = [word for word in args[1:] if word != "-u"]
        out = stdout.fileno() if stdout else 1
        kept = [_KeptFile(number) for number in (out, 2 if stderr is None else out, *pass_fds)]
        name = f"rank{env['RANK']}@{os.getpid()}" if "RANK" in env else ""
        server = _running_server()
        process = _CONTEXT.Process(target=_become_popen, args=(words, dict(env), str(Path.cwd()), kept, name, server))
        package = ModuleSpec(
            "__main__", None
        )  # a new process runs its parent's own file again, but not that of a package
        with mock.patch.object(sys.modules["__main__"], "__spec__", package):
            process.start()
        super().__init__(words, process)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class _KeptFile:
    """An open file that a forked process is given: on the way it turns into the number that the file has there."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[object, ...]:
        return operator.methodcaller("detach"), (reduction.DupFd(self.number),)


def spawning_is_forking(server: Mapping[str, object] | None = None) -> AbstractContextManager[object]:
    """While inside, what this process spawns is forked: by its own server, or by that of another (`_running_server`)."""
    context = multiprocessing.get_context
    if server is not None:  # all else that connecting to it takes is inherited
        vars(forkserver._forkserver).update(server)
        forkserver._forkserver.ensure_running = forkserver.ensure_running = lambda: None
    stack = ExitStack()
    if server is None:
        stack.enter_context(mock.patch.object(forkserver, "ensure_running", _hearing(forkserver.ensure_running)))
    stack.enter_context(mock.patch.object(forkserver, "set_forkserver_preload", lambda names: None))  # as it is above
    stack.enter_context(
        mock.patch.object(
            multiprocessing, "get_context", lambda method=None: context("forkserver" if method == "spawn" else method)
        )
    )
    return stack


def _hearing(start: Callable[[], None]) -> Callable[[], None]:
    """All that the server forks hears signals, also where a pool starts it, whose workers are not to hear them."""

    def started() -> None:
        mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())
        try:
            start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return started


def _become_popen(
    words: list[str], variables: dict[str, str], cwd: str, kept: list[int], name: str, server: dict
) -> None:
    os.setsid()
    if name:
        Path("/proc/self/comm").write_text(name)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for opened, number in ((nothing, 0), (kept[0], 1), (kept[1], 2)):
        os.dup2(opened, number)
    _be(words, variables, cwd, server)


def _become(
    words: list[str], variables: dict[str, str], cwd: str, out: Connection, err: Connection, server: dict, fresh: bool
) -> None:
    """In the fork: be that program."""
    for pipe, number in ((out, 1), (err, 2)):
        os.dup2(pipe.fileno(), number)
    for pipe in {out, err}:
        pipe.close()
    with nullcontext() if fresh else mock.patch(f"{SubprocessHandler.__module__}.Popen", ForkedPopen):
        _be(words, variables, cwd, server)


def _be(words: list[str], variables: dict[str, str], cwd: str, server: dict) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(cwd)
    sys.argv, sys.orig_argv = words, [sys.executable, *words]
    sys.path.insert(0, str(Path(words[0]).parent))
    with spawning_is_forking(server):
        runpy.run_path(words[0], run_name="__main__")
