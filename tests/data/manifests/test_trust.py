"""Manifests, configs and names that come from someone else."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.config import load_config
from engine.data.config import SourceConfig
from engine.data.manifests.manifest import Manifest
from engine.data.sets.sources import load_source
from engine.errors import InputError
from engine.processes.distributed import Ranks, choose_device
from engine.training.telemetry import Telemetry
from tests.rows import row


def source(tmp_path, *paths, **keys):
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    Manifest.from_rows([row(path, "walk") for path in paths], root).save(tmp_path / "m.parquet")
    return SourceConfig(str(tmp_path / "m.parquet"), **keys)


@pytest.mark.parametrize(("path", "why"), [("/etc/passwd", "absolute"), ("a/../../x.mp4", "goes up by ..")])
def test_paths_that_leave_the_root_are_refused_unless_allowed(tmp_path, path, why):
    with pytest.raises(InputError, match=f"m.parquet' names '{path}', which leaves its root .*{why}.*allow_outside"):
        load_source(source(tmp_path, "good.mp4", path))
    assert len(load_source(source(tmp_path, "good.mp4", path, allow_outside=True)).manifest) == 2


def test_symbolic_links_out_of_the_root_are_refused_and_those_within_are_not(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    (root / "real").mkdir(parents=True)
    outside.mkdir()
    for folder in (outside, root / "real"):
        (folder / "x.mp4").write_bytes(b"x")
    (root / "linked").symlink_to(root / "real")
    (root / "file.mp4").symlink_to(root / "real" / "x.mp4")
    assert len(load_source(source(tmp_path, "linked/x.mp4", "file.mp4")).manifest) == 2
    (root / "escape").symlink_to(outside)
    (root / "real" / "escape.mp4").symlink_to(outside / "x.mp4")
    for path in ("escape/x.mp4", "real/escape.mp4", "linked/escape.mp4"):
        with pytest.raises(InputError, match=f"'{path}'.*a symbolic link leads out"):
            load_source(source(tmp_path, path))
        load_source(source(tmp_path, path, allow_outside=True))
    linked_root = tmp_path / "another name of the root"  # a data set behind a link is no way out
    linked_root.symlink_to(root)
    assert len(load_source(source(tmp_path, "real/x.mp4", root=str(linked_root))).manifest) == 1


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"width": 100_000, "height": 100_000},
            r"1 video\(s\) over max_pixels = 1.34218e\+08, .*'huge.mp4' with 1e\+10",
        ),
        ({"duration": 36_000.0}, r"1 video\(s\) over max_hours = 8, .*'huge.mp4' with 10"),
    ],
)
def test_videos_over_the_limits_are_refused(tmp_path, values, says):
    root = tmp_path / "root"
    rows = [row("small.mp4", "walk"), row("huge.mp4", "walk", **values)]
    Manifest.from_rows(rows, root).save(tmp_path / "m.parquet")
    with pytest.raises(InputError, match=says):
        load_source(SourceConfig(str(tmp_path / "m.parquet")))
    raised = SourceConfig(str(tmp_path / "m.parquet"), max_pixels=10**10, max_hours=10.0)
    assert len(load_source(raised).manifest) == 2


LAUGHS = "a: &a [lol, lol]\n" + "".join(
    f"{y}: &{y} [{', '.join([f'*{x}'] * 9)}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("run: {folder: x}\n" + "# filler\n" * 150_000, "bytes, a config at most 1048576"),
        (LAUGHS, r"alias '\*a' in line 2"),
        ("run: " + "[" * 100_000, "nested too deeply"),
        ("run: !!python/object/apply:os.system ['echo hacked']", "not valid YAML"),
    ],
)
def test_hostile_configs_are_refused(tmp_path, text, says, capfd):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        load_config(path, [])
    assert "hacked" not in capfd.readouterr().out


def test_names_are_escaped_for_the_browser_and_the_terminal(tmp_path, capsys):
    ranks = Ranks(choose_device("cpu"))
    telemetry = Telemetry(tmp_path, ranks, every_steps=1, batch_size=1, total_steps=1, first_step=0)
    telemetry.scalars(1, {"unseen/<img src=x onerror=alert(1)>/top1": 0.5})
    telemetry.message("bad file: \x1b]0;owned\x07 evil\r.mp4")
    telemetry.close()
    tags = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Tags()["scalars"]
    assert tags == ["unseen/&lt;img src=x onerror=alert(1)&gt;/top1"]
    for shown in (capsys.readouterr().out, (tmp_path / "log.txt").read_bytes().decode()):
        assert shown == "bad file: \\x1b]0;owned\\x07 evil\\r.mp4\n"
