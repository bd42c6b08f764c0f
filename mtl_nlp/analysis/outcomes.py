"""Prediction files → scores on any resample of the examples, fast.

N examples, n runs, k sums, B resamples. Nearly every metric is a function of sums over examples (right ones; spans right, predicted
and wanted; counts a class): a resample is then a product of matrices. The few others (Spearman, metrics of the Hub) are worked out
anew on each resample, and on fewer of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import compute
from ..metrics.answers import exact, overlap_f1
from ..metrics.ranking import average_precision, ndcg, ranked, recall, reciprocal_rank
from ..metrics.rows import ABSTAINED
from ..metrics.spans import spans_of
from ..metrics.table import ALIASES
from ..task import Task

Array = NDArray[np.float64]
Lines = Sequence[dict[str, Any]]
SLOW_RESAMPLES = 200
Value = Callable[[Array], Array]


class Outcomes:
    """The runs of one model on one task's examples.

    Attributes:
        sums: [n, N, k].
        value: [..., k] sums over examples → [...] scores.
        slow: the number of resamples is limited.
    """

    slow = False

    def __init__(self, sums: NDArray[np.float32], value: Value) -> None:
        self.sums, self.value = sums, value

    @property
    def scores(self) -> Array:
        """Each run's score on all examples: [n]."""
        return self.value(self.sums.sum(1, dtype=np.float64))

    def on(self, rows: NDArray[np.bool_]) -> Array:
        """Each run's score on some examples: [n]."""
        return self.value(self.sums[:, rows].sum(1, dtype=np.float64))

    def resampled(self, weights: NDArray[np.float32]) -> Array:
        """[B, N] → [B, n]."""
        return self.value(np.stack([weights @ run for run in self.sums], 1).astype(np.float64))

    def exchanged(self, other: Outcomes, swaps: NDArray[np.float32], rows: NDArray[np.bool_] | None = None) -> Array:
        """The difference other − this of the mean scores, [R], after the examples with a 1 in [R, N] have changed sides.

        Args:
            rows: only these examples, [N]; N of `swaps` is their number.
        """
        mine = self.sums if rows is None else self.sums[:, rows]
        theirs = other.sums if rows is None else other.sums[:, rows]
        # With unlike numbers of runs the answers of pairs of runs are exchanged, as many as there are on both sides.
        n = min(len(mine), len(theirs))
        moved = [swaps @ (theirs[i] - mine[i]) for i in range(n)]
        a = self.value(np.stack([mine[i].sum(0) + moved[i] for i in range(n)], 1).astype(np.float64))
        b = self.value(np.stack([theirs[i].sum(0) - moved[i] for i in range(n)], 1).astype(np.float64))
        return b.mean(1) - a.mean(1)


class SlowOutcomes(Outcomes):
    """The same for a metric that is no function of sums."""

    slow = True

    def __init__(self, metric: str, runs: Sequence[Lines], task: Task) -> None:
        self.metric, self.task = metric, task
        self.predicted = [[_predicted(line, task) for line in run] for run in runs]
        self.gold = [line["gold"] for line in runs[0]]
        self.sums = np.zeros((len(runs), len(self.gold), 0), dtype=np.float32)

    def _score(self, predicted: Sequence[Any], gold: Sequence[Any]) -> float:
        scheme = "none" if self.task.scheme == "none" else "iob2"
        return compute([self.metric], predicted, gold, labels=self.task.labels, scheme=scheme)[self.metric]

    @property
    def scores(self) -> Array:
        """Each run's score on all examples: [n]."""
        return np.array([self._score(run, self.gold) for run in self.predicted])

    def on(self, rows: NDArray[np.bool_]) -> Array:
        """Each run's score on some examples: [n]."""
        kept = np.nonzero(rows)[0]
        gold = [self.gold[i] for i in kept]
        return np.array([self._score([run[i] for i in kept], gold) for run in self.predicted])

    def resampled(self, weights: NDArray[np.float32]) -> Array:
        """[B, N] → [B, n]."""
        found = []
        for row in weights:
            drawn = np.repeat(np.arange(len(row)), row.astype(int))
            gold = [self.gold[i] for i in drawn]
            found.append([self._score([run[i] for i in drawn], gold) for run in self.predicted])
        return np.array(found)

    def exchanged(self, other: Outcomes, swaps: NDArray[np.float32], rows: NDArray[np.bool_] | None = None) -> Array:
        """The difference other − this of the mean scores, [R]."""
        assert isinstance(other, SlowOutcomes)
        kept = np.arange(len(self.gold)) if rows is None else np.nonzero(rows)[0]
        gold, found = [self.gold[i] for i in kept], []
        for row in swaps:
            parts = []
            for mine, theirs in zip(self.predicted, other.predicted, strict=False):
                a = [theirs[i] if swap else mine[i] for i, swap in zip(kept, row, strict=True)]
                b = [mine[i] if swap else theirs[i] for i, swap in zip(kept, row, strict=True)]
                parts.append(self._score(b, gold) - self._score(a, gold))
            found.append(np.mean(parts))
        return np.array(found)


def outcomes(metric: str, runs: Sequence[Lines], task: Task) -> Outcomes:
    """The outcomes of several runs on the same examples.

    Args:
        runs: each run's lines, in the same order.
    """
    name = ALIASES.get(metric, metric)
    per_example = _EXAMPLES.get(name)
    sums: Any
    value: Value = _mean
    if per_example is not None:
        sums = [[per_example(*_pair(line, task)) for line in run] for run in runs]
    elif name in _SPANS and task.scheme != "none":
        sums, value = [_span_sums(run, strict=name.endswith("strict")) for run in runs], _SPANS[name]
    elif name in _CLASSES:
        classes = _classes(runs, task)
        if name in ("f1", "precision", "recall") and len(task.labels or ()) != 2:
            return SlowOutcomes(metric, runs, task)
        sums, value = [_class_sums(run, classes, task) for run in runs], _CLASSES[name]
    elif name == "pearson":
        sums, value = [[_moments(line["predicted"], line["gold"]) for line in run] for run in runs], _pearson
    else:
        return SlowOutcomes(metric, runs, task)
    return Outcomes(np.asarray(sums, dtype=np.float64 if name in _REAL else np.float32), value)


# Sums of real numbers; counts are exact in float32.
_REAL = (
    "pearson",
    "mse",
    "mae",
    "qa_f1",
    "ndcg",
    "ndcg@10",
    "mrr",
    "mrr@10",
    "map",
    "recall@1",
    "recall@5",
    "recall@10",
)


def _predicted(line: dict[str, Any], task: Task) -> Any:
    return ABSTAINED if line["predicted"] is None and task.kind.annotation == "label" else line["predicted"]


def _pair(line: dict[str, Any], task: Task) -> tuple[Any, Any]:
    """Prediction and reference; of a retrieval an order of as many passages as decide, and which of them are right."""
    if task.kind.annotation != "match":
        return _predicted(line, task), line["gold"]
    right = set(line["ranks"])
    places = range(1, max(right, default=0) + 1)
    return [-float(place) for place in places], [float(place in right) for place in places]


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)


def _mean(sums: Array) -> Array:
    return _ratio(sums[..., 0], sums[..., 1])


def _share(predicted: Sequence[Any], gold: Sequence[Any]) -> tuple[float, float]:
    return float(sum(a == b for a, b in zip(predicted, gold, strict=True))), float(len(gold))


def _query(one: Callable[[Sequence[float]], float]) -> Callable[[Any, Any], tuple[float, float]]:
    return lambda scores, gold: (one(ranked(scores, gold)), 1.0) if any(gold) else (0.0, 0.0)


_EXAMPLES: dict[str, Callable[[Any, Any], tuple[float, float]]] = {
    "accuracy": lambda a, b: (float(a == b), 1.0),
    "subset_accuracy": lambda a, b: (float(set(a) == set(b)), 1.0),
    "token_accuracy": _share,
    "mse": lambda a, b: ((a - b) ** 2, 1.0),
    "mae": lambda a, b: (abs(a - b), 1.0),
    "exact_match": lambda a, b: (exact(a, b), 1.0),
    "qa_f1": lambda a, b: (overlap_f1(a, b), 1.0),
    "ndcg": _query(ndcg),
    "ndcg@10": _query(lambda order: ndcg(order, cutoff=10)),
    "mrr": _query(reciprocal_rank),
    "mrr@10": _query(lambda order: reciprocal_rank(order, cutoff=10)),
    "map": _query(average_precision),
    "recall@1": _query(lambda order: recall(order, cutoff=1)),
    "recall@5": _query(lambda order: recall(order, cutoff=5)),
    "recall@10": _query(lambda order: recall(order, cutoff=10)),
}


def _span_sums(run: Lines, *, strict: bool) -> list[list[float]]:
    """Spans right, predicted and wanted, an example."""
    found, wanted = (spans_of([line[side] for line in run], strict=strict) for side in ("predicted", "gold"))
    table = np.zeros((len(run), 3))
    for column, spans in enumerate((found & wanted, found, wanted)):
        for span in spans:
            table[span[0], column] += 1
    return table.tolist()


_SPANS: dict[str, Value] = {
    "span_f1": lambda s: _ratio(2 * s[..., 0], s[..., 1] + s[..., 2]),
    "span_f1_strict": lambda s: _ratio(2 * s[..., 0], s[..., 1] + s[..., 2]),
    "span_precision": lambda s: _ratio(s[..., 0], s[..., 1]),
    "span_recall": lambda s: _ratio(s[..., 0], s[..., 2]),
}


def _classes(runs: Sequence[Lines], task: Task) -> list[str]:
    known = list(task.labels or ())
    seen = {label for run in runs for line in run for side in ("gold", "predicted") for label in _as_set(line[side])}
    return known + sorted(seen.difference(known))


def _as_set(value: Any) -> set[str]:
    return set(value) if isinstance(value, list) else set() if value is None else {value}


def _class_sums(run: Lines, classes: Sequence[str], task: Task) -> NDArray[np.float32]:
    """[N, 3 K + 2]: right, predicted, wanted a class; whether it is right in all; 1."""
    size, place = len(classes), {name: i for i, name in enumerate(classes)}
    table = np.zeros((len(run), 3 * size + 2), dtype=np.float32)
    for row, line in enumerate(run):
        gold, predicted = _as_set(line["gold"]), _as_set(line["predicted"])
        for part, labels in enumerate((gold & predicted, predicted, gold)):
            for label in labels:
                table[row, part * size + place[label]] = 1
        table[row, -2:] = float(gold == predicted), 1
    return table


def _parts(sums: Array) -> tuple[Array, Array, Array]:
    size = (sums.shape[-1] - 2) // 3
    return sums[..., :size], sums[..., size : 2 * size], sums[..., 2 * size : 3 * size]


def _averaged(of: Callable[[Array, Array, Array], Array], how: str) -> Value:
    def value(sums: Array) -> Array:
        right, predicted, wanted = _parts(sums)
        if how == "micro":
            return of(right.sum(-1), predicted.sum(-1), wanted.sum(-1))
        if how == "positive":
            return of(right[..., 1], predicted[..., 1], wanted[..., 1])
        each = of(right, predicted, wanted)
        weights = wanted if how == "weighted" else ((predicted + wanted) > 0).astype(np.float64)
        return _ratio((each * weights).sum(-1), weights.sum(-1))

    return value


def _f1(right: Array, predicted: Array, wanted: Array) -> Array:
    return _ratio(2 * right, predicted + wanted)


def _precision(right: Array, predicted: Array, wanted: Array) -> Array:
    return _ratio(right, predicted)


def _recall(right: Array, predicted: Array, wanted: Array) -> Array:
    return _ratio(right, wanted)


def _matthews(sums: Array) -> Array:
    """R_K (Gorodkin 2004) from the counts a class."""
    _, predicted, wanted = _parts(sums)
    right, total = sums[..., -2], sums[..., -1]
    both = right * total - (predicted * wanted).sum(-1)
    spread = (total**2 - (predicted**2).sum(-1)) * (total**2 - (wanted**2).sum(-1))
    return _ratio(both, np.sqrt(np.maximum(spread, 0.0)))


_CLASSES: dict[str, Value] = {
    "f1": _averaged(_f1, "positive"),
    "precision": _averaged(_precision, "positive"),
    "recall": _averaged(_recall, "positive"),
    "f1_macro": _averaged(_f1, "macro"),
    "f1_micro": _averaged(_f1, "micro"),
    "f1_weighted": _averaged(_f1, "weighted"),
    "precision_macro": _averaged(_precision, "macro"),
    "recall_macro": _averaged(_recall, "macro"),
    "matthews_correlation": _matthews,
}


def _moments(x: float, y: float) -> list[float]:
    return [1.0, x, y, x * x, y * y, x * y]


def _pearson(sums: Array) -> Array:
    n, x, y, xx, yy, xy = (sums[..., i] for i in range(6))
    spread = np.maximum((n * xx - x * x) * (n * yy - y * y), 0.0)
    return _ratio(n * xy - x * y, np.sqrt(spread))
