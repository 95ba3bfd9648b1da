"""The config: every wrong key is an error that names it; what is right arrives typed."""

from pathlib import Path

import pytest
import yaml

from engine.config import load_config, save_config
from engine.errors import InputError

REPO = Path(__file__).resolve().parents[1]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_values_overrides_and_defaults_arrive_typed(tmp_path):
    path = write(
        tmp_path, "train: {lr: 1e-3, epochs: 7}\ndata: {train: [{manifest: a.parquet}, {manifest: b.parquet}]}\n"
    )
    overrides = [
        "train.milestones=[2, 4]",
        "data.train.1.classes=[x y]",
        "words.replace.faceplanting=face fall",
        "clip.flip=false",
    ]
    config = load_config(path, overrides)
    assert config.train.lr == 1e-3
    assert isinstance(config.train.lr, float)
    assert config.train.epochs == 7
    assert config.train.milestones == [2, 4]
    assert [source.classes for source in config.data.train] == [[], ["x y"]]
    assert config.words.replace == {"faceplanting": "face fall"}
    assert config.clip.flip is False
    assert config.train.batch_size == 22  # the paper's, Sec. 4.4


@pytest.mark.parametrize(
    ("text", "override", "says"),
    [
        ("train: {epoch: 3}", None, "unknown key 'train.epoch': did you mean 'train.epochs'"),
        ("trian: {epochs: 3}", None, "unknown key 'trian': did you mean 'train'"),
        ("train: {epochs: three}", None, "'train.epochs' must be of type int"),
        ("train: {epochs: true}", None, "'train.epochs' must be of type int"),
        ("run: {control: 1}", None, "'run.control' must be of type bool"),
        ("train: {epochs: 3, epochs: 4}", None, "key 'epochs' stands twice"),
        ("train: {lr: 1}\nrun: {seed: 1}\ntrain: {lr: 2}", None, "key 'train' stands twice, in lines 1 and 3"),
        ("train: {lr: -1}", None, "it must be at least 0"),
        ("model: {backbone: r2plus1d}", None, "did you mean 'r2plus1d_18'"),
        ("clip: {crop: 200}", None, "crop 200 does not fit in short_side 128"),
        ("data: {train: [{root: x}]}", None, "key 'data.train.0.manifest' is required"),
        ("data: {train: {manifest: x}}", None, "'data.train' must be a list"),
        ("train: [1, 2]", None, "'train' must be a section"),
        ("train: {epochs: null}", None, "'train.epochs'"),
        ("[]", None, "must be a mapping"),
        ("a: [", None, "config.yaml is not valid YAML: line 1, column 5: expected the node content"),
        ("run:\n\tseed: 1", None, "line 2, column 1: found character"),
        ("a: \x00", None, "special characters are not allowed"),
        ("{}", "train.milestones=[1", "is not valid YAML .line 1, column 3"),
        ("train: {lr: .nan}", None, "'train.lr' is nan: it must be a finite number"),
        ("{}", "train.lr=inf", "'train.lr' is inf: it must be a finite number"),
        ("{}", f"train.lr=1{'0' * 400}", "'train.lr' must be of type float"),
        ("run: {seed: 4294967296}", None, "'run.seed' is 4294967296: it must be at most"),
        ("data: {max_bad_share: 2}", None, "it must be at most 1"),
        ("data: {tests: [{manifest: x, part: unseen}]}", None, "section 'data.tests.0': .* a part needs a class_split"),
        ("data: {tests: [{manifest: x, class_split: {seed: 1}}]}", None, "class_split needs a part, train or unseen"),
        ("{}", "train.lrr=1", "did you mean 'train.lr'"),
        ("{}", "train.lr", "not of the form section.key=value"),
        ("{}", "data.train.0.root=x", "unknown key 'data.train.0'|must be a list"),
        ("data: {train: [{manifest: x}]}", "data.train.3.root=x", "'3' is not a place in a list of 1"),
    ],
)
def test_wrong_input_is_one_error_that_names_file_and_key(tmp_path, text, override, says):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=says) as caught:
        load_config(path, [override] if override else [])
    assert "\n" not in str(caught.value)


def test_yaml_cannot_build_objects(tmp_path):
    path = write(tmp_path, "run: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(InputError, match="not valid YAML"):
        load_config(path, [])


@pytest.mark.parametrize(("typed", "meant"), [("yes", "yes"), ("no", "no"), ("'yes'", "yes"), ("auto", "auto")])
def test_yes_and_no_are_words_where_they_are_choices(tmp_path, typed, meant):
    """YAML 1.1 reads them as booleans, in a file and on the command line."""
    assert load_config(write(tmp_path, f"words: {{centre: {typed}}}"), []).words.centre == meant
    assert load_config(write(tmp_path, ""), [f"words.centre={typed}"]).words.centre == meant


def test_missing_file():
    with pytest.raises(InputError, match=r"no config file at 'nowhere.yaml'"):
        load_config(Path("nowhere.yaml"), [])


def test_a_folder_in_place_of_a_config(tmp_path):
    with pytest.raises(InputError, match="is a folder: name a YAML file in it"):
        load_config(tmp_path, [])


def test_saved_config_reads_back_equal(tmp_path):
    path = write(
        tmp_path, "train: {lr: 3e-4}\nprocedural: {things: [ball, box]}\ndata: {train: [{manifest: a.parquet}]}\n"
    )
    config = load_config(path, [])
    saved = tmp_path / "saved.yaml"
    save_config(config, saved)
    assert load_config(saved, []) == config
    assert set(yaml.safe_load(saved.read_text())) == {
        "task", "run", "procedural", "data", "clip", "model", "words", "loss", "train", "evaluate", "checkpoint", "log",
    }  # fmt: skip


@pytest.mark.parametrize("path", sorted((REPO / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path):
    load_config(path, [])
