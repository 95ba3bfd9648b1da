"""The `words` section of a config, where class vectors come from, and `train.exclude_overlap`, which compares them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.schema.parser import MAX_SEED, option

AVERAGED = ("glove", "word2vec")  # sources that average the vectors of words
_AVERAGED = f"source={'|'.join(AVERAGED)}"
_NAMES = f"{_AVERAGED}|npz or text=definition|both"  # are matched by their words


@dataclass(frozen=True)
class WordSourceConfig:
    """One source of class vectors."""

    source: str = option("glove", "where vectors come from", choices=("glove", "word2vec", "npz", "sentence", "random"))
    path: str | None = option(
        None,
        "word2vec binary/text, GloVe text or .npz file, or the folder of a sentence encoder or of a CLIP; glove and "
        "sentence alone use the installed GloVe-6B-50d and all-MiniLM-L6-v2",
        needs="source!=random",
        path=True,
    )
    max_words: int | None = option(
        None, "read only the first so many (most frequent) words of the file", minimum=1, needs=_AVERAGED
    )
    rules: str = option(
        "auto",
        "which data set's replacement table",
        choices=("auto", "none", "ucf101", "hmdb51", "kinetics", "activitynet", "sun397"),
        needs=_NAMES,
    )
    lemmatize: bool = option(True, "verbs to their WordNet lemma, as the authors' code does", needs=_NAMES)
    centre: str = option(
        "auto",
        "subtract a mean: of the 20,000 commonest words, of the file's classes, of sentences; auto: for GloVe and sentences",
        choices=("auto", "yes", "no"),
        needs="source!=random",
    )
    replace: dict[str, str] = option({}, "class name -> the words to use in its place", needs="source!=random")
    missing: str = option(
        "error",
        "a word without a vector: error, or random: a fixed random vector, so that the same name is still the same",
        choices=("error", "random"),
        needs=_AVERAGED,
    )
    dim: int = option(300, "length of random vectors", minimum=1, needs="source=random")
    seed: int = option(
        0, "seed of random vectors", minimum=0, maximum=MAX_SEED, needs="source=random or missing=random"
    )
    text: str = option(
        "name",
        "what a sentence encoder reads; both: average of the two",
        choices=("name", "definition", "both"),
        needs="source=sentence",
    )
    prompt: str = option("{name}", "what a sentence encoder reads of a name", needs="text=name|both or undefined=name")
    prompts: list[str] = option(
        [],
        "several in its place, the unit vectors of all averaged, as CLIP is used",
        needs="text=name|both or undefined=name",
    )
    definitions: list[str] = option(
        [],
        "files of class definitions: JSON, CSV or TSV (engine/semantics/sentences.py), or imagenet",
        needs="text=definition|both",
        path=True,
    )
    undefined: str = option(
        "error",
        "a class without a definition: error, or its name alone",
        choices=("error", "name"),
        needs="text=definition|both",
    )


@dataclass(frozen=True)
class WordsConfig(WordSourceConfig):
    """Class names -> class vectors."""

    also: WordSourceConfig | None = option(
        None, "a second source: unit vectors of both side by side, so that a cosine is the mean of the two"
    )


@dataclass(frozen=True)
class OverlapConfig:
    """Training classes that are a test class under another name (paper Sec. 3.3, Eq. 3), over all sets."""

    tau: float = option(0.05, "cosine distance of two class names up to which they overlap", minimum=0, maximum=2)
    same_names: bool = option(
        True, "a name of the letters of a test class's, or of its words, overlaps however far the vectors lie apart"
    )
    same_words: bool = option(
        False, "names also overlap that end in the same word, or of which one is made of the other's words"
    )
    training: str = option(
        "refuse",
        "overlapping training classes: refuse to start, remove them, or allow them",
        choices=("refuse", "remove", "allow"),
    )
    pretrained: str = option(
        "refuse", "overlapping classes that the weights were pretrained on", choices=("refuse", "allow")
    )
    pretrained_classes: str | None = option(
        None,
        "text file of the classes that model.weights was trained on; kinetics400 and own checkpoints are known",
        needs="model.weights or train.init_from",
        path=True,
    )
    words: WordsConfig | None = option(None, "class vectors to measure the distance with; default: the run's words")


def sources_of(words: WordSourceConfig) -> tuple[WordSourceConfig, ...]:
    """The sources of a section: itself, and `also` where it has one."""
    also = words.also if isinstance(words, WordsConfig) else None
    return (words,) if also is None else (words, also)


def each_source(words: WordsConfig, change: Callable[[WordSourceConfig], WordSourceConfig]) -> WordsConfig:
    """The section with each of its sources changed."""
    return replace(change(words), also=None if words.also is None else change(words.also))


def random_where_missing(words: WordsConfig) -> WordsConfig:
    """The section with random vectors for words that averaged vectors lack, whichever of its sources these are."""
    return each_source(words, lambda source: replace(source, missing="random") if source.source in AVERAGED else source)


def serves_any_name(words: WordsConfig) -> bool:
    """Whether all sources of a section know what any name means: no file of ready vectors or definitions has to hold it."""
    return all(
        source.source in AVERAGED or (source.source == "sentence" and "name" in (source.text, source.undefined))
        for source in sources_of(words)
    )
