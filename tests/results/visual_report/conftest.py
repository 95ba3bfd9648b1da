"""A test set of real videos with hostile names, evaluated by a model that sees nothing but colour."""

import pytest
import torch

from engine.data.batch import ClipFormat
from engine.data.pyav.decode import PyAVDecoder
from engine.data.sets.sources import DataSet
from engine.evaluation.embedding import Inference
from engine.evaluation.evaluate import evaluate_source
from engine.models.backbone import Backbone
from engine.models.embedder import Embedder
from engine.results.visual_report.findings import find
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig
from tests.encoded import manifest_of, write_colors

SCRIPT, QUOTES, PLAIN = "<script>alert(1)</script>", "a & \"b\" 'c' [link](javascript:alert(2))|", "plain"
RED, GREEN, BLUE = (230, 20, 20), (20, 230, 20), (20, 20, 230)
VIDEOS = [
    ('0/x"onerror="alert(3).mp4', SCRIPT, RED),
    ("0/gone.mp4", SCRIPT, BLUE),  # decodes when it is evaluated, and is gone when the report is made
    ("1/it's <b>bold</b>.mp4", QUOTES, GREEN),
    ("2/0.mp4", PLAIN, BLUE),
    ("2/1.mp4", PLAIN, GREEN),
]
WORDS = WordsConfig(source="random", dim=3, seed=1)


class Colour(Backbone):
    feature_dim = 3

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.mean(dim=(2, 3, 4))


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory):
    """(test set, its result): each class's vector is where one colour is embedded, so red, green and blue name the classes."""
    folder = tmp_path_factory.mktemp("hostile")
    for path, _, color in VIDEOS:
        write_colors(folder / path, [color] * 8)
    dataset = DataSet("test <i>set</i>", manifest_of(folder, [(path, name, 8) for path, name, _ in VIDEOS]))
    classes = build_class_embeddings(dataset.classes, WORDS)
    clip = ClipFormat(num_frames=4, short_side=32, crop=32)
    decoder = PyAVDecoder(clip, torch.device("cpu"), 1)
    model = Embedder(Colour(), embed_dim=3)
    targets = classes.vectors[[classes.names.index(name) for name in (SCRIPT, QUOTES, PLAIN)]]
    colors = torch.tensor(
        [[2.06, -1.43, -1.37], [-1.55, 2.29, -1.37], [-1.55, -1.43, 2.42]]
    )  # as the model sees them, normalised
    with torch.no_grad():
        model.linear.weight.copy_(torch.linalg.solve(colors, targets).T)
        model.linear.bias.zero_()
    how = Inference(clip, num_snippets=2, batch_size=4, device=torch.device("cpu"), progress=False)
    result = evaluate_source(model, dataset, classes, decoder, how)
    decoder.close()
    (folder / "0/gone.mp4").unlink()
    return dataset, result


@pytest.fixture(scope="session")
def found(evaluated):
    """The findings of that test set, for a model trained on the classes "plain" and "other <u>"."""
    dataset, result = evaluated
    classes = build_class_embeddings(result.classes, WORDS)
    return find([dataset], [result], [classes], [("training", ("plain", "other <u>"))], WORDS)[0]
