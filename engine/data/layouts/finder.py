"""From the path that a list gives to the file that is there."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from engine.data.layouts.walk import VideoFolder


@dataclass
class FileFinder:
    """Finds the file that a row names: as it stands, or as the list of another machine's folder names it.

    strip, prefix: where no row fits as it stands, these many folders of each path are replaced by this one.
    """

    folder: VideoFolder
    strip: int = 0
    prefix: str = ""
    num_moved: int = field(default=0, init=False)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for path in (*self.folder.paths, *self.folder.pictures):
            name = path.rsplit("/", 1)[-1]
            for key in {name, name.rpartition(".")[0]}:
                names.setdefault(key, []).append(path)
        return names

    def find(self, path: str) -> str | None:
        """Relative to the root, or absolute where it lies elsewhere; None where it is not there."""
        if (plain := self._there(path)) is not None:
            return plain
        if "\\" in path and (plain := self._there(path.replace("\\", "/"))) is not None:
            return plain
        parts = PurePosixPath(path.replace("\\", "/")).parts
        moved = "/".join([*filter(None, [self.prefix]), *parts[self.strip :]])
        found = (
            [hit for hit in self._by_name.get(parts[-1], ()) if moved in (hit, hit.rpartition(".")[0])] if parts else []
        )
        self.num_moved += len(found) == 1
        return found[0] if len(found) == 1 else None

    def _there(self, path: str) -> str | None:
        root = self.folder.root
        try:
            if not (root / path).is_file():
                return None
        except (OSError, ValueError):  # too long for a name, or a NUL
            return None
        home = root.absolute()
        plain = PurePosixPath(path)
        return plain.relative_to(home).as_posix() if plain.is_relative_to(home) else plain.as_posix()

    def look_around(self, paths: Sequence[str]) -> None:
        """Where none of these fits as it stands: the folder that most of them fit below becomes `strip`, `prefix`."""
        if not paths or any(self.find(path) for path in paths):
            return
        votes: Counter[tuple[int, str]] = Counter()
        for path in paths:
            parts = PurePosixPath(path.replace("\\", "/")).parts
            for strip in range(len(parts)):
                tail = "/".join(parts[strip:])
                hits = [
                    kept.removesuffix(tail).rstrip("/")
                    for hit in self._by_name.get(parts[-1], ())
                    for kept in (hit, hit.rpartition(".")[0])
                    if kept == tail or kept.endswith("/" + tail)
                ]
                votes.update((strip, prefix) for prefix in hits)
                if hits:
                    break
        best = votes.most_common(2)
        if best and (len(best) == 1 or best[0][1] > best[1][1]):
            self.strip, self.prefix = best[0][0]
