"""Names and queries in a script that the installed sentence encoder cannot read: it answers all the same, and means nothing."""

import sys
import unicodedata
from collections.abc import Sequence

from engine.errors import is_rank_0
from engine.semantics.config import WordSourceConfig, sources_of
from engine.terminal.screen import plain

_SHOWN = 3  # texts of a warning
_CUT = 80  # signs of each
_was_told = [False]


def tell_of_script(texts: Sequence[str], words: WordSourceConfig) -> None:
    """`script_warning` on stderr, once in a process and by one rank, however many texts are read after it."""
    if not _was_told[0] and (told := script_warning(texts, words)):
        _was_told[0] = True
        if is_rank_0():
            print(plain(told), file=sys.stderr, flush=True)


def script_warning(texts: Sequence[str], words: WordSourceConfig) -> str | None:
    """A line on those texts that have letters of another script than Latin, where the installed encoder reads them; else None."""
    sources = sources_of(words)
    foreign = [text for text in texts if not _is_latin(text)]
    if not foreign or not any(source.source == "sentence" and source.path is None for source in sources):
        return None
    named = ", ".join(map(_quoted, foreign[:_SHOWN])) + ", ..." * (len(foreign) > _SHOWN)
    return (
        f"warning: the installed sentence encoder reads English, and to it all words of another script are nearly one: {named}: "
        "say it in English"
    )


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _CUT else f"{text[:_CUT]} ...")


def _is_latin(text: str) -> bool:
    letters = (
        sign for sign in unicodedata.normalize("NFKD", text) if unicodedata.category(sign) in ("Ll", "Lu", "Lt", "Lo")
    )
    return all(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
