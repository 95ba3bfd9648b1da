"""From the path that a list gives to the file that is there."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from engine.data.layouts.listing import IMAGE_SUFFIXES, suffix_of
from engine.data.layouts.walk import VideoFolder

_FIRST = 20  # paths of a list, which tell where its files lie


@dataclass
class FileFinder:
    """Finds the files that a row names: as it stands, or as the list of another machine's folder names it.

    A name without its suffix means a video, and a picture only in a list whose names fit no video (one of photos).

    strip, prefix: where no row fits as it stands, these many folders of each path are replaced by this one.
    of_pictures: whether the list's names without their suffix mean pictures.
    num_moved: rows that were taken to a file by their name without its suffix, or below another folder.
    """

    folder: VideoFolder
    strip: int = 0
    prefix: str = ""
    of_pictures: bool = field(default=False, init=False)
    num_moved: int = field(default=0, init=False)

    @cached_property
    def _videos(self) -> dict[str, tuple[str, ...]]:
        """The files of each path, and the videos of each path without its suffix."""
        files = _by_path(self.folder.paths)
        for path in self.folder.pictures:
            files[nfc(path)] = (*files.get(nfc(path), ()), path)
        return files

    @cached_property
    def _pictures(self) -> dict[str, tuple[str, ...]]:
        return _by_path(self.folder.pictures)

    def find(self, path: str) -> list[str]:
        """Relative to the root, or absolute where it lies elsewhere; empty where it is not there, several where these fit."""
        return self._as_it_stands(path) or self._elsewhere(path)

    def take(self, path: str) -> list[str]:
        """As `find`; a file that is taken for a path that does not stand there is counted."""
        if there := self._as_it_stands(path):
            return there
        found = self._elsewhere(path)
        self.num_moved += len(found) == 1
        return found

    def picture_of(self, path: str) -> str:
        """A picture of that name, as a download that failed leaves one; "" where there is none."""
        return next(iter(self._moved(self._pictures, path)), "")

    def _as_it_stands(self, path: str) -> list[str]:
        found = next(filter(None, map(self._there, _spellings(path))), None)
        return [found] if found else []

    def _elsewhere(self, path: str) -> list[str]:
        """Without its suffix, or below the folder that was chosen."""
        return self._moved(self._videos, path) or (self._moved(self._pictures, path) if self.of_pictures else [])

    def _moved(self, files: dict[str, tuple[str, ...]], path: str) -> list[str]:
        kept = PurePosixPath(path.replace("\\", "/")).parts[self.strip :]
        return [*files.get(nfc("/".join([*filter(None, [self.prefix]), *kept])), ())] if kept else []

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
        """How a list of these paths is meant: becomes `strip`, `prefix` and `of_pictures`.

        Where none of the first fits as it stands, the folder is taken that most of them fit below; of videos, if any path is one.
        """
        if not paths:
            return
        first = paths[:_FIRST]
        placed = self._are_placed(first) or (bool(self.folder.paths) and self._are_placed(paths))
        if not placed and not any(map(self.picture_of, first)):
            self._choose_place(first, self.folder.pictures)
        self.of_pictures = not self.folder.paths or not any(map(self._is_of_video, paths))

    def _are_placed(self, paths: Sequence[str]) -> bool:
        """Whether any of the paths is there as it stands, or else below the folder that is then chosen among the videos."""
        return any(map(self.find, paths)) or self._choose_place(paths, self.folder.paths)

    def _is_of_video(self, path: str) -> bool:
        return any(suffix_of(found) not in IMAGE_SUFFIXES for found in self.find(path))

    def _choose_place(self, paths: Sequence[str], files: Sequence[str]) -> bool:
        """Take the place that most of the paths would have among these files; whether any has one."""
        names = _by_name(files)
        votes: Counter[tuple[int, str]] = Counter()
        for path in paths:
            votes.update(_places(PurePosixPath(nfc(path.replace("\\", "/"))).parts, names))
        best = votes.most_common(2)
        if best and (len(best) == 1 or best[0][1] > best[1][1]):
            self.strip, self.prefix = best[0][0]
        return bool(best)


def _by_path(paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Files by their paths with and without the suffix."""
    files: dict[str, tuple[str, ...]] = {}
    for path in paths:
        folder, slash, name = nfc(path).rpartition("/")
        for key in {folder + slash + name, folder + slash + (name.rpartition(".")[0] or name)}:
            files[key] = (*files.get(key, ()), path)
    return files


def _by_name(paths: Sequence[str]) -> dict[str, list[str]]:
    """Files by their names with and without the suffix."""
    names: dict[str, list[str]] = {}
    for path in map(nfc, paths):
        name = path.rsplit("/", 1)[-1]
        for key in {name, name.rpartition(".")[0] or name}:
            names.setdefault(key, []).append(path)
    return names


def _places(parts: Sequence[str], names: dict[str, list[str]]) -> list[tuple[int, str]]:
    """What `strip` and `prefix` would have to be for the files that agree with most of a path's end."""
    fitting = [form for hit in names.get(parts[-1], ()) for form in (hit, hit.rpartition(".")[0])] if parts else []
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
