"""Class overlap: the published facts from real word vectors, and what a run does about it."""

import csv
import dataclasses
import re
from pathlib import Path

import pytest
import torch

from engine.config import Config
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.models.weights import kinetics400_classes, weights_classes
from engine.processes.distributed import Ranks
from engine.processes.preemption import StopVote
from engine.schema.parser import parse
from engine.semantics.class_lists import read_class_names
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import OverlapConfig, WordsConfig, WordSourceConfig
from engine.semantics.overlap import (
    check_pretrained,
    near_classes,
    nearest_of_any,
    nearest_test_classes,
    overlap_table,
    overlapping,
    remove_overlap,
    seen_before,
)
from engine.semantics.same_names import are_one_class, changed_classes, same_named, says_the_same
from engine.tasks.zero_shot.control import random_vectors
from engine.training.build import build_run
from engine.training.run import save_run
from tests.rows import row

GLOVE = WordsConfig()
# Every word a random vector: only names of the same words are near each other.
WORDS_ALONE = WordsConfig(source="random", dim=64)


@pytest.fixture(scope="module")
def lists(shared_data) -> dict[str, tuple[str, ...]]:
    files = {"kinetics": "kinetics_label_map_k700", "ucf": "ucf101_label_map", "hmdb": "hmdb51_label_map",
             "activitynet": "activitynet_label_map"}  # fmt: skip
    return {key: read_class_names(shared_data / f"class_lists/mmaction2__{file}.txt") for key, file in files.items()}


@pytest.fixture(scope="module")
def google(shared_data) -> WordsConfig:
    pytest.importorskip("gensim")
    path = shared_data / "word_vectors" / "googlenews_26k_300d.bin"
    return WordsConfig(source="word2vec", path=str(path), missing="random")


@pytest.mark.parametrize(
    ("tests", "tau", "left", "of_other_names"),
    [
        (("ucf", "hmdb"), 0.01, 664, 656),
        (("ucf", "hmdb"), 0.05, 662, 655),
        (("ucf", "hmdb", "activitynet"), 0.01, 587, 582),
        (("ucf", "hmdb", "activitynet"), 0.05, 586, 581),
    ],
)
def test_kinetics_700_shrinks_to_the_published_number(lists, google, tests, tau, left, of_other_names):
    training, sets = [("k", lists["kinetics"])], [(name, lists[name]) for name in tests]
    neighbours = nearest_test_classes(training, sets, google)
    assert len(neighbours) == 700
    assert 700 - len(overlapping(neighbours, tau)) == left
    removed, _ = remove_overlap(OverlapConfig(tau=tau, training="remove"), training, sets, google)
    assert 700 - len(removed) == of_other_names
    kept = [name for name in lists["kinetics"] if name not in removed]
    assert not same_named(kept, [name for _, names in sets for name in names])


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("tai chi", "TaiChi", True), ("riding a bike", "ride_bike", True), ("throwing discus", "ThrowDiscus", True),
        ("skydiving", "SkyDive", True), ("walking the dog", "walk dog", True), ("sings", "singing", True),
        ("Push-Up", "pushup", True), ("привет мир", "Привет_мир", True), ("caf\u00e9", "cafe\u0301", True),
        ("put in", "put on", False), ("man and horse", "man or horse", False), ("tapping", "taping", False),
        ("scraping", "scrapping", False), ("planing", "planning", False), ("singing", "singe", False),
        ("1_12", "11_2", False), ("1 12", "11 2", False), ("+1", "-1", False), ("C", "C++", False),
        ("open door (not car)", "open door (not house)", False), ("a", "the", False), ("?", "!", False),
    ],
)  # fmt: skip
def test_names_of_one_class(one, other, are_one):
    assert are_one_class(one, other) == are_one_class(other, one) == are_one
    assert same_named([one, "zorbing"], [other, "surfing"]) == ({one: [other]} if are_one else {})


def test_a_name_in_another_spelling_overlaps_however_far_its_vector_lies():
    """GloVe has "taichi" and "pullups" as words of their own, far from "tai chi" and "pull ups"."""
    training, tests = [("t", ["tai chi", "pull ups", "riding a bike", "surfing"])], [("u", ["HeadMassage", "TaiChi"]),
                                                                                   ("v", ["PullUps", "ride_bike"])]  # fmt: skip
    with pytest.raises(InputError, match=r"3 training classes overlap .*the same name, or cosine .*'pull ups' is v"):
        remove_overlap(OverlapConfig(), training, tests, GLOVE)
    config = OverlapConfig(tau=0.01, training="remove")
    removed, (note,) = remove_overlap(config, training, tests, GLOVE)
    assert removed == ["pull ups", "riding a bike", "tai chi"]
    assert "left out 3 classes within 0.01 of a test class or of its name" in note
    assert re.search(r"'tai chi' is u 'TaiChi' \(the same name, [01]\.[1-9]", note)  # not HeadMassage, which is nearer
    hint = "same_names=no takes the distance alone, as versions before did"
    with pytest.raises(InputError, match=f"with =allow; train.exclude_overlap.{hint}"):
        remove_overlap(OverlapConfig(), training, tests, GLOVE)
    by_distance = dataclasses.replace(config, same_names=False)
    assert remove_overlap(by_distance, training, tests, GLOVE) == ([], [])
    with pytest.raises(InputError, match="pretrained on 3 classes that overlap"):
        check_pretrained(OverlapConfig(), training[0][1], tests, GLOVE)
    # within tau of a class: that one is named, or the one of its name, once
    near = near_classes(OverlapConfig(), [("t", ["archery", "surfing"])], [("u", ["Archery", "archery"])], GLOVE)
    assert [(row.name, row.distance) for row in near] == [("archery", 0.0)]


def test_distances_the_paper_shows(lists, google):
    tests = [("ucf", lists["ucf"]), ("hmdb", lists["hmdb"])]
    near = {found.name: found for found in nearest_test_classes([("k", lists["kinetics"])], tests, google)}
    assert (near["archery"].test_class, near["archery"].distance) == ("Archery", 0.0)
    assert (near["hula hooping"].test_class, near["hula hooping"].distance) == ("HulaHoop", 0.0)  # hula: no vector
    assert (near["kissing"].test_class, near["kissing"].test_set) == ("kiss", "hmdb")
    assert near["canoeing or kayaking"].test_class == "Kayaking"
    assert near["throwing discus"].test_class in ("ThrowDiscus", "JavelinThrow")
    assert 0 < near["canoeing or kayaking"].distance < 0.05
    assert 0 < near["throwing discus"].distance < 0.05
    assert near["abseiling"].distance > 0.1


def test_nearest_over_all_sets_by_the_definition():
    training = [("a", ["riding a bike", "cooking"]), ("b", ["walking the dog", "playing violin", "cooking"])]
    tests = [("one", ["Biking", "HorseRiding"]), ("two", ["WalkingWithDog", "PlayingCello", "Cooking"])]
    found = nearest_test_classes(training, tests, GLOVE)
    assert [r.distance for r in found] == sorted(r.distance for r in found)
    assert sorted((r.source, r.name) for r in found) == sorted((s, name) for s, names in training for name in names)
    names = [name for _, part in tests for name in part]
    vectors = build_class_embeddings(names, GLOVE).vectors.double()
    for neighbour in found:
        distance = 1 - vectors @ build_class_embeddings([neighbour.name], GLOVE).vectors[0].double()
        assert names[int(distance.argmin())] == neighbour.test_class
        assert neighbour.distance == pytest.approx(float(distance.min()), abs=1e-6)
    assert found[0].distance == found[1].distance == found[2].distance == 0.0  # cooking twice, walking the dog
    assert nearest_test_classes(training, [], GLOVE) == []


def test_missing_words_may_be_random_and_then_same_names_still_meet(tmp_path):
    names = ["zorbing", "Zorbing", "zorbing blindfolded", "qwertzing"]
    config = WordsConfig(missing="random", replace={"qwertzing": "qwertz qwertz"})
    vectors = build_class_embeddings(names, config)
    cosine = vectors.vectors @ vectors.vectors.T
    assert cosine[0, 1] == pytest.approx(1, abs=1e-6)
    assert 0.4 < cosine[0, 2] < 0.95  # one word of two
    assert abs(cosine[0, 3]) < 0.5
    assert "random vectors for" in vectors.description
    assert "qwertz" in vectors.description
    with pytest.raises(InputError, match="missing: random"):
        build_class_embeddings(["qwertzing"], WordsConfig(replace=config.replace))
    others = build_class_embeddings(["qwertzing"], WordsConfig(missing="random", seed=1, replace=config.replace))
    assert abs(float(others.vectors[0] @ vectors.vectors[3])) < 0.9
    # Training says of which words of either side it knows nothing.
    for training in (["walking"], ["zorbing"]):
        _, notes = remove_overlap(OverlapConfig(training="remove"), [("t", training)], [("u", ["qwertzing"])], config)
        assert "compared by" in notes[0]
        assert "qwertz" in notes[0].split("random vectors for")[1]
    known = build_class_embeddings(["walking"], config).vectors
    assert torch.equal(known, build_class_embeddings(["walking"], GLOVE).vectors)


def test_words_that_a_second_source_lacks_are_random_for_names_that_nobody_chose():
    words = WordsConfig(source="random", dim=64, also=WordSourceConfig())
    first, second = nearest_of_any([("t", ["zorbing", "cello"])], [("weights", ["cello", "qwertzing"])], words)
    assert (first.name, first.test_class, first.distance) == ("cello", "cello", 0.0) and second.distance > 0.3
    with pytest.raises(InputError, match="qwertzing") as caught:
        nearest_test_classes([("t", ["zorbing"])], [("weights", ["qwertzing"])], words)
    assert "zorbing" in str(caught.value)  # one error for both sides
    known = WordsConfig(source="random", also=WordSourceConfig(missing="random"))
    _, notes = remove_overlap(OverlapConfig(), [("t", ["walking"])], [("u", ["qwertzing"])], known)
    assert "qwertz" in notes[0].split("random vectors for")[1]


def test_remove_refuse_allow():
    training, tests = [("t", ["walking the dog", "cooking"])], [("ucf", ["WalkingWithDog"])]
    with pytest.raises(
        InputError, match=r"1 training classes overlap .*'walking the dog' is ucf 'WalkingWithDog' \(0.000"
    ):
        remove_overlap(OverlapConfig(), training, tests, GLOVE)
    removed, notes = remove_overlap(OverlapConfig(training="remove"), training, tests, GLOVE)
    assert removed == ["walking the dog"]
    assert notes == [
        "left out 1 classes within 0.05 of a test class: 'walking the dog' is ucf 'WalkingWithDog' (0.000)"
    ]
    removed, notes = remove_overlap(OverlapConfig(training="allow"), training, tests, GLOVE)
    assert removed == []
    assert notes[0].startswith("NOT ZERO-SHOT")
    # words that names share count where the config says so, each class once and with the nearest name
    alike = OverlapConfig(tau=0.01, training="remove", same_words=True)
    sets = [("t", ["kicking ball", "cooking", "push ups", "walking the dog"])], [
        ("u", ["catching ball", "WalkingWithDog"]), ("v", ["throwing ball", "wall push ups", "sleeping"]),
    ]  # fmt: skip
    removed, notes = remove_overlap(alike, *sets, GLOVE)
    assert removed == ["kicking ball", "push ups", "walking the dog"]
    assert "left out 3 classes within 0.01 of a test class or sharing its words: 'walking the dog' is u" in notes[0]
    nearest = nearest_test_classes(
        [("t", ["kicking ball"])], [("u", ["catching ball"]), ("v", ["throwing ball"])], GLOVE
    )
    assert str(nearest[0]) in notes[0] and "'push ups' is v 'wall push ups'" in notes[0]
    assert remove_overlap(OverlapConfig(tau=0.01, training="remove"), *sets, GLOVE)[0] == ["walking the dog"]
    # tau decides, and words of its own are used in place of the run's
    assert remove_overlap(OverlapConfig(tau=2.0, training="remove"), training, tests, GLOVE)[0] == [
        "cooking",
        "walking the dog",
    ]
    assert remove_overlap(OverlapConfig(words=WORDS_ALONE), training, tests, GLOVE) == ([], [])


@pytest.mark.parametrize("is_own", [True, False])
def test_words_without_vectors_on_either_side_are_one_error(is_own):
    """It tells of other vectors for the comparison only where the run itself can do without these."""
    config = OverlapConfig() if is_own else OverlapConfig(words=GLOVE)
    sets = [("t", ["walking", "jumpping rop"]), ("s", ["qwertzing"])], [("u", ["surfing"]), ("v", ["хоккей"])]
    with pytest.raises(InputError) as caught:
        remove_overlap(config, *sets, GLOVE)
    told = str(caught.value)
    assert all(f"{word} (" in told for word in ("jumpping", "qwertzing", "хоккей")) and "3 classes" in told
    assert ("train.exclude_overlap.words" in told) == (not is_own)


def test_classes_of_kinetics400_weights_count_as_training_classes():
    tests = [("ucf", ["Archery", "YoYo"])]
    with pytest.raises(InputError, match=r"pretrained on 1 classes .*'archery' is ucf 'Archery'"):
        check_pretrained(OverlapConfig(), kinetics400_classes(), tests, GLOVE)
    allowed = check_pretrained(OverlapConfig(pretrained="allow"), kinetics400_classes(), tests, GLOVE)
    assert "near 1 test classes" in allowed[0]
    both = [("ucf", ["Archery", "YoYo"]), ("activitynet", ["archery"])]
    allowed = check_pretrained(OverlapConfig(pretrained="allow"), kinetics400_classes(), both, GLOVE)
    assert "pretrained on 1 classes near 2 test classes" in allowed[0]
    assert check_pretrained(OverlapConfig(), (), tests, GLOVE) == []


def test_classes_of_the_installed_weights_count_too_whatever_words_their_names_hold():
    """Many of ImageNet's names are Latin: what GloVe has no vector for is compared by its spelling."""
    seen = weights_classes("installed")
    with pytest.raises(InputError, match=r"pretrained on 1 classes .*'swing' is ucf 'Swing'"):
        check_pretrained(OverlapConfig(), seen, [("ucf", ["Swing", "Archery"])], GLOVE)
    allowed = check_pretrained(
        OverlapConfig(pretrained="allow"), seen, [("mine", ["sway", "galeocerdo cuvieri"])], GLOVE
    )
    assert "'Galeocerdo cuvieri' is mine 'galeocerdo cuvieri' (0.000)" in allowed[0]
    assert check_pretrained(OverlapConfig(), seen, [("ucf", ["Archery"])], GLOVE) == []


def test_weights_that_knew_no_class_have_seen_none():
    assert seen_before([("mine", ["Archery"])], ("a run", ()), GLOVE, 0.05).rows == []


def test_csv_and_list_of_names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("# two classes\ncooking\n\n walking the dog \ncooking\n")
    names = read_class_names(path)
    assert names == ("cooking", "walking the dog")
    neighbours = nearest_test_classes([("mine", names)], [("ucf", ["WalkingWithDog"])], GLOVE)
    overlap_table(neighbours, overlapping(neighbours, 0.05)).write_csv(tmp_path / "o.csv")
    with (tmp_path / "o.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["training_class"], r["nearest_test_class"], r["overlaps"]) for r in rows] == [
        ("walking the dog", "WalkingWithDog", "1"), ("cooking", "WalkingWithDog", "0"),
    ]  # fmt: skip
    path.write_text("\n")
    with pytest.raises(InputError, match="holds no class names"):
        read_class_names(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_class_names(tmp_path / "nothing.txt")


def run_config(folder: Path, **sections: dict) -> Config:
    """A run over two training sets; rows of no file: nothing is decoded here."""
    sets = {"one": ["walking the dog", "cooking"], "two": ["archery", "running"], "test": ["WalkingWithDog", "Archery"]}
    for name, classes in sets.items():
        rows = [row(f"{c}/{i}.mp4", c, group=f"g{i}") for c in classes for i in range(4)]
        Manifest.from_rows(rows, folder).save(folder / f"{name}.parquet")
    sources = [{"manifest": str(folder / f"{name}.parquet"), "name": name} for name in sets]
    tree = {
        "run": {"folder": str(folder / "run"), "device": "cpu"},
        "data": {"train": sources[:2], "tests": sources[2:]},
        "clip": {"num_frames": 4, "short_side": 32, "crop": 24},
        "model": {"backbone": "r3d_18", "width": 4},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return parse(Config, tree)


RANKS = Ranks(torch.device("cpu"))


def test_a_run_leaves_overlapping_classes_of_all_sets_out_and_says_so(tmp_path):
    with pytest.raises(InputError, match="2 training classes overlap"):
        build_run(run_config(tmp_path), RANKS, StopVote())
    config = run_config(tmp_path, train={"exclude_overlap": {"training": "remove"}})
    run = build_run(config, RANKS, StopVote())
    assert run.task.sets.train.classes == ("cooking", "running")
    assert not set(run.task.sets.held_out_videos.data.classes) & {"archery", "walking the dog"}
    assert "left out 2 classes" in run.notes[0]
    control = build_run(random_vectors(config, 50), RANKS, StopVote())  # random vectors, the same classes
    assert control.task.sets.train.classes == run.task.sets.train.classes
    with pytest.raises(InputError, match="no training class is left"):
        build_run(run_config(tmp_path, train={"exclude_overlap": {"training": "remove", "tau": 2}}), RANKS, StopVote())


def test_a_run_of_before_is_told_which_classes_it_would_lose_and_how_it_goes_on(tmp_path):
    """Those of a test class's name stayed in while only distances counted."""
    overlap = {"training": "allow"}
    state = build_run(run_config(tmp_path, train={"exclude_overlap": overlap}), RANKS, StopVote()).task.state()
    now = build_run(run_config(tmp_path, train={"exclude_overlap": {"training": "remove"}}), RANKS, StopVote()).task
    assert now.changes(state) == ["training classes (without 'archery', 'walking the dog')"]
    assert changed_classes(["tai chi", "surfing"], ["surfing"], ["Archery", "TaiChi"]) == (
        "training classes (without 'tai chi'; names of test classes, which earlier versions left in, as "
        "train.exclude_overlap.same_names=no does)"
    )
    assert now.changes(now.state()) == []
    others = [*state["train_classes"], *(f"class {index}" for index in range(9))]
    assert now.changes({**state, "train_classes": others})[0].endswith("'class 4', 'class 5', ...)")
    assert now.changes({**now.state(), "train_classes": ["running", "cooking"]}) == ["order of training classes"]


def test_weights_of_an_earlier_run_bring_their_classes_along(tmp_path):
    allowed = {"training": "allow"}
    first = build_run(run_config(tmp_path, train={"exclude_overlap": allowed}), RANKS, StopVote())
    save_run(first, tmp_path / "first.pt")
    removing = {"init_from": str(tmp_path / "first.pt"), "exclude_overlap": {"training": "remove"}}
    with pytest.raises(InputError, match="pretrained on 2 classes"):
        build_run(run_config(tmp_path, train=removing), RANKS, StopVote())
    removing["exclude_overlap"]["pretrained"] = "allow"
    second = build_run(run_config(tmp_path, train=removing), RANKS, StopVote())
    assert set(second.task.prior_classes) == {"archery", "cooking", "running", "walking the dog"}
    save_run(second, tmp_path / "second.pt")  # what it started from is still known one run later
    third = {"init_from": str(tmp_path / "second.pt"), "exclude_overlap": {"training": "remove"}}
    with pytest.raises(InputError, match="pretrained on 2 classes"):
        build_run(run_config(tmp_path, train=third), RANKS, StopVote())
    # as a file for model.weights the checkpoint's classes are known too; of a bare state dict they are not
    model = {"weights": str(tmp_path / "second.pt"), "backbone": "r3d_18", "width": 4}
    with pytest.raises(InputError, match="pretrained on 2 classes"):
        build_run(
            run_config(tmp_path, model=model, train={"exclude_overlap": {"training": "remove"}}), RANKS, StopVote()
        )
    torch.save(first.model.state_dict(), tmp_path / "bare.pt")
    bare = build_run(
        run_config(tmp_path, model=model | {"weights": str(tmp_path / "bare.pt")}, train={"exclude_overlap": allowed}),
        RANKS,
        StopVote(),
    )
    assert any("is not known" in note for note in bare.notes)


def test_a_known_name_made_of_the_words_of_another_says_the_same_and_not_the_other_way_round():
    assert says_the_same("horse", "horse riding") and not says_the_same("horse riding", "horse")
