"""Which GPUs compute with the torch that is installed: a build of it holds code for some of them."""

import re
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why torch cannot compute on a GPU that it sees, and what to do."""

    reason: str
    mend: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.mend}"


def unfit(index: int) -> Unfit | None:
    """What keeps torch from computing on a GPU that it sees; None where nothing does.

    A build's `sm_XY` runs on GPUs of compute capability X.Y and later ones of the same X, its `compute_XY` on all later
    ones, and what ends in a letter on the named one alone (NVIDIA, CUDA C++ Programming Guide, "Compute Capabilities").

    Args:
        index: of the GPU, below `torch.cuda.device_count()`.
    """
    built = [_parsed(name) for name in torch.cuda.get_arch_list()] if torch.version.cuda else []
    known = [each for each in built if each is not None]
    if not known:
        return None
    own = torch.cuda.get_device_capability(index)
    if any(_runs(code, least, is_exact, own) for code, least, is_exact in known):
        return None
    lowest, highest = (choose(least for _, least, _ in known) for choose in (min, max))
    reason = (
        f"GPU {index} ({torch.cuda.get_device_name(index)}) has compute capability {_dotted(own)}, and torch "
        f"{torch.__version__} was built for {_dotted(lowest)} to {_dotted(highest)}"
    )
    if own > lowest:
        return Unfit(reason, "install a newer torch")
    return Unfit(reason, "install torch for an older CUDA and `pip install -e '.[cuda12]'`")


def _parsed(name: str) -> tuple[str, tuple[int, int], bool] | None:
    """`sm_90a` -> ("sm", (9, 0), True); None for what is no NVIDIA code."""
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", name)
    return found and (found[1], (int(found[2]), int(found[3])), bool(found[4]))


def _runs(code: str, least: tuple[int, int], is_exact: bool, own: tuple[int, int]) -> bool:
    if is_exact:
        return own == least
    return own >= least and (code == "compute" or own[0] == least[0])


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
