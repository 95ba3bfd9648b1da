"""Make the tables of pages anew from benchmarks/records, so that a page shows what was recorded.

    python tools/remake_tables.py                  # all pages of docs/
    python tools/remake_tables.py --check          # changes nothing; exit status 1 where a table is not what its record gives
    python tools/remake_tables.py docs/results.md

A comment above a table names its record, by file and time, and where a record holds several tables which of them:

    <!-- record: heads 2026-11-28T17:07:13 -->
    <!-- record: experiments 2026-11-25T11:56:30 experiment=fig4 -->
    <!-- record: experiments 2026-11-28T22:30:00 experiment=fig4 part=claims -->
    <!-- record: experiments 2026-11-28T22:30:00 experiment=fig4 part=claims and=2026-11-29T13:00:00 -->   (splits of both)
    <!-- record: heads 2026-11-28T21:30:00 of=not_gym -->
    <!-- record: moments_in_a_row 2026-11-29T19:50:19 model=objects:lite2 -->

The table under it is replaced, whatever it has been.
"""

import re
import sys
from pathlib import Path

from record_tables import Options, Record, maker_of

from engine.errors import InputError, run_command
from engine.files.atomic_file import atomic_write
from engine.files.json_lines import read_json_lines
from engine.records import RECORDS
from engine.results.table import Table
from engine.terminal.command_line import Parser

_DOCS = Path(__file__).resolve().parents[1] / "docs"
_MARKED = re.compile(r"(<!-- record: (\S+) (\S+)((?: \S+=\S+)*) -->\n\n?)((?:\|.*\n)*)")


def main() -> None:
    """Read the command line; remake or check every page."""
    parser = Parser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="Markdown files (default: docs/*.md)")
    parser.add_argument("--check", action="store_true", help="change nothing, tell which pages would change")
    parser.add_argument("--records", type=Path, default=RECORDS, help="their folder (default: benchmarks/records)")
    arguments = parser.parse_args()
    stale = []
    for page in arguments.pages or sorted(_DOCS.glob("*.md")):
        before = _read(page)
        after, count = remade(before, arguments.records, page)
        if before != after:
            stale.append(page)
            if not arguments.check:
                with atomic_write(page) as partial:
                    partial.write_text(after, encoding="utf-8")
        if count:
            change = ("differs" if arguments.check else "remade") if before != after else "as recorded"
            print(f"{page.name}: {count} tables, {change}")
    if arguments.check and stale:
        sys.exit(1)


def _read(page: Path) -> str:
    try:
        return page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"page '{page}' cannot be read: {error}") from error


def remade(text: str, records: Path, page: Path) -> tuple[str, int]:
    """A page with its marked tables made from their records, and how many there are.

    Raises:
        InputError: a marker names no record, or one that has no such table; names the page.
    """

    def table(found: re.Match[str]) -> str:
        marker, name, time, words, _ = found.groups()
        options = dict(word.split("=", 1) for word in words.split())
        try:
            record = find_record(records, name, time, options)
            if "and" in options:
                record = joined(record, find_record(records, name, options["and"], options))
            made = maker_of(name)(record, options)
            touches = text[found.end() : found.end() + 1] not in ("", "\n")  # Markdown: a line below is one more row
            return marker + Table(made.header, made.rows).markdown() + "\n" * (2 if touches else 1)
        except (InputError, KeyError, ValueError) as error:
            raise InputError(f"{page}: table of record '{name} {time}{words}': {error}") from error

    return _MARKED.subn(table, text)


def find_record(folder: Path, name: str, time: str, options: Options) -> Record:
    """The record of that file that was begun at that time; with `experiment=` or `model=`, that of the experiment or model.

    Raises:
        InputError: there is none, or several.
    """
    path = folder / f"{name}.jsonl"
    if not path.is_file():
        raise InputError(f"there is no '{path}'")
    told = {key: options[key] for key in ("experiment", "model") if key in options}
    of_time = [record for record in read_json_lines(path) if record["time"].startswith(time)]
    found = [record for record in of_time if all(record.get(key) == value for key, value in told.items())]
    if len(found) != 1:
        raise InputError(
            f"'{path}' has {len(found)} of that time: name its whole time, and which experiment= or model=, if it tells"
        )
    return found[0]


def joined(record: Record, other: Record) -> Record:
    """An experiment over the splits of two records, of what both have.

    Raises:
        InputError: they share splits, or their rows have other columns.
    """
    if record["header"] != other["header"] or set(record["splits"]) & set(other["splits"]):
        raise InputError("only records of other splits with the same columns can be joined")
    gains = {(each["claim"], each["test"]): each["gain"] for each in other["findings"]}
    findings = [
        each | {"gain": each["gain"] | gains[key]}
        for each in record["findings"]
        if (key := (each["claim"], each["test"])) in gains
    ]
    places = [{tuple(row[:3]) for row in each["rows"]} for each in (record, other)]
    rows = [row for row in [*record["rows"], *other["rows"]] if all(tuple(row[:3]) in each for each in places)]
    return {**record, "rows": rows, "findings": findings}


if __name__ == "__main__":
    run_command(main)
