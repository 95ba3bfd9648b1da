"""A store into object storage while it is made: shards as they are full, what names them last, so it appears whole or not at all.

    shard is full ──▶ put ──▶ are these its bytes? ──▶ journal ──▶ its file goes    at the end: last shard, motion, index, manifest

What stands in the journal is not put again. A kill between the bytes and their line is told by the bytes: they are there.
"""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from engine.data.progress import Progress
from engine.data.remote.addresses import url_of
from engine.data.remote.objects import read_range, state_of, upload
from engine.data.remote.settings import cache_folder
from engine.data.remote.states import State
from engine.data.store.index import INDEX_NAME, MANIFEST_NAME, MOTION_NAME
from engine.errors import InputError, SourceGone
from engine.json_lines import JsonLines, read_json_lines

_JOURNAL_NAME = "uploaded.jsonl"
_NAMES = (MOTION_NAME, INDEX_NAME, MANIFEST_NAME)  # in this order, after the shards
_READ_BYTES = 2**24
_PART_BYTES = 50 * 2**20  # of what s3fs puts in parts


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

    Raises:
        InputError: there is a store already at `target` that was not made in `folder`.
        SourceGone: the object storage refuses, or does not answer.
    """

    def __init__(self, folder: Path, target: Path, *, keep: bool = False) -> None:
        self.target, self._folder, self._keep = target, folder, keep
        path = folder / _JOURNAL_NAME
        if not path.exists() and _state(f"{url_of(target)}/{INDEX_NAME}") is not None:
            raise InputError(
                f"there is a store at '{url_of(target)}' that was not made in '{folder}', and shards of it would be overwritten: "
                "name another --out, remove it, or give the command on the machine that made it"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._done = {line["name"]: line for line in read_json_lines(path) if "bytes" in line}
        self._journal = JsonLines(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._under_way: Future[None] | None = None
        self.sealed = {int(Path(name).stem): line["bytes"] for name, line in self._done.items() if name not in _NAMES}
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
        shards = [path for path in sorted(self._folder.glob("[0-9]*.*")) if path.stat().st_size]
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

    def _is_done(self, path: Path) -> bool:
        line, info = self._done.get(path.name), path.stat()
        is_shard = path.name not in _NAMES
        return line is not None and (is_shard or (line["bytes"], line["mtime_ns"]) == (info.st_size, info.st_mtime_ns))

    def _put(self, path: Path) -> None:
        url, info = f"{url_of(self.target)}/{path.name}", path.stat()
        if not is_up(path, url):
            upload(path, url)
            if not is_up(path, url):
                raise SourceGone(f"'{url}' is not what was sent there: give the same command again")
        line = {"name": path.name, "bytes": info.st_size, "mtime_ns": info.st_mtime_ns}
        self._journal.append(line)
        self._done[path.name] = line
        if path.name not in _NAMES:
            self._release(path)

    def _release(self, path: Path) -> None:
        if not self._keep:
            path.unlink(missing_ok=True)


def is_up(path: Path, url: str) -> bool:
    """Whether an object has the bytes of a file: by its length, and its ETag where that is an MD5, else by reading it."""
    state = _state(url)
    if state is None or state.length != path.stat().st_size:
        return False
    return state.etag.strip('"') in _etags(path) or _is_equal(path, url)


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
