"""The ranks of a run on this machine, started by torchrun's own launcher, but without its pages at the end.

Below the one line in which a rank has told a user's mistake, and after Ctrl-C, torchrun prints tracebacks of itself. No rank
can keep it from that; who calls its launcher can.
"""

import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from engine.terminal.wording import signal_name

if TYPE_CHECKING:  # torch takes seconds
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_TOLD = (2, 130)  # exit statuses of ranks that have said why: a mistake, Ctrl-C
_HERE = ("--standalone", "--local-addr", "127.0.0.1")  # the machine's own name may not resolve


def launch(num_ranks: int, command: Sequence[str]) -> NoReturn:
    """Run a Python file with its arguments on so many ranks, to their end.

    Exits with 0, with the status of the rank that told a mistake or else failed first, or with 128 and the signal that
    ended one of them.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.disable(logging.CRITICAL)  # what the launcher says of its children's ends: this process does nothing else
    try:
        run(parse_args([*_HERE, "--nproc-per-node", str(num_ranks), *command]))
    except SignalException as stopped:  # it has reached the ranks, which saved and ended
        sys.exit(128 + stopped.sigval)
    except ChildFailedError as failed:
        rank, code = _cause(failed.failures)
        if code not in _TOLD:
            how = f"was ended by {signal_name(-code)}" if code < 0 else f"ended with exit status {code}"
            print(f"error: rank {rank} {how}, and the others with it; what it said stands above", file=sys.stderr)
        sys.exit(128 - code if code < 0 else code)
    sys.exit(0)


def _cause(failures: "Mapping[int, ProcessFailure]") -> tuple[int, int]:
    """The rank for which all ended, and its exit status.

    A rank that has told a mistake may take seconds to leave: others that lost it are gone first, and the launcher ends the rest.
    They lose one that was killed just so, and leave as if it had told why.
    """
    codes = {rank: failure.exitcode for rank, failure in failures.items()}
    is_killed = any(code < 0 and code != -signal.SIGTERM for code in codes.values())

    def is_silent(rank: int) -> bool:
        return is_killed and codes[rank] == _TOLD[0] and not Path(failures[rank].error_file).is_file()

    def has_told(rank: int) -> bool:
        return Path(failures[rank].error_file).is_file() or (codes[rank] in _TOLD and not is_silent(rank))

    def order(rank: int) -> tuple[bool, bool, int]:
        return not has_told(rank), codes[rank] == -signal.SIGTERM or is_silent(rank), failures[rank].timestamp

    rank = min(failures, key=order)
    return rank, _TOLD[0] if has_told(rank) and codes[rank] not in _TOLD else codes[rank]
