"""The config: every wrong key is an error that names it; what is right arrives typed."""

import functools
import resource
from pathlib import Path

import pytest
import yaml

from engine.config import load_config, save_config
from engine.data.config import SourceConfig
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
        ("data: {train: [{manifest: {{data}}}]}", None, "a key in line 1 is no word but a list or a mapping"),
        ("run: {!!map folder: x}", None, "a key in line 1 is no word but a list or a mapping"),
        ("", "run.folder={{X}}", r"override 'run.folder=\{\{X\}\}': a key in line 1 is no word"),
        ("", "words.replace={[a]: b}", "override .* a key in line 1 is no word"),
        ("run: {folder: 2024-06-31}", None, "config.yaml is not valid YAML: day (is out of range|31 must be in range)"),
        ("", "run.folder=2024-06-31", "override 'run.folder=2024-06-31': the value is not valid YAML"),
        ("", "run.folder=" + "[" * 5000, "override .* nested too deeply for a config"),
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
        ("train: {lr: !!bool x}", None, "is not valid YAML: line 1, column 13: that is no value of its tag .*:bool"),
        ("{}", "train.lr=!!int ''", "is not valid YAML .line 1, column 1: that is no value of its tag .*:int"),
        ("{}", "train.lr=!!timestamp x", "that is no value of its tag .*:timestamp"),
        ("{}", "train.lr=!!map [1]", "is not valid YAML .line 1, column 1: expected a mapping node"),
        ("train: {lr: .nan}", None, "'train.lr' is nan: it must be a finite number"),
        ("{}", "train.lr=inf", "'train.lr' is inf: it must be a finite number"),
        ("{}", f"train.lr=1{'0' * 400}", "'train.lr' must be of type float"),
        ("data: {train: [{manifest: x, weight: 1e300}]}", None, "it must be at most 1e\\+06"),
        ("train: {max_skipped_steps: 99999999999999999999}", None, "999999999: it must be at most 2,147,483,647"),
        ("run: {seed: 4294967296}", None, "'run.seed' is 4294967296: it must be at most"),
        ("data: {max_bad_share: 2}", None, "it must be at most 1"),
        ("log: {sample_clips: 65}", None, "'log.sample_clips' is 65: it must be at most 64"),
        ("data: {tests: [{manifest: x, part: unseen}]}", None, "section 'data.tests.0': a part needs a class_split"),
        ("data: {tests: [{manifest: x, class_split: {seed: 1}}]}", None, "class_split needs a part, train or unseen"),
        ("{}", "train.lrr=1", "did you mean 'train.lr'"),
        ("{}", "train.lr", "not of the form section.key=value"),
        ("{}", "data.train.0.root=x", "unknown key 'data.train.0'|must be a list"),
        ("data: {train: [{manifest: x}]}", "data.train.3.root=x", "'3' is not a place in a list of 1"),
        ("data: {train: [{manifest: x}]}", "data.train.².root=x", "'²' is not a place in a list of 1"),
        ("base: gone.yaml", None, "config.yaml: its base: no config file at '.*gone.yaml'"),
        ("base: config.yaml", None, "take their keys from each other in a circle: .*config.yaml -> .*config.yaml"),
        ("base: [a.yaml]", None, r"'base' must name another config, not \['a.yaml'\]"),
    ],
)
def test_wrong_input_is_one_error_that_names_file_and_key(tmp_path, text, override, says):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=says) as caught:
        load_config(path, [override] if override else [])
    assert "\n" not in str(caught.value)


IDLE = [
    ("train: {momentum: 0.9}", "'train.momentum' needs train.optimizer sgd (here adam)"),
    ("train: {schedule: cosine, gamma: 0.5}", "'train.gamma' needs train.schedule milestones (here cosine)"),
    ("train: {schedule: cosine, milestones: [1]}", "'train.milestones' needs train.schedule milestones (here cosine)"),
    ("train: {compile: no, compile_mode: default}", "'train.compile_mode' needs train.compile auto or yes (here no)"),
    ("train: {sync_bn: true}\nmodel: {backbone: c3d}", "'train.sync_bn' needs model.backbone other than c3d"),
    ("train: {checkpoint_activations: true}\nmodel: {freeze_backbone: true}", "needs model.freeze_backbone False"),
    ("train: {exclude_overlap: {pretrained_classes: x}}", "needs model.weights other than None or train.init_from"),
    ("model: {form: flat, backbone: r3d_18}", "'model.form' needs model.backbone r2plus1d_18 or mc3_18 (here r3d_18)"),
    ("loss: {scale: 20}", "'loss.scale' needs loss.name aurl (here squared)"),
    ("loss: {synthetic_parents: 2}", "'loss.synthetic_parents' needs loss.name aurl (here squared)"),
    (
        "loss: {name: aurl, synthetic_weight: 0, synthetic_classes: 2}",
        "'loss.synthetic_classes' needs loss.synthetic_weight other than 0.0",
    ),
    ("words: {dim: 50}", "'words.dim' needs words.source random (here glove)"),
    ("words: {source: random, path: x}", "'words.path' needs words.source other than random"),
    (
        "words: {source: npz, path: x, missing: random}",
        "'words.missing' needs words.source glove or word2vec (here npz)",
    ),
    ("words: {source: sentence, rules: none}", "or words.text definition or both (here name)"),
    (
        "words: {also: {source: npz, path: x, seed: 1}}",
        "'words.also.seed' needs words.also.source random (here npz) or",
    ),
    ("evaluate: {weights: average}", "'evaluate.weights' needs train.ema_decay other than 0.0"),
    ("data: {tests: [{manifest: x, weight: 2}]}", "'data.tests.0.weight' needs a place in data.train"),
    ("data: {train: [{manifest: x, video_seed: 1}]}", "needs data.train.0.video_share other than 1.0"),
    ("data: {validation: {video_share: 0, seed: 1}}", "video_share other than 0.0 or data.validation.num_classes"),
    ("run: {device: cuda, cpu_threads: 2}", "'run.cpu_threads' needs run.device auto or cpu (here cuda)"),
]


@pytest.mark.parametrize(("text", "says"), IDLE, ids=[says.split("'")[1] if "'" in says else says for _, says in IDLE])
def test_a_key_that_cannot_matter_is_refused_in_a_file_and_on_the_command_line(tmp_path, text, says):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_config(path, [])
    assert says in str(caught.value) and str(caught.value).startswith(f"{path}: ")
    overrides = [f"{section}={yaml.safe_dump(keys)}" for section, keys in yaml.safe_load(text).items()]
    with pytest.raises(InputError) as again:
        load_config(write(tmp_path, ""), overrides)
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("train: {optimizer: sgd, momentum: 0.8}", ("train", "momentum"), 0.8),
        ("train: {compile_mode: max-autotune}", ("train", "compile_mode"), "max-autotune"),
        ("loss: {name: aurl, synthetic_parents: 2}", ("loss", "synthetic_parents"), 2),
        ("words: {missing: random, seed: 4}", ("words", "seed"), 4),
        ("words: {source: sentence, text: definition, undefined: name, prompt: a}", ("words", "prompt"), "a"),
        ("data: {validation: {video_share: 0, num_classes: 2, seed: 1}}", ("data", "validation", "seed"), 1),
        ("train: {init_from: x, exclude_overlap: {pretrained_classes: y}}", ("train", "init_from"), "x"),
    ],
)
def test_the_same_keys_pass_where_they_matter(tmp_path, text, key, value):
    assert functools.reduce(getattr, key, load_config(write(tmp_path, text), [])) == value


def test_a_key_of_the_file_may_lose_its_sense_or_get_it_by_an_override(tmp_path):
    path = write(tmp_path, "train: {optimizer: sgd, momentum: 0.8}\n")
    assert load_config(path, ["train.optimizer=adam"]).train.momentum == 0.9  # as if it were not there
    assert load_config(write(tmp_path, "loss: {scale: 5}"), ["loss.name=aurl"]).loss.scale == 5
    with pytest.raises(InputError, match=r"'loss.scale' needs loss.name aurl \(here mse\)"):
        load_config(path, ["loss.name=mse"])


def test_a_section_that_is_all_commented_out_is_as_one_that_is_not_there(tmp_path):
    (tmp_path / "base.yaml").write_text("train: {epochs: 7, lr: 0.5}\nprocedural: {folder: p}\n")
    config = load_config(write(tmp_path, "base: base.yaml\ntrain:\n  # epochs: 3\nprocedural: null\n"), [])
    assert (config.train.epochs, config.train.lr) == (7, 0.5)
    assert config.procedural is None  # written, and so taken away
    assert load_config(write(tmp_path, "train:\nwords:\n"), []) == load_config(write(tmp_path, ""), [])
    with pytest.raises(InputError, match=r"'train.lr' must be of type float|'train.lr' must not be empty"):
        load_config(write(tmp_path, "train:\n  lr:\n"), [])


def test_a_section_within_a_section_that_is_all_commented_out_is_its_bases(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "train: {exclude_overlap: {tau: 0.2}}\nwords: {replace: {a: b}}\nmodel: {weights: w}\ndata: {train: [{manifest: a}]}\n"
    )
    own = (
        "train:\n  exclude_overlap:\n    # tau: 0.1\nwords: {replace: }\nmodel: {weights: }\n"
        "data: {train: [{manifest: b, root: }]}\n"
    )
    config = load_config(write(tmp_path, "base: base.yaml\n" + own), [])
    assert config.train.exclude_overlap.tau == 0.2 and config.words.replace == {"a": "b"}
    assert config.model.weights is None and config.data.train[0].root is None  # values: a blank is null
    away = load_config(write(tmp_path, "base: base.yaml\ntrain: {exclude_overlap: null}\n"), [])
    assert away.train.exclude_overlap.tau == 0.05
    assert load_config(write(tmp_path, own.replace("words: {replace: }\n", "")), []).train.exclude_overlap.tau == 0.05


def test_a_config_takes_the_keys_of_its_base(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "first.yaml").write_text(
        "train: {lr: 0.5, epochs: 7, optimizer: sgd, momentum: 0.8}\nwords: {replace: {a: b}}\n"
        "data: {train: [{manifest: a, weight: 2}, {manifest: b}], clips_per_epoch: 9}\n"
    )
    (tmp_path / "second.yaml").write_text("base: below/first.yaml\ntrain: {epochs: 8}\nwords: {replace: {c: d}}\n")
    path = write(tmp_path, "base: second.yaml\ntrain: {optimizer: adam}\ndata: {train: [{manifest: c}]}\n")
    config = load_config(path, ["train.warmup_epochs=1"])
    assert (config.train.lr, config.train.epochs, config.train.optimizer) == (0.5, 8, "adam")
    assert config.train.momentum == 0.9  # its base's, which lost its sense
    assert config.words.replace == {"a": "b", "c": "d"}
    assert [source.manifest for source in config.data.train] == ["c"] and config.data.clips_per_epoch == 9
    save_config(config, tmp_path / "saved.yaml")
    assert "base" not in yaml.safe_load((tmp_path / "saved.yaml").read_text())
    (tmp_path / "below" / "first.yaml").write_text("base: ../config.yaml")
    with pytest.raises(
        InputError, match=r"in a circle: .*config\.yaml -> .*second\.yaml -> .*first\.yaml -> .*config\.yaml"
    ):
        load_config(path, [])


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


def test_a_config_that_finds_no_room_leaves_the_one_before(tmp_path):
    """A limit of the file's size cuts it short, as a full disk does."""
    config, saved = load_config(write(tmp_path, ""), []), tmp_path / "saved.yaml"
    save_config(config, saved)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*saved.yaml"):
            save_config(config, saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_config(saved, []) == config and len(list(tmp_path.iterdir())) == 2


def test_saved_config_reads_back_equal(tmp_path):
    path = write(
        tmp_path, "train: {lr: 3e-4}\nprocedural: {things: [ball, box]}\ndata: {train: [{manifest: a.parquet}]}\n"
    )
    config = load_config(path, [])
    saved = tmp_path / "saved.yaml"
    save_config(config, saved)
    assert load_config(saved, []) == config
    assert set(yaml.safe_load(saved.read_text())) == {
        "task", "run", "procedural", "data", "moments", "masked", "clip", "model", "words", "loss", "train", "evaluate",
        "checkpoint", "log",
    }  # fmt: skip


def test_paths_that_begin_at_home_are_kept_as_they_are_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "run: {folder: ~/runs/a}\nwords: {source: sentence, text: both, definitions: [~/a.json, b.json]}\n")
    own = tmp_path / "own.yaml"
    own.write_text("base: ~/config.yaml\ndata: {train: [{manifest: m.parquet, root: s3://bucket/~x}]}\n")
    config = load_config(own, ["data.train.0.manifest=~/m.parquet", "words.prompt=~ {name}"])
    assert config.run.folder == f"{tmp_path}/runs/a"
    assert config.words.definitions == [f"{tmp_path}/a.json", "b.json"] and config.words.prompt == "~ {name}"
    assert (config.data.train[0].manifest, config.data.train[0].root) == (f"{tmp_path}/m.parquet", "s3://bucket/~x")
    save_config(config, tmp_path / "saved.yaml")
    assert "~/" not in (tmp_path / "saved.yaml").read_text() and load_config(tmp_path / "saved.yaml", []) == config
    source = SourceConfig.parse("~/data/manifest.parquet:test")
    assert (source.manifest, source.name) == (f"{tmp_path}/data/manifest.parquet", "data-test")


CONFIGS = [path for path in sorted((REPO / "configs").rglob("*.yaml")) if path.parent.name != "methods"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path, tmp_path):
    """As is what its run saves, where all keys are written, those too that cannot matter."""
    config = load_config(path, [])
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml", []) == config
