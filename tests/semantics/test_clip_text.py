"""A CLIP from a folder: text tower against transformers itself, and both towers with no layer between. Random tiny weights."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from engine.config import Config
from engine.data.sets.sources import DataSet
from engine.errors import InputError
from engine.evaluation.evaluate import check_dimension
from engine.evaluation.inference import class_vectors, embed_source, load_model, manifest_of_files
from engine.models.embedder import build_embedder
from engine.schema.parser import parse
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig
from engine.semantics.sentence_encoder import load_encoder
from tests.encoded import fade, write_colors

transformers = pytest.importorskip("transformers")
CPU, DIM = torch.device("cpu"), 1000  # of timm's test_vit with its own last layer
PROMPTS = ["a photo of {name}.", "a video of {name}."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A whole CLIP of random weights and a tokenizer of letters, as transformers writes them."""
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    folder.mkdir()
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = {"vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "projection_dim": DIM, **ends}  # fmt: skip
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
    }
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM)
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def words(folder: Path, **keys: object) -> WordsConfig:
    return WordsConfig(source="sentence", path=str(folder), centre="no", **keys)


def test_class_vectors_are_the_text_towers_averaged_over_prompts(folder):
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    names = ("riding a horse", "JumpRope")
    found = build_class_embeddings(names, words(folder, prompts=PROMPTS))
    assert "CLIP text tower tiny-clip" in found.description and found.vectors.shape == (2, DIM)
    for row, name in zip(found.vectors, ("riding a horse", "jump rope"), strict=True):
        units = []
        for prompt in PROMPTS:
            tokens = tokenizer(prompt.format(name=name), return_tensors="pt")
            pooled = model.text_model(**tokens).pooler_output
            units.append(functional.normalize(model.text_projection(pooled), dim=1)[0])
        torch.testing.assert_close(row, functional.normalize(sum(units), dim=0), rtol=1e-4, atol=1e-5)
    one = build_class_embeddings(names, words(folder, prompt=PROMPTS[0])).vectors
    assert (one - found.vectors).abs().max() > 1e-4 and (found.vectors[0] @ found.vectors[1]) < 0.9999


def test_long_texts_are_cut_and_prompts_hold_the_name(folder):
    assert np.isfinite(load_encoder(str(folder))(["jumping " * 100])).all()  # a definition
    with pytest.raises(InputError, match=r"class name 'jumping .* does not read so many words: say it in fewer"):
        build_class_embeddings(("jumping " * 100,), words(folder))
    with pytest.raises(InputError, match=r"words\.prompts 'a video' has no \{name\} in it: all classes would be one"):
        build_class_embeddings(("a",), words(folder, prompts=["a video"]))


def test_a_folder_that_is_no_clip_or_a_part_of_one(folder, tmp_path):
    with pytest.raises(InputError, match=r"holds neither a sentence-transformers model .* nor a CLIP"):
        build_class_embeddings(("a",), words(tmp_path))
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(
        InputError, match=r"the CLIP in .* cannot be read .*model.safetensors and the tokenizer's files"
    ):
        build_class_embeddings(("a",), words(tmp_path))
    whole = shutil.copytree(folder, tmp_path / "part")
    weights = load_file(whole / "model.safetensors")
    save_file({name: tensor for name, tensor in weights.items() if name != "text_projection.weight"},
              whole / "model.safetensors", {"format": "pt"})  # fmt: skip
    with pytest.raises(InputError, match=r"lacks 1 weights of its text tower \(text_projection.weight, ...\)"):
        build_class_embeddings(("a",), words(whole))


def test_a_config_of_another_clip_than_the_weights(folder, tmp_path):
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    config = json.loads((mixed / "config.json").read_text())
    config["text_config"]["hidden_size"] = 48
    (mixed / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"another shape .*weight: \[.*32\], by config.json \[.*48\]\): take both"):
        build_class_embeddings(("a",), words(mixed))


def test_the_image_towers_tensors_are_not_listed(folder, tmp_path, monkeypatch):
    """Of a whole CLIP the text tower alone is read; transformers calls all the others unexpected."""
    told: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger("transformers.modeling_utils"), "handle", told.append)
    level = logging.getLogger("transformers").level
    whole = shutil.copytree(folder, tmp_path / "whole")  # not read yet
    build_class_embeddings(("a",), words(whole))
    assert not told and logging.getLogger("transformers").level == level
    transformers.CLIPTextModelWithProjection.from_pretrained(whole)
    assert "vision_model" in told[0].getMessage()  # to others it says so as before


def write_config(folder: Path, tmp_path: Path, **model: object) -> Path:
    torch.manual_seed(1)
    torch.save(timm.create_model("test_vit", img_size=32).state_dict(), tmp_path / "image.pth")
    tree = {
        "model": {"backbone": "timm:test_vit", "weights": str(tmp_path / "image.pth"), "linear": False, **model},
        "clip": {"num_frames": 1, "short_side": 32, "crop": 32},
        "words": {"source": "sentence", "path": str(folder), "centre": "no", "prompts": PROMPTS},
        "evaluate": {"num_snippets": 3},
    }
    (tmp_path / "clip.yaml").write_text(json.dumps(tree))  # JSON is YAML
    return tmp_path / "clip.yaml"


def test_both_towers_without_a_layer_between_name_a_video(folder, tmp_path):
    loaded = load_model(write_config(folder, tmp_path), CPU, overrides=["data.decoder=pyav"])
    assert not loaded.known and loaded.model.linear is None and loaded.model.embed_dim == DIM
    classes = class_vectors(loaded, ["surfing", "jumping", "a horse"])
    check_dimension(loaded.model, classes)
    video = write_colors(tmp_path / "a.mp4", fade((240, 60, 0), (0, 30, 200), 12), "libx264")
    manifest, _ = manifest_of_files([video])
    point = embed_source(loaded, DataSet("x", manifest), CPU).embeddings
    tower = timm.create_model("test_vit", img_size=32).eval()
    tower.load_state_dict(torch.load(tmp_path / "image.pth"))
    clips = torch.rand(2, 3, 1, 32, 32)
    torch.testing.assert_close(loaded.model(clips), tower(clips[:, :, 0]), rtol=1e-4, atol=1e-4)
    assert point.shape == (1, DIM) and point.std() > 1e-3


def test_the_shipped_config_is_of_the_kind():
    from engine.config import load_config
    from tests.environment import ROOT

    config = load_config(ROOT / "configs" / "clip_zero_shot.yaml", [])
    assert not config.model.linear and len(config.words.prompts) == 6 and config.words.centre == "no"
    assert "vit_base_patch32_clip_224.openai" in timm.list_pretrained("vit_base_patch32_clip_224*")


def test_what_has_to_be_trained_first(folder, tmp_path):
    with pytest.raises(InputError, match="describes a model that has to be trained first"):
        load_model(write_config(folder, tmp_path, linear=True), CPU)
    config = parse(
        Config, {"model": {"backbone": "timm:test_vit", "linear": False}, "clip": {"short_side": 32, "crop": 32}}
    )
    with pytest.raises(InputError, match="timm:test_vit gives 1000 values, the class vectors have 50"):
        build_embedder(config.model, config.clip, 50)
    trained = build_embedder(config.model, config.clip, 1000)
    trained(torch.rand(2, 3, 2, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in trained.parameters())
