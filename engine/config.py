"""The sections of a run's config. Only `engine/train.py` sees the whole; a part takes its own section.

Keys are checked when the config is read: unknown, mistyped, doubled or out-of-range keys are errors
that name the key (`engine/schema.py`). `python engine/train.py --help` prints every key.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from engine.errors import InputError
from engine.schema import apply_override, option, parse, read_yaml, section, to_tree

MAX_SEED = 2**32 - 1  # numpy's RandomState takes no larger one


@dataclass(frozen=True)
class RunConfig:
    """Where and how the run happens."""

    folder: str = option("runs/unnamed", "everything the run writes: log, TensorBoard, checkpoints, pictures, results")
    seed: int = option(0, "seed of weights, dropout and data order", minimum=0, maximum=MAX_SEED)
    device: str = option("auto", "auto takes a GPU if there is one and says so", choices=("auto", "cpu", "cuda"))
    deterministic: bool = option(False, "only deterministic GPU kernels (slower); the CPU path always is")
    resume: str = option("auto", "auto: newest checkpoint of the run folder if any; never; or a checkpoint's path")
    timeout_s: float = option(1800.0, "a rank that makes no progress for so long ends the job, by its name", minimum=1)
    cpu_threads: int = option(0, "threads torch computes with on a CPU; 0: its default over the local ranks", minimum=0)
    control: bool = option(
        False, "also train the same model on random class vectors, as the control (must sit at chance)"
    )


@dataclass(frozen=True)
class ClassSplitConfig:
    """A random split of the classes: RandomState(seed).permutation over the sorted names, the first num_train train."""

    seed: int = option(0, "seed of the permutation", minimum=0, maximum=MAX_SEED)
    num_train: int = option(1, "how many classes train; the rest are unseen", minimum=1)


@dataclass(frozen=True)
class SourceConfig:
    """A data set, or a part of one."""

    manifest: str = option(..., "Parquet file written by tools/index_dataset.py")
    name: str = option("", "what it is called in tables; default: the manifest's folder")
    root: str | None = option(None, "where its videos lie, if not where they were indexed")
    weight: float = option(1.0, "how often each of its videos comes in an epoch of training", minimum=0.001)
    splits: list[str] = option([], "keep rows of these splits; empty: all")
    groups: list[str] = option([], "keep rows of these groups; empty: all")
    classes: list[str] = option([], "keep these classes; empty: all")
    exclude_classes: list[str] = option([], "leave these classes out")
    class_split: ClassSplitConfig | None = option(None, "split the classes at random into training and unseen ones")
    allow_outside: bool = option(False, "let its paths leave the root: absolute ones, .. and symbolic links")
    max_pixels: int = option(2**27, "of a picture; a manifest with a larger one is refused", minimum=1)
    max_hours: float = option(8.0, "of a file; a manifest with a longer one is refused", minimum=0)
    part: str = option("all", "which side of class_split this is", choices=("all", "train", "unseen"))
    video_share: float = option(1.0, "keep this share of each class's videos, drawn at random", minimum=0, maximum=1)
    video_seed: int = option(
        0, "seed of that draw; of one seed a smaller share is part of a larger", minimum=0, maximum=MAX_SEED
    )

    def __post_init__(self) -> None:
        if (self.class_split is None) != (self.part == "all"):
            raise ValueError(
                "class_split needs a part, train or unseen, and a part needs a class_split (seed, num_train)"
            )


@dataclass(frozen=True)
class ValidationConfig:
    """What is held out of the training data. The best checkpoint is chosen on it, never on test classes."""

    video_share: float = option(
        0.1, "share of the videos of every training class (whole groups)", minimum=0, maximum=0.9
    )
    num_classes: int = option(0, "training classes held out entirely, to choose by zero-shot accuracy", minimum=0)
    seed: int = option(0, "seed of what is held out", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class DataConfig:
    """Which videos, and how they are read."""

    train: list[SourceConfig] = option([], "training sets (all together)")
    tests: list[SourceConfig] = option([], "test sets with unseen classes, all from one model")
    validation: ValidationConfig = section(ValidationConfig)
    decoder: str = option(
        "auto",
        "auto: pyav; on a GPU the fastest of an accelerator, pyav and both. dali, nvcodec: there what they can take, pyav the rest",
        choices=("auto", "dali", "nvcodec", "pyav"),
    )
    decode_threads: int = option(0, "videos decoded at the same time; 0: the CPU cores over the local ranks", minimum=0)
    decode_processes: bool = option(
        False, "pyav: decode in so many processes instead of threads (Linux); for many cores, each holds some 350 MB"
    )
    prefetch_batches: int = option(2, "batches decoded ahead", minimum=1)
    clips_per_epoch: int | None = option(
        None, "cap on an epoch's snippets (the authors' code: about 100,000)", minimum=1
    )
    max_bad_share: float = option(
        0.01, "stop when more than this share of the samples could not be decoded", minimum=0, maximum=1
    )


@dataclass(frozen=True)
class ClipConfig:
    """The snippet that the network sees (paper Sec. 4.1 and 4.4)."""

    num_frames: int = option(16, "frames of a snippet", minimum=1)
    stride: int = option(1, "distance between the frames kept", minimum=1)
    short_side: int = option(128, "pixels of the shorter side before the crop", minimum=8)
    crop: int = option(112, "pixels of the square crop: random in training, centre in evaluation", minimum=8)
    min_still_crop: float = option(
        0.5, "smallest crop of a still picture, share of its shorter side (Ken Burns)", minimum=0.05, maximum=1
    )
    flip: bool = option(True, "mirror half of the training snippets (the authors' code does; the paper is silent)")

    def __post_init__(self) -> None:
        if self.crop > self.short_side:
            raise ValueError(f"crop {self.crop} does not fit in short_side {self.short_side}")


@dataclass(frozen=True)
class ModelConfig:
    """Video -> point in word space: 3-D CNN, mean over snippets, linear layer."""

    backbone: str = option("r2plus1d_18", "the 3-D CNN", choices=("r2plus1d_18", "r3d_18", "mc3_18", "c3d"))
    width: int = option(64, "channels of its first stage; 64 is the published network, less suits a CPU", minimum=4)
    form: str = option(
        "auto",
        "how a residual network computes: published, torchvision's modules; flat, the same in 2-D; fused, flat without "
        "batch-norm's own passes in R(2+1)D; auto, as measured",
        choices=("auto", "published", "flat", "fused"),
    )
    weights: str | None = option(None, "weights to start from: a file, or 'kinetics400' from torchvision's cache")
    freeze_backbone: bool = option(
        False, "train only the linear layer (the paper's baseline); batch-norm stays frozen too"
    )
    dropout: float = option(0.05, "before the linear layer", minimum=0, maximum=0.95)
    unit_norm: bool = option(False, "scale the output to unit length (the authors' code does)")


@dataclass(frozen=True)
class WordSourceConfig:
    """One source of class vectors."""

    source: str = option("glove", "where vectors come from", choices=("glove", "word2vec", "npz", "sentence", "random"))
    path: str | None = option(
        None,
        "word2vec binary/text, GloVe text or .npz file, or a sentence encoder's folder; glove and sentence alone use the "
        "installed GloVe-6B-50d and all-MiniLM-L6-v2",
    )
    max_words: int | None = option(None, "read only the first so many (most frequent) words of the file", minimum=1)
    rules: str = option(
        "auto",
        "which data set's replacement table",
        choices=("auto", "none", "ucf101", "hmdb51", "kinetics", "activitynet", "sun397"),
    )
    lemmatize: bool = option(True, "verbs to their WordNet lemma, as the authors' code does")
    centre: str = option(
        "auto",
        "subtract a mean: of the 20,000 commonest words, of the file's classes, of sentences; auto: for GloVe and sentences",
        choices=("auto", "yes", "no"),
    )
    replace: dict[str, str] = option({}, "class name -> the words to use in its place")
    missing: str = option(
        "error",
        "a word without a vector: error, or random: a fixed random vector, so that the same name is still the same",
        choices=("error", "random"),
    )
    dim: int = option(300, "length of random vectors", minimum=1)
    seed: int = option(0, "seed of random vectors", minimum=0, maximum=MAX_SEED)
    text: str = option(
        "name", "what a sentence encoder reads; both: average of the two", choices=("name", "definition", "both")
    )
    prompt: str = option("{name}", "what a sentence encoder reads of a name")
    definitions: list[str] = option([], "files of class definitions: JSON, CSV or TSV (engine/semantics/sentences.py)")
    undefined: str = option(
        "error", "a class without a definition: error, or its name alone", choices=("error", "name")
    )


@dataclass(frozen=True)
class WordsConfig(WordSourceConfig):
    """Class names -> class vectors."""

    also: WordSourceConfig | None = option(
        None, "a second source: unit vectors of both side by side, so that a cosine is the mean of the two"
    )


@dataclass(frozen=True)
class LossConfig:
    """Distance between a video and its class. The keys after `name` are those of `aurl` (engine/losses.py)."""

    name: str = option(
        "squared",
        "squared: paper Eq. 2; mse: the authors' code; cosine; aurl: alignment and uniformity with synthetic classes",
        choices=("squared", "mse", "cosine", "aurl"),
    )
    scale: float = option(10.0, "factor of the cosines in the cross-entropies (an inverse temperature)", minimum=0.01)
    centre_weight: float = option(1.0, "weight of videos against learnable class centres", minimum=0)
    synthetic_weight: float = option(1.0, "weight of synthetic classes: mixed names against mixed centres", minimum=0)
    synthetic_classes: int = option(0, "how many are mixed each step; 0: as many as training classes", minimum=0)
    synthetic_parents: int = option(0, "how many classes are mixed into one; 0: all (AURL)", minimum=0)


@dataclass(frozen=True)
class OverlapConfig:
    """Training classes that are a test class under another name (paper Sec. 3.3, Eq. 3), over all sets."""

    tau: float = option(0.05, "cosine distance of two class names up to which they overlap", minimum=0, maximum=2)
    training: str = option(
        "refuse",
        "overlapping training classes: refuse to start, remove them, or allow them",
        choices=("refuse", "remove", "allow"),
    )
    pretrained: str = option(
        "refuse", "overlapping classes that the weights were pretrained on", choices=("refuse", "allow")
    )
    pretrained_classes: str | None = option(
        None, "text file of the classes that model.weights was trained on; kinetics400 and own checkpoints are known"
    )
    words: WordsConfig | None = option(None, "class vectors to measure the distance with; default: the run's words")


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation (paper Sec. 4.4)."""

    epochs: int = option(150, "passes over the training videos, one random snippet each", minimum=1)
    batch_size: int = option(22, "snippets per optimiser step, over all ranks", minimum=1)
    accumulate: int = option(1, "micro-batches a step is cut into on each rank", minimum=1)
    optimizer: str = option("adam", "", choices=("adam", "adamw", "sgd"))
    lr: float = option(1e-3, "learning rate", minimum=0)
    weight_decay: float = option(0.0, "", minimum=0)
    momentum: float = option(0.9, "of sgd", minimum=0, maximum=1)
    schedule: str = option("milestones", "", choices=("milestones", "cosine", "constant"))
    milestones: list[int] = option([60, 120], "epochs at which the rate drops", minimum=0)
    gamma: float = option(0.1, "factor of a drop", minimum=0)
    warmup_epochs: float = option(0.0, "the rate rises linearly over these", minimum=0)
    grad_clip: float = option(0.0, "largest gradient norm; 0: no clipping", minimum=0)
    max_skipped_steps: int = option(
        10, "stop after so many steps in a row with a loss or gradient that is not finite (each is skipped)", minimum=1
    )
    precision: str = option(
        "auto",
        "auto: bf16 on a GPU that has it, fp16 on an older one, fp32 on a CPU; fp64 to compare runs exactly",
        choices=("auto", "fp32", "bf16", "fp16", "fp64"),
    )
    channels_last: bool = option(True, "channels_last_3d memory")
    compile: str = option(
        "auto",
        "torch.compile the network; auto: on a GPU that Triton supports; warm-up (a minute or two) is told apart in the log",
        choices=("auto", "yes", "no"),
    )
    compile_mode: str = option(
        "default", "torch's; reduce-overhead: CUDA graphs", choices=("default", "reduce-overhead", "max-autotune")
    )
    sync_bn: bool = option(False, "batch-norm statistics over all ranks (GPUs only)")
    checkpoint_activations: bool = option(False, "compute activations twice to save memory; a third more time")
    ema_decay: float = option(0.0, "of a moving average of the weights, as 0.999; 0: none", minimum=0, maximum=0.999999)
    gc_every_steps: int = option(500, "steps between garbage collections; 0: as Python likes", minimum=0)
    init_from: str | None = option(None, "start from the weights of this run folder or checkpoint")
    exclude_overlap: OverlapConfig = section(OverlapConfig)


@dataclass(frozen=True)
class EvaluateConfig:
    """How accuracy is measured, during and after training."""

    every_epochs: int = option(5, "evaluate after each so many epochs, and at the end", minimum=1)
    num_snippets: int = option(25, "evenly spaced snippets of a video, averaged (paper: 25)", minimum=1)
    during_snippets: int = option(1, "the same while training, where speed matters", minimum=1)
    weights: str = option(
        "auto", "auto: the average of train.ema_decay if there is one", choices=("auto", "average", "trained")
    )
    batch_size: int = option(32, "snippets in one forward pass", minimum=1)
    max_videos: int | None = option(None, "while training, evaluate on at most so many videos of each set", minimum=1)


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept to resume from."""

    every_epochs: int = option(1, "save after each so many epochs", minimum=1)
    every_steps: int = option(0, "and after each so many steps; 0: only at epochs", minimum=0)
    keep: int = option(2, "newest checkpoints kept, besides the best", minimum=1)


@dataclass(frozen=True)
class LogConfig:
    """What is shown while it runs."""

    every_steps: int = option(10, "steps between two points of the curves", minimum=1)
    sample_clips: int = option(8, "training snippets shown as pictures in TensorBoard", minimum=0)
    report: bool = option(True, "at the end, write report.html and show its pictures in TensorBoard")


@dataclass(frozen=True)
class ProceduralConfig:
    """A data set that the run draws and encodes itself (the quickstart): things x movements."""

    folder: str = option("runs/procedural", "where the videos and their manifest go")
    things: list[str] = option([], "names of the things; empty: the default set")
    movements: list[str] = option([], "names of the movements; empty: the default set")
    videos_per_class: int = option(24, "of the training classes; unseen ones get half", minimum=1)
    num_unseen: int = option(5, "combinations kept for the test", minimum=1)
    frames: int = option(32, "frames of a video", minimum=4)
    size: int = option(72, "pixels of its side", minimum=32)
    seed: int = option(0, "seed of the drawing and of which combinations are unseen", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class Config:
    """A whole run."""

    task: str = option("zero_shot", "what is trained: a task of engine/tasks/catalogue.py")
    run: RunConfig = section(RunConfig)
    procedural: ProceduralConfig | None = None
    data: DataConfig = section(DataConfig)
    clip: ClipConfig = section(ClipConfig)
    model: ModelConfig = section(ModelConfig)
    words: WordsConfig = section(WordsConfig)
    loss: LossConfig = section(LossConfig)
    train: TrainConfig = section(TrainConfig)
    evaluate: EvaluateConfig = section(EvaluateConfig)
    checkpoint: CheckpointConfig = section(CheckpointConfig)
    log: LogConfig = section(LogConfig)


def load_config(path: Path, overrides: list[str]) -> Config:
    """Read a YAML file, apply `section.key=value` overrides in order, check everything.

    Raises:
        InputError: naming the file and the key.
    """
    tree = read_yaml(path)
    for override in overrides:
        apply_override(tree, override)
    try:
        return parse(Config, tree)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def save_config(config: Config, path: Path) -> None:
    """Write the resolved config, every default included."""
    path.write_text(yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True), encoding="utf-8")
