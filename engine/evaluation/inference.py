"""A model as its run's config describes it, with what a user of it changes."""

import copy
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from engine.config import Config
from engine.data.config import SourceConfig
from engine.data.indexing.probing import probe_file
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.findings import ProbeError
from engine.data.sets.sources import DataSet
from engine.errors import InputError
from engine.evaluation.embedding import EmbeddedVideos, Inference, embed_videos
from engine.evaluation.evaluate import check_dimension
from engine.evaluation.metrics import check_finite
from engine.evaluation.transductive import WithFeatures
from engine.files.addresses import url_of
from engine.naming.known_classes import KnownClasses
from engine.naming.untrained import is_untrained, load_config_alone, load_untrained
from engine.results.table import Table
from engine.schema.files import apply_override
from engine.schema.keys import refuse_idle
from engine.schema.parser import parse, to_tree
from engine.semantics.class_lists import NamedClasses
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig, serves_any_name
from engine.semantics.embeddings import ClassEmbeddings
from engine.semantics.overlap import seen_before
from engine.tasks.decoding import choose_decoding
from engine.tasks.zero_shot.trained import LoadedModel, load_for_inference
from engine.training.precision import choose_precision

_CONFIGS = (".yaml", ".yml")
NO_ADDRESSES = (
    "single videos are read as files of this machine: copy it here, or ingest it into a store (tools/ingest.py), "
    "which evaluate.py, extract_features.py and find_moments.py read there"
)
_CHANGEABLE = ("data", "words", "evaluate")  # the other sections made the weights what they are


def load_model(
    path: Path,
    device: torch.device,
    *,
    words: str | None = None,
    tests: Sequence[SourceConfig] = (),
    overrides: Sequence[str] = (),
    transductive: bool = False,
) -> LoadedModel:
    """Load a run's model; its config with other word vectors, test sets and single keys where they are given.

    Args:
        path: a run folder or a checkpoint file, or what `load_untrained` takes, or a config whose model needs no
            training (`load_config_alone`).
        words: SOURCE or SOURCE:FILE of the class vectors, as in `words.source` and `words.path`; `words.also` is dropped.
        tests: the test sets, in place of the run's own.
        overrides: `section.key=value`, in order, after all else; only of the sections data, words and evaluate.
        transductive: what it embeds comes with features, to be named together (engine/evaluation/transductive.py).

    Raises:
        InputError: no checkpoint, or a key or value that is not allowed or cannot matter.
    """
    is_trained = not is_untrained(path) and path.suffix not in _CONFIGS
    if is_trained:
        loaded = load_for_inference(path, device)
    else:
        loaded = load_config_alone(path, device) if path.suffix in _CONFIGS else load_untrained(str(path), device)
    tree = copy.deepcopy(to_tree(loaded.config))
    if words is not None:
        source, _, file = words.partition(":")
        tree["words"] |= {"source": source, "path": file or None, "also": None}
        if source == "random" and is_trained:  # any length would do, but the model has one
            tree["words"]["dim"] = loaded.model.embed_dim
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
    if is_trained and config.evaluate.weights != loaded.config.evaluate.weights:
        loaded = load_for_inference(path, device, config.evaluate.weights)
    model = WithFeatures(loaded.model).eval() if transductive else loaded.model
    return dataclasses.replace(loaded, config=config, model=model)


def class_vectors(loaded: LoadedModel, names: Sequence[str], unlabelled: torch.Tensor | None = None) -> ClassEmbeddings:
    """The vectors of classes in the space that a model puts videos into.

    Args:
        unlabelled: points of any videos, for a model that was not trained: each class's scores are standardised over them.

    Raises:
        InputError: a class has no vector, or has one in a space of another dimension.
    """
    if loaded.known:
        classes = KnownClasses(loaded.known, loaded.config.words, unlabelled).embed(names)
    else:
        classes = build_class_embeddings(names, loaded.config.words)
    check_dimension(loaded.model, classes)
    return classes


@dataclasses.dataclass(frozen=True, slots=True)
class EmbeddedFiles:
    """Files of videos and pictures as a model's points.

    embeddings: float32 [V, D] on the CPU, of the files that could be used. indices: their places in the list given.
    failures: place of each other file -> the reason. features: [V, F] of the same files, as `EmbeddedVideos` has them.
    """

    embeddings: torch.Tensor
    indices: list[int]
    failures: dict[int, str]
    features: torch.Tensor | None = None


def embed_files(loaded: LoadedModel, paths: Sequence[Path], device: torch.device, *, progress: bool) -> EmbeddedFiles:
    """Probe and embed files of videos and pictures on the spot.

    Raises:
        InputError: the network gives points that are not finite.
    """
    manifest, failures = manifest_of_files(paths)
    indices = [index for index in range(len(paths)) if index not in failures]  # of the manifest's rows
    if manifest is None:
        return EmbeddedFiles(torch.zeros(0, loaded.model.embed_dim), [], failures)
    how = inference_settings(loaded.config, device, progress=progress)
    decoder = choose_decoding(loaded.config, device, [manifest]).open(loaded.config.evaluate.batch_size)
    try:
        embedded = embed_videos(loaded.model, manifest, decoder, how)
    finally:
        decoder.close()
    rows = embedded.rows.tolist()
    undecoded = sorted(set(range(len(manifest))) - set(rows))
    failures |= {indices[row]: failed.reason for row, failed in zip(undecoded, embedded.failures, strict=True)}
    if not rows:
        return EmbeddedFiles(torch.zeros(0, loaded.model.embed_dim), [], failures)
    check_finite(embedded.embeddings, "the videos given")
    return EmbeddedFiles(embedded.embeddings, [indices[row] for row in rows], failures, embedded.features)


def embed_source(loaded: LoadedModel, data: DataSet, device: torch.device) -> EmbeddedVideos:
    """The videos of a data set as the model's points. Collective."""
    decoder = choose_decoding(loaded.config, device, [data.manifest]).open(loaded.config.evaluate.batch_size)
    try:
        return embed_videos(loaded.model, data.manifest, decoder, inference_settings(loaded.config, device))
    finally:
        decoder.close()


def pretraining_table(loaded: LoadedModel, tests: Sequence[NamedClasses]) -> Table:
    """Which of the classes asked for an untrained model's weights had seen (D_p of paper Eq. 3), as `seen_before` has them."""
    overlap = loaded.config.train.exclude_overlap
    own = loaded.config.words if serves_any_name(loaded.config.words) else WordsConfig(missing="random")
    return seen_before(tests, (str(loaded.path), loaded.prior_classes), overlap.words or own, overlap.tau)


def seen_in_pretraining(loaded: LoadedModel, tests: Sequence[NamedClasses]) -> str:
    """`pretraining_table` for people."""
    return told_of_pretraining(loaded, pretraining_table(loaded, tests))


def told_of_pretraining(loaded: LoadedModel, table: Table) -> str:
    """A `pretraining_table` as text, which says so if it is empty."""
    names = f"{loaded.path}, {len(loaded.prior_classes):,} names"
    return (
        table.text() if table.rows else f"no class of these was seen in pretraining ({names}), by distance or by word"
    )


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
    """Probe files of videos and pictures on the spot.

    Returns:
        The readable files in order as a manifest without classes (None if there is none), and for each other
        one its place in `paths` -> the reason.
    """
    rows, unreadable = [], {}
    for index, path in enumerate(paths):
        if url_of(path):
            unreadable[index] = NO_ADDRESSES
            continue
        try:
            facts = dataclasses.asdict(probe_file(path))
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
