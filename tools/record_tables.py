"""Tables of records: for each kind of record in benchmarks/records, the table that a page shows of it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from engine.errors import InputError
from engine.results.spread import difference, mean_of, mean_over_splits
from engine.results.table import Table

Record = Mapping[str, Any]
Options = Mapping[str, str]  # of a page's marker

_BENCHMARKS = (
    "compute", "compiled", "train", "kernels", "accuracy", "roofline", "manifest", "many_rows", "cluster", "decode", "ingest",
    "windows", "storage", "pretrain", "plan", "long_video",
)  # fmt: skip


def maker_of(name: str) -> Callable[[Record, Options], Table]:
    """What makes the table of a record of that name; runs side by side are recorded under names of their own."""
    return {
        "heads": heads, "untrained": untrained, "experiments": experiment, "moments": moments, "moments_in_a_row": in_a_row,
        "domain_shift": shift, "pretraining_worth": few_labels,
        **{each: partial(benchmark, each) for each in _BENCHMARKS},
    }.get(name, runs)  # fmt: skip


def benchmark(name: str, record: Record, options: Options) -> Table:
    """Of tools/bench_throughput.py, as it printed it; `part`: which, where there are several.

    Raises:
        InputError: there is no such part.
    """
    from bench.publish import tables_of

    tables, part = tables_of(name, record), options.get("part", "")
    if part not in tables:
        raise InputError(f"it has no part '{part}', but {', '.join(tables)}")
    return tables[part]


def few_labels(record: Record, options: Options) -> Table:
    """Of tools/pretraining_worth.py: a row for each use (or of the one that `use` names), number of labels and encoder."""
    from engine.experiments.few_labels import show

    return show([row for row in record["accuracy"] if row["use"] == options.get("use", row["use"])])


def spread(row: Record, name: str) -> str:
    """Mean and standard deviation, of a single value the value alone; older records have 0 for the deviation of one."""
    mean, deviation = f"{row[name]:.3f}", row[f"{name}_sd"]
    is_single = row.get("splits") == 1 or (row.get("part") == "all" and not row["method"].startswith("random words"))
    return mean if deviation is None or (is_single and deviation < 1e-9) else f"{mean} ± {deviation:.3f}"


def heads(record: Record, options: Options) -> Table:
    """Of tools/fit_head.py: a row for each head (and number of seen classes), beside its control, with the paired difference
    (Student's t) to it, and to the first number. `of`: the unseen classes whose videos these are, _ for spaces."""
    of = options.get("of", "all").replace("_", " ")
    rows = [row for row in record["accuracy"] if row.get("of", "all") == of]
    counts = record.get("class_counts") or [None]
    kept = {(row["head"], row["words"], row.get("count")): row for row in rows}
    single: dict[tuple[str, str, int | None], dict[int, float]] = {}
    for each in record["measured"]:
        if each.get("of", "all") == of:
            key = each["head"], each["words"], each.get("count")
            single.setdefault(key, {})[each["split"]] = each["mean_class"]

    def less(one: tuple[str, str, int | None], other: tuple[str, str, int | None]) -> str | None:
        pairs = [(single[one][split], single[other][split]) for split in single[one]]
        return str(difference(pairs)) if one != other else None

    def learns(head: str) -> bool:
        """Whether the number of seen classes matters to a head at all."""
        return any(single[head, "words", count] != single[head, "words", counts[0]] for count in counts)

    baseline, shown = rows[0]["head"], []
    for (head, words, count), row in kept.items():
        if words == "words" and (count == counts[0] or learns(head)):
            control, mine = (head, "random words", count), (head, words, count)
            shown.append(
                [head, count if learns(head) else "any", spread(row, "mean_class"), less(mine, (baseline, words, count)),
                 less(mine, (head, words, counts[0])), spread(kept[control], "mean_class"), less(mine, control),
                 row["chance"], spread(row, "top1"), row["largest"]]
            )  # fmt: skip
    header = ["head", "seen classes", "mean-class", f"less {baseline} (95 %)", f"less {counts[0]} seen (95 %)", "random words",
              "less random words (95 %)", "chance", "top-1", "largest class"]  # fmt: skip
    columns = [place for place in range(len(header)) if place not in ((1, 4) if counts == [None] else ())]
    return Table([header[place] for place in columns], [[row[place] for place in columns] for row in shown])


def shift(record: Record, options: Options) -> Table:
    """Of tools/domain_shift.py; `head`: which."""
    from engine.heads.shift import Shifted, shift_table

    return shift_table(options["head"], [Shifted(**each) for each in record["heads"][options["head"]]])


def untrained(record: Record, options: Options) -> Table:
    """Of tools/untrained_splits.py; `part`: splits, or all classes at once."""
    shown = [
        [row["method"], spread(row, "mean_class"), row["chance_top1"], spread(row, "top1"), row["largest_class"]]
        for row in record["accuracy"]
        if row["part"] == options["part"]
    ]
    return Table(["method", "mean-class", "chance", "top-1", "largest class"], shown)


def experiment(record: Record, options: Options) -> Table:
    """Of tools/experiments.py: the methods split by split, or a row for each place of each curve; part=claims: what it decides."""
    if options.get("part") == "claims":
        from engine.experiments.claims import Finding, claims_table

        gains = [(each, {int(split): gain for split, gain in each["gain"].items()}) for each in record["findings"]]
        return claims_table([Finding(each["claim"], each["test"], gain) for each, gain in gains])
    rows = [dict(zip(record["header"], row, strict=True)) for row in record["rows"]]
    return methods(rows, options) if record["experiment"] == "methods" else curves(rows, options)


def curves(rows: Sequence[Record], options: Options) -> Table:
    """Mean ± standard error over splits, draws of one averaged first. half=yes: of half of the classes."""
    prefix = "half_" if options.get("half") else ""
    measures = {"mean-class": f"{prefix}mean_class", "top-1": f"{prefix}top1"}
    measures = {called: name for called, name in measures.items() if name in rows[0]}
    has_control = any(row.get("control_mean_class") is not None for row in rows) and not prefix
    shown = []
    for key in dict.fromkeys((row["test_set"], row["curve"], row["x"]) for row in rows):
        group = [row for row in rows if (row["test_set"], row["curve"], row["x"]) == key]
        classes, videos = (
            f"{mean_of([row[of] for row in group]).value:.0f}" for of in ("training_classes", "training_videos")
        )
        candidates = group[0]["num_classes"] // (2 if prefix else 1)
        means = [str(mean_over_splits([(row["split"], row[name]) for row in group])) for name in measures.values()]
        splits = len({row["split"] for row in group})
        controls = [
            (row["split"], row["control_mean_class"]) for row in group if row.get("control_mean_class") is not None
        ]
        beside = [str(mean_over_splits(controls)) if controls else None] * has_control
        shown.append([*key, classes, videos, splits, len(group), *means, *beside, 1 / candidates])
    header = ["test set", "curve", "at", "training classes", "training videos", "splits", "runs", *measures]
    header += [*["control"] * has_control, "chance"]
    return Table(header, shown)


def methods(rows: Sequence[Record], options: Options) -> Table:
    """A column for each split; differences are to the first method."""
    measure = "mean_class" if "mean_class" in rows[0] else "top1"
    control = f"control_{measure}"
    of: dict[str, dict[int, Record]] = {}
    for row in rows:
        of.setdefault(row["curve"], {})[row["split"]] = row
    splits = sorted({row["split"] for row in rows})
    reference, shown = next(iter(of.values())), []
    for method, own in of.items():
        values = [own[split][measure] if split in own else None for split in splits]
        mean = mean_of([value for value in values if value is not None])
        pairs = [(own[split][measure], reference[split][measure]) for split in own if split in reference]
        controls = [row[control] for row in own.values() if row[control] is not None]
        shown.append([method, *values, mean.with_spread(),
                      str(difference(pairs)) if own is not reference else None,
                      str(mean_of(controls)) if controls else None])  # fmt: skip
    called = {"mean_class": "mean-class", "top1": "top-1"}[measure]
    header = ["method", *map(str, splits), f"{called} (sd)", f"less {next(iter(of))} (95 %)", "control"]
    return Table(header, shown)


def runs(record: Record, options: Options) -> Table:
    """Of tools/compare_runs.py: each run, mean and standard deviation. `test`: of several test sets which, _ for spaces."""
    by_test = {title.replace(" ", "_"): group for title, group in record.get("tests", {}).items()}
    listed = by_test[options["test"]]["runs"] if by_test else record["runs"]
    names = {
        "seen_mean_class": "seen", "mean_class": "unseen", "control_mean_class": "control", "top1": "unseen top-1",
        "largest_class": "largest class", "seen": "seen top-1", "unseen": "unseen top-1", "control": "control top-1",
        "chance": "chance", "clips_per_second": "clips/s",
    }  # fmt: skip
    columns = [name for name in names if any(run.get(name) is not None for run in listed)]
    shown: list[list[object]] = [[run["run"], *(run.get(name) for name in columns)] for run in listed]
    if len(listed) > 1:
        means = {name: mean_of(found) for name in columns if None not in (found := [run.get(name) for run in listed])}
        for label, of in (("mean", "value"), ("standard deviation", "std")):
            shown.append([label, *(getattr(means[name], of) if name in means else None for name in columns)])
    if columns[-1] == "clips_per_second":
        shown = [[*row[:-1], None if row[-1] is None else f"{row[-1]:.0f}"] for row in shown]
    return Table(["run", *(names[name] for name in columns)], shown)


def moments(record: Record, options: Options) -> Table:
    """Of tools/compare_moments.py, per cent: the model of each kind of runs, and what the first kind stands beside."""
    parts = {
        "model": "",
        "wrong_queries": "queries of other videos",
        "untrained": "no training",
        "prior": "no query (prior)",
    }
    measures, shown = list(record["kinds"][0]["parts"]["model"]), []
    for index, kind in enumerate(record["kinds"]):
        for part in parts if not index else ("model",):
            numbers = kind["parts"][part]
            found = [numbers.get(of) for of in measures]
            cells = [None if not n else _per_cent(n, kind["runs"]) for n in found]
            shown.append([parts[part] or kind["options"], kind["runs"], *cells])
    return Table(["what", "runs", *(name.replace("_", " ") for name in measures)], shown)


def _per_cent(number: Mapping[str, float], runs: int) -> str:
    """Mean and deviation; records of before have 0 as the deviation of one run."""
    is_spread = runs > 1 and number["std"] is not None
    return f"{100 * number['mean']:.1f}" + (f" ± {100 * number['std']:.1f}" if is_spread else "")


def in_a_row(record: Record, options: Options) -> Table:
    """Of tools/moments_in_a_row.py: a row for each way to find them, over the halvings."""
    found = {name: mean_of(shares) for name, shares in record["shares"].items()}
    shown = [
        [name, mean.with_spread(), min(record["shares"][name]), max(record["shares"][name])]
        for name, mean in found.items()
    ]
    return Table(["", "R@1, IoU 0.5", "least", "most"], shown)
