"""Class names to class vectors, from every source."""

import dataclasses
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from engine.errors import InputError
from engine.semantics.classes import build_class_embeddings, open_source
from engine.semantics.config import WordsConfig, WordSourceConfig
from engine.semantics.words import class_words
from tests.semantics.shared_files import class_list, shared

GLOVE = WordsConfig()


def write_vocabulary(path: Path, words: dict[str, list[float]]) -> WordsConfig:
    path.write_text(
        "".join(f"{word} {' '.join(map(str, vector))}\n" for word, vector in words.items()), encoding="utf-8"
    )
    return WordsConfig(source="word2vec", path=str(path))


SMALL = {
    "play": [3.0, 0.0, 4.0],
    "cello": [0.0, 2.0, 0.0],
    "rid": [1.0, 1.0, 1.0],
    "horse": [0.0, -1.0, 1.0],
    "Zumba": [9.0, 0.0, 1.0],
}


def test_the_formula(tmp_path):
    """Unit word vectors, mean, unit (paper Sec. 4.4 and the authors' code), worked out by hand."""
    config = write_vocabulary(tmp_path / "w.txt", SMALL)
    result = build_class_embeddings(["PlayingCello", "zumba"], config)
    expected = np.array([0.6 / 2, 1 / 2, 0.8 / 2])
    np.testing.assert_allclose(result.vectors[0].numpy(), expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(result.vectors[1].numpy(), np.array([9, 0, 1]) / np.sqrt(82), atol=1e-6)
    assert result.names == ("PlayingCello", "zumba")
    assert result.words == (("play", "cello"), ("Zumba",))
    assert (result.vectors.dtype, result.vectors.device.type, result.dim, len(result)) == (torch.float32, "cpu", 3, 2)
    for part in ("'w.txt'", "5 words", "3 dimensions", "not centred", "rules auto", "lemmas"):
        assert part in result.description
    assert "\n" not in result.description


def test_centring_takes_the_vocabulary_mean_off_every_word_first(tmp_path):
    config = dataclasses.replace(write_vocabulary(tmp_path / "w.txt", SMALL), centre="yes")
    mean = np.mean(list(SMALL.values()), axis=0)
    units = [
        (np.array(SMALL[word]) - mean) / np.linalg.norm(np.array(SMALL[word]) - mean) for word in ("play", "cello")
    ]
    expected = np.mean(units, axis=0)
    result = build_class_embeddings(["playing cello"], config)
    np.testing.assert_allclose(result.vectors[0].numpy(), expected / np.linalg.norm(expected), atol=1e-6)
    assert "centred on its 5 most frequent words" in result.description


def test_auto_centres_glove_and_nothing_else(tmp_path):
    word2vec = write_vocabulary(tmp_path / "w.txt", SMALL)
    glove = dataclasses.replace(word2vec, source="glove")
    assert open_source(glove).centred
    assert open_source(GLOVE).centred
    assert not open_source(dataclasses.replace(glove, centre="no")).centred
    assert not open_source(word2vec).centred


ACTIONS = [
    *(
        "PlayingViolin",
        "PlayingCello",
        "Kayaking",
        "Surfing",
        "ApplyLipstick",
        "ShavingBeard",
        "HorseRiding",
        "IceDancing",
    ),
    *("JumpRope", "BasketballDunk", "MoppingFloor", "CuttingInKitchen", "SkyDiving", "Skijet", "PullUps", "TaiChi"),
]
NEAREST = {
    "PlayingViolin": "playing piano",
    "Kayaking": "canoeing or kayaking",
    "Surfing": "surfing water",
    "ApplyLipstick": "putting on lipstick",
    "ShavingBeard": "shaving head",
    "IceDancing": "ice skating",
    "BasketballDunk": "dunking basketball",
    "MoppingFloor": "sweeping floor",
    "Skijet": "jetskiing",
}


def test_installed_glove_serves_published_names_and_meaning_is_right():
    """Random or shuffled vectors would hit one of the nine by chance, not all."""
    unseen = build_class_embeddings(ACTIONS, GLOVE)
    seen = build_class_embeddings(sorted(NEAREST.values()), GLOVE)
    nearest = (unseen.vectors @ seen.vectors.T).argmax(dim=1)
    got = {name: seen.names[place] for name, place in zip(unseen.names, nearest, strict=True) if name in NEAREST}
    assert got == NEAREST
    torch.testing.assert_close(unseen.vectors.norm(dim=1), torch.ones(len(ACTIONS)))


def test_centring_spreads_glove_classes_out():
    spread = {}
    for centre in ("yes", "no"):
        vectors = build_class_embeddings(ACTIONS, dataclasses.replace(GLOVE, centre=centre)).vectors
        spread[centre] = float((vectors @ vectors.T)[~torch.eye(len(ACTIONS), dtype=torch.bool)].mean())
    assert spread["yes"] < 0.75 * spread["no"]


def test_words_that_the_vocabulary_lacks_get_stand_ins_and_the_log_says_so():
    result = build_class_embeddings(["Skijet", "cheerleading", "situp"], GLOVE)
    assert result.words == (("jetski",), ("cheerleading",), ("sit", "up"))
    assert "Skyjet -> jetski" in result.description
    assert "cheerlead -> cheerleading" in result.description
    with pytest.raises(InputError, match="situp"):  # no table of ours under none
        build_class_embeddings(["situp"], dataclasses.replace(GLOVE, rules="none"))


def test_all_missing_words_of_all_classes_in_one_error():
    names = [
        "juggling plonkets",
        "kayaking",
        "riding a frumble",
        "plonkets (toy)",
        "Face-planting",
        "parquetting floors: hard",
    ]
    with pytest.raises(InputError) as caught:
        build_class_embeddings([*names, "windsurffing"], GLOVE)
    message = str(caught.value)
    assert message.startswith("no vector for these words (4, in 5 classes) among the 400,000 words of GloVe-6B-50d")
    assert "in 'juggling plonkets', 'plonkets (toy)'" in message
    assert "windsurffing (near: windsurfing" in message
    assert "kayaking" not in message
    block = yaml.safe_load(message[message.index("  words:") :])
    assert set(block["words"]["replace"]) == {*names, "windsurffing"} - {"kayaking", "Face-planting"}
    assert block["words"]["replace"]["windsurffing"] == "windsurfing"
    replace = dict.fromkeys(block["words"]["replace"], "juggle ball")
    mended = build_class_embeddings([*names, "windsurffing"], dataclasses.replace(GLOVE, replace=replace))
    assert mended.words[0] == ("juggle", "ball")


def test_what_the_second_source_lacks_is_told_with_its_own_keys(tmp_path):
    also = WordSourceConfig(max_words=1000)
    with pytest.raises(InputError, match=r"\(words\.also\.max_words\)") as caught:
        build_class_embeddings(["zorbing"], WordsConfig(source="random", also=also))
    message = str(caught.value)
    assert "words.also.missing: random" in message
    assert yaml.safe_load(message[message.index("  words:") :]) == {"words": {"also": {"replace": {"zorbing": "..."}}}}
    also = WordSourceConfig(source="npz", path=str(tmp_path / "words.path"))
    with pytest.raises(InputError, match=r"^words\.also\.path: no file at '.*/words\.path'$"):
        build_class_embeddings(["zorbing"], WordsConfig(also=also))


def test_lines_to_paste_are_read_as_the_classes_that_they_are_of(tmp_path):
    names = ["no", "on", "null", "10_000", "2020-01-01", "12:30", 'say: it\'s "so"', "plain name"]
    with pytest.raises(InputError) as caught:
        build_class_embeddings(names, write_vocabulary(tmp_path / "v.txt", {"run": [1, 0]}))
    message = str(caught.value)
    assert set(yaml.safe_load(message[message.index("  words:") :])["words"]["replace"]) == set(names)
    assert "\n      plain name: " in message


def test_replacements_by_the_user(tmp_path):
    config = dataclasses.replace(GLOVE, replace={"playing_frisbee golf": "disc golf", "boing": "zzzyzx jump"})
    assert build_class_embeddings(["playing frisbee golf"], config).words == (("disc", "golf"),)
    with pytest.raises(InputError, match=r"zzzyzx.*in 'boing'"):
        build_class_embeddings(["boing"], config)


def test_max_words_is_named_when_it_may_be_the_reason():
    with pytest.raises(InputError, match=r"kayak .*|first 500 of the file \(words\.max_words\)"):
        build_class_embeddings(["kayaking"], dataclasses.replace(GLOVE, max_words=500))


def test_vectors_are_loaded_once_for_training_and_test_classes():
    assert (
        open_source(GLOVE).vocabulary
        is open_source(dataclasses.replace(GLOVE, rules="none", replace={"a": "b"})).vocabulary
    )


def test_random_vectors_belong_to_the_class_not_to_the_list():
    config = WordsConfig(source="random", dim=300, seed=3)
    one = build_class_embeddings(["BrushHair", "jump", "surf"], config)
    other = build_class_embeddings(["surf", "brush_hair"], config)
    torch.testing.assert_close(one.vectors[[2, 0]], other.vectors, rtol=0, atol=0)
    again = build_class_embeddings(["surf"], dataclasses.replace(config, seed=4))
    assert abs(float(again.vectors[0] @ one.vectors[2])) < 0.3
    torch.testing.assert_close(one.vectors.norm(dim=1), torch.ones(3))
    assert "random" in one.description


def test_random_vectors_know_no_meaning():
    names = [f"class {place}" for place in range(200)]
    vectors = build_class_embeddings(names, WordsConfig(source="random", dim=300)).vectors
    cosines = (vectors @ vectors.T)[~torch.eye(200, dtype=torch.bool)]
    assert abs(float(cosines.mean())) < 0.002
    assert float(cosines.std()) == pytest.approx(300**-0.5, rel=0.05)  # uniform on the sphere


def test_a_source_without_its_file_and_no_names_at_all():
    for source in ("word2vec", "npz"):
        with pytest.raises(InputError, match=rf"words\.source is {source}: name its file in words\.path"):
            build_class_embeddings(["a"], WordsConfig(source=source))
    with pytest.raises(InputError, match="no class names"):
        build_class_embeddings([], GLOVE)


# --- with the shared research data ---


@pytest.mark.parametrize(
    ("file", "num_classes"),
    [
        ("mmaction2__kinetics_label_map_k700.txt", 700),
        ("mmaction2__kinetics710_label_map_k710.txt", 710),
        ("mmaction2__ucf101_label_map.txt", 101),
        ("mmaction2__hmdb51_label_map.txt", 51),
        ("mmaction2__activitynet_label_map.txt", 200),
        ("tfds__sun397_labels.txt", 397),
    ],
)
def test_installed_glove_serves_every_published_class(file, num_classes):
    vectors = build_class_embeddings(class_list(file), GLOVE).vectors
    assert vectors.shape == (num_classes, 50)
    cosines = vectors @ vectors.T
    assert float(cosines[~torch.eye(num_classes, dtype=torch.bool)].max()) < 1 - 1e-6  # no two classes are one


def test_real_word2vec_reproduces_coverage_and_the_distances_of_the_reference():
    pytest.importorskip("gensim")
    config = WordsConfig(source="word2vec", path=str(shared("word_vectors/googlenews_26k_300d.bin")))
    vocabulary = open_source(config).vocabulary

    def covered(file: str) -> list[str]:
        return [name for name in class_list(file) if all(vocabulary.find(word) for word in class_words(name))]

    ucf = covered("mmaction2__ucf101_label_map.txt")
    assert len(ucf) == 81  # of 101, as the data's own notes count
    kinetics = build_class_embeddings(covered("mmaction2__kinetics_label_map_k700.txt"), config)
    tests = build_class_embeddings(ucf + covered("mmaction2__hmdb51_label_map.txt"), config)
    nearest = (1 - kinetics.vectors @ tests.vectors.T).min(dim=1).values
    # 664 and 662 of Kinetics-700 stay at tau 0.01 and 0.05: two classes lie between, and both are in this vocabulary
    between = [name for name, value in zip(kinetics.names, nearest.tolist(), strict=True) if 0.01 <= value < 0.05]
    assert sorted(between) == ["canoeing or kayaking", "throwing discus"]
    assert int((nearest < 1e-6).sum()) == int((nearest < 0.01).sum()) == 31


def test_a_name_has_one_vector_however_unicode_writes_it(tmp_path):
    names = [unicodedata.normalize(form, "flambé crêpes") for form in ("NFC", "NFD")]
    ready, vectors = tmp_path / "ready.npz", np.random.default_rng(0).normal(size=(2, 5))
    np.savez(ready, names=np.array([names[1], "run"]), vectors=vectors)
    for config in (
        WordsConfig(missing="random"),
        WordsConfig(replace={"FlambéCrêpes": "cook pancake"}),
        WordsConfig(source="random"),
        WordsConfig(source="npz", path=str(ready)),
    ):
        first, second = build_class_embeddings(names, config).vectors
        assert torch.equal(first, second)


def test_the_random_vectors_of_missing_words_are_of_the_seed():
    found = [
        build_class_embeddings(["qwertzing"], WordsConfig(missing="random", seed=seed)).vectors[0] for seed in (0, 1, 1)
    ]
    assert torch.equal(found[1], found[2]) and abs(found[0] @ found[1]) < 0.6
