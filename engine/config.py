"""The sections of a run's config. Only `engine/train.py` sees the whole; a part takes its own section.

Keys are checked when the config is read: unknown, mistyped, doubled or out-of-range keys are errors
that name the key (`engine/schema/parser.py`). `python engine/train.py --help` prints every key.
"""

import copy
import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.data.config import ClipFormat, DataConfig, ProceduralConfig
from engine.errors import InputError
from engine.files.atomic_file import atomic_write
from engine.models.config import ModelConfig
from engine.moments.config import MomentsConfig
from engine.schema.files import apply_override, merged, read_layers
from engine.schema.keys import idle, refuse_idle, without_idle
from engine.schema.parser import MAX_SEED, option, parse, section, to_tree
from engine.semantics.config import OverlapConfig, WordsConfig
from engine.tasks.masked.config import MaskedConfig

# A config that a run has saved holds every key, those that cannot matter too. Nobody writes all of these sections by hand.
_SAVED = ("run", "data", "clip", "model", "words", "loss", "train", "evaluate", "checkpoint", "log")


@dataclass(frozen=True)
class RunConfig:
    """Where and how the run happens."""

    folder: str = option(
        "runs/unnamed", "everything the run writes: log, TensorBoard, checkpoints, pictures, results", path=True
    )
    seed: int = option(
        0, "seed of weights, dropout and data order", minimum=0, maximum=MAX_SEED, fixed=True, decides=True
    )
    device: str = option("auto", "auto takes a GPU if there is one and says so", choices=("auto", "cpu", "cuda"))
    deterministic: bool = option(False, "only deterministic GPU kernels (slower); the CPU path always is")
    resume: str = option(
        "auto",
        "auto: newest checkpoint of the run folder if any; never; or the path of a checkpoint, to begin there",
        path=True,
    )
    timeout_s: float = option(1800.0, "a rank without progress for so long is named, and the job ends", minimum=1)
    cpu_threads: int = option(
        0, "threads torch computes with on a CPU; 0: its default over the ranks", minimum=0, needs="device=auto|cpu"
    )
    control: bool = option(
        False, "also train the same model on random class vectors: the control, which must be at chance"
    )


@dataclass(frozen=True)
class LossConfig:
    """Distance between a video and its class. See engine/training/losses.py."""

    name: str = option(
        "squared",
        "squared: paper Eq. 2; mse: the authors' code; cosine; aurl: alignment and uniformity with synthetic classes",
        choices=("squared", "mse", "cosine", "aurl"),
    )
    scale: float = option(
        10.0, "factor of the cosines in the cross-entropies (an inverse temperature)", minimum=0.01, needs="name=aurl"
    )
    centre_weight: float = option(1.0, "weight of videos against learnable class centres", minimum=0, needs="name=aurl")
    synthetic_weight: float = option(
        1.0, "weight of synthetic classes: mixed names against mixed centres", minimum=0, needs="name=aurl"
    )
    synthetic_classes: int = option(
        0, "how many are mixed each step; 0: as many as training classes", minimum=0, needs="synthetic_weight"
    )
    synthetic_parents: int = option(
        0, "how many classes are mixed into one; 0: all (AURL)", minimum=0, needs="synthetic_weight"
    )


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation (paper Sec. 4.4)."""

    epochs: int = option(150, "passes over the training videos, one random snippet each", minimum=1)
    batch_size: int = option(22, "snippets per optimiser step, over all ranks", minimum=1, fixed=True)
    accumulate: int = option(1, "micro-batches a step is cut into on each rank", minimum=1)
    optimizer: str = option("adam", "", choices=("adam", "adamw", "sgd"), fixed=True)
    lr: float = option(1e-3, "learning rate", minimum=0)
    weight_decay: float = option(0.0, "", minimum=0)
    momentum: float = option(0.9, "", minimum=0, maximum=1, needs="optimizer=sgd")
    beta2: float = option(
        0.999,
        "decay of Adam's mean of squared gradients; transformers are pretrained with 0.95",
        minimum=0,
        maximum=0.999999,
        needs="optimizer=adam|adamw",
        fixed=True,
    )
    schedule: str = option("milestones", "", choices=("milestones", "cosine", "constant"))
    milestones: list[int] = option([60, 120], "epochs at which the rate drops", minimum=0, needs="schedule=milestones")
    gamma: float = option(0.1, "factor of a drop", minimum=0, needs="schedule=milestones")
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
    channels_last: bool = option(True, "channels_last_3d memory", decides=False)
    compile: str = option(
        "auto",
        "torch.compile the network; auto: on a GPU that Triton supports; the log shows warm-up (a minute or two) apart",
        choices=("auto", "yes", "no"),
        decides=False,
    )
    compile_mode: str = option(
        "default", "torch's; reduce-overhead: CUDA graphs", choices=("default", "reduce-overhead", "max-autotune"),
        needs="compile=auto|yes", decides=False,
    )  # fmt: skip
    sync_bn: bool = option(False, "batch-norm statistics over all ranks (GPUs only)", needs="model.backbone!=c3d")
    checkpoint_activations: bool = option(
        False,
        "compute activations twice to save memory; a third more time",
        needs="model.freeze_backbone=False",
        decides=False,
    )
    ema_decay: float = option(
        0.0, "decay of a moving average of the weights, such as 0.999; 0: none", minimum=0, maximum=0.999999
    )
    gc_every_steps: int = option(500, "steps between garbage collections; 0: left to Python", minimum=0, decides=False)
    init_from: str | None = option(
        None,
        "start from the weights of this run folder or checkpoint, those that its evaluate.weights chose in training",
        path=True,
    )
    exclude_overlap: OverlapConfig = section(OverlapConfig)


@dataclass(frozen=True)
class EvaluateConfig:
    """How accuracy is measured, during and after training."""

    every_epochs: int = option(5, "evaluate every so many epochs, and at the end", minimum=1)
    num_snippets: int = option(25, "evenly spaced snippets of a video, averaged (paper: 25)", minimum=1)
    during_snippets: int = option(1, "the same while training, where speed matters", minimum=1)
    weights: str = option(
        "auto",
        "auto: the average of train.ema_decay if there is one",
        choices=("auto", "average", "trained"),
        needs="train.ema_decay",
    )
    batch_size: int = option(32, "snippets in one forward pass", minimum=1, decides=False)
    max_videos: int | None = option(None, "while training, evaluate at most so many videos of each set", minimum=1)


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept to resume from."""

    every_epochs: int = option(1, "save every so many epochs", minimum=1)
    every_steps: int = option(0, "also save every so many steps; 0: only at epochs", minimum=0)
    keep: int = option(2, "newest checkpoints kept, besides the best", minimum=1)


@dataclass(frozen=True)
class LogConfig:
    """What is shown while it runs."""

    every_steps: int = option(10, "steps between two points of the curves", minimum=1)
    sample_clips: int = option(8, "training snippets shown as pictures in TensorBoard", minimum=0, maximum=64)
    report: bool = option(True, "at the end, write report.html and show its pictures in TensorBoard")


@dataclass(frozen=True)
class Config:
    """A whole run."""

    task: str = option("zero_shot", "what is trained: a task of engine/tasks/catalogue.py")
    run: RunConfig = section(RunConfig, decides=False)
    procedural: ProceduralConfig | None = option(None, "", fixed=True)
    data: DataConfig = section(DataConfig)
    moments: MomentsConfig | None = option(None, "", needs="task=moments", fixed=True)
    masked: MaskedConfig = section(MaskedConfig, needs="task=masked", fixed=True)
    clip: ClipFormat = section(ClipFormat)
    model: ModelConfig = section(ModelConfig)
    words: WordsConfig = section(WordsConfig)
    loss: LossConfig = section(LossConfig)
    train: TrainConfig = section(TrainConfig)
    evaluate: EvaluateConfig = section(EvaluateConfig)
    checkpoint: CheckpointConfig = section(CheckpointConfig, decides=False)
    log: LogConfig = section(LogConfig, decides=False)


def load_config(path: Path, overrides: Sequence[str]) -> Config:
    """Read a YAML file with those of its `base`, apply `section.key=value` overrides in order, check everything.

    A key that cannot matter is refused where the file or an override writes it; one that matters in the file (or in its
    base) until something written over it says otherwise goes back to its default.

    Raises:
        InputError: naming the file and the key.
    """
    layers = read_layers(path)
    alone, typed = functools.reduce(merged, layers), {}
    tree = copy.deepcopy(alone)
    for override in overrides:
        apply_override(tree, override)
        apply_override(typed, override)
    try:
        config = parse(Config, tree)
        refuse_idle(config, typed)
        if not set(_SAVED) <= set(layers[-1]):
            refuse_idle(config, layers[-1], _idle_without_overrides(alone) if idle(config) and overrides else None)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return without_idle(config)


def _idle_without_overrides(tree: dict[str, Any]) -> Collection[str] | None:
    """What is idle in the file itself; None: not known, without the overrides it is no config."""
    try:
        return idle(parse(Config, tree))
    except InputError:
        return None


def save_config(config: Config, path: Path) -> None:
    """Write the resolved config, every default included, at once or not at all."""
    text = yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True)
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
