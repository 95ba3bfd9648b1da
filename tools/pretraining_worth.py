"""What pretraining without labels is worth where labels are few: the encoder of each mask against an untrained one.

    python tools/pretraining_worth.py configs/pretraining_worth/drawn.yaml configs/pretraining_worth/drawn_labels.yaml \\
        --out runs/pretraining_worth/drawn

For each seed the first config pretrains an encoder with every mask. Each of them, and one with the random weights that the
seed gives (none), is then told the labels of a share of each class's videos, by the second config, in two ways:

    probe         the encoder stays as it is; ridge regression from its features to the class vectors, its strength chosen on
                  training classes held out of it (engine/heads/ridge_regression.py)
    fine-tuned    the second config's training, end to end from the encoder; a share comes so often that all take as many steps

and names the videos of unseen classes. A seed is that of weights, order, masks and labels, and of the classes: of
data.*.class_split, or of the drawn videos, which are drawn anew. Of labels one draw is part of the larger ones.

Differences are in mean-class accuracy within a seed, with their 95 % interval by Student's t over the seeds. Seen classes: the
probe's answers among the training classes, for videos of groups that data.train leaves out, if it does. Control: the
same with random class vectors, which must be at chance; of the fine-tuned the last mask with the largest share alone.

Every training is a run folder in OUT like any other. What is finished is not done again: after an interrupt or kill -9 the same
command goes on. First all encoders are made and probed, then they are fine-tuned, share after share. An encoder that has been
trained on since, for more epochs say, is probed and fine-tuned anew. With other videos all is probed anew, and a training that
had the old ones is refused by name, as engine/train.py does.
"""

import feature_options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(feature_options.pretraining_worth, __doc__)

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from engine.config import Config, load_config
from engine.data.drawn.drawn_set import MANIFEST_NAME
from engine.data.drawn.procedural import write_procedural_dataset
from engine.data.manifests.contents import digest
from engine.data.sets.sources import DataSet, draw_videos, load_source, load_tests
from engine.errors import InputError
from engine.evaluation.embedding import embed_videos
from engine.evaluation.inference import inference_settings
from engine.experiments.cells import differences
from engine.experiments.few_labels import Measured, show, summarise
from engine.experiments.setup import class_pool, share_of_videos, with_split
from engine.files.atomic_file import atomic_write
from engine.heads.ridge_regression import choose_ridge
from engine.heads.splits import accuracy
from engine.models.backbone import build_backbone
from engine.models.embedder import Embedder
from engine.models.weights import load_backbone_weights
from engine.processes.distributed import session
from engine.provenance import file_hash
from engine.records import GrowingRecord
from engine.results.record import FILE, read_results
from engine.schema.keys import with_keys
from engine.schema.parser import parse
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig
from engine.tasks.decoding import choose_decoding
from engine.terminal.progress import Progress
from engine.train import main as train
from engine.training.checkpoint import checkpoint_file

NONE = "none"  # the encoder that was not pretrained
_DIGITS = 10  # of the identity of one that was


@dataclass(frozen=True)
class Study:
    """Two configs, as they are read, and what is tried with them."""

    pretraining: Config
    labelled: Config
    out: Path
    masks: tuple[str, ...]
    shares: tuple[float, ...]
    seeds: tuple[int, ...]

    @property
    def encoders(self) -> tuple[str, ...]:
        return (NONE, *self.masks)

    def folder(self, seed: int, name: str) -> Path:
        """Of a run, or what else is kept, of a seed; of a pretraining by the name of its mask."""
        return self.out / f"seed_{seed}" / name

    def weights(self, seed: int, encoder: str) -> str | None:
        """What `model.weights` names; None of the untrained encoder."""
        return None if encoder == NONE else str(self.folder(seed, encoder))

    def identity(self, seed: int, encoder: str) -> str | None:
        """Of the checkpoint of a pretrained encoder: another one where it was trained on. None of the untrained encoder."""
        return None if encoder == NONE else file_hash(checkpoint_file(self.folder(seed, encoder)))[:_DIGITS]

    def seeded(self, config: Config, seed: int, folder: Path) -> Config:
        """One of the configs for a seed, to run in `folder`."""
        config = with_keys(with_split(config, seed), {"run.seed": seed, "run.folder": str(folder)})
        if config.procedural is None:
            return config
        videos = self.folder(seed, "videos")
        manifests = dict.fromkeys((f"{key}.manifest" for key in config.data.sources), str(videos / MANIFEST_NAME))
        return with_keys(config, {"procedural.seed": seed, "procedural.folder": str(videos), **manifests})


def main(arguments: argparse.Namespace) -> None:
    """Pretrain, probe, fine-tune; print the table, and keep a record of it if asked."""
    study = read_study(arguments)
    cells = [partial(probe, study, seed, encoder) for seed in study.seeds for encoder in study.encoders]
    if "fine-tuned" in arguments.uses:
        tried = [(seed, share, encoder) for share in study.shares for seed in study.seeds for encoder in study.encoders]
        cells += [partial(fine_tune, study, *each) for each in tried]
    record = GrowingRecord("pretraining_worth") if arguments.record else None
    about = {"pretraining": differences(study.pretraining), "labelled": differences(study.labelled)}
    found: list[Measured] = []
    with Progress(len(cells), "cell") as progress:
        for cell in cells:
            found += cell()
            progress.advance(0)
            if record:  # what was measured stays
                measured = [dataclasses.asdict(each) for each in found]
                record.write(n=len(study.seeds), accuracy=list(summarise(found)), measured=measured, **about)
    table = show(list(summarise(found)))
    print("\n" + (table.markdown() if arguments.markdown else table.text()))


def read_study(arguments: argparse.Namespace) -> Study:
    """The study that is asked for.

    Raises:
        InputError: configs that do not belong together.
    """
    pretraining, labelled = load_config(arguments.pretraining, []), load_config(arguments.labelled, [])
    if (pretraining.task, labelled.task) != ("masked", "zero_shot"):
        raise InputError(
            f"'{arguments.pretraining}' is of the task {pretraining.task}, '{arguments.labelled}' of {labelled.task}: name a "
            "config of the task masked, then one of zero_shot"
        )
    if len(labelled.data.train) != 1 or len(labelled.data.tests or ()) != 1:
        raise InputError(
            f"'{arguments.labelled}' needs one set in data.train, whose labels are drawn, and one in data.tests"
        )
    if pretraining.procedural != labelled.procedural:
        raise InputError(
            f"'{arguments.labelled}' draws other videos than '{arguments.pretraining}': give both one procedural"
        )
    lists = (tuple(dict.fromkeys(each)) for each in (arguments.masks, arguments.shares, arguments.seeds))
    return Study(pretraining, labelled, arguments.out, *lists)


def run(config: Config) -> None:
    """Train as engine/train.py does, in this process; what is finished is only read. What it prints goes to terminal.txt.

    Raises:
        InputError: of the training; or a signal asked it to stop.
    """
    folder = Path(config.run.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "terminal.txt").open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        train(config)
    if not (folder / FILE).is_file():
        raise InputError(f"stopped in '{folder}', as asked: the same command goes on from there")


def probe(study: Study, seed: int, encoder: str) -> list[Measured]:
    """What a linear layer makes of an encoder's features, for each share of the labels."""
    file = study.folder(seed, "probe") / f"{encoder}.json"
    config = study.seeded(study.labelled, seed, file.parent)
    if config.procedural is not None:
        write_procedural_dataset(config.procedural)
    if encoder != NONE:
        pretraining = study.seeded(study.pretraining, seed, study.folder(seed, encoder))
        run(with_keys(pretraining, {"masked.mask": encoder}))
    whole, unseen = load_source(dataclasses.replace(config.data.train[0], groups=[])), load_tests(config.data.tests)[0]
    decisive = ("data", "clip", "model", "words", "evaluate")
    made_with = {
        "shares": list(study.shares),
        **{name: differences(getattr(config, name)) for name in decisive},
        "procedural": config.procedural and differences(config.procedural),
        "videos": [digest(data.manifest) for data in (whole, unseen)],
    }
    if (identity := study.identity(seed, encoder)) is not None:
        made_with["encoder"] = identity
    if (kept := _kept(file, made_with)) is not None:
        return kept
    measured = list(_probed(study, config, encoder, whole, unseen))
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as beside:
        content = {"made_with": made_with, "measured": [dataclasses.asdict(each) for each in measured]}
        beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return measured


def _kept(file: Path, made_with: Mapping[str, object]) -> list[Measured] | None:
    """What was probed before. None where nothing was, or with something else, or where the file is damaged, which is said."""
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["made_with"] != made_with:
            return None
        return [parse(Measured, each) for each in content["measured"]]
    except (ValueError, LookupError, TypeError, InputError):
        print(f"'{file}' is damaged: probing anew", flush=True)
        return None


def _probed(study: Study, config: Config, encoder: str, whole: DataSet, unseen: DataSet) -> Iterator[Measured]:
    source, seed = config.data.train[0], config.run.seed
    weights = study.weights(seed, encoder)
    features, asked = embedded(config, weights, whole), embedded(config, weights, unseen)
    groups = whole.manifest.strings("group")
    is_pool = np.isin(groups, source.groups or groups)
    pool, others = np.flatnonzero(is_pool), np.flatnonzero(~is_pool)
    label, truth = (torch.from_numpy(data.manifest.class_index) for data in (whole, unseen))
    for share in study.shares:
        told = pool[draw_videos(whole.manifest.select(pool), share, seed)]
        found = []
        for words in (config.words, WordsConfig(source="random", seed=seed)):
            known, new = (build_class_embeddings(data.classes, words).vectors.double() for data in (whole, unseen))
            layer = choose_ridge(features[told], label[told], known, seed=seed)
            points, at_others = ((each.double() @ layer.weight.T + layer.bias) for each in (asked, features[others]))
            seen = accuracy(at_others @ known.T, label[others]).mean_class if len(others) else None
            found.append((accuracy(points @ new.T, truth), seen))
        (reached, seen), (control, _) = found
        largest = float(truth.bincount().max()) / len(truth)
        labels = len(told) / len(whole.classes)
        accuracies = (reached.top1, reached.mean_class, 1 / len(new), largest, seen, control.mean_class)
        yield Measured("probe", encoder, share, labels, seed, *accuracies)


def embedded(config: Config, weights: str | None, data: DataSet) -> torch.Tensor:
    """Features float32 [V, F] of all videos of a set; without weights the encoder has those that a training would begin with.

    Raises:
        InputError: a video cannot be decoded.
    """
    with session(config.run) as ranks:
        torch.manual_seed(config.run.seed)
        backbone = build_backbone(config.model, config.clip)
        if weights is not None:
            load_backbone_weights(backbone, weights)
        how = inference_settings(config, ranks.device, progress=False)
        decoder = choose_decoding(config, ranks.device, [data.manifest]).open(how.batch_size)
        try:
            found = embed_videos(Embedder(backbone, None).to(ranks.device), data.manifest, decoder, how)
        finally:
            decoder.close()
    if found.failures:
        raise InputError(
            f"a video of '{data.name}' cannot be decoded ({found.failures[0].reason}): index the set again"
        )
    return found.embeddings


def fine_tune(study: Study, seed: int, share: float, encoder: str) -> list[Measured]:
    """The second config's training from an encoder, which `probe` has made, with a share of the labels."""
    parts = (encoder, f"{share:g}", study.identity(seed, encoder))
    folder = study.folder(seed, "fine_tuned") / "-".join(filter(None, parts))
    config = study.seeded(study.labelled, seed, folder)
    pool = class_pool(config)
    has_control = (share, encoder) == (max(study.shares), study.encoders[-1])
    training = share_of_videos(config, pool, share, seed)
    weights = study.weights(seed, encoder)
    run(with_keys(config, {"data.train": training.sources, "model.weights": weights, "run.control": has_control}))
    labels = training.videos / training.classes
    (test,) = read_results(folder).tests.values()
    control = (
        next(iter(read_results(folder / "control").tests.values())).all_classes.mean_class if has_control else None
    )
    found, videos = test.all_classes, [row.num_videos for row in test.per_class]
    accuracies = (found.top1, found.mean_class, found.chance_top1, max(videos) / sum(videos))
    return [Measured("fine-tuned", encoder, share, labels, seed, *accuracies, control=control)]


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
