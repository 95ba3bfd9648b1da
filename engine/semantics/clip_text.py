"""The text tower of a CLIP as an encoder of sentences, from a folder as transformers writes it. Nothing is downloaded.

Beside the image tower of the same CLIP (`model.backbone: timm:..._clip_...`, `model.linear: false`) a video and a class name
are points of one space without any training here: configs/clip_zero_shot.yaml.
"""

import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.errors import InputError

_MAX_TOKENS = 77  # that CLIP reads
_KINDS = ("clip", "clip_text_model")


def is_clip(folder: Path) -> bool:
    """Whether a folder holds a CLIP, or its text tower alone."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type") in _KINDS
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def without_bars() -> Iterator[None]:
    """While inside, transformers shows no bar of reading a hundred tensors; afterwards it does as before."""
    from transformers.utils import logging

    was_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            logging.enable_progress_bar()


@contextmanager
def _without_report() -> Iterator[None]:
    """While inside, transformers does not list the tensors of either tower: the image tower's are not wanted here."""
    logger = logging.getLogger("transformers")  # the root of its loggers
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_loaded(folder: Path, loaded: Mapping[str, Any]) -> None:
    """Refuse a text tower that keeps some of its random weights, by what transformers tells of its reading."""
    if names := sorted(loaded["missing_keys"]):
        raise InputError(
            f"words.path: the CLIP in '{folder}' lacks {len(names)} weights of its text tower ({names[0]}, ...)"
        )
    if unfit := sorted(loaded["mismatched_keys"]):
        name, of_file, of_config = unfit[0]
        raise InputError(
            f"words.path: the CLIP in '{folder}' has weights of another shape than its config.json says ({name}: "
            f"{list(of_file)}, by config.json {list(of_config)}): take both from the same model"
        )


class ClipTextEncoder:
    """Texts -> float64 [N, D] in the space that CLIP shares with pictures. Each text by itself, and once."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        self.name = f"CLIP text tower {folder.name}"
        self._known: dict[str, np.ndarray] = {}
        self._learning = threading.Lock()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            with without_bars(), _without_report():
                self._model, loaded = CLIPTextModelWithProjection.from_pretrained(
                    folder, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
                )
        except Exception as error:  # of transformers, of its readers of files, or of a file that is missing
            raise InputError(
                f"words.path: the CLIP in '{folder}' cannot be read ({' '.join(str(error).split())[:160]}): it needs config.json, "
                "model.safetensors and the tokenizer's files"
            ) from error
        _check_loaded(folder, loaded)
        self._model.eval()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        with self._learning:
            self._learn(texts)
        return np.array([self._known[text] for text in texts])

    def _learn(self, texts: Sequence[str]) -> None:
        for text in dict.fromkeys(texts):
            if text not in self._known:
                tokens = self._tokenizer(text, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
                with torch.inference_mode():
                    self._known[text] = self._model(**tokens).text_embeds[0].double().numpy()

    def reads_all(self, text: str) -> bool:
        """Whether a text is no longer than what the encoder looks at; it leaves the rest out."""
        return len(self._tokenizer(text, truncation=True, max_length=_MAX_TOKENS + 1)["input_ids"]) <= _MAX_TOKENS
