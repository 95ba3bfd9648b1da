"""What README and docs/ name is there: links with their headings, files, config keys; and README fits on a page."""

import dataclasses
import re
import typing
from pathlib import Path

import pytest

from engine.config import Config

REPO = Path(__file__).parents[1]
PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").rglob("*.md"))]
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
MISTYPED = "train.lrr"  # shown with its message in troubleshooting.md
TEXTS_WITH_COMMANDS = [*PAGES, *sorted((REPO / "configs").rglob("*.yaml"))]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def keys(section: type, above: str = "") -> set[str]:
    """section.key of all keys below a section of the config; those of a list's entries with N for the number."""
    found = set()
    for field_name, hint in typing.get_type_hints(section).items():
        name = f"{above}{field_name}"
        found.add(name)
        for part in {hint, *typing.get_args(hint)}:  # of `list[Section] | None` the list is one
            inner = next(filter(dataclasses.is_dataclass, (part, *typing.get_args(part))), None)
            if inner is not None:
                found |= keys(inner, f"{name}.N." if typing.get_origin(part) is list else f"{name}.")
    return found


def test_readme_fits_on_a_page():
    assert len((REPO / "README.md").read_text().splitlines()) < 100


@pytest.mark.parametrize("page", [*PAGES, REPO / "CHANGELOG.md"], ids=lambda page: page.name)
def test_no_page_has_marks_of_a_merge(page):
    assert not re.search(r"^(<{7} |>{7} |={7}$)", page.read_text(), re.MULTILINE)


@pages
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", CODE.sub("", page.read_text()))
    assert not [path for path, _ in links if not (page.parent / path).exists()]
    assert not [
        f"{path}#{anchor}"
        for path, anchor in links
        if anchor and anchor not in anchors(page.parent / path if path else page)
    ]


@pages
def test_files_are_there(page):
    named = set(re.findall(r"\b(?:engine|kernels|tools|tests|configs)/[\w/]+\.(?:py|yaml)\b", page.read_text()))
    assert not {path for path in named if not (REPO / path).is_file()}


def test_files_that_code_names_are_there():
    code = [path for folder in ("engine", "kernels", "tools") for path in (REPO / folder).rglob("*.py")]
    named = {path for each in code for path in re.findall(r"\b(?:engine|kernels|tests)/[\w/]+\.py\b", each.read_text())}
    assert named and not {path for path in named if not (REPO / path).is_file()}


@pages
def test_tests_are_there(page):
    """By their files, or the ends of the paths of these, and by the tests' own names."""
    texts = {path.with_suffix("").as_posix(): path.read_text() for path in (REPO / "tests").rglob("test_*.py")}
    functions = set(re.findall(r"def (test_\w+)", "".join(texts.values())))
    named = set(re.findall(r"`((?:\w+/)*test_\w+)(?:\.py)?`", page.read_text()))
    assert not {name for name in named - functions if not any(path.endswith(f"/{name}") for path in texts)}


@pages
def test_config_keys_exist(page):
    sections = "|".join(field.name for field in dataclasses.fields(Config) if field.name != "task")
    named = re.findall(rf"(?<![\w./-])(?:{sections})(?:\.\w+)+(?![./(-])", re.sub(r"\]\(.*?\)", "]", page.read_text()))
    named = {re.sub(r"\.\d+\b", ".N", name) for name in named if not re.search(r"\.(py|md|jsonl?|yaml|csv|log)$", name)}
    assert not {name for name in named - keys(Config) if not name.startswith("words.replace.")} - {MISTYPED}


@pytest.mark.parametrize("page", TEXTS_WITH_COMMANDS, ids=lambda page: page.name)
def test_no_command_indexes_to_where_another_puts_a_store(page):
    """Read in its order the second of the two would be refused."""
    text = page.read_text()
    stores = {folder.rstrip("/") for folder in re.findall(r"tools/ingest\.py .*?--out (\S+)", text)}
    indexed = re.findall(r"tools/index_dataset\.py .*?--out (\S+)", text)
    assert not [path for path in indexed if path.removesuffix("/manifest.parquet") in stores]


def test_nothing_is_installed_by_a_name_that_no_index_has():
    """The package is on none: whoever takes its name there would be installed."""
    texts = [*PAGES, *(path for folder in ("engine", "tools", "kernels") for path in (REPO / folder).rglob("*.py"))]
    assert not [path for path in texts if re.search(r"pip install .?unseen\b", path.read_text())]
