"""A store of this machine into object storage: shards first, what names them last, so that it appears complete or not at all."""

import hashlib
from pathlib import Path

from engine.data.progress import Progress
from engine.data.remote.addresses import url_of
from engine.data.remote.objects import upload
from engine.data.remote.settings import cache_folder
from engine.data.store.index import INDEX_NAME, MANIFEST_NAME, MOTION_NAME, StoreIndex
from engine.json_lines import JsonLines, read_json_lines

_JOURNAL_NAME = "uploaded.jsonl"


def staging_folder(out: Path) -> Path:
    """Where the store for a remote `out` is made on this machine: always the same, so that a killed ingest goes on."""
    name = hashlib.blake2b(str(url_of(out)).encode(), digest_size=8).hexdigest()
    return cache_folder() / "ingest" / name


def upload_store(folder: Path, out: Path) -> None:
    """Put the shards, the motion, the index and the manifest of a finished store to `out`; what is there in its state is not again.

    A store that was there is still whole until its index is replaced: shards only grow.

    Raises:
        SourceGone: the object storage refuses, or does not answer.
    """
    shards = sorted(folder.glob(f"[0-9]*.{StoreIndex(folder / INDEX_NAME).settings.codec}"))
    names = [path.name for path in shards] + [MOTION_NAME, INDEX_NAME, MANIFEST_NAME]
    files = [folder / name for name in names if (folder / name).exists()]
    target = url_of(out)
    journal_path = folder / _JOURNAL_NAME
    done = {line["name"]: line["state"] for line in read_json_lines(journal_path)}
    states = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in files}
    pending = [path for path in files if done.get(path.name) != states[path.name]]
    journal = JsonLines(journal_path)
    try:
        with Progress(sum(path.stat().st_size for path in pending), "byte", label="upload") as progress:
            for path in pending:
                upload(path, f"{target}/{path.name}")
                journal.append({"name": path.name, "state": states[path.name]})
                progress.advance(0, path.stat().st_size)
    finally:
        journal.close()
