"""Models that were not trained: real clips by their names, and torchvision's classifier from a file."""

from pathlib import Path

import pytest
import torch
from torchvision.models.video import r2plus1d_18

from engine.data.sets.sources import DataSet
from engine.errors import InputError
from engine.evaluation.inference import class_vectors, embed_source, load_model, manifest_of_files, seen_in_pretraining
from engine.models.image_network import ImageNetwork
from engine.models.weights import load_backbone_weights
from engine.naming.untrained import is_untrained
from tests.encoded import fade, write_colors

CPU = torch.device("cpu")


def test_installed_describes_a_video_by_the_roots_of_its_mean_scores(tmp_path):
    path = write_colors(tmp_path / "a.mp4", fade((240, 60, 0), (0, 30, 200), 12), "libx264")
    loaded = load_model(Path("installed"), CPU, overrides=["data.decoder=pyav"])
    manifest, _ = manifest_of_files([path])
    point = embed_source(loaded, DataSet("x", manifest), CPU).embeddings
    assert point.shape == (1, 1002) and loaded.model.embed_dim == 1002
    torch.testing.assert_close(point[0, :1000].square().sum(), torch.tensor(1.0))
    assert point[0, 1000:].tolist() == [1.0, 0.0]


def test_videos_are_compared_by_the_features_that_are_extracted():
    loaded = load_model(Path("installed"), CPU)
    network = ImageNetwork(loaded.config.model.backbone, 1, 160)
    load_backbone_weights(network, "installed")
    clips = torch.randn(2, 3, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = loaded.model.features(clips)
        wanted, scores = network.eval()(clips), loaded.model.network(clips)
    assert features.shape == (2, 1000 + 1280)
    torch.testing.assert_close(loaded.model.compared(features), wanted)
    frames = clips.transpose(1, 2).flatten(0, 1)[:, :, None]
    assert (scores - loaded.model.network(frames).unflatten(0, (2, 3)).mean(dim=1)).abs().max() < 1e-4
    alone = loaded.model.network(frames).softmax(dim=1).unflatten(0, (2, 3)).mean(dim=1)
    torch.testing.assert_close(features[:, :1000], alone, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("dtype", "device"), [(torch.float32, "cpu"), (torch.bfloat16, "cpu"), (torch.float64, "meta")], ids=str
)
def test_a_model_is_the_same_and_takes_no_random_numbers_whatever_is_set_for_torch(dtype, device):
    usual = load_model(Path("installed"), CPU).model.state_dict()
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        before = torch.get_rng_state()
        found = load_model(Path("installed"), CPU).model.state_dict()
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_default_dtype() == dtype and torch.get_default_device() == torch.device(device)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert all(tensor.dtype == usual[name].dtype and torch.equal(tensor, usual[name]) for name, tensor in found.items())


@pytest.mark.parametrize("name", ["PlayingCello", "Surfing", "PlayingPiano", "Archery"])
def test_real_clips_are_named(shared_data, name):
    """Of each class the mean of three clips, so that no single odd clip decides; all fifteen names are candidates."""
    folder = shared_data / "videos" / "ucf101"
    paths = [folder / name / f"v_{name}_g0{group}_c01.mp4" for group in (1, 2, 3)]
    loaded = load_model(Path("installed"), CPU, overrides=["data.decoder=pyav"])
    manifest, unreadable = manifest_of_files(paths)
    assert not unreadable
    points = embed_source(loaded, DataSet("x", manifest), CPU).embeddings
    classes = class_vectors(loaded, sorted(path.name for path in folder.iterdir()))
    assert classes.names[int((points.mean(dim=0) @ classes.vectors.T).argmax())] == name


def test_what_was_seen_in_pretraining_is_said():
    loaded = load_model(Path("installed"), CPU)
    said = seen_in_pretraining(
        loaded, [("mine", ["PlayingViolin", "Swing", "playing piano", "HorseRace", "SkyDiving"])]
    )
    assert "not unseen" in said
    rows = {line.split("  ")[0].strip(): line for line in said.splitlines()[3:]}
    assert set(rows) == {"PlayingViolin", "Swing", "playing piano"}
    assert "0.000" in rows["Swing"] and "grand piano" in rows["playing piano"]
    assert "no class of these was seen" in seen_in_pretraining(loaded, [("mine", ["SkyDiving", "jumping rope"])])


def test_what_was_seen_in_pretraining_is_said_where_the_words_are_those_of_own_classes_alone(tmp_path):
    (tmp_path / "own.json").write_text('{"PlayingViolin": "a bow is drawn over strings"}')
    defined = ["words.source=sentence", "words.text=definition", f"words.definitions=[{tmp_path / 'own.json'}]"]
    beside = ["words.also.source=npz", f"words.also.path={tmp_path / 'own.npz'}"]
    for overrides in (defined, beside):
        loaded = load_model(Path("installed"), CPU, overrides=overrides)
        assert "PlayingViolin" in seen_in_pretraining(loaded, [("mine", ["PlayingViolin"])])


def test_kinetics400_from_a_file(tmp_path):
    torch.manual_seed(0)
    network = r2plus1d_18(weights=None)
    torch.save(network.state_dict(), tmp_path / "k400.pth")
    loaded = load_model(Path(f"kinetics400:{tmp_path / 'k400.pth'}"), CPU, overrides=["evaluate.num_snippets=1"])
    path = write_colors(tmp_path / "a.mp4", fade((240, 60, 0), (0, 30, 200), 16), "libx264")
    manifest, _ = manifest_of_files([path])
    point = embed_source(loaded, DataSet("x", manifest), CPU).embeddings[0]
    clips = torch.randn(1, 3, 4, 32, 32)
    features = loaded.model.features(clips)
    torch.testing.assert_close(features[:, :400], network.eval()(clips).softmax(dim=1))
    compared = loaded.model.compared(features)
    torch.testing.assert_close(network.fc(compared), network(clips))
    assert point.shape == (402,) and point[:400].square().sum() == pytest.approx(1, abs=1e-5)
    assert len(loaded.known) == 400 and "archery" in loaded.prior_classes
    classes = class_vectors(loaded, ["Archery", "playing cello"])
    assert [words[0] for words in classes.words] == ["archery", "playing cello"]
    assert "Archery" in seen_in_pretraining(loaded, [("mine", ["Archery", "xylography"])])
    torch.save({name: tensor for name, tensor in network.state_dict().items() if not name.startswith("fc")},
               tmp_path / "headless.pth")  # fmt: skip
    with pytest.raises(InputError, match=r"2 missing \(fc.weight, fc.bias\)"):
        load_model(Path(f"kinetics400:{tmp_path / 'headless.pth'}"), CPU)


def test_names_of_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert all(map(is_untrained, ("installed", "installed:lite2", "kinetics400:x.pth"))) and not is_untrained(
        "runs/k664"
    )
    (tmp_path / "installed").mkdir()
    assert not is_untrained("installed")  # a run folder of that very name
    with pytest.raises(InputError, match="no installed network is called so: there are installed, installed:lite2"):
        load_model(Path("installed:x.pth"), CPU)
    (tmp_path / "installed").rmdir()
    with pytest.raises(InputError, match="only keys of the sections data, words, evaluate"):
        load_model(Path("installed"), CPU, overrides=["clip.crop=64"])
