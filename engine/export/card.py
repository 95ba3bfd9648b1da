"""README.md of an exported model: what it is, how it is loaded, and what its run's own records say of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from engine import __version__
from engine.config import Config
from engine.data.config import set_names
from engine.errors import InputError
from engine.evaluation.inference import seen_in_pretraining
from engine.export.formats import LOADING
from engine.export.reading import reading_code
from engine.models.image_weights import INSTALLED, installed_for
from engine.models.weights import KINETICS400, TIMM
from engine.records import file_name_alone, public
from engine.results.accuracy import BESIDE_CONTROL, beside_control
from engine.results.record import FILE, Results, read_control, read_results
from engine.results.table import Table
from engine.schema.parser import parse, to_tree
from engine.tasks.zero_shot.known import not_unseen
from engine.tasks.zero_shot.trained import LoadedModel
from engine.terminal.wording import counted
from engine.training.checkpoint import read_checkpoint, saved_config

_SECTIONS = ("clip", "model", "words", "loss", "train", "evaluate")
_LICENCES = {
    KINETICS400: (
        "torchvision's for Kinetics-400; torchvision is BSD-3, and says that weights may have terms of the data set they "
        "were trained on"
    ),
}


@dataclass(frozen=True)
class Exported:
    """What was written.

    frames: of a snippet, None for any multiple of `frame_multiple` from `fewest_frames` on.
    classes: those with a vector in classes.npz. difference, allowed: see `compare`.
    """

    form: str
    frames: int | None
    frame_multiple: int
    fewest_frames: int
    classes: Sequence[str]
    difference: float
    allowed: float


def run_results(loaded: LoadedModel, given: Path) -> Results | None:
    """The results of the very checkpoint that was loaded, if its run recorded any.

    Raises:
        InputError: a run folder was given whose run is not finished, or has recorded another checkpoint.
    """
    if given.is_dir():
        unfinished = f"finish the run, or name the checkpoint file itself, {loaded.path}"
        if (given / "ridge.json").is_file() and not (given / FILE).is_file():
            raise InputError(
                f"'{given}' is of tools/refit_head.py, which measures nothing: name its checkpoint, {loaded.path}"
            )
        try:
            results = read_results(given)
        except InputError as error:
            raise InputError(f"{error}: {unfinished}") from error
        if results.step not in (None, loaded.step):
            raise InputError(
                f"{FILE} of '{given}' is of step {results.step}, its checkpoint of step {loaded.step}: {unfinished}"
            )
        return results
    folder = loaded.path.parent.parent
    if loaded.path.parent.name != "checkpoints" or not (folder / FILE).is_file():
        return None
    results = read_results(folder)
    is_its = results.step == loaded.step and Path(results.checkpoint).name == loaded.path.name
    return results if is_its else None


def _not_of_what_is_exported(loaded: LoadedModel, results: Results) -> str | None:
    """Why the results are of other weights or class vectors than those that are exported (--set), if they are."""
    recorded = saved_config(read_checkpoint(loaded.path), loaded.path)
    exported, measured = loaded.config.evaluate.weights, results.weights or recorded.evaluate.weights
    if (exported == "trained") != (measured == "trained"):  # else both are of the average
        return f"What was recorded of this checkpoint is of other weights (evaluate.weights: {measured}, exported: {exported})."
    if loaded.config.words != recorded.words:
        return f"What was recorded of this checkpoint is of other class vectors: {results.class_vectors}."
    return None


def write_card(folder: Path, loaded: LoadedModel, results: Results | None, exported: Exported) -> None:
    """Write README.md."""
    parts = [
        f"# {_title(loaded)}",
        _what(loaded),
        "## Use",
        _use(loaded, exported),
        "## Clips of a video",
        _clips(loaded, exported),
        "## What it was trained on",
        *_training(loaded, exported.classes),
        "## Accuracy",
        *_accuracy(loaded, results),
        "## Licence of the weights",
        _licence(loaded),
        "## Settings that are not the defaults",
        f"```yaml\n{_settings(loaded)}```",
    ]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _title(loaded: LoadedModel) -> str:
    path = loaded.path
    return path.resolve().parent.parent.name if path.parent.name == "checkpoints" else path.name


def _what(loaded: LoadedModel) -> str:
    clip, model = loaded.config.clip, loaded.config.model
    return (
        f"Video to point in the space of class vectors ({loaded.model.embed_dim} dimensions), to be named by the nearest: "
        f"{model.backbone} on snippets of {counted(clip.num_frames, 'frame')}, {clip.crop} x {clip.crop}. Exported by "
        f"unseen {__version__}."
    )


def _use(loaded: LoadedModel, exported: Exported) -> str:
    crop = loaded.config.clip.crop
    frames = _frames(loaded, exported)
    return f"""```python
{LOADING[exported.form]}
classes = numpy.load("classes.npz")
print(classes["names"][(points @ classes["vectors"].T).argmax(1)])
```

`clips`: uint8 [videos, snippets, frames, {crop}, {crop}, 3], RGB, an array of {_library(exported)}, as `clips_of` below makes \
them of a video; any other kind or size is refused. Frames of a snippet: {frames}, one every {loaded.config.clip.stride}. \
Normalisation is inside.
`points`: float32 [videos, {loaded.model.embed_dim}]. `classes.npz`: {len(exported.classes)} names, and their vectors of length 1; \
to name by others, export again with `--classes`. A cosine is not a probability.

It computes in fp32. On random clips its points lay {exported.difference:.1e} of their length from the model's own; \
{exported.allowed:.1e} is allowed: eight times what rounding to fp32 makes of the model's own points, held against float64."""


def _library(exported: Exported) -> str:
    return "numpy" if exported.form == "onnx" else "torch"


def _clips(loaded: LoadedModel, exported: Exported) -> str:
    clip, snippets = loaded.config.clip, loaded.config.evaluate.num_snippets
    return f"""{"The run" if loaded.trained_data else "unseen"} takes {counted(snippets, "snippet")} of a video. \
So does this, with PyAV and Pillow:

```python
{reading_code(loaded.config, _library(exported))}```

- Of several video streams the one that players show is read: the first that is marked as the default, else the first. \
Covers are never read; thumbnails and single pictures only where there is no other. A photo, and a GIF of one frame, is \
a clip that stands still here; the engine shows it as a crop that moves.
- The picture is turned as it is displayed; mirroring is not followed. Its shorter side is scaled to {clip.short_side} pixels, \
the longer one in proportion, rounded half up, and the middle {clip.crop} x {clip.crop} is cut.
- The filter is bilinear with antialiasing. One without (`cv2.INTER_LINEAR`) gives other points.
- Colours are BT.601's, whatever the file says.
- Snippets are spread evenly: the first begins with the video, the last ends with it; one alone is the middle one. \
A video that is shorter than a snippet repeats its last frame.

What is left is rounding: fewer than one value in a hundred is off, by one level of 255. Measured over 803 clips of sports and \
daily life, that moved the points of a network that began from ImageNet by 0.4 % of their length at most (3 names changed), those \
of two small ones trained from scratch by 2.2 % and 4.5 % (9 and 11 names)."""


def _frames(loaded: LoadedModel, exported: Exported) -> str:
    """Of a snippet: which numbers the model takes."""
    if exported.frames:
        return f"{exported.frames}, no other number"
    others = (
        f"from {exported.fewest_frames}"
        if exported.frame_multiple == 1
        else f"any multiple of {exported.frame_multiple}"
    )
    usual = "in training" if loaded.trained_data else "in its config, which `clips_of` takes"
    return f"{loaded.config.clip.num_frames} {usual}; {others}"


def _training(loaded: LoadedModel, classes: Sequence[str]) -> list[str]:
    if loaded.trained_data is None:
        told = [f"No video: the weights are `{loaded.began_from}`."]
    else:
        sources = loaded.trained_data.train
        rows = [
            [name, Path(source.manifest).name, source.part, ", ".join(source.splits) or "all"]
            for name, source in zip(set_names(sources, is_here=False), sources, strict=True)
        ]  # fmt: skip
        told = [
            f"{len(loaded.train_classes)} classes, to step {loaded.step} (epoch {loaded.epoch}), from "
            f"{f'the weights `{Path(loaded.began_from).name}`' if loaded.began_from else 'random weights'}.",
            Table(["set", "manifest", "part", "splits"], rows).markdown(),
            f"Classes: {', '.join(loaded.train_classes)}.",
        ]
    if loaded.known:
        told.append(f"```\n{seen_in_pretraining(loaded, [('classes.npz', classes)])}\n```")
    elif loaded.prior_classes:
        told.append(f"The weights it began from had seen {len(loaded.prior_classes)} classes: those are not unseen.")
    return told


def _accuracy(loaded: LoadedModel, results: Results | None) -> list[str]:
    if results is None:
        return ["Nothing was recorded of this checkpoint."]
    if reason := _not_of_what_is_exported(loaded, results):
        return [reason]
    control = read_control(loaded.path.parent.parent, results)
    sets = [("seen classes, new videos", results.seen, control and control.seen)] if results.seen else []
    sets += [(name, test, control and control.tests.get(name)) for name, test in results.tests.items()]
    rows = [[name, *beside_control(test, beside)] for name, test, beside in sets]
    notes = [
        f"- {test.name}: {note}"
        for test in (results.seen, *results.tests.values())
        if test
        for note in (*([not_unseen(test)] if test is not results.seen and not_unseen(test) else []), *test.doubts)
    ]
    table = Table(["videos of", *BESIDE_CONTROL], rows).markdown() if rows else "No test set was named."
    told = f"With {results.num_snippets} snippets of each video; class vectors: {results.class_vectors}."
    if control:
        told += " Control: the same network trained towards random class vectors."
    return [table, told, *(["\n".join(notes)] if notes else [])]


def _licence(loaded: LoadedModel) -> str:
    began = loaded.began_from
    if began is None:
        return "They began at random: the terms are those of the training videos."
    if began in _LICENCES:
        known = _LICENCES[began]
    elif began == INSTALLED:
        network = installed_for(loaded.config.model.backbone)
        known = f"{network.title} of the package {network.package}: Apache-2.0, trained on ImageNet"
    elif began == TIMM:
        import timm

        settings = timm.get_pretrained_cfg(loaded.config.model.backbone.removeprefix("timm:"))
        known = f"timm's {settings.architecture}: {settings.license or 'licence not told'}, as timm's own entry says"
    else:
        known = f"the file `{Path(began).name}`, whose licence is not known here"
    also = " They were trained further; the terms of the training videos apply too." if loaded.trained_data else ""
    return f"They began from {known}.{also}"


def _settings(loaded: LoadedModel) -> str:
    """What the config says otherwise than the defaults, as YAML; of paths the last part."""
    tree, usual = to_tree(loaded.config), to_tree(parse(Config, {}))
    changed = {
        name: {key: value for key, value in tree[name].items() if value != usual[name][key]} for name in _SECTIONS
    }
    return yaml.safe_dump(
        public({k: v for k, v in changed.items() if v}, file_name_alone), sort_keys=False, allow_unicode=True
    )
