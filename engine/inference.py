"""A trained model as its run's config describes it, with what a user of it changes."""

import copy
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from engine.config import Config
from engine.data.config import SourceConfig
from engine.data.manifest import Manifest
from engine.data.pyav.probe import ProbeError, probe
from engine.errors import InputError
from engine.evaluate import Inference
from engine.precision import choose_precision
from engine.schema import apply_override, parse, to_tree
from engine.schema_keys import refuse_idle
from engine.tasks.zero_shot.trained import LoadedModel, load_for_inference

_CHANGEABLE = ("data", "words", "evaluate")  # the other sections made the weights what they are


def load_model(
    path: Path,
    device: torch.device,
    *,
    words: str | None = None,
    tests: Sequence[SourceConfig] = (),
    overrides: Sequence[str] = (),
) -> LoadedModel:
    """Load a run's model; its config with other word vectors, test sets and single keys where they are given.

    Args:
        path: a run folder or a checkpoint file.
        words: SOURCE or SOURCE:FILE of the class vectors, as in `words.source` and `words.path`; `words.also` is dropped.
        tests: the test sets, in place of the run's own.
        overrides: `section.key=value`, in order, after all else; only of the sections data, words and evaluate.

    Raises:
        InputError: no checkpoint, or a key or value that is not allowed or cannot matter.
    """
    loaded = load_for_inference(path, device)
    tree = copy.deepcopy(to_tree(loaded.config))
    if words is not None:
        source, _, file = words.partition(":")
        tree["words"] |= {"source": source, "path": file or None, "also": None}
        if source == "random":  # any length would do, but the model has one
            tree["words"]["dim"] = loaded.model.linear.out_features
    if tests:
        tree["data"]["tests"] = [to_tree(source) for source in tests]
    typed: dict[str, Any] = {}
    for override in overrides:
        section = override.partition("=")[0].partition(".")[0]
        if section not in _CHANGEABLE:
            raise InputError(
                f"override '{override}': only keys of the sections {', '.join(_CHANGEABLE)} can be changed here; "
                "the model and its snippets are what they were in training"
            )
        apply_override(tree, override)
        apply_override(typed, override)
    config = parse(Config, tree)
    refuse_idle(config, typed)
    if config.evaluate.weights != loaded.config.evaluate.weights:
        loaded = load_for_inference(path, device, config.evaluate.weights)
    return dataclasses.replace(loaded, config=config)


def inference_settings(config: Config, device: torch.device, *, progress: bool = True) -> Inference:
    """How videos are embedded, from the `clip`, `evaluate` and `train.precision` keys."""
    return Inference(
        clip=config.clip,
        num_snippets=config.evaluate.num_snippets,
        batch_size=config.evaluate.batch_size,
        device=device,
        dtype=choose_precision(config.train.precision, device).dtype or torch.float32,
        progress=progress,
    )


def manifest_of_files(paths: Sequence[Path]) -> tuple[Manifest | None, dict[int, str]]:
    """Probe video files on the spot.

    Returns:
        The readable files in order as a manifest without classes (None if there is none), and for each other
        one its place in `paths` -> the reason.
    """
    rows, unreadable = [], {}
    for index, path in enumerate(paths):
        try:
            facts = dataclasses.asdict(probe(path))
        except ProbeError as error:
            unreadable[index] = f"{error.kind}: {error.text}"
            continue
        whole_file = {
            "path": str(path.absolute()), "class_name": "", "split": "", "group": "", "first_frame": 0,
            "file_frames": facts["num_frames"], "segment_start": math.nan, "segment_end": math.nan,
            "file_bytes": path.stat().st_size, "mtime_ns": None, "content_hash": None,
        }  # fmt: skip
        rows.append(facts | whole_file)
    return (Manifest.from_rows(rows, Path("/")) if rows else None), unreadable
