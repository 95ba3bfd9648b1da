"""What a moment run trains on and is measured on: queries with their true windows, beside the features of their videos."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from engine.config import Config, load_config
from engine.data.drawn.drawn_set import MANIFEST_NAME
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.features.cache import FeatureCache
from engine.features.encoder import Encoder, build_encoder
from engine.features.extract import extract
from engine.features.windows import parse_grid
from engine.moments.annotations import KINDS, Annotations, Report, VideoNames, digest_of, within_videos
from engine.moments.config import MomentsConfig
from engine.moments.drawn import ANNOTATIONS_NAME, write_drawn_moments
from engine.moments.queries import KeptQueries, open_queries
from engine.moments.segments import Segments, cut_segments
from engine.processes.distributed import Ranks, done_by_main
from engine.semantics.scripts import tell_of_script

_VIDEOS_HELD = 1024  # in memory, cut into segments


@dataclass(frozen=True)
class MomentSet:
    """Queries of one purpose.

    name: of the split, or "held out". annotations: their videos named as the features are.
    tokens: float32 [L, E] of each query.
    """

    name: str
    annotations: Annotations
    tokens: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.annotations)


@dataclass(frozen=True)
class MomentData:
    """All of a run's queries, and the features.

    labels: the training set's windows as they are learnt, with `boundary_noise`. encoder: what the features came from, if the
    run knows it. notes: lines for the log.
    """

    config: MomentsConfig
    features: FeatureCache
    queries: KeptQueries
    train: MomentSet
    labels: Sequence[np.ndarray]
    held_out: MomentSet | None
    tests: Sequence[MomentSet]
    encoder: Encoder | None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", lru_cache(_VIDEOS_HELD)(self._segments))

    @property
    def learnt_digest(self) -> str:
        """Of the queries that are trained on and of those held out, with their moments."""
        return "".join(part.annotations.digest for part in self._learnt)

    @cached_property  # every checkpoint has it
    def learnt_videos_digest(self) -> str:
        """Of the videos of those queries, query by query; "" where the contents of one are not known."""
        digests = [*map(self.videos_digest, self._learnt)]
        return "".join(digests) if all(digests) else ""

    @property
    def _learnt(self) -> list[MomentSet]:
        return [part for part in (self.train, self.held_out) if part is not None]

    def videos_digest(self, part: MomentSet) -> str:
        """Of the videos of a set's queries, query by query: by their contents, whatever they are called; "" where the features
        do not tell them."""
        contents = [self.features.contents(video) for video in part.annotations.videos]
        return "" if any(isinstance(each, str) for each in contents) else digest_of(contents)

    def _segments(self, video: str) -> Segments:
        try:
            return cut_segments(self.features[video], self.config.segment_s)
        except InputError as error:
            raise InputError(f"'{video}': {error}") from error


def read_moment_data(config: Config, ranks: Ranks) -> MomentData:
    """Draw and extract what the config asks for, on rank 0; read the annotations and the features.

    Raises:
        InputError: what cannot be read or had, a split without queries, one that is trained on and tested, features that have no
            video of them.
    """
    moments = config.moments
    if moments is None:
        raise InputError("task moments needs a section moments: see configs/moments_quickstart.yaml")
    if both := [split for split in moments.tests if split in moments.train]:
        raise InputError(
            f"moments.train and moments.tests both name the split {', '.join(both)}: its queries would be trained on and tested; "
            "leave it out of one of them"
        )
    encoder = _encoder(config, ranks)
    annotations, manifest = _drawn(moments, ranks)
    if encoder is not None:
        grid = parse_grid(moments.window, moments.hop, encoder.clip.num_frames * encoder.clip.stride)
        place = Path(moments.features)
        done_by_main(ranks, lambda: extract(Manifest.load(manifest), encoder, place, grid, option="moments.features"))
    features = FeatureCache(Path(moments.features), digest=encoder.digest if encoder else None)
    known, notes = _known(Annotations.load(annotations), features)
    queries = KeptQueries(open_queries(config.words))
    tell_of_script(known.queries, config.words)
    known, unread = _readable(known, moments, queries)
    train = _of_training(moments, known)
    is_held = _held_out(train.videos, moments.held_out)
    held = _set("held out", train.select(is_held), queries) if is_held.any() else None
    tests = [_set(split, known.of_splits([split]), queries) for split in moments.tests]
    if len(train) and is_held.all():
        raise InputError(
            f"moments.held_out {moments.held_out:g} is all of the {len(set(train.videos))} training videos, and leaves none to "
            "train on: lower it, or name more videos"
        )
    empty = [split for split in (*moments.train, *moments.tests) if split not in known.splits]
    if not len(train) and not set(moments.train).intersection(empty):
        empty.insert(0, ", ".join(moments.train) or "that is not tested")
    if empty:
        there = ", ".join(sorted(set(known.splits)))
        raise InputError(f"moments '{annotations}' have no query of the split {', '.join(empty)}: there are {there}")
    shown = _set("training", train.select(~is_held), queries)
    notes += unread + _trained_videos(features, train, tests)
    labels = jittered(shown.annotations, moments.boundary_noise, moments.noise_seed)
    return MomentData(moments, features, queries, shown, labels, held, tests, encoder, notes)


def jittered(annotations: Annotations, sigma: float, seed: int) -> list[np.ndarray]:
    """The windows with starts and ends moved by normal noise of `sigma` lengths: as if other people had marked them.

    Each is moved once and for all; it stays within the video and keeps at least a tenth of its length.
    """
    if not sigma:
        return list(annotations.windows)
    moved = []
    for row, (windows, duration) in enumerate(zip(annotations.windows, annotations.durations, strict=True)):
        length = windows[:, 1] - windows[:, 0]
        noise = np.random.default_rng((seed, row)).normal(0, sigma, windows.shape) * length[:, None]
        start, end = np.sort(windows + noise, axis=1).T
        middle, half = (start + end) / 2, np.maximum(end - start, length / 10) / 2
        limit = duration if np.isfinite(duration) else np.inf
        middle = np.clip(middle, length / 20, limit - length / 20)
        moved.append(np.stack([np.maximum(middle - half, 0), np.minimum(middle + half, limit)], axis=1))
    return moved


def _encoder(config: Config, ranks: Ranks) -> Encoder | None:
    if config.moments.encoder is None:
        return None
    folder = load_config(Path(config.moments.encoder), []).run.folder
    return build_encoder(folder, ranks.device, "moments.encoder")


def _drawn(moments: MomentsConfig, ranks: Ranks) -> tuple[Path, Path | None]:
    """The table of moments and the manifest, drawn first where the config says so."""
    annotations, manifest = (Path(path) if path else None for path in (moments.annotations, moments.manifest))
    if moments.drawn is not None:
        folder = Path(moments.drawn.folder)
        done_by_main(ranks, lambda: write_drawn_moments(moments.drawn))
        annotations = annotations or folder / ANNOTATIONS_NAME
        manifest = manifest or folder / MANIFEST_NAME
    return annotations, manifest


def _known(annotations: Annotations, features: FeatureCache) -> tuple[Annotations, list[str]]:
    """The queries whose videos have features, named as those are."""
    names = VideoNames(features.videos)
    found = [names.find(video) for video in annotations.videos]
    has_one = np.array([len(each) == 1 for each in found], dtype=bool)
    known = annotations.select(has_one)
    videos = [next(iter(found[row])) for row in np.flatnonzero(has_one)]
    durations = np.array([features[video].duration_s for video in videos], dtype=np.float64)
    known, notes = _within(replace(known, videos=videos, durations=durations))
    lacking = {video for video, one in zip(annotations.videos, has_one, strict=True) if not one}
    if not has_one.any():
        raise InputError(
            f"the features in '{features.folder}' are of none of the videos that the moments name (the first: "
            f"{next(iter(annotations.videos), 'there is none')}): extract the features of these videos"
        )
    if lacking:
        notes.insert(0, f"left out: queries of {len(lacking)} videos without features")
    return known, notes


def _within(known: Annotations) -> tuple[Annotations, list[str]]:
    """The queries without what lies beyond the end of their video, which no one knew where a table was made without a manifest."""
    report = Report()
    within = within_videos(known, report)
    if not report.rows:
        return within, []
    video, _, window = report.rows[0]
    first = f"the first: '{video}', {window}"
    if not len(within):
        raise InputError(
            f"moments.annotations: every moment starts after the end of its video, as the features have it ({first}): index "
            "moments of these videos, in seconds"
        )
    told = ", ".join(f"{count} {KINDS[kind]}" for kind, count in report.counts.items())
    return within, [f"warning: moments beyond the end of their videos, as the features have it ({first}): {told}"]


def _readable(known: Annotations, moments: MomentsConfig, queries: KeptQueries) -> tuple[Annotations, list[str]]:
    """The queries without those of the run's splits that have no tokens: too long, or of no word that has a vector."""
    used, unread = {*(moments.train or known.splits), *moments.tests}, {}
    for query in dict.fromkeys(q for q, split in zip(known.queries, known.splits, strict=True) if split in used):
        try:
            queries.tokens(query)
        except InputError as error:
            unread[query] = str(error)
    if not unread:
        return known, []
    kept = known.select(np.array([query not in unread for query in known.queries], dtype=bool))
    first = f"the first: {next(iter(unread.values()))}"
    if used.isdisjoint(kept.splits):
        raise InputError(
            f"moments.annotations: no query can be read by {queries.description} ({first}): choose other words, or other queries"
        )
    return kept, [f"warning: left out: {len(known) - len(kept)} queries that cannot be read ({first})"]


def _of_training(moments: MomentsConfig, known: Annotations) -> Annotations:
    """The queries of the splits that are trained on; none named: of all but those that are tested."""
    if moments.train:
        return known.of_splits(moments.train)
    return known.select(np.array([split not in moments.tests for split in known.splits], dtype=bool))


def _trained_videos(features: FeatureCache, train: Annotations, tests: Sequence[MomentSet]) -> list[str]:
    """A warning for each test split with videos that are trained on too: the same contents, whatever they are called."""
    trained, notes = {features.contents(video): video for video in dict.fromkeys(train.videos)}, []
    for part in tests:
        videos = list(dict.fromkeys(part.annotations.videos))
        found = [(video, trained[of]) for video in videos if (of := features.contents(video)) in trained]
        if found:
            shown = "; ".join(f"{video} = {same}" for video, same in found[:3])
            notes.append(
                f"warning: {len(found)} of the {len(videos)} videos of the split '{part.name}' are trained on too, by their "
                f"contents: {shown}{'; ...' * (len(found) > 3)}"
            )
    return notes


def _held_out(videos: Sequence[str], share: float) -> np.ndarray:
    """bool [N]: the queries of that share of the videos, the same in every run, seed and order."""
    names = sorted(set(videos))
    count = round(share * len(names))
    held = set(np.array(names, dtype=object)[np.random.default_rng(0).permutation(len(names))[:count]])
    return np.array([video in held for video in videos], dtype=bool)


def _set(name: str, annotations: Annotations, queries: KeptQueries) -> MomentSet:
    return MomentSet(name, annotations, [queries.tokens(query) for query in annotations.queries])
