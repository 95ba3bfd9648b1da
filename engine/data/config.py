"""The sections of a config that say which videos there are and how they are read: `data`, `clip`, `procedural`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from engine.data.remote.config import RemoteConfig
from engine.files.addresses import check_no_secrets, url_of
from engine.files.home import from_home
from engine.schema.parser import MAX_SEED, option, section

MOTION_BLOCK = 16  # pixels of the side of a block whose motion is one number

PUBLISHED_SPLITS = ("truze-ucf101", "truze-hmdb51", "kinetics600-1", "kinetics600-2", "kinetics600-3")


@dataclass(frozen=True)
class ClassSplitConfig:
    """A random split of the classes: RandomState(seed).permutation over the sorted names, the first num_train train."""

    seed: int = option(0, "seed of the permutation", minimum=0, maximum=MAX_SEED)
    num_train: int = option(1, "how many classes train; the rest are unseen", minimum=1)


@dataclass(frozen=True)
class SourceConfig:
    """A data set, or a part of one."""

    manifest: str = option(
        ...,
        "Parquet file written by tools/index_dataset.py, or folder by tools/join_manifests.py",
        fixed=False,
        path=True,
    )
    name: str = option(
        "",
        "what it is called; default: its manifest's folder, or file if training sets share a folder",
        fixed=False,
    )
    root: str | None = option(None, "where its videos lie, if not where they were indexed", fixed=False, path=True)
    weight: float = option(1.0, "how often each of its videos comes in a training epoch", minimum=0.001, maximum=1e6)
    splits: list[str] = option([], "keep rows of these splits; empty: all")
    groups: list[str] = option([], "keep rows of these groups; empty: all")
    classes: list[str] = option([], "keep these classes; empty: all")
    exclude_classes: list[str] = option([], "leave these classes out")
    class_split: ClassSplitConfig | None = option(None, "split the classes at random into training and unseen ones")
    published_split: str | None = option(
        None, "split them as a publication did: its test classes are unseen, all others train", choices=PUBLISHED_SPLITS
    )
    allow_outside: bool = option(
        False, "let its paths leave the root: absolute ones, .. and symbolic links", fixed=False
    )
    max_pixels: int = option(
        2**27, "largest frame, in pixels; a manifest with a larger one is refused", minimum=1, fixed=False
    )
    max_hours: float = option(8.0, "longest file; a manifest with a longer one is refused", minimum=0, fixed=False)
    part: str = option(
        "all", "which part of class_split or published_split this is", choices=("all", "train", "unseen")
    )
    video_share: float = option(1.0, "keep this share of each class's videos, drawn at random", minimum=0, maximum=1)
    video_seed: int = option(
        0, "seed of that draw; with one seed a smaller share is part of a larger one", minimum=0, maximum=MAX_SEED,
        needs="video_share!=1.0",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for text in filter(None, (self.manifest, self.root)):
            check_no_secrets(text)
        ways = [name for name in ("class_split", "published_split") if getattr(self, name) is not None]
        if len(ways) == 2:
            raise ValueError("class_split and published_split are two ways to split the classes: leave one out")
        if ways and self.part == "all":
            raise ValueError(f"{ways[0]} needs a part, train or unseen")
        if not ways and self.part != "all":
            raise ValueError("a part needs a class_split (seed, num_train) or a published_split")

    @classmethod
    def parse(cls, text: str, published_split: str | None = None) -> Self:
        """`MANIFEST[:SPLIT[,SPLIT]]`, as command lines have it; a file of that very name wins over reading a split.

        Args:
            published_split: keep its test classes alone.
        """
        text = from_home(text)
        manifest, colon, splits = text.rpartition(":")
        if not colon or Path(text).exists() or (url_of(text) and "/" in splits):  # the colon of s3:// or of a port
            manifest, splits = text, ""
        path = Path(manifest)
        name = path.resolve().parent.name if path.stem == "manifest" else path.stem
        return cls(
            manifest=manifest,
            name="-".join(filter(None, (name, splits, published_split))),
            splits=splits.split(",") if splits else [],
            published_split=published_split,
            part="unseen" if published_split else "all",
        )


def set_names(sources: Sequence[SourceConfig], *, is_here: bool = True) -> list[str]:
    """What each set is called: by its `name`, else its manifest's folder; where another manifest is of a folder of that name,
    or the folder is not known, by its file.

    Args:
        is_here: whether relative paths are of the current folder.
    """
    files = [Path(source.manifest) for source in sources]
    folders = [(file.resolve() if is_here else file).parent.name for file in files]
    shared = {
        folder for folder in folders
        if len({file.name for file, own in zip(files, folders, strict=True) if own == folder}) > 1
    }  # fmt: skip
    return [
        source.name or (file.stem if folder in shared else folder) or file.stem
        for source, file, folder in zip(sources, files, folders, strict=True)
    ]


def file_name(name: str) -> str:
    """A set's name as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", name)


@dataclass(frozen=True)
class ValidationConfig:
    """What is held out of the training data. The best checkpoint is chosen on it, never on test classes."""

    video_share: float = option(
        0.1, "share of the videos of every training class (whole groups)", minimum=0, maximum=0.9
    )
    num_classes: int = option(0, "training classes held out entirely, to choose by zero-shot accuracy", minimum=0)
    seed: int = option(0, "seed of what is held out", minimum=0, maximum=MAX_SEED, needs="video_share or num_classes")


@dataclass(frozen=True)
class DataConfig:
    """Which videos, and how they are read."""

    train: list[SourceConfig] = option([], "training sets (all together)", fixed=True)
    tests: list[SourceConfig] | None = option(
        None,
        "test sets with unseen classes ([]: none on purpose, a pretraining), all from one model",
        unused={"weight": "a place in data.train"},
    )
    validation: ValidationConfig = section(ValidationConfig, fixed=True)
    decoder: str = option(
        "auto",
        "auto: pyav; on a GPU the fastest of an accelerator, pyav and both. dali, nvcodec: there what they can take, pyav the rest",
        choices=("auto", "dali", "nvcodec", "pyav"),
    )
    decode_threads: int = option(
        0, "videos decoded at the same time; 0: the CPU cores over the local ranks", minimum=0, decides=False
    )
    decode_processes: bool = option(
        False,
        "pyav: decode in so many processes instead of threads (Linux); for many cores; some 350 MB, and 20 MB for each",
        decides=False,
    )
    prefetch_batches: int = option(2, "batches decoded ahead", minimum=1, decides=False)
    remote: RemoteConfig = section(RemoteConfig)
    clips_per_epoch: int | None = option(
        None, "cap on an epoch's snippets (the authors' code: about 100,000)", minimum=1
    )
    plan: str = option(
        "auto",
        "drawn: an epoch's snippets at once; computed: each by itself, for any number of videos; auto: from 2,000,000 computed",
        choices=("auto", "drawn", "computed"),
        fixed=True,
    )
    max_bad_share: float = option(
        0.01, "stop when more than this share of the samples could not be decoded", minimum=0, maximum=1
    )

    @property
    def sources(self) -> dict[str, SourceConfig]:
        """The training and the test sets by their keys in the config, "data.train.0" the first."""
        sides = (("train", self.train), ("tests", self.tests or ()))
        return {f"data.{side}.{index}": each for side, sources in sides for index, each in enumerate(sources)}

    @property
    def draws_videos(self) -> bool:
        """Whether a part of the videos of a training set is drawn at random."""
        return any(source.video_share < 1 for source in self.train)


@dataclass(frozen=True, slots=True)
class ClipFormat:
    """The snippet that the network sees (paper Sec. 4.1 and 4.4)."""

    num_frames: int = option(16, "frames of a snippet", minimum=1)
    stride: int = option(1, "distance between two frames of a snippet", minimum=1)
    short_side: int = option(128, "pixels of the shorter displayed side before the crop", minimum=8)
    crop: int = option(112, "pixels of the square crop: random in training, centre in evaluation", minimum=8)
    min_still_crop: float = option(
        0.5, "smallest crop of a still picture, share of its shorter side (Ken Burns)", minimum=0.05, maximum=1
    )
    flip: bool = option(True, "mirror half of the training snippets (the authors' code does; the paper is silent)")
    motion: bool = option(
        False, "also how fast each block of 16 x 16 pixels moves, from the codec's motion vectors (docs/data.md)"
    )

    def __post_init__(self) -> None:
        if self.crop > self.short_side:
            raise ValueError(f"crop {self.crop} does not fit in short_side {self.short_side}")

    @property
    def span(self) -> int:
        """Source frames that one snippet reaches over."""
        return (self.num_frames - 1) * self.stride + 1

    @property
    def motion_shape(self) -> tuple[int, int, int]:
        """(T, h, w) of a clip's motion."""
        cells = -(-self.crop // MOTION_BLOCK)
        return self.num_frames, cells, cells


@dataclass(frozen=True)
class ProceduralConfig:
    """A data set that the run draws and encodes itself: things x movements, in varied scenes also x extras."""

    folder: str = option("runs/procedural", "where the videos and their manifest go", fixed=False, path=True)
    things: list[str] = option([], "names of the things; empty: the default set")
    movements: list[str] = option([], "names of the movements; empty: the default set")
    videos_per_class: int = option(
        24, "videos of a training class; an unseen class has half as many, or unseen_videos", minimum=1
    )
    unseen_videos: int = option(
        0, "videos of an unseen class; 0: half as many as of a training class", minimum=0, needs="scene=varied"
    )
    num_unseen: int = option(5, "combinations kept for the test", minimum=1)
    frames: int = option(32, "frames of a video", minimum=4)
    size: int = option(72, "pixels of its side", minimum=32)
    seed: int = option(0, "seed of the drawing and of which combinations are unseen", minimum=0, maximum=MAX_SEED)
    scene: str = option(
        "plain",
        "plain: the quickstart's. varied: many more things and movements, at any turn, camera, light and coding vary",
        choices=("plain", "varied"),
    )
    extras: list[str] = option([], "third words: red, tiny, near tower, ...; empty: none", needs="scene=varied")
    variants: int = option(1, "extras that each thing and movement come with", minimum=1, needs="extras")
    unseen_things: list[str] = option(
        [], "things that are never trained: their classes are the split unseen_things", needs="scene=varied"
    )
    synonyms: bool = option(
        False,
        "also the split synonyms: unseen classes once more, their things under another word (ship for boat)",
        needs="scene=varied",
    )
    nuisance: float = option(
        1.0,
        "how much of what no class names varies (turn, camera, background, light, coding): 0 to 1",
        minimum=0,
        maximum=1,
        needs="scene=varied",
    )
    stills: int = option(
        0,
        "also the split stills: so many pictures of each thing with each extra, for pretraining on moving crops of them",
        minimum=0,
        needs="scene=varied",
    )
