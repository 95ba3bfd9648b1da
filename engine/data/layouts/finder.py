"""From the path that a list gives to the file that is there."""

import unicodedata
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
        for path in map(nfc, (*self.folder.paths, *self.folder.pictures)):
            name = path.rsplit("/", 1)[-1]
            for key in {name, name.rpartition(".")[0]}:
                names.setdefault(key, []).append(path)
        return names

    @cached_property
    def _by_path(self) -> dict[str, str | None]:
        """Each file by its path with and without the suffix; None where that fits several."""
        files: dict[str, str | None] = {}
        for path in (*self.folder.paths, *self.folder.pictures):
            folder, slash, name = nfc(path).rpartition("/")
            for key in {folder + slash + name, folder + slash + name.rpartition(".")[0]}:
                files[key] = None if key in files else path
        return files

    def find(self, path: str) -> str | None:
        """Relative to the root, or absolute where it lies elsewhere; None where it is not there."""
        for spelling in _spellings(path):
            if (plain := self._there(spelling)) is not None:
                return plain
        parts = PurePosixPath(path.replace("\\", "/")).parts
        kept = parts[self.strip :]
        found = self._by_path.get(nfc("/".join([*filter(None, [self.prefix]), *kept]))) if kept else None
        self.num_moved += found is not None
        return found

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

    def is_folder(self, path: str) -> bool:
        """Whether a row names a folder."""
        try:
            return (self.folder.root / self.prefix / path).is_dir()
        except (OSError, ValueError):  # too long for a name, or a NUL
            return False

    def look_around(self, paths: Sequence[str]) -> None:
        """Where none of these fits as it stands: the folder that most of them fit below becomes `strip`, `prefix`."""
        if not paths or any(self.find(path) for path in paths):
            return
        votes: Counter[tuple[int, str]] = Counter()
        for path in paths:
            votes.update(self._places(PurePosixPath(nfc(path.replace("\\", "/"))).parts))
        best = votes.most_common(2)
        if best and (len(best) == 1 or best[0][1] > best[1][1]):
            self.strip, self.prefix = best[0][0]

    def _places(self, parts: Sequence[str]) -> list[tuple[int, str]]:
        """What `strip` and `prefix` would have to be for the files that agree with most of a path's end."""
        fitting = (
            [form for hit in self._by_name.get(parts[-1], ()) for form in (hit, hit.rpartition(".")[0])]
            if parts
            else []
        )
        places: list[tuple[int, str]] = []
        for strip in reversed(range(len(parts))):
            tail = "/".join(parts[strip:])
            fitting = [form for form in fitting if form == tail or form.endswith("/" + tail)]
            if not fitting:
                break
            places = [(strip, form.removesuffix(tail).rstrip("/")) for form in fitting]
        return places


def _spellings(path: str) -> list[str]:
    """A path as it stands; with slashes; with its accents as signs of their own, and not: a Mac and an archive differ in both."""
    slashed = path.replace("\\", "/")
    return list(dict.fromkeys([path, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]))


def nfc(path: str) -> str:
    """A path with its accents as a keyboard writes them: to compare paths, not to open files."""
    return unicodedata.normalize("NFC", path)
