"""Class name -> the words whose vectors stand for it (paper Sec. 4.4; the details are the authors' code's).

A name is cut into lower-case words at spaces, `_`, `/`, `-` and, where it has none of these, at CamelCase
humps; letters keep the marks that they bear. Everything from "(not" on goes, parentheses and a possessive
's go, stop words go (unless nothing would be left), but not in names of UCF101, HMDB51 and SUN397. Words
that are verb forms become their WordNet lemma (`engine/semantics/wordnet.py`).

Each data set adds hand replacements for whole names, which stand as they are, and a few habits
(`tables/class_words.yaml`). `rules` says whose:

    a data set's name   its table and habits, for every name
    none                no table; the common stop words and lemmatisation
    auto                chosen for each name by itself, so that a class has the same words in any list:
                        1. a name spelt as in one of the tables: that data set ('_' may be a space), and
                           one of SUN397's in any spelling (dining_room);
                        2. '/' and no space (theater/indoor_seats, /a/abbey): sun397;
                        3. CamelCase (ApplyEyeMakeup): ucf101;
                        4. a capital and several words (Walking the dog): activitynet;
                        5. anything else (brush_hair, playing flute): kinetics; hmdb51 differs from it
                           only by dropping no stop word, and its names hold none.
"""

import functools
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError
from engine.schema.files import read_yaml
from engine.semantics.wordnet import verb_lemma

TABLE = Path(__file__).with_name("tables") / "class_words.yaml"

_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_JOINER = "[\u200c\u200d]?"  # without width: how two letters of a Persian or Indic word are joined
_EMOJI = "\ufe0f"  # a mark that says how the sign before it is drawn
_SUN_FOLDER = re.compile(r"^/?[a-z]/")  # SUN397 keeps its classes in folders a/ to y/


@dataclass(frozen=True)
class DataSetRules:
    """What one data set adds to the common rules."""

    lemmatize: str  # all, names (not the replacements) or none
    stop_words: frozenset[str]
    replace: Mapping[str, tuple[str, ...]]  # by `_table_key`
    spellings: frozenset[str]  # the names replaced, as spelt, with spaces
    names: frozenset[str]  # further names of the data set, by `_table_key`


@dataclass(frozen=True)
class WordTables:
    """The content of `tables/class_words.yaml`."""

    data_sets: Mapping[str, DataSetRules]
    plain: DataSetRules  # of `rules: none`
    stand_ins: Mapping[str, tuple[str, ...]]  # for words that a vocabulary lacks


@functools.cache
def word_tables() -> WordTables:
    """Read the replacement tables that ship with the package (once)."""
    tree = read_yaml(TABLE)
    common = frozenset(tree["stop_words"].split())
    data_sets = {}
    for name, rules in tree["data_sets"].items():
        more = rules.get("stop_words", "")
        data_sets[name] = DataSetRules(
            lemmatize=rules["lemmatize"],
            stop_words=frozenset() if more == "none" else common | set(more.split()),
            replace={_table_key(key): tuple(words.split()) for key, words in rules["replace"].items()},
            spellings=frozenset(key.replace("_", " ") for key in rules["replace"]),
            names=frozenset(map(_table_key, rules.get("names", "").split())),
        )
    stand_ins = {word: tuple(words.split()) for word, words in tree["stand_ins"].items()}
    return WordTables(data_sets, DataSetRules("names", common, {}, frozenset(), frozenset()), stand_ins)


def composed(name: str) -> str:
    """A class name in the one spelling of Unicode (NFC) that names have here from where they come in: manifests, lists, configs.

    `é` is one sign or two, as a keyboard, a Mac or an archive wrote it, and looks the same. Not for paths: a file is found
    under the very signs of its name.
    """
    return unicodedata.normalize("NFC", name)


def name_key(name: str) -> str:
    """What two spellings of a class name have in common: BrushHair, 'brush hair' and brush_hair are one."""
    return re.sub(r"[\s_]+", "", composed(name)).casefold()


def _table_key(name: str) -> str:
    """As `name_key`; a copy of SUN397 without subfolders has '_' where the others have '/'."""
    return name_key(name).replace("/", "")


def data_set_of(name: str) -> str:
    """The data set whose rules `auto` applies to a name (the order is in the module's docstring)."""
    name = composed(name)
    spelt = " ".join(name.replace("_", " ").split())
    for data_set, rules in word_tables().data_sets.items():
        if spelt in rules.spellings or _table_key(name) in rules.names:
            return data_set
    if "/" in name and " " not in name:
        return "sun397"
    if re.fullmatch(r"\w+", name) and "_" not in name and re.search(r"[a-z][A-Z]", name):
        return "ucf101"
    if name[:1].isupper() and " " in spelt:
        return "activitynet"
    return "kinetics"


def class_words(
    name: str, rules: str = "auto", lemmatize: bool = True, replace: Mapping[str, str] | None = None
) -> list[str]:
    """The words of a class name, in order.

    Args:
        name: a class name as any of the data sets, or a user, writes it.
        rules: auto, none or a data set (see the module's docstring).
        lemmatize: verb forms to their lemma; where False, words stay as in the name (replacements as in the table).
        replace: class name -> the words to use as they stand; wins over the tables. Keys match like `name_key`.

    Raises:
        InputError: no word is left, or `rules` is unknown.
    """
    chosen = user_replacement(name, replace or {})
    if chosen is not None:
        if not chosen.split():
            raise InputError(f"words.replace gives no words for class '{name}': name at least one")
        return chosen.split()
    tables = word_tables()
    data_set = data_set_of(name) if rules == "auto" else rules
    if data_set != "none" and data_set not in tables.data_sets:
        raise InputError(f"words.rules is '{rules}': it may be auto, none, {', '.join(tables.data_sets)}")
    chosen_rules = tables.plain if data_set == "none" else tables.data_sets[data_set]
    bare = _SUN_FOLDER.sub("", name.strip()) if data_set == "sun397" else name
    words = list(chosen_rules.replace.get(_table_key(bare), ()))
    to_lemma = chosen_rules.lemmatize == "all" or (chosen_rules.lemmatize == "names" and not words)
    words = words or split_name(bare, chosen_rules.stop_words)
    if not words:
        raise InputError(f"class name '{name}' holds no words: name them in the config under words.replace")
    return [verb_lemma(word) for word in words] if lemmatize and to_lemma else words


def words_or_name(name: str, rules: str, lemmatize: bool) -> tuple[str, ...]:
    """The words of a class name, as `class_words`; a name of signs only is itself its only word."""
    try:
        return tuple(class_words(name, rules, lemmatize))
    except InputError:
        return (name,)


def user_replacement(name: str, replace: Mapping[str, str]) -> str | None:
    """The user's own entry for a class name, the exact spelling first, then any that `name_key` equates."""
    if name in replace:
        return replace[name]
    by_key = {name_key(key): words for key, words in replace.items()}
    return by_key.get(name_key(name))


def split_name(name: str, stop_words: frozenset[str]) -> list[str]:
    """Lower-case words of a name, without "(not ...", parentheses, possessive 's and stop words."""
    text = re.sub(r"\(not\b.*", "", composed(name), flags=re.IGNORECASE | re.DOTALL).strip()
    if not re.search(r"[\s_/-]", text):
        text = _HUMP.sub(" ", text)
    words = words_in(text)
    return [word for word in words if word not in stop_words] or words


def words_in(text: str) -> list[str]:
    """The words of any text in lower case, in order: letters and digits with the marks that they bear, no possessive 's.

    Small ones stay: in a query 'after' decides which moment is meant.
    """
    text = re.sub(r"['’]s\b", "", composed(text).lower())
    marks = {"\u0301", *(sign for sign in text if unicodedata.category(sign) in ("Mn", "Mc"))} - {_EMOJI}
    letters = rf"[^\W_](?:{_JOINER}[^\W_]|[{''.join(marks)}]{_JOINER})*"
    return re.findall(letters, re.sub(r"['’]", "", text))
