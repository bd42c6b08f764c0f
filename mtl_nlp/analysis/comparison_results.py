"""Finished runs → `comparison.json`: nothing here trains, and nothing is chosen by a test score."""

from __future__ import annotations

import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..comparison import SINGLE
from ..errors import Faults
from ..task import Task
from ..training.predictions import FOLDER, read_predictions
from .comparison_folder import Place, record_of
from .comparison_groups import TrainingTexts, compare_groups, masks
from .comparison_plan import Plan, Run, Variant
from .outcomes import SLOW_RESAMPLES, Lines, Outcomes, outcomes
from .statistics import (
    NOTHING,
    Judgement,
    TaskNoise,
    approximate_randomisation,
    example_noise,
    judge,
    pooled_variance,
    resampling_weights,
)

RESAMPLES = 2000
ROUNDS = 10000
FORMAT = 1
DIGITS = 6


@dataclass
class Test:
    """One task's test examples under one variant: the lines of every seed's run, and what they amount to."""

    lines: list[Lines]
    outcomes: Outcomes

    @property
    def scores(self) -> list[float]:
        """One a seed."""
        return [float(score) for score in self.outcomes.scores]


def records_of(plan: Plan, place: Place) -> dict[Run, dict[str, Any]]:
    """Every run's record."""
    found = {run: record_of(place.run(run)) for run in plan.runs()}
    return {run: record for run, record in found.items() if record is not None}


def read_tests(plan: Plan, place: Place) -> dict[tuple[str, str], Test]:
    """(variant, task) → its test predictions over the seeds, all of the same examples.

    Raises:
        FaultyInput: the runs do not have the same examples; every run that differs is named.
    """
    faults, found = Faults(), {}
    for task in plan.tasks:
        gold: list[Any] | None = None
        for variant in plan.variants:
            runs: list[Lines] = []
            for seed in plan.seeds:
                folder = place.run(Run(variant.name, task.name if variant.kind == "single" else None, seed))
                lines = read_predictions(folder / FOLDER / f"test-{task.name}.jsonl")
                mine = [(line["row"], line["gold"]) for line in lines]
                gold = mine if gold is None else gold
                if mine != gold:
                    cure = "the test data has changed: remove the folder to train this run again"
                    faults.add(
                        f"other test examples of {task.name} than the runs before it", where=str(folder), cure=cure
                    )
                runs.append(lines)
            if not len(faults):
                found[variant.name, task.name] = Test(runs, outcomes(task.metric_names[0], runs, task))
    faults.check()
    return found


def validation_mean(variant: Variant, plan: Plan, records: Mapping[Run, Mapping[str, Any]]) -> float:
    """The mean of the primary metrics on validation, over tasks and seeds."""
    values = []
    for task in plan.tasks:
        for seed in plan.seeds:
            record = records[Run(variant.name, task.name if variant.kind == "single" else None, seed)]
            values.append(record["validation"][task.name][task.metric_names[0]])
    return plain.fmean(values)


def variant_entries(plan: Plan, records: Mapping[Run, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`variants`; the chosen one is the best on validation of those that answer all tasks with one call, the first of equals."""
    means = {variant.name: validation_mean(variant, plan, records) for variant in plan.variants}
    shared = [variant.name for variant in plan.variants if variant.kind != "single"]
    chosen = max(shared, key=lambda name: means[name])
    entries = []
    for variant in plan.variants:
        sides = plan.task_names if variant.kind == "single" else [None]
        first = {side: records[Run(variant.name, side, plan.seeds[0])] for side in sides}
        rates = {side or variant.name: record["learning_rate"] for side, record in first.items()}
        entries.append(
            {
                "name": variant.name,
                "kind": variant.kind,
                "sets": list(variant.sets),
                "fuse": dict(variant.fuse) if variant.fuse is not None else None,
                "learning_rates": rates,
                "validation_mean": means[variant.name],
                "chosen": variant.name == chosen,
            }
        )
    return entries


def run_entries(plan: Plan, records: Mapping[Run, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`runs`."""
    keys = ("variant", "task", "seed", "learning_rate", "validation", "test", "cost")
    return [{key: record[key] for key in keys} | {"folder": f"runs/{run.name}"} for run, record in records.items()]


def noise_of(single: Test, variant: Test, seed: int) -> TaskNoise:
    """What seeds and test examples do to one task's difference."""
    examples = single.outcomes.sums.shape[1]
    resamples = SLOW_RESAMPLES if single.outcomes.slow else RESAMPLES
    rng = np.random.default_rng([seed, examples])
    weights = resampling_weights(examples, resamples, rng)
    flips, beyond = example_noise(single.outcomes.resampled(weights), variant.outcomes.resampled(weights))
    variance, df = pooled_variance(single.scores, variant.scores)
    return TaskNoise(variance, df, flips, beyond, (len(single.scores), len(variant.scores)))


def result_entries(
    plan: Plan, tests: Mapping[tuple[str, str], Test], training: Mapping[str, TrainingTexts]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """`results` and `overall`."""
    results, overall = [], []
    for variant in [one for one in plan.variants if one.kind != "single"]:
        pairs = [(tests[SINGLE, task.name], tests[variant.name, task.name]) for task in plan.tasks]
        noises = [noise_of(single, mine, plan.seeds[0]) for single, mine in pairs]
        gaps = [float(np.mean(mine.scores) - np.mean(single.scores)) for single, mine in pairs]
        together = [float(np.mean(scores)) for scores in zip(*(mine.scores for _, mine in pairs), strict=True)]
        judged, mean = judge(gaps, noises, [pooled_variance(together)[0]])
        for task, (single, mine), one in zip(plan.tasks, pairs, judged, strict=True):
            results.append(_entry(plan, variant, task, single, mine, one, training.get(task.name)))
        overall.append(_overall(variant, plan.tasks, judged, mean))
    return results, overall


def _entry(
    plan: Plan,
    variant: Variant,
    task: Task,
    single: Test,
    mine: Test,
    judged: Judgement,
    training: TrainingTexts | None,
) -> dict[str, Any]:
    rng = np.random.default_rng([plan.seeds[0], len(single.lines[0]), plan.task_names.index(task.name)])
    rounds = SLOW_RESAMPLES if single.outcomes.slow else ROUNDS
    p = approximate_randomisation(
        judged.difference,
        lambda swaps: single.outcomes.exchanged(mine.outcomes, swaps),
        len(single.lines[0]),
        rounds,
        rng,
    )
    groups = masks(task, single.lines[0], training)
    return {
        "task": task.name,
        "variant": variant.name,
        "metric": task.metric_names[0],
        "mean": plain.fmean(mine.scores),
        "deviation": plain.stdev(mine.scores),
        "single_mean": plain.fmean(single.scores),
        "single_deviation": plain.stdev(single.scores),
        **_numbers(judged),
        "p_examples": p,
        "groups": compare_groups(groups, single.outcomes, mine.outcomes, rng),
    }


def _numbers(judged: Judgement) -> dict[str, Any]:
    names = ("difference", "low", "high", "p_seeds", "p", "p_holm", "detectable", "verdict")
    return {name: getattr(judged, name) for name in names}


def _overall(variant: Variant, tasks: Sequence[Task], judged: Sequence[Judgement], mean: Judgement) -> dict[str, Any]:
    by_verdict = {
        verdict: [task.name for task, one in zip(tasks, judged, strict=True) if one.verdict == verdict]
        for verdict in ("helps", "harms")
    }
    return {"variant": variant.name, **_numbers(mean), **by_verdict, "summary": summary(by_verdict, mean)}


def summary(tasks: Mapping[str, Sequence[str]], mean: Judgement) -> str:
    """One sentence."""
    said = [f"{verdict} {', '.join(names)}" for verdict, names in tasks.items() if names]
    if mean.verdict != NOTHING:
        said.insert(0, f"{mean.verdict} on average")
    return "; ".join(said) or NOTHING


def cost_entries(
    plan: Plan, records: Mapping[Run, Mapping[str, Any]], speed: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, Any]]:
    """`costs`: of one seed (a mean over seeds), all models of a variant together.

    A fusion's training cost is that of making it; its parents' comes on top.
    """
    found = {}
    for variant in plan.variants:
        mine = [record["cost"] for run, record in records.items() if run.variant == variant.name]
        models = len(plan.tasks) if variant.kind == "single" else max((c.get("models") or 1 for c in mine), default=1)
        sums = {
            key: sum(cost.get(key) or 0 for cost in mine) / len(plan.seeds)
            for key in ("encoder_tokens", "seconds", "parameters", "bytes")
        }
        entry: dict[str, Any] = {"models": models, "minutes": round(sums.pop("seconds") / 60, 2)}
        entry |= {key: round(value) for key, value in sums.items()}
        entry |= {"texts_per_second": None, "inference_ratio": None}
        if variant.name in speed:
            seconds, separate = speed[variant.name]["seconds_per_text"], speed[SINGLE]["seconds_per_text"]
            entry["texts_per_second"] = round(1 / seconds, 1)
            entry["inference_ratio"] = round(seconds / separate, 3)
        found[variant.name] = entry
    return found


def rounded(data: Any) -> Any:
    """The same with numbers of six digits: more is noise, and the file reads better."""
    if isinstance(data, Mapping):
        return {key: rounded(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [rounded(value) for value in data]
    if isinstance(data, bool) or not isinstance(data, float | np.floating):
        return data
    return float(f"{data:.{DIGITS}g}")
