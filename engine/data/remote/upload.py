"""A store into object storage while it is made: shards as they are full, what names them last, so it appears whole or not at all.

    shard is full ──▶ put ──▶ are these its bytes? ──▶ journal ──▶ its file goes    at the end: last shard, motion, index, manifest

What stands in the journal and is there still is not put again. A kill between the bytes and their line is told by the bytes:
they are there. What is there and stands in no journal of this machine is another's, and is never written over.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engine.data.remote.objects import read_range, state_of, upload
from engine.data.remote.settings import cache_folder
from engine.data.remote.states import State
from engine.data.store.index import CODECS, INDEX_NAME, MANIFEST_NAME, MOTION_NAME, shard_number, shard_path
from engine.errors import InputError, SourceGone
from engine.files.addresses import url_of
from engine.files.json_lines import JsonLines, read_json_lines, understood
from engine.terminal.progress import Progress, say

_JOURNAL_NAME = "uploaded.jsonl"
_NAMES = (MOTION_NAME, INDEX_NAME, MANIFEST_NAME)  # in this order, after the shards
_READ_BYTES = 2**24
_PART_BYTES = 50 * 2**20  # of what s3fs puts in parts
_LOOKED_AT = 16  # objects at the same time


def staging_folder(out: Path) -> Path:
    """Where the store for a remote `out` is made on this machine: always the same, so that a killed ingest goes on."""
    name = hashlib.blake2b(str(url_of(out)).encode(), digest_size=8).hexdigest()
    return cache_folder() / "ingest" / name


class Uploads:
    """What of a store that is made in `folder` is in object storage; a context manager. One thread puts, one file at a time.

    Args:
        folder: where the store is made.
        target: the address of the store.
        keep: leave the files of shards here too.

    Attributes:
        sealed: shard -> its bytes, of those that are up: they never grow.
        lost: shards that were up and are gone, or others now: their videos are made again, and no other gets their numbers.

    Raises:
        InputError: `target` is on a web server, or has a store already, or a begun one, that was not made in `folder`.
        SourceGone: the object storage refuses, or does not answer.
    """

    def __init__(self, folder: Path, target: Path, *, keep: bool = False) -> None:
        if url_of(target).startswith("http"):
            raise InputError(
                f"'{url_of(target)}' is on a web server, which stores are read from alone: name an address of s3:// or gs://, or "
                "ingest into a folder and copy that"
            )
        self.target, self._folder, self._keep = target, folder, keep
        path = folder / _JOURNAL_NAME
        lines = dict(understood(read_json_lines(path), _named))
        self._ours = lines.keys()
        self._done = {name: line for name, line in lines.items() if "bytes" in line}
        here, gone = self._look()
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = JsonLines(path)
        for name, state in here.items():
            self._note(folder / name, state)
        for name in gone:
            self._journal.append({"name": name, "is_lost": True})
            del self._done[name]
        if shards := sorted(gone - set(_NAMES)):
            say(
                f"{len(shards)} shards are not as they were uploaded (the first is {shards[0]}): their videos are made again"
            )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._under_way: Future[None] | None = None
        self.sealed = {shard_number(name): line["bytes"] for name, line in self._done.items() if name not in _NAMES}
        self.lost = {shard_number(name) for name in self._ours - self._done.keys() - set(_NAMES)}
        for name in self._done.keys() - set(_NAMES):
            self._release(folder / name)  # a kill may have come before

    def begin(self, path: Path) -> None:
        """Put a shard that is full, after the one before: two of them wait here at most, the one that is filled among them."""
        self.wait()
        self._under_way = self._thread.submit(self._put, path)

    def wait(self) -> None:
        """Until the shard under way is up."""
        if self._under_way is not None:
            self._under_way.result()
            self._under_way = None

    def finish(self) -> None:
        """Put the last shard and what names the shards. A store that was there is whole until its index is replaced."""
        self.wait()
        there = sorted(self._folder.iterdir())
        shards = [path for path in there if shard_number(path.name) is not None and path.stat().st_size]
        files = [path for path in (*shards, *(self._folder / name for name in _NAMES)) if path.exists()]
        pending = [path for path in files if not self._is_done(path)]
        with Progress(sum(path.stat().st_size for path in pending), "byte", label="upload") as progress:
            for path in pending:
                size = path.stat().st_size
                self._put(path)
                progress.advance(0, size)

    def __enter__(self) -> "Uploads":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._journal.close()

    def _look(self) -> tuple[dict[str, State], set[str]]:
        """What is up of this folder without a line that says so, and the names in the journal whose objects are gone or others.

        Raises:
            InputError: what is at the target is not of this folder.
        """
        first = max((shard_number(name) + 1 for name in self._ours - set(_NAMES)), default=0)
        unknown = {
            shard_path(Path(), first, codec).name for codec in CODECS
        }  # of a kill between bytes and line, or another's
        names = sorted({*self._done, *unknown, INDEX_NAME})
        with ThreadPoolExecutor(_LOOKED_AT) as pool:
            found = dict(zip(names, pool.map(lambda name: _state(self._url(name)), names), strict=True))
        other = {name for name in names if not _is_same(self._done.get(name), found[name])}
        here = {name: found[name] for name in other if _has_bytes(self._folder / name, self._url(name), found[name])}
        gone = other & self._done.keys() - here.keys()
        never = {*unknown, INDEX_NAME} if found[INDEX_NAME] else {*unknown, *gone} - set(_NAMES)
        for name in sorted(never & other - here.keys()):
            if found[name] is not None:
                raise self._foreign(name)
        return here, gone

    def _foreign(self, name: str) -> InputError:
        return InputError(
            f"there is a store at '{url_of(self.target)}' that was not made in '{self._folder}' ({name} is another's), and shards "
            "of it would be overwritten: name another --out, remove it, or give the command on the machine that made it"
        )

    def _is_done(self, path: Path) -> bool:
        line, info = self._done.get(path.name), path.stat()
        is_shard = path.name not in _NAMES
        return line is not None and (
            is_shard or (line["bytes"], line.get("mtime_ns")) == (info.st_size, info.st_mtime_ns)
        )

    def _put(self, path: Path) -> None:
        url = self._url(path.name)
        state = _state(url)
        if not _has_bytes(path, url, state):
            if state is not None and path.name not in {*self._ours, *_NAMES}:
                raise self._foreign(path.name)
            upload(path, url)
            state = _state(url)
            if not _has_bytes(path, url, state):
                raise SourceGone(f"'{url}' is not what was sent there: give the same command again")
        self._note(path, state)
        if path.name not in _NAMES:
            self._release(path)

    def _note(self, path: Path, state: State) -> None:
        info = path.stat()
        line = {"name": path.name, "bytes": info.st_size, "mtime_ns": info.st_mtime_ns, "etag": state.etag}
        self._journal.append(line)
        self._done[path.name] = line

    def _url(self, name: str) -> str:
        return f"{url_of(self.target)}/{name}"

    def _release(self, path: Path) -> None:
        if not self._keep:
            path.unlink(missing_ok=True)


def _named(line: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A line of the journal with the name of its file."""
    name = line["name"]
    if name not in _NAMES and shard_number(name) is None:
        raise ValueError(f"no file of a store: {name}")
    return name, line


def is_up(path: Path, url: str) -> bool:
    """Whether an object has the bytes of a file: by its length, and its ETag where that is an MD5, else by reading it."""
    return _has_bytes(path, url, _state(url))


def _has_bytes(path: Path, url: str, state: State | None) -> bool:
    if state is None or not path.exists() or state.length != path.stat().st_size:
        return False
    return state.etag.strip('"') in _etags(path) or _is_equal(path, url)


def _is_same(line: Mapping[str, Any] | None, state: State | None) -> bool:
    """Whether an object is the one that a line of the journal is about; lines of before tell its length alone."""
    if line is None or state is None:
        return line is state
    return (state.length, line.get("etag") or state.etag) == (line["bytes"], state.etag)


def _state(url: str) -> State | None:
    try:
        return state_of(url)
    except FileNotFoundError:
        return None


def _etags(path: Path) -> tuple[str, str]:
    """The ETag that S3 gives to a file put at once, and in parts."""
    whole, parts = hashlib.md5(usedforsecurity=False), []
    with path.open("rb") as file:
        while data := file.read(_PART_BYTES):
            whole.update(data)
            parts.append(hashlib.md5(data, usedforsecurity=False).digest())
    of_parts = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return whole.hexdigest(), f"{of_parts}-{len(parts)}"


def _is_equal(path: Path, url: str) -> bool:
    start = 0
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            if read_range(url, start, len(data)) != data:
                return False
            start += len(data)
    return True
