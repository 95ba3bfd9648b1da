"""Class vectors over known classes against the recipe written out, and what they must not know."""

import numpy as np
import pytest
import torch

from engine.errors import InputError
from engine.models.image_weights import IMAGENET, imagenet_classes
from engine.naming.known_classes import EXTRA, NEAREST, KnownClasses, known_vectors, video_points
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig, WordSourceConfig

KNOWN = (*(f"thing {index}" for index in range(70)), "violin, fiddle", "balance beam", "Chlamydosaurus kingi")
NAMES = ("playing the violin", "walking", "red thing")
GLOVE = WordsConfig(missing="random")


def points(count: int = 9) -> torch.Tensor:
    scores = torch.rand(count, len(KNOWN), generator=torch.Generator().manual_seed(0)).pow(8)
    return video_points((scores / scores.sum(dim=1, keepdim=True)).sqrt())


def written_out(roots: np.ndarray) -> np.ndarray:
    """Scores [V, C] of the recipe: roots of mean scores times the cosines of the 50 nearest known names of each class."""
    asked = build_class_embeddings(NAMES, GLOVE).vectors.double().numpy()
    known = build_class_embeddings(KNOWN, GLOVE).vectors.double().numpy()
    scores = np.zeros((len(roots), len(NAMES)))
    for column, cosines in enumerate(asked @ known.T):
        for index in np.argsort(-cosines)[:50]:
            scores[:, column] += roots[:, index] * cosines[index]
    return scores


def cosines(videos: torch.Tensor, vectors: torch.Tensor) -> np.ndarray:
    return (torch.nn.functional.normalize(videos.double(), dim=1) @ vectors.double().T).numpy()


def test_cosines_are_the_scores_but_for_one_factor():
    videos = points()
    expected = written_out(videos[:, :-EXTRA].double().numpy())
    classes = KnownClasses(KNOWN, GLOVE).embed(NAMES)
    assert expected.std(axis=0).min() > 1e-3 and classes.vectors.shape == (3, len(KNOWN) + EXTRA)
    np.testing.assert_allclose(cosines(videos, classes.vectors) * (2 * NEAREST) ** 0.5, expected, atol=1e-5)
    assert classes.words[0][0] == "violin, fiddle"
    alone = KnownClasses(KNOWN, GLOVE).embed(NAMES[:1])
    torch.testing.assert_close(alone.vectors[0], classes.vectors[0], rtol=0, atol=1e-6)


def test_standardised_scores_are_counted_over_the_unlabelled_videos():
    videos, others = points()[:4], points(40)[4:]
    scores, over = (written_out(each[:, :-EXTRA].double().numpy()) for each in (videos, others))
    expected = (scores - over.mean(axis=0)) / over.std(axis=0, ddof=1)
    classes = KnownClasses(KNOWN, GLOVE, others).embed(NAMES)
    found = cosines(videos, classes.vectors)
    np.testing.assert_allclose(found / found.std() * expected.std(), expected, atol=2e-3)
    assert "standardised over 36 unlabelled videos" in classes.description
    with pytest.raises(InputError, match="at least 2 unlabelled videos, not 1"):
        KnownClasses(KNOWN, GLOVE, others[:1])


def test_videos_that_are_all_alike_standardise_nothing_away():
    """No score of theirs deviates from its mean: the vectors stay numbers, of length 1."""
    classes = KnownClasses(KNOWN, GLOVE, points(1).expand(3, -1)).embed(NAMES)
    torch.testing.assert_close(classes.vectors.norm(dim=1), torch.ones(len(NAMES)))


def test_imagenets_classes_are_defined_by_wordnet_and_others_by_the_files_of_those_asked_for(monkeypatch):
    """What has no definition there speaks by its name."""
    asked = []

    def embed(names, words):
        asked.append((words.text, words.definitions, words.undefined))
        return build_class_embeddings(names, WordsConfig(source="random"))

    monkeypatch.setattr("engine.naming.known_classes.build_class_embeddings", embed)
    words = WordsConfig(source="sentence", text="definition", definitions=["mine.csv"])
    for known in (imagenet_classes(), KNOWN):
        known_vectors(known, words)
    assert asked == [("definition", [IMAGENET], "name"), ("definition", ["mine.csv"], "name")]


def test_random_words_do_not_meet_where_names_are_equal():
    """Else a class that the network knows by its very name would be found, and the control would lie above chance."""
    words = WordsConfig(source="random", seed=3)
    found = KnownClasses(KNOWN, words).embed(("balance beam", "violin, fiddle"))
    assert found.words[0][0] != "balance beam" and found.words[1][0] != "violin, fiddle"
    assert KnownClasses(KNOWN, GLOVE).embed(("balance beam",)).words[0][0] == "balance beam"


def test_unknown_words_are_told_of_classes_asked_for_only():
    """ImageNet's Latin names lack vectors, which nobody can help."""
    with pytest.raises(InputError, match="qwertzing") as caught:
        KnownClasses(KNOWN, WordsConfig()).embed(("qwertzing", "walking"))
    assert "hlamydosaurus" not in str(caught.value)
    for words in (
        WordsConfig(),
        WordsConfig(also=WordSourceConfig()),
        WordsConfig(source="random", also=WordSourceConfig()),
    ):
        assert len(KnownClasses(KNOWN, words).embed(("walking", "violin"))) == 2
