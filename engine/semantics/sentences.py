"""Class vectors from a sentence encoder: of a class's name, of its definition, or of both.

    class name ──prompt──▶ encoder ──(- mean)──▶ unit ─────┐
                                                           ├─▶ mean ─▶ unit
    definition ───────────▶ encoder ──(- mean)──▶ unit ────┘

The encoder reads any text, so any class can be named, whatever words it is made of. What a definition says and a name does
not (what is held, which way the body moves) is what such vectors add (ER-ZSAR: Chen and Huang, ICCV 2021).

A name is read in lower case, cut where `engine/semantics/words.py` cuts it, with its small words; `words.replace` gives the
text to read in its place. Definitions come from files: JSON (a list of objects, or NAME: TEXT), CSV or TSV. A class is found
in them by its name regardless of case, spaces and '_', else by equal words under the rules; of several files the first that
has it counts.

Encoded sentences share a direction, above all under one prompt (mean cosine of the 15 names of UCF15 0.28, within "a video
of a person ..." 0.51). Unless `words.centre` is no, the mean of a fixed list is taken away, so that a class has the same
vector whatever classes stand beside it: for names the classes of Kinetics-400, for definitions all those of the files (one or
two are not centred).

`words.path` may also be the folder of a CLIP, whose text tower then encodes (engine/semantics/clip_text.py).

The encoder itself: engine/semantics/sentence_encoder.py.
"""

import csv
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError
from engine.models.image_weights import IMAGENET, imagenet_classes, imagenet_definitions
from engine.models.weights import kinetics400_classes
from engine.semantics.config import WordSourceConfig
from engine.semantics.embeddings import ClassEmbeddings, MissingVectors, unit_rows
from engine.semantics.scripts import tell_of_script
from engine.semantics.sentence_encoder import load_encoder
from engine.semantics.words import name_key, split_name, user_replacement, words_or_name

_FEWEST_CENTRED = 3  # definitions
_NAME_COLUMNS, _TEXT_COLUMNS = ("name", "class", "word", "label"), ("definition", "defn", "text", "description")


class Definitions:
    """Class name -> definition, from files."""

    def __init__(self, paths: Sequence[str], config: WordSourceConfig) -> None:
        self._config = config
        self.texts: list[str] = []
        self._by_key: dict[str, str] = {}
        self._by_words: dict[tuple[str, ...], str] = {}
        for path in paths:
            for name, text in read_definitions(Path(path)).items():
                self.texts.append(text)
                self._by_key.setdefault(name_key(name), text)
                self._by_words.setdefault(self._words(name), text)

    def find(self, name: str) -> str | None:
        """The definition of a class, None if there is none."""
        return self._by_key.get(name_key(name)) or self._by_words.get(self._words(name))

    def _words(self, name: str) -> tuple[str, ...]:
        return words_or_name(name, self._config.rules, self._config.lemmatize)


class SentenceVectors:
    """A `ClassVectorSource` that encodes names and definitions."""

    def __init__(self, config: WordSourceConfig) -> None:
        self.prompts = config.prompts or [config.prompt]
        without = [prompt for prompt in self.prompts if "{name}" not in prompt]
        if without:
            key = "words.prompts" if config.prompts else "words.prompt"
            raise InputError(f"{key} {without[0]!r} has no {{name}} in it: all classes would be one")
        if config.text != "name" and not config.definitions:
            raise InputError(f"words.text is {config.text}: name the files of definitions in words.definitions")
        self.config = config
        self.centred = config.centre != "no"
        self.definitions = Definitions(config.definitions if config.text != "name" else [], config)
        self.encoder = load_encoder(config.path)

    def embed(self, names: Sequence[str]) -> ClassEmbeddings:
        """See `ClassVectorSource`."""
        config = self.config
        defined = [self.definitions.find(name) if config.text != "name" else None for name in names]
        missing = [name for name, text in zip(names, defined, strict=True) if text is None]
        if config.text != "name" and missing and config.undefined == "error":
            listed = ", ".join(repr(name) for name in missing)
            raise MissingVectors(
                f"no definition of these classes ({len(missing)}) in {', '.join(config.definitions)}: {listed}. Add them to a "
                "file of your own and name it in words.definitions, or take their names alone: words.undefined: name"
            )
        rows, texts = [], []
        named = [
            self._own_texts(name) if config.text != "definition" or definition is None else []
            for name, definition in zip(names, defined, strict=True)
        ]
        self.encoder([text for own in named for text in own])
        self.encoder([definition for definition in defined if definition is not None])
        for definition, own in zip(defined, named, strict=True):
            vectors = [self._unit(definition, self._definition_mean)] if definition is not None else []
            if own:
                vectors.append(self._mean_unit(own))
            rows.append(np.mean(vectors, axis=0))
            texts.append([*own, *([definition] if definition is not None else [])])
        tell_of_script(list(dict.fromkeys(text for parts in texts for text in parts)), config)
        return ClassEmbeddings.from_raw(names, np.stack(rows), self._describe(missing), texts)

    def name_texts(self, name: str) -> list[str]:
        """What the encoder reads of a class name: ApplyLipstick is 'apply lipstick' in each prompt's place {name}.

        Raises:
            InputError: the name holds no words.
        """
        words = user_replacement(name, self.config.replace)
        words = " ".join(split_name(name, frozenset())) if words is None else words
        if not words.strip():
            raise InputError(f"class name '{name}' holds no words: name them in the config under words.replace")
        return [prompt.replace("{name}", words) for prompt in self.prompts]

    def _own_texts(self, name: str) -> list[str]:
        """`name_texts` of a class that is asked for: all of it is to count."""
        texts = self.name_texts(name)
        if not all(map(self.encoder.reads_all, texts)):
            raise InputError(
                f"class name '{name[:60]} ...': {self.encoder.name} does not read so many words: say it in fewer"
            )
        return texts

    def _mean_unit(self, texts: Sequence[str]) -> np.ndarray:
        if len(texts) == 1:
            return self._unit(texts[0], self._name_mean)
        unit, _ = unit_rows(np.mean([self._unit(text, self._name_mean) for text in texts], axis=0)[None])
        return unit[0]

    def _unit(self, text: str, mean: np.ndarray) -> np.ndarray:
        unit, _ = unit_rows(self.encoder([text]) - mean)
        return unit[0]

    @property
    def _definitions_centre(self) -> bool:
        """Less the mean of itself a single definition would be nothing, and two would be each other's opposite."""
        return len(set(self.definitions.texts)) >= _FEWEST_CENTRED

    @functools.cached_property
    def _name_mean(self) -> np.ndarray:
        return self._mean([text for name in kinetics400_classes() for text in self.name_texts(name)])

    @functools.cached_property
    def _definition_mean(self) -> np.ndarray:
        return self._mean(self.definitions.texts) if self._definitions_centre else np.zeros(1)

    def _mean(self, texts: Sequence[str]) -> np.ndarray:
        return self.encoder(texts).mean(axis=0) if self.centred else np.zeros(1)

    def _describe(self, undefined: Sequence[str]) -> str:
        config = self.config
        what = {"name": "names", "definition": "definitions", "both": "names and definitions, averaged"}[config.text]
        prompt = f" as {', '.join(map(repr, self.prompts))}" if config.text != "definition" else ""
        files = f" of {', '.join(Path(path).name for path in config.definitions)}" if config.text != "name" else ""
        alone = f"; by name alone: {', '.join(undefined)}" if undefined and config.text != "name" else ""
        centring = "centred on fixed lists of the same kind" if self.centred else "not centred"
        if self.centred and config.text != "name" and not self._definitions_centre:
            few = f"definitions not centred: fewer than {_FEWEST_CENTRED}"
            centring = few if config.text == "definition" else f"names {centring}, {few}"
        return f"sentence encoder {self.encoder.name}: {what}{prompt}{files}, {centring}{alone}"


def read_definitions(path: Path) -> dict[str, str]:
    """Class name -> definition, from a JSON, CSV or TSV file.

    JSON is an object of NAME: TEXT, or a list of objects with a name (`name`, `class`, `word` or `label`) and a text
    (`definition`, `defn`, `text` or `description`); CSV and TSV have a header with such columns.

    The word imagenet stands for WordNet's definitions of ImageNet's classes.

    Raises:
        InputError: no such file, not of that form, or no text for a name.
    """
    if str(path) == IMAGENET and not path.is_file():
        return dict(zip(imagenet_classes(), imagenet_definitions(), strict=True))
    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_Pairs)
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                content = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise InputError(f"words.definitions: '{path}' cannot be read as JSON, CSV or TSV: {error}") from error
    if not isinstance(content, list):
        raise InputError(f"words.definitions: '{path}' holds no object and no list, but {content!r:.40}")
    rows = content if isinstance(content, _Pairs) else [_name_and_text(path, row) for row in content or [{}]]
    definitions: dict[str, Any] = {}
    for name, text in rows:
        if definitions.setdefault(str(name), text) != text:
            raise InputError(f"words.definitions: '{path}' has two texts for '{name}': keep one")
    empty = [name for name, text in definitions.items() if not isinstance(text, str) or not text.strip()]
    if empty or not definitions:
        raise InputError(f"words.definitions: '{path}' has no text for {', '.join(map(repr, empty)) or 'any class'}")
    return {name: " ".join(text.split()) for name, text in definitions.items()}


class _Pairs(list):
    """The keys and values of a JSON object as they stand, one that comes twice too."""


def _name_and_text(path: Path, row: Any) -> tuple[Any, Any]:
    held = dict(row) if isinstance(row, Mapping | _Pairs) else {}
    if None in held:
        columns = [key for key in held if key is not None]
        raise InputError(
            f"words.definitions: '{path}' has more cells than columns ({', '.join(columns)}) in the row of "
            f"{next(iter(held.values()))!r}: put texts with commas in quotes"
        )
    name = next((key for key in _NAME_COLUMNS if key in held), None)
    text = next((key for key in _TEXT_COLUMNS if key in held), None)
    if name is None or text is None:
        raise InputError(
            f"words.definitions: an entry of '{path}' has {', '.join(map(str, held)) or 'nothing'}: it needs a name "
            f"({', '.join(_NAME_COLUMNS)}) and a definition ({', '.join(_TEXT_COLUMNS)})"
        )
    return held[name], held[text]
