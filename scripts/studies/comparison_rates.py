"""How often `compare` claims a difference: where there is none, and where one was planted.

    python scripts/studies/comparison_rates.py                  simulated scores, and real predictions on the demo corpus
    python scripts/studies/comparison_rates.py COMPARISON       also on the predictions of a finished comparison (its joint runs)

A trial is two sets of n seeds drawn from one recipe. "Claimed" is anything that the comparison would say of them: a task that helps
or harms, or the mean over tasks. A planted difference is so many standard deviations of *one run's score over seeds* (σ), added to
the variant in every task or in the first one only; 1.5 σ over seeds are 1.06 standard deviations of a difference of two runs, and
2.12 σ are 1.5 of those. `best` is what a test would reach that knew σ and made no allowance for several tasks: no rule finds more
of a difference in a single task.

Real predictions: linear classifiers on the demo corpus (sentiment, intent, whether a person and whether a city is named), trained
with 40 seeds (one pass of stochastic gradient descent each); pairs of sets are drawn from them without repetition, and differences
are planted by putting wrong answers right. They are no neural encoders; give a finished comparison with many seeds for those.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_nlp.analysis.statistics import LEVEL, TaskNoise, example_noise, judge, pooled_variance, resampling_weights

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "tasks" / "demo"
SEEDS, RESAMPLES = 5, 200
Answers = NDArray[np.float32]  # [seeds, N] of 0 and 1: whether each test example was answered rightly


@dataclass(frozen=True)
class World:
    """A recipe to draw scores from: each task's σ, and the share of its variance that is single examples flipping."""

    name: str
    deviations: tuple[float, ...]
    flips: tuple[float, ...] | None


WORLDS = (
    World("4 tasks, half of the variance flips", (0.005, 0.007, 0.002, 0.003), (0.5,) * 4),
    World("4 tasks, shares of 1 to 0.05", (0.005, 0.007, 0.002, 0.003), (1.0, 0.05, 0.5, 0.2)),
    World("4 tasks, scores alone", (0.005, 0.007, 0.002, 0.003), None),
    World("2 tasks, half of the variance flips", (0.005, 0.007), (0.5, 0.5)),
    World("1 task, half of the variance flips", (0.005,), (0.5,)),
)


@dataclass(frozen=True)
class Rates:
    """Shares of the trials: anything claimed, the first task claimed, the mean claimed."""

    anything: float
    first: float
    mean: float


def rates(trials: Sequence[tuple[Sequence[float], Sequence[TaskNoise]]]) -> Rates:
    """Of (differences, noises) of many trials."""
    found = [judge(gaps, noises) for gaps, noises in trials]
    tasks = [[one.p_holm <= LEVEL for one in judged] for judged, _ in found]
    means = [mean.p_holm <= LEVEL for _, mean in found]
    anything = [any(claims) or mean for claims, mean in zip(tasks, means, strict=True)]
    return Rates(*(float(np.mean(column)) for column in (anything, [claims[0] for claims in tasks], means)))


def simulated(
    world: World, planted: float, everywhere: bool, number: int, seeds: int, rng: np.random.Generator
) -> list[tuple[list[float], list[TaskNoise]]]:
    """Trials of normal scores."""
    made = []
    for _ in range(number):
        gaps, noises = [], []
        for place, deviation in enumerate(world.deviations):
            single, variant = rng.normal(0.0, deviation, (2, seeds))
            shift = planted * deviation if everywhere or place == 0 else 0.0
            gaps.append(float(variant.mean() - single.mean()) + shift)
            variance, df = pooled_variance(single.tolist(), variant.tolist())
            flips = world.flips[place] * deviation**2 if world.flips is not None else 0.0
            noises.append(TaskNoise(variance, df, flips, 0.0, (seeds, seeds)))
        made.append((gaps, noises))
    return made


def demo_answers(seeds: int = 40) -> list[Answers]:
    """[seeds, N] of 0 and 1 a task: whether each test text of the demo corpus was answered rightly."""
    rows = {}
    for split in ("train", "test"):
        lines = (DEMO / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        rows[split] = [json.loads(line) for line in lines]
    return [_answers(rows, label, seeds) for label in LABELS.values()]


LABELS: dict[str, Callable[[dict[str, Any]], str | None]] = {
    "sentiment": lambda row: row["sentiment"],
    "intent": lambda row: row["intent"],
    "person": lambda row: _names(row, "PERSON"),
    "city": lambda row: _names(row, "CITY"),
}


def _names(row: dict[str, Any], kind: str) -> str | None:
    entities = row["entities"]
    return None if entities is None else str(any(entity["label"].startswith(kind) for entity in entities))


def _answers(
    rows: dict[str, list[dict[str, Any]]], label: Callable[[dict[str, Any]], str | None], seeds: int
) -> Answers:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier

    kept = {split: [(row["text"], label(row)) for row in part if label(row)] for split, part in rows.items()}
    (texts, labels), (tests, gold) = (zip(*kept[split][:800], strict=True) for split in ("train", "test"))
    words = TfidfVectorizer(min_df=2)
    train, test = words.fit_transform(texts), words.transform(tests)
    runs = [SGDClassifier(max_iter=1, tol=None, random_state=seed, average=True) for seed in range(seeds)]
    return np.array([run.fit(train, labels).predict(test) == np.array(gold) for run in runs], dtype=np.float32)


def comparison_answers(folder: Path) -> list[Answers]:
    """The same of a comparison's joint runs, for its tasks with one label."""
    tasks = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))["tasks"]
    found = []
    for task in [name for name, one in tasks.items() if one["metric"] == "accuracy"]:
        runs = [
            path.read_text(encoding="utf-8").splitlines()
            for path in sorted(folder.glob(f"runs/joint-*/predictions/test-{task}.jsonl"))
        ]
        lines = [[json.loads(line) for line in run] for run in runs]
        found.append(np.array([[line["gold"] == line["predicted"] for line in run] for run in lines], dtype=np.float32))
    return found


def resampled(
    answers: Sequence[Answers], planted: float, number: int, seeds: int, rng: np.random.Generator
) -> list[tuple[list[float], list[TaskNoise]]]:
    """Trials of two disjoint sets of real runs; `planted` σ are added in every task by putting wrong answers right."""
    weights = [resampling_weights(task.shape[1], RESAMPLES, rng) / task.shape[1] for task in answers]
    made = []
    for _ in range(number):
        gaps, noises = [], []
        for task, drawn in zip(answers, weights, strict=True):
            order = rng.permutation(len(task))
            single, variant = task[order[:seeds]], task[order[seeds : 2 * seeds]].copy()
            mended = round(planted * float(task.mean(1).std(ddof=1)) * task.shape[1])
            for run in variant:
                wrong = np.nonzero(run == 0)[0]
                run[rng.choice(wrong, min(mended, len(wrong)), replace=False)] = 1
            flips, beyond = example_noise(drawn @ single.T, drawn @ variant.T)
            scores = [side.mean(1).tolist() for side in (single, variant)]
            variance, df = pooled_variance(*scores)
            gaps.append(float(np.mean(scores[1]) - np.mean(scores[0])))
            noises.append(TaskNoise(variance, df, flips, beyond, (seeds, seeds)))
        made.append((gaps, noises))
    return made


def best(planted: float, seeds: int) -> float:
    """The power of the two-sided z test at 5 % for one task."""
    from scipy.stats import norm

    shift, bound = planted * math.sqrt(seeds / 2), norm.ppf(1 - LEVEL / 2)
    return float(norm.sf(bound - shift) + norm.cdf(-bound - shift))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, nargs="?")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| recipe | planted, σ | in | anything claimed | first task claimed | mean claimed | best for one task |")
    print("|---|---|---|---|---|---|---|")
    plants = [(0.0, True), (1.5, True), (1.5, False), (2.12, True), (2.12, False)]
    for world in WORLDS:
        for planted, everywhere in plants if len(world.deviations) > 1 else plants[:1] + plants[1::2]:
            found = rates(simulated(world, planted, everywhere, options.trials, options.seeds, rng))
            show(world.name, planted, everywhere, found, options.seeds)
    sets = {"demo corpus, linear classifiers": demo_answers()}
    if options.comparison is not None:
        sets[str(options.comparison)] = comparison_answers(options.comparison)
    for name, answers in sets.items():
        for planted in (0.0, 1.5, 2.12):
            found = rates(resampled(answers, planted, options.trials, options.seeds, rng))
            show(f"{name}, {len(answers)} tasks", planted, True, found, options.seeds)


def show(name: str, planted: float, everywhere: bool, found: Rates, seeds: int) -> None:
    """One line of the table."""
    where = "nothing" if not planted else "every task" if everywhere else "the first task"
    cells = [f"{value:.3f}" for value in (found.anything, found.first, found.mean, best(planted, seeds))]
    print(f"| {name} | {planted:g} | {where} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
