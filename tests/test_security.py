"""What this project's own code may not do: run a shell, load a pickle, evaluate text. Read from the source itself."""

import ast
from pathlib import Path

import pytest
import yaml

from engine.schema import files as schema_files
from tests.small_run import ROOT, call_tool

FOLDERS = ("engine", "kernels", "tools")
FORBIDDEN = {
    "eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads",
    "shelve.open", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "subprocess.getoutput",
    "subprocess.getstatusoutput",
}  # fmt: skip
# Calls that are safe with this argument only. For torch.hub: what is downloaded must have the hash in its name.
NEEDED = {
    "torch.load": {"weights_only": True},
    "torch.hub.load_state_dict_from_url": {"weights_only": True, "check_hash": True},
    "np.load": {"allow_pickle": False},
}
# Between the processes of one job, which Ray and multiprocessing pickle for themselves too; nothing of a file or a stranger.
OF_OUR_OWN = {("engine/cluster/ray_pool.py", "pickle.loads"), ("engine/cluster/remote.py", "pickle.loads")}
SAFE_LOADERS = {
    "_UniqueKeyLoader",
    "_FileLoader",
}  # of engine/schema/files.py; each is held to be a yaml.SafeLoader below


def test_the_loaders_of_yaml_are_safe_ones():
    assert all(issubclass(getattr(schema_files, name), yaml.SafeLoader) for name in SAFE_LOADERS)


def offences(source: str, file: str = "") -> list[str]:
    """The forbidden calls of a file, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), {keyword.arg: keyword.value for keyword in node.keywords}
        wanted = NEEDED.get(name, {})
        if (file, name) not in OF_OUR_OWN and (
            name in FORBIDDEN
            or any(ast.unparse(given.get(key, ast.Constant(None))) != str(value) for key, value in wanted.items())
            or (name == "yaml.load" and ast.unparse(given.get("Loader", ast.Constant(None))) not in SAFE_LOADERS)
            or (name.startswith(("subprocess.", "asyncio.create_subprocess")) and is_shell(node, given))
        ):
            found.append(f"{node.lineno}: {ast.unparse(node)[:80]}")
    return found


def is_shell(call: ast.Call, given: dict[str | None, ast.expr]) -> bool:
    """Whether a shell would read the command: asked for, or one string where a list of words belongs."""
    shell = given.get("shell")
    is_text = bool(call.args) and isinstance(call.args[0], ast.Constant | ast.JoinedStr | ast.BinOp)
    return (shell is not None and ast.unparse(shell) != "False") or is_text


def test_no_file_of_the_project_runs_a_shell_or_loads_code():
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 60
    names = {path.relative_to(ROOT).as_posix(): path for path in files}
    assert {name: found for name, path in names.items() if (found := offences(path.read_text("utf-8"), name))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)", "os.system('ffmpeg ' + path)", "subprocess.run(f'ffmpeg -i {path}', shell=True)",
        "subprocess.run('ffmpeg -i x')", "subprocess.Popen(command, shell=is_shell)", "torch.load(path)",
        "torch.load(path, weights_only=False)", "np.load(path)", "np.load(path, allow_pickle=True)", "pickle.load(file)",
        "yaml.load(text, Loader=yaml.Loader)", "yaml.load(text)", "torch.hub.load_state_dict_from_url(url)",
    ],
)  # fmt: skip
def test_the_reader_of_the_source_finds_each(line):
    assert len(offences(line)) == 1


def test_the_versions_are_listed_for_an_audit(monkeypatch, capsys):
    assert call_tool("doctor.py", "--versions", monkeypatch=monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line.split("==")) == 2 and "+" not in line for line in lines)
    assert {"torch", "av", "numpy", "pyarrow"} <= {line.partition("==")[0] for line in lines}


def test_ffmpeg_opens_nothing_that_a_file_names(tmp_path):
    """A playlist is a file that names others, also by network addresses; of a video only the file itself is opened."""
    from engine.data.pyav.probe import ProbeError, probe

    secret = tmp_path / "secret.ts"
    secret.write_bytes(b"G" * 188 * 10)
    listed = Path(tmp_path / "list.m3u8")
    listed.write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(ProbeError):
        probe(listed)
