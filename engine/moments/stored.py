"""What an index has in snippet stores, which may be away: a failure of their videos that passes, and no end of a search."""

from collections.abc import Sequence
from pathlib import Path

from engine.data.indexing.journal import Failure
from engine.data.manifests.manifest import Manifest
from engine.data.manifests.manifest_table import path_of_text
from engine.data.remote.copied import is_there
from engine.data.store.index import MANIFEST_NAME, split_stored_name
from engine.errors import InputError, told


def that_are_there(paths: Sequence[str]) -> list[str]:
    """Those whose file or store may be there: one that cannot be looked at now is."""
    place = {path: stored[0] if (stored := split_stored_name(path)) else path for path in paths}
    found = {each: _may_be_there(Path(each)) for each in dict.fromkeys(place.values())}
    return [path for path in paths if found[place[path]]]


def _may_be_there(path: Path) -> bool:
    try:
        return is_there(path)
    except (OSError, InputError):
        return True


def stored_rows(paths: Sequence[str]) -> tuple[list[dict[str, object]], dict[str, Failure]]:
    """What the stores say of these videos of theirs, and why others are not to be had."""
    rows: list[dict[str, object]] = []
    failures = dict.fromkeys(paths, Failure("missing", "its store has no such video"))
    of_store: dict[Path, list[str]] = {}
    for path in paths:
        of_store.setdefault(Path(split_stored_name(path)[0]).parent, []).append(path)
    for store, videos in of_store.items():
        try:
            table = Manifest.load(store / MANIFEST_NAME).table
        except (OSError, InputError) as error:
            failures |= dict.fromkeys(
                videos, Failure("io-error", told(error) if isinstance(error, OSError) else str(error))
            )
            continue
        for row in table.to_pylist():
            path = str(store / path_of_text(row["path"]))
            if failures.pop(path, None) is not None:
                rows.append(row | {"path": path})
    return rows, failures
