"""Scores on resamples are those of the metrics, worked out the long way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_nlp.analysis.outcomes import SlowOutcomes, outcomes
from mtl_nlp.metrics import METRICS, compute
from mtl_nlp.schema import Source
from mtl_nlp.task import make_task

N = 30
LABELS = ["a", "b", "c"]
HEADS = {
    "label": "sequence_classification",
    "labels": "multi_label_classification",
    "tags": "token_classification",
    "value": "regression",
    "answer": "question_answering",
    "relevance": "ranking",
    "choice": "multiple_choice",
}


def lines(kind: str, rng: Any, labels: list[str]) -> list[dict[str, Any]]:
    """Examples with the same references for any generator of predictions."""
    fixed = np.random.default_rng(0)
    tags = ["O", *(f"{mark}-{label}" for label in labels for mark in "BI")]
    makers: dict[str, Any] = {
        "label": lambda r: str(r.choice(labels)),
        "labels": lambda r: [label for label in labels if r.random() < 0.5],
        "tags": lambda r: [str(tag) for tag in r.choice(tags, 6)],
        "value": lambda r: float(r.normal()),
        "relevance": lambda r: [float(x) for x in r.integers(0, 3, 4)],
        "choice": lambda r: str(r.integers(0, 3)),
    }
    if kind == "answer":
        words = ["in", "paris", "london", "acme"]
        return [
            {"gold": [" ".join(fixed.choice(words, 2))], "predicted": " ".join(rng.choice(words, 2))} for _ in range(N)
        ]
    make = makers[kind]
    return [{"gold": make(fixed), "predicted": make(rng)} for _ in range(N)]


def case(metric: str) -> tuple[Any, list[list[dict[str, Any]]]]:
    kind = METRICS[metric].kinds[0]
    labels = LABELS[:2] if metric in ("f1", "precision", "recall") else LABELS
    more = {"labels": labels} if kind in ("label", "labels", "tags") else {}
    task = make_task({"name": "t", "head": HEADS[kind], "data": {"source": "x"}, **more}, Source(), Path())
    return task, [lines(kind, np.random.default_rng(seed), labels) for seed in (1, 2)]


def scored(metric: str, task: Any, run: list[dict[str, Any]], rows: Any) -> float:
    predicted, gold = [run[i]["predicted"] for i in rows], [run[i]["gold"] for i in rows]
    return compute([metric], predicted, gold, labels=task.labels)[metric]


@pytest.mark.parametrize("metric", METRICS)
def test_resamples_are_scored_as_the_metric_scores_them(metric: str) -> None:
    task, runs = case(metric)
    found = outcomes(metric, runs, task)
    assert found.slow == (metric == "spearman")
    assert found.scores.tolist() == pytest.approx([scored(metric, task, run, range(N)) for run in runs], abs=1e-6)
    weights = np.random.default_rng(3).multinomial(N, np.full(N, 1 / N), size=4).astype(np.float32)
    again = [[scored(metric, task, run, np.repeat(np.arange(N), row.astype(int))) for run in runs] for row in weights]
    assert found.resampled(weights) == pytest.approx(np.array(again), abs=1e-6)
    half = np.arange(N) < N // 2
    wanted = [scored(metric, task, run, range(N // 2)) for run in runs]
    assert found.on(half).tolist() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro", "matthews_correlation", "span_f1", "pearson", "spearman"])
def test_exchanged_answers(metric: str) -> None:
    task, (first, second) = case(metric)
    a, b = outcomes(metric, [first], task), outcomes(metric, [second], task)
    swaps = np.random.default_rng(4).integers(0, 2, (3, N)).astype(np.float32)
    expected = []
    for row in swaps:
        mixed = [
            [y if swap else x for x, y, swap in zip(*pair, row, strict=True)]
            for pair in ((first, second), (second, first))
        ]
        expected.append(scored(metric, task, mixed[1], range(N)) - scored(metric, task, mixed[0], range(N)))
    assert a.exchanged(b, swaps).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_metric_that_is_no_sum_is_worked_out_anew() -> None:
    task, runs = case("spearman")
    assert isinstance(outcomes("spearmanr", runs, task), SlowOutcomes)


def test_an_abstention_is_right_for_no_text() -> None:
    task, _ = case("accuracy")
    run = [{"gold": "a", "predicted": None}, {"gold": "a", "predicted": "a"}]
    assert outcomes("accuracy", [run], task).scores.tolist() == [0.5]
