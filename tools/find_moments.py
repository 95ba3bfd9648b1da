"""Find the moment: plain words in, the seconds of your own videos out. Nothing is trained and nothing is fetched.

    python tools/find_moments.py holiday.mp4 --query "someone plays the guitar"
    python tools/find_moments.py ~/videos --index indexes/videos --query "a dog" --query "a bicycle" --top 10
    python tools/find_moments.py --index indexes/videos --query "a boat" --json

An installed network of ImageNet's thousand objects looks at two frames of each half second; its objects are held against the
words through a sentence encoder (engine/naming/). Actions that people do with nothing in hand it cannot tell apart.

VIDEO is a file of any format that FFmpeg reads, or a folder; folders need no classes. With --index the features are kept: the
same call again extracts only what is new or has changed, and without VIDEO all that is there is searched. An index of another
model is refused. A video that cannot be used is reported with its reason; the others are searched all the same, and the exit
status is then 1.

The score is a mean cosine: the best moment is named even if nothing fits.
"""

import options

from engine.errors import run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = run_command(options.find_moments, __doc__)

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from engine.command_line import check_shown, output_folder
from engine.distributed import choose_device
from engine.features.encoder import OBJECTS, build_encoder
from engine.moments.index import list_videos, open_index
from engine.moments.objects import ObjectQueries, find_moments
from engine.moments.queries import check_query
from engine.results.table import Table
from engine.screen import plain


def main(arguments: argparse.Namespace) -> None:
    """Search, print; exit status 1 if a video could not be used."""
    for query in arguments.query:
        check_query(query)
    list_videos(arguments.videos)  # what is not there, before the model is loaded
    with tempfile.TemporaryDirectory() as unkept:
        folder = output_folder(arguments.index, "--index") if arguments.index else Path(unkept)
        encoder = build_encoder(OBJECTS, choose_device(arguments.device))
        cache, videos, bad = open_index(arguments.videos, folder, encoder)
        vectors = ObjectQueries()
        found = [
            moment
            for query in dict.fromkeys(arguments.query)
            for moment in find_moments(cache, videos, query, vectors(query), arguments.top)
        ]
    if arguments.json:
        print(json.dumps([asdict(moment) for moment in found]))
    else:
        rows = [[m.query, m.video, clock(m.start_s), clock(m.end_s), m.score] for m in found]
        print(Table(["query", "video", "start", "end", "score"], rows).text())
    for path, reason in bad.items():
        print(plain(f"error: {path}: {reason}"), file=sys.stderr)
    check_shown()
    if bad:
        sys.exit(1)


def clock(seconds: float) -> str:
    """h:mm:ss.s"""
    tenths = round(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
