"""How often each label occurs in each split, and how far the splits are apart.

Counted from the normal annotations of a corpus, batch by batch. A label is counted once a text (one label, several labels, a
choice), once a span (tags with a scheme, character spans) or once a word (tags without a scheme); numbers are summed up and
answers counted as given or not. `checks` puts the result into its report.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..task import Task

if TYPE_CHECKING:
    from .sources import Corpus, CorpusSplit

BATCH = 1000
FLAGGED = 0.1
MOST_MOVED = 3
UNITS = {
    **dict.fromkeys(("label", "labels", "choice", "relevance", "match", "answer", "value"), "texts"),
    "tags": "spans",
}


@dataclass(frozen=True)
class UnknownLabel:
    """A label that the task does not have: how often it stands in the split, and `file:line` of the first."""

    label: str
    count: int
    where: str


@dataclass(frozen=True)
class SplitLabels:
    """The annotations of one task in one split.

    Attributes:
        annotated: texts with an annotation; `missing` are those without.
        unit: what a label is counted by: `texts`, `spans` or `words`.
        total: annotated units; a label's share is its count over this (shares of several labels a text may sum to more than 1).
        counts: label → units, in the task's order; labels that do not occur have 0.
        values: the numbers of a regression, ascending.
    """

    split: str
    annotated: int
    missing: int
    unit: str
    total: int
    counts: dict[str, int]
    unknown: list[UnknownLabel] = field(default_factory=list)
    values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def most(self) -> tuple[str, int] | None:
        """The most frequent label; the first of the task's order on ties."""
        return max(self.counts.items(), key=lambda item: item[1]) if any(self.counts.values()) else None

    @property
    def least(self) -> tuple[str, int] | None:
        """The least frequent label of those that occur."""
        return min(((n, c) for n, c in self.counts.items() if c), key=lambda item: item[1], default=None)

    @property
    def imbalance(self) -> float | None:
        """Imbalance ratio: most over least frequent label of those that occur."""
        return self.most[1] / self.least[1] if self.most and self.least else None

    def share(self, label: str) -> float:
        """A label's units over all annotated units."""
        return self.counts.get(label, 0) / self.total if self.total else 0.0

    def summary(self) -> dict[str, float] | None:
        """Mean, standard deviation, least and greatest number of a regression."""
        if not len(self.values):
            return None
        low, high = float(self.values[0]), float(self.values[-1])
        return {"mean": float(self.values.mean()), "sd": float(self.values.std()), "min": low, "max": high}

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        labels = {name: {"count": count, "share": self.share(name)} for name, count in self.counts.items()}
        return {
            "annotated": self.annotated,
            "missing": self.missing,
            "unit": self.unit,
            "total": self.total,
            "labels": labels,
            "most": self.most[0] if self.most else None,
            "least": self.least[0] if self.least else None,
            "imbalance": self.imbalance,
            "unknown": [vars(label) for label in self.unknown],
            "values": self.summary(),
        }


@dataclass(frozen=True)
class Drift:
    """How far a split's annotations are from the training split's.

    Attributes:
        measure: `total variation` (half the sum of the differences of shares) for labels; for numbers `Kolmogorov-Smirnov`
            (the greatest difference of the cumulative shares). Both lie in [0, 1].
        distance: its value.
        chance: what two random samples of these sizes from one distribution give on average.
        moved: the labels that moved most: (label, share in train, share here), shares of all labels met.
    """

    split: str
    measure: str
    distance: float
    chance: float
    moved: list[tuple[str, float, float]] = field(default_factory=list)

    @property
    def flagged(self) -> bool:
        """Whether it is above 0.1."""
        # A sum of shares may miss 0.1 by a rounding error.
        return round(self.distance, 9) > FLAGGED

    @property
    def small(self) -> bool:
        """Whether the split is so small that chance alone gives half the threshold."""
        return self.chance > FLAGGED / 2

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        moved = [{"label": label, "train": train, self.split: here} for label, train, here in self.moved]
        numbers = {"measure": self.measure, "distance": self.distance, "chance": self.chance}
        return {**numbers, "flagged": self.flagged, "small_split": self.small, "moved": moved}


@dataclass(frozen=True)
class TaskBalance:
    """One task's labels over the splits.

    Attributes:
        absent: labels of the task that no training text has.
    """

    task: str
    head: str
    corpus: str
    splits: dict[str, SplitLabels]
    drift: dict[str, Drift]
    absent: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "task": self.task,
            "head": self.head,
            "corpus": self.corpus,
            "splits": {name: split.to_dict() for name, split in self.splits.items()},
            "drift": {name: drift.to_dict() for name, drift in self.drift.items()},
            "absent_from_training": self.absent,
        }


def task_balance(corpus: Corpus, task: Task) -> TaskBalance:
    """Count one task's labels in every split of its corpus."""
    splits = {name: split_labels(part, name, task) for name, part in corpus.splits.items()}
    train = splits.get("train")
    drifts = [drift_between(train, splits[name]) for name in splits if name != "train"] if train else []
    absent = [label for label in task.labels or () if train and train.counts.get(label) == 0]
    return TaskBalance(
        task.name,
        task.head,
        corpus.name,
        splits,
        {drift.split: drift for drift in drifts if drift is not None},
        absent if task.kind.form.has_labels else [],
    )


def split_labels(part: CorpusSplit, split: str, task: Task) -> SplitLabels:
    """Count one task's labels in one split."""
    if task.kind.annotation == "none":
        return SplitLabels(split, len(part), 0, "texts", len(part), {})
    counts: Counter[str] = Counter()
    first: dict[str, tuple[int, int | None]] = {}
    values: list[float] = []
    annotated = missing = 0
    for row, annotation in enumerate(_annotations(part, task.name)):
        if annotation is None:
            missing += 1
            continue
        annotated += 1
        if task.kind.annotation == "value":
            values.append(annotation)
        for label, word in labels_of(annotation, task):
            counts[label] += 1
            first.setdefault(label, (row, word))
    known, unknown = _by_name(counts, task)
    met = [UnknownLabel(label, counts[label], part.where(*first[label])) for label in unknown]
    unit = (
        "words" if task.scheme == "none" and "spans" not in task.data.columns.roles() else UNITS[task.kind.annotation]
    )
    total = annotated if unit == "texts" else sum(counts.values())
    return SplitLabels(
        split, annotated, missing, unit, total, known, met, np.sort(np.asarray(values, dtype=np.float64))
    )


def _annotations(part: CorpusSplit, task: str) -> Iterator[Any]:
    name = f"@{task}"
    column = part.data.select_columns([name])
    for start in range(0, len(column), BATCH):
        yield from column[start : start + BATCH][name]


def labels_of(annotation: Any, task: Task) -> Iterable[tuple[str, int | None]]:
    """(label, word) for each labelled unit of a normal annotation; the word only where a tag stands on one."""
    kind = task.kind.annotation
    if kind == "label":
        return [(annotation, None)]
    if kind == "labels":
        return [(label, None) for label in annotation]
    if kind == "choice":
        return [(task.labels[annotation] if task.labels else str(annotation), None)]
    if kind == "answer":
        return [("answered" if annotation["text"] else "unanswered", None)]
    if kind == "relevance":
        return [("some relevant" if any(annotation) else "none relevant", None)]
    if kind == "match":
        return [("answered", None)]
    if kind == "value":
        return []
    if annotation and isinstance(annotation[0], Mapping):
        return [(span["label"], None) for span in annotation]
    if task.scheme == "none":
        return [(tag, word) for word, tag in enumerate(annotation)]
    return [(tag[2:], word) for word, tag in enumerate(annotation) if tag.startswith("B-")]


def _by_name(counts: Counter[str], task: Task) -> tuple[dict[str, int], list[str]]:
    """The known labels with their counts, in order, and the unknown ones, the most frequent first."""
    if task.labels is None:
        # Without names a choice is a number: "10" comes after "9".
        return {label: counts[label] for label in sorted(counts, key=lambda label: (len(label), label))}, []
    unknown = [label for label, _ in counts.most_common() if label not in task.labels]
    return {label: counts[label] for label in task.labels}, unknown


def drift_between(train: SplitLabels, other: SplitLabels) -> Drift | None:
    """How far `other` is from `train`; None where one of them has no annotation."""
    if len(train.values) and len(other.values):
        n, m = len(train.values), len(other.values)
        # The mean of Kolmogorov's distribution is sqrt(pi / 2) · ln 2.
        chance = math.sqrt(math.pi / 2) * math.log(2) * math.sqrt(1 / n + 1 / m)
        return Drift(other.split, "Kolmogorov-Smirnov", _ks_distance(train.values, other.values), chance)
    before, after = _all_counts(train), _all_counts(other)
    n, m = sum(before.values()), sum(after.values())
    if not n or not m:
        return None
    shares = {label: (before[label] / n, after[label] / m) for label in {**before, **after}}
    distance = sum(abs(a - b) for a, b in shares.values()) / 2
    ranked = sorted(shares.items(), key=lambda item: -abs(item[1][0] - item[1][1]))
    moved = [(label, a, b) for label, (a, b) in ranked[:MOST_MOVED] if a != b]
    pooled = [(before[label] + after[label]) / (n + m) for label in shares]
    return Drift(other.split, "total variation", distance, _chance(pooled, n, m), moved)


def _all_counts(split: SplitLabels) -> Counter[str]:
    return Counter({**split.counts, **{label.label: label.count for label in split.unknown}})


def _chance(shares: Iterable[float], n: int, m: int) -> float:
    """The mean total variation of two samples of n and m units: half the sum of the mean absolute normal deviations."""
    spread = 2 / math.pi * (1 / n + 1 / m)
    return sum(math.sqrt(spread * p * (1 - p)) for p in shares) / 2


def _ks_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    both = np.concatenate([first, second])
    a = np.searchsorted(first, both, side="right") / len(first)
    b = np.searchsorted(second, both, side="right") / len(second)
    return float(np.abs(a - b).max())
