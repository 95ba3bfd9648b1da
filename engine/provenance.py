"""What is needed to repeat a run, kept in its folder: `provenance.jsonl`, a line for every start.

Beside `config.yaml` (every key, defaults included): the command, the commit, the versions of all installed
packages, the hardware, the seeds, the ranks, and the SHA-256 of every manifest. A run that goes on
elsewhere adds a line, so that it is seen where what was done.
"""

import hashlib
import importlib.metadata
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from engine.config import Config
from engine.data.config import SourceConfig
from engine.data.manifests.large_manifest import open_large
from engine.data.remote.copied import on_disk
from engine.files.json_lines import append_json_line, read_json_lines
from engine.processes.distributed import Ranks
from engine.records import device, git_state

FILE = "provenance.jsonl"


def append_provenance(folder: Path, config: Config, ranks: Ranks, step: int) -> Path:
    """Add the line of this start (rank 0 only).

    Args:
        step: the step that the run goes on from.
    """
    seeds = {
        "run.seed": config.run.seed,
        "data.validation.seed": config.data.validation.seed,
        "words.seed": config.words.seed,
    }
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "command": shlex.join(sys.orig_argv),
        **git_state(),
        "packages": installed(),
        "python": sys.version,
        "torch": torch.__version__,  # with its build, which the package's version lacks
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if ranks.device.type == "cuda" else None,
        "device": device(),
        "world_size": ranks.world_size,
        "seeds": seeds,
        "deterministic": config.run.deterministic,
        "manifests": manifest_hashes(config),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    append_json_line(path, line)
    return path


def installed() -> dict[str, str]:
    """Name -> version of every installed package; of one that is there twice the one that is imported."""
    found: dict[str, str] = {}
    for part in importlib.metadata.distributions():
        if "Name" in part.metadata:  # else it is what is left of a package that pip could not remove whole
            found.setdefault(part.metadata["Name"], part.version)
    return {name: found[name] for name in sorted(found, key=str.lower)}


def manifest_hashes(config: Config) -> dict[str, str]:
    """Path -> SHA-256 of every manifest of the config."""
    sources = (*config.data.train, *(config.data.tests or ()))
    return {source.manifest: file_hash(Path(source.manifest)) for source in sources}


def changed_manifest(folder: Path, sources: Sequence[SourceConfig]) -> str | None:
    """Why the manifests of training sets may not be those that a run was trained with, as its folder recorded them.

    None where all are as they were at every start of the run.
    """
    recorded: dict[str, set[str]] = {}
    for line in read_json_lines(folder / FILE):
        for path, digest in line.get("manifests", {}).items():
            recorded.setdefault(path, set()).add(digest)
    if not recorded:
        return f"'{folder}' has no {FILE}, which would say what its manifests held"
    for source in sources:
        known = recorded.get(source.manifest, {digest for digests in recorded.values() for digest in digests})
        try:
            is_same = file_hash(Path(source.manifest)) in known
        except FileNotFoundError:
            is_same = False
        if not is_same or (source.manifest in recorded and len(known) > 1):
            return f"manifest '{source.manifest}' is not the one that the run was trained with (see {folder / FILE})"
    return None


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal; of a large manifest that of the digests of its parts."""
    if path.is_dir():
        digests = [part.digest for part in open_large(path).parts]
        return hashlib.sha256(" ".join(map(str, digests)).encode()).hexdigest()
    with on_disk(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
