"""Videos embedded by a pool are those of one process, bit for bit, failures with their reasons."""

import os
from functools import partial

import numpy as np
import pytest
import torch

from engine.cluster.pool import LocalPool
from engine.data.manifests.joining import write_large
from engine.data.manifests.large_manifest import open_large
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.evaluation.embedding import embed_videos
from engine.evaluation.embedding_pool import embed_by
from engine.evaluation.inference import inference_settings, load_model
from engine.tasks.decoding import choose_decoding
from tests.encoded import fade, manifest_of, write_colors
from tests.small_run import write_run

CPU = torch.device("cpu")
NUM_VIDEOS = 40  # more than a piece


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, another one with other weights, and videos of which one is cut off."""
    folder = tmp_path_factory.mktemp("embed")
    rows = []
    for number in range(NUM_VIDEOS):
        path = f"red/{number}.mp4"
        write_colors(folder / "set" / path, fade((6 * number, 50, 20), (20, 240 - 6 * number, 90), 8))
        rows.append((path, "red", 8))
    broken = folder / "set" / "red/7.mp4"
    broken.write_bytes(broken.read_bytes()[:300])
    manifest_of(folder / "set", rows, split="a").save(folder / "set" / "manifest.parquet")
    write_run(folder / "run")
    write_run(folder / "other", model={"backbone": "r3d_18", "width": 8})
    return folder


@pytest.mark.parametrize("is_transductive", [False, True])
def test_they_are_those_of_one_process(folder, is_transductive):
    load = partial(load_model, folder / "run", transductive=is_transductive)
    loaded, manifest = load(CPU), Manifest.load(folder / "set" / "manifest.parquet")
    decoder = choose_decoding(loaded.config, CPU, [manifest]).open(4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = embed_videos(loaded.model, manifest, decoder, inference_settings(loaded.config, CPU, progress=False))
    finally:
        decoder.close()
        torch.set_num_threads(threads)
    pooled = embed_by(LocalPool(1), load, loaded, "cpu", manifest)
    assert torch.equal(pooled.embeddings, alone.embeddings)
    if is_transductive:
        assert (
            torch.equal(pooled.features, alone.features)
            and alone.features.shape[1] == loaded.model.model.backbone.feature_dim
        )
    else:
        assert pooled.features is None and alone.features is None
    assert len(pooled.embeddings.unique(dim=0)) == NUM_VIDEOS - 1
    assert torch.equal(pooled.rows, alone.rows) and torch.equal(pooled.class_index, alone.class_index)
    assert pooled.failures == alone.failures and pooled.failures[0].path.name == "7.mp4"


def test_rows_of_a_large_manifest_are_sent_to_workers(folder, tmp_path):
    load = partial(load_model, folder / "run")
    loaded, manifest = load(CPU), Manifest.load(folder / "set" / "manifest.parquet").select(np.arange(34))
    write_large([manifest], tmp_path / "large")
    pooled, expected = (
        embed_by(LocalPool(1), load, loaded, "cpu", each) for each in (open_large(tmp_path / "large"), manifest)
    )
    assert torch.equal(pooled.embeddings, expected.embeddings) and torch.equal(pooled.rows, expected.rows)
    assert [failure.path.name for failure in pooled.failures] == ["7.mp4"]


def leave(device):
    os._exit(3)


def test_a_worker_that_dies_costs_its_videos(folder):
    loaded = load_model(folder / "run", CPU)
    manifest = Manifest.load(folder / "set" / "manifest.parquet").select(torch.arange(2).numpy())
    pooled = embed_by(LocalPool(1), leave, loaded, "cpu", manifest)
    assert len(pooled.rows) == 0
    assert ["exit code 3" in failure.reason for failure in pooled.failures] == [True, True]


def test_other_weights_on_a_node_are_refused(folder):
    loaded, manifest = load_model(folder / "run", CPU), Manifest.load(folder / "set" / "manifest.parquet")
    with pytest.raises(InputError, match="other weights under the same name"):
        embed_by(LocalPool(0), partial(load_model, folder / "other"), loaded, "cpu", manifest)
