"""The `moments` section of a config: which moments are learnt from which features, and how."""

from dataclasses import dataclass

from engine.errors import InputError
from engine.features.windows import parse_grid
from engine.schema.parser import MAX_SEED, option


@dataclass(frozen=True)
class DrawnMomentsConfig:
    """Videos that the run draws itself: actions after each other, and queries that name one of them."""

    folder: str = option(
        "runs/moments_videos", "where the videos, their manifest and their moments go", fixed=False, path=True
    )
    things: list[str] = option([], "names of the things; empty: the default set")
    movements: list[str] = option([], "names of the movements; empty: the default set")
    num_unseen: int = option(12, "combinations that only test queries ask for, and only test videos show", minimum=1)
    videos: int = option(240, "training videos", minimum=1)
    tests: int = option(80, "test videos", minimum=1)
    min_actions: int = option(3, "of a video", minimum=2)
    max_actions: int = option(6, "of a video", minimum=2)
    min_frames: int = option(20, "of an action", minimum=4)
    max_frames: int = option(60, "of an action", minimum=4)
    size: int = option(48, "pixels of a video's side", minimum=32)
    seed: int = option(0, "seed of the drawing and of which combinations are unseen", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        if self.max_actions < self.min_actions or self.max_frames < self.min_frames:
            raise ValueError("a least number (min_actions, min_frames) is above its greatest")
        if self.size % 2:
            raise ValueError(f"size {self.size} is odd: a video's side needs an even number of pixels")


@dataclass(frozen=True)
class MomentsConfig:
    """Moment search (CI-MHA): queries and features of videos -> start and end."""

    features: str = option(..., "folder of the videos' features", fixed=False, path=True)
    annotations: str | None = option(
        None,
        "table of moments, written by tools/index_moments.py; default: of those that are drawn",
        fixed=False,
        path=True,
    )
    train: list[str] = option(["train"], "splits that are trained on; empty: all but those that are tested")
    tests: list[str] = option(["test"], "splits that are tested, each by itself", fixed=False)
    held_out: float = option(
        0.1, "share of the training videos that choose the best checkpoint", minimum=0, maximum=0.9
    )
    encoder: str | None = option(
        None,
        "config of a zero-shot run that is trained first, whose network gives the features",
        fixed=False,
        path=True,
    )
    drawn: DrawnMomentsConfig | None = option(None, "draw the videos")
    manifest: str | None = option(
        None,
        "the videos that features are extracted of; default: those that are drawn",
        needs="encoder",
        fixed=False,
        path=True,
    )
    window: str | None = option(
        None, "windows that features are made of: 16 (frames) or 2s; default: a clip", needs="encoder", fixed=False
    )
    hop: str | None = option(
        None, "from one window to the next, in the same unit; default: half a window", needs="encoder", fixed=False
    )
    segment_s: float = option(0.0, "mean the features over so many seconds each; 0: as they are", minimum=0)
    segments: int = option(128, "that the network sees at once; longer videos: in parts that overlap", minimum=16)
    fusion: str = option(
        "cross",
        "cross: attention from video to query and back; one_way: to the query alone; none: the same without; late: segments and "
        "query embedded apart, nearest by product",
        choices=("cross", "one_way", "none", "late"),
    )
    width: int = option(128, "of the network", minimum=8)
    heads: int = option(8, "of its attentions", minimum=1)
    layers: int = option(1, "self-attentions of each side before they meet", minimum=1)
    dropout: float = option(0.2, "", minimum=0, maximum=0.95)
    frame_weight: float = option(
        1.0, "of the second task, in or out for each segment; 0: start and end alone", minimum=0
    )
    frame_score: float = option(
        0.1, "weight of its log-odds, summed, in the score of a moment", minimum=0, needs="frame_weight", fixed=False
    )
    boundary_noise: float = option(
        0.0, "jitter training starts and ends by so many lengths of the moment (sigma), once for all", minimum=0
    )
    noise_seed: int = option(0, "seed of that jitter", minimum=0, maximum=MAX_SEED, needs="boundary_noise")
    max_overlap: float = option(
        0.5, "IoU above which the lesser of two found moments is dropped", minimum=0, maximum=1, fixed=False
    )

    def __post_init__(self) -> None:
        if self.annotations is None and self.drawn is None:
            raise ValueError("annotations are missing: a table of tools/index_moments.py (or drawn videos)")
        if self.encoder is not None and self.manifest is None and self.drawn is None:
            raise ValueError("encoder needs the manifest of the videos")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide over {self.heads} heads")
        try:  # what is wrong with them, before the encoder is trained
            parse_grid(self.window, self.hop, 1, ("window", "hop"))
        except InputError as error:
            raise ValueError(str(error)) from error
