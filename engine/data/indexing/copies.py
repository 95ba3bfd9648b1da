"""Which of several copies of a video is taken, and which videos are the same under several names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from engine.data.indexing.journal import Failure, Record
from engine.data.layouts.listing import Listing, Problem
from engine.terminal.wording import counted

_SHOWN = 3
_WHOLE_SHARE = 0.95  # of the longest copy: rates and encoders round
Row = Mapping[str, object]


def candidates(listing: Listing) -> list[str]:
    """All files to look into: those of the entries, and their copies."""
    entries = listing.labelled
    paths = [entry.path for entry in entries]
    return list(dict.fromkeys([*paths, *(copy for entry in entries for copy in entry.copies)]))


def choose_copies(listing: Listing, records: Mapping[str, Record]) -> Listing:
    """The listing with each entry at a sound file, where it has one.

    An entry whose file cannot be used, or is shorter than a copy, gets that copy: the first one that is sound and whole.
    One of several files that nothing tells apart is taken if all the sound and whole ones hold the same; else the entry
    is left out and its problem stays. Each file that cannot be used is a problem.
    """
    entries, notes = [], list(listing.notes)
    sound = {path for path, record in records.items() if not isinstance(record.found, Failure)}
    replaced = []
    instead: dict[str, str] = {}  # a candidate -> the one that was taken
    for entry in listing.entries:
        whole = _whole([path for path in (entry.path, *entry.copies) if path in sound], records)
        if not whole:
            continue
        path = whole[0]
        if path != entry.path:
            replaced.append(f"{path} (not {entry.path})")
        entries.append(replace(entry, path=path, copies=()))
        instead |= dict.fromkeys((entry.path, *entry.copies), path)
    settled: set[int] = set()  # of problems
    for entry, problem in listing.undecided:
        paths = _whole([path for path in (entry.path, *entry.copies) if path in sound], records)
        if len({records[path].content_hash for path in paths}) == 1:
            entries.append(replace(entry, path=paths[0], copies=()))
            instead |= dict.fromkeys((entry.path, *entry.copies), paths[0])
            settled.add(id(problem))
            replaced.append(f"{paths[0]} (of {1 + len(entry.copies)} of its name)")
    problems = [problem for problem in listing.problems if id(problem) not in settled]
    if replaced:
        notes.append(
            f"{counted(len(replaced), 'video')} with several copies, the sound one is taken: {_some(replaced)}"
        )
    for path, record in records.items():
        if isinstance(record.found, Failure):
            problems.append(Problem(path, record.found.kind, record.found.text))
    told = {entry.path for entry in entries} | {problem.path for problem in problems}
    unused = [each for each in listing.unused if each.path not in told and each.path not in instead]
    unused += [
        Problem(path, "unused", f"a second copy: '{taken}' is taken")
        for path, taken in instead.items()
        if path not in told
    ]
    return replace(listing, entries=entries, problems=problems, notes=notes, unused=unused, undecided=[])


def _whole(paths: Sequence[str], records: Mapping[str, Record]) -> list[str]:
    """Of sound files of one name those that last as long as the longest, without damaged ends where there is one without."""
    seconds = {path: records[path].found.num_frames / (records[path].found.fps or 1) for path in paths}
    long = [path for path in paths if seconds[path] >= _WHOLE_SHARE * max(seconds.values())]
    return [path for path in long if not records[path].found.damage] or long


def same_contents(rows: Sequence[Row]) -> list[str]:
    """Lines that name videos with the same contents: in several splits, with several classes, or simply twice."""
    by_file = _groups(rows, lambda row: row["content_hash"])
    by_segment = _groups(rows, lambda row: (row["content_hash"], row["first_frame"], row["num_frames"]))
    in_splits = [group for group in by_file if len({row["split"] for row in group if row["split"]}) > 1]
    in_classes = [group for group in by_segment if len({row["class_name"] for row in group}) > 1]
    told = {id(row) for group in (*in_splits, *in_classes) for row in group}
    twice = [
        group
        for group in by_segment
        if len({row["path"] for row in group}) > 1 and not any(id(row) in told for row in group)
    ]
    lines = []
    for groups, column, what in (
        (
            in_splits,
            "split",
            "warning: {} in several splits by their contents, under the same or other names: {}",
        ),
        (in_classes, "class_name", "warning: {} of several classes by their contents: {}"),
        (twice, "path", "{} there more than once by their contents: {}"),
    ):
        if groups:
            lines.append(what.format(counted(len(groups), "video"), _some([_named(group, column) for group in groups])))
    return lines


def _groups(rows: Iterable[Row], key: Callable[[Row], object]) -> list[list[Row]]:
    """The rows of equal key, where there is more than one."""
    groups: dict[object, list[Row]] = {}
    for row in rows:
        if row["content_hash"] is not None:
            groups.setdefault(key(row), []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def _named(group: Sequence[Row], column: str) -> str:
    """One row for each value of a column."""
    examples = {row[column]: row["path"] for row in reversed(group)}
    shown = [path if column == "path" else f"{path} ({value})" for value, path in reversed(examples.items())]
    return " = ".join(shown[:_SHOWN]) + " = ..." * (len(shown) > _SHOWN)


def _some(texts: Sequence[str]) -> str:
    return "; ".join(texts[:_SHOWN]) + "; ..." * (len(texts) > _SHOWN)
