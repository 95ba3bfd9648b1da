"""Experiments on videos that they draw themselves: every split has other videos, and other combinations that are unseen.

FOLDER of the config ──▶ FOLDER/seedS/drawn (videos and stills) ──▶ FOLDER/seedS/store, which the runs train on
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from engine.config import Config
from engine.data.config import SourceConfig
from engine.data.drawn.drawn_set import MANIFEST_NAME
from engine.data.drawn.procedural import STILLS, write_procedural_dataset
from engine.data.manifests.manifest import Manifest
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.schema.keys import with_keys


def draw_sets(base: Config, splits: Sequence[int], workers: int) -> None:
    """Draw and ingest what the splits train and test on, as far as it is not there; `base` has a procedural section."""
    for split in splits:
        folder = _folder(base, split)
        section = dataclasses.replace(base.procedural, seed=split, folder=str(folder / "drawn"))
        drawn = Manifest.load(write_procedural_dataset(section))
        settings = StoreSettings(short_side=base.clip.short_side, preset="veryfast")
        ingest(drawn.select(~drawn.is_still), folder / "store", settings, WorkSettings(num_workers=workers))


def of_split(base: Config, split: int) -> Config:
    """The config of one split: its own set in place of the one that a run would draw, and its own seed."""
    store = f"{_folder(base, split)}/store/{MANIFEST_NAME}"
    return with_keys(base, {"procedural": None, "run.seed": split, **dict.fromkeys(drawn_manifests(base), store)})


def drawn_manifests(base: Config) -> list[str]:
    """The keys that name the manifest of the set that the config draws, however they write its folder."""
    drawn = (Path(base.procedural.folder) / MANIFEST_NAME).absolute()
    return [f"{key}.manifest" for key, source in base.data.sources.items() if Path(source.manifest).absolute() == drawn]


def has_stills(base: Config) -> bool:
    """Whether pictures are drawn beside the videos."""
    return base.procedural is not None and base.procedural.stills > 0


def stills_of(base: Config, split: int) -> SourceConfig:
    """The pictures drawn for a split."""
    return SourceConfig(manifest=f"{_folder(base, split)}/drawn/{MANIFEST_NAME}", splits=[STILLS], name=STILLS)


def _folder(base: Config, split: int) -> Path:
    return Path(base.procedural.folder) / f"seed{split}"
