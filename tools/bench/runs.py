"""A training that goes on until it is stopped: the quickstart's network on its own drawn videos."""

from collections.abc import Mapping
from pathlib import Path

from engine.data.store.index import MANIFEST_NAME

_ROOT = Path(__file__).resolve().parents[2]
QUICKSTART, TRAIN = _ROOT / "configs" / "quickstart.yaml", _ROOT / "engine" / "train.py"


def endless(folder: Path, device: str, more: Mapping[str, object]) -> list[str]:
    """What to set over a config with a `procedural` section: videos and the run `run` in `folder`, without an end."""
    videos = folder / "videos"
    settings = {
        "run.folder": folder / "run", "run.control": "false", "run.device": device,
        "procedural.folder": videos, "data.train.0.manifest": videos / MANIFEST_NAME,
        "data.tests.0.manifest": videos / MANIFEST_NAME, "train.epochs": 1_000_000, **more,
    }  # fmt: skip
    return [f"{key}={value}" for key, value in settings.items()]
