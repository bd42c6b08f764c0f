"""One number for each metric of the table, by scikit-learn, scipy and seqeval.

A score function takes `Rows` and returns a float, NaN where the metric is undefined; `score` is the only
door, it checks that the metric fits the rows and lets no NaN out. N texts, K labels.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..errors import UserError, listed
from .answers import exact, overlap_f1
from .ranking import average_precision, ndcg, ranked, recall, reciprocal_rank
from .rows import Rows
from .spans import pooled
from .table import MetricInfo, metrics_for

logger = logging.getLogger("mtl_nlp")


def score(info: MetricInfo, rows: Rows) -> float:
    """The metric's value, a finite float except for errors of non-finite predictions, which are infinite.

    Raises:
        UserError: the metric does not score rows of this kind.
    """
    if not set(info.kinds) & set(rows.kinds):
        kinds = " or ".join(rows.kinds)
        fitting = [name for kind in rows.kinds for name in metrics_for(kind)]
        raise UserError(
            f'metric "{info.name}" scores {" or ".join(info.kinds)}, the predictions are {kinds} '
            f"→ {listed(fitting, 20)}"
        )
    return defined(info.name, _SCORES[info.name](rows), higher_better=info.higher_better)


def defined(name: str, value: float, *, higher_better: bool = True) -> float:
    """The value; for NaN a logged warning and 0, or infinity where lower is better: never the best."""
    if not math.isnan(value):
        return value
    instead = 0.0 if higher_better else math.inf
    logger.warning(
        'metric "%s" is undefined on these texts (constant, not finite, or nothing to score); counted as %s',
        name,
        instead,
    )
    return instead


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries' warnings of odd label sets and undefined scores; `defined` says what matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def class_scores(rows: Rows, ids: list[int], average: str | None) -> tuple[Any, Any, Any, Any]:
    """Precision, recall, F1 and support of the labels at these ids: arrays, or averaged floats."""
    from sklearn.metrics import precision_recall_fscore_support

    references, predictions = rows.encoded
    with quiet():
        precision, recall, f1, support = precision_recall_fscore_support(
            references, predictions, labels=ids, average=average, zero_division=0
        )
    return precision, recall, f1, support


def _averaged(average: str, part: int) -> Callable[[Rows], float]:
    """Precision (part 0), recall (1) or F1 (2), averaged over the labels that occur; NaN if none does."""

    def averaged(rows: Rows) -> float:
        return float(class_scores(rows, rows.seen_ids, average)[part]) if rows.seen else math.nan

    return averaged


def _binary(part: int) -> Callable[[Rows], float]:
    """Precision (part 0), recall (1) or F1 (2) of the positive class; NaN if it occurs nowhere."""

    def binary(rows: Rows) -> float:
        positive = _positive(rows)
        if positive not in rows.seen:
            return math.nan
        return float(class_scores(rows, [rows.classes.index(positive)], None)[part][0])

    return binary


def _positive(rows: Rows) -> str:
    """The last of the task's two labels; if those are not known, of the two that occur, by code point."""
    labels = list(rows.labels) if rows.labels is not None else sorted(rows.seen)
    if len(labels) != 2:
        source = "the task has" if rows.labels is not None else "labels= is not given and the texts have"
        raise UserError(
            f"f1, precision and recall need two labels, the last one positive; {source} {listed(labels)} → "
            "f1_macro, f1_micro, f1_weighted, precision_macro or recall_macro"
        )
    return labels[-1]


def _accuracy(rows: Rows) -> float:
    from sklearn.metrics import accuracy_score

    with quiet():
        return float(accuracy_score(*rows.encoded))


def _matthews(rows: Rows) -> float:
    from sklearn.metrics import matthews_corrcoef

    with quiet():
        return float(matthews_corrcoef(*rows.encoded))


def _correlation(function: str) -> Callable[[Rows], float]:
    """`pearsonr` or `spearmanr` of scipy; NaN for fewer than two texts, constant or non-finite values."""

    def correlation(rows: Rows) -> float:
        from scipy import stats

        references, predictions = _values(rows)
        if len(references) < 2:
            return math.nan
        with quiet():
            return float(getattr(stats, function)(references, predictions).statistic)

    return correlation


def _error(function: str) -> Callable[[Rows], float]:
    """A regression error of scikit-learn; NaN for non-finite predictions."""

    def error(rows: Rows) -> float:
        from sklearn import metrics

        references, predictions = _values(rows)
        if not all(map(math.isfinite, predictions)):
            return math.nan
        return float(getattr(metrics, function)(references, predictions))

    return error


def _values(rows: Rows) -> tuple[list[float], list[float]]:
    """References and predictions as floats.

    Raises:
        UserError: a reference is not finite; that is the data's fault, not the model's.
    """
    references, predictions = ([float(value) for value in values] for values in (rows.references, rows.predictions))
    for i, value in enumerate(references):
        if not math.isfinite(value):
            raise UserError(f"text {i} (from 0) has the reference {value} → a finite number")
    return references, predictions


def _token_accuracy(rows: Rows) -> float:
    references, predictions = rows.words
    right = sum(map(str.__eq__, references, predictions))
    return right / len(references) if references else math.nan


def _answers(one: Callable[[str, list[str]], float]) -> Callable[[Rows], float]:
    """The mean over texts of a score of one answer."""

    def mean(rows: Rows) -> float:
        return math.fsum(map(one, rows.predictions, rows.references)) / len(rows.references)

    return mean


def _queries(one: Callable[[Sequence[float]], float]) -> Callable[[Rows], float]:
    """The mean of a score over the queries that have a relevant candidate; NaN if none has."""

    def mean(rows: Rows) -> float:
        pairs = zip(rows.predictions, rows.references, strict=True)
        found = [one(ranked(scores, relevance)) for scores, relevance in pairs if any(relevance)]
        return math.fsum(found) / len(found) if found else math.nan

    return mean


_SCORES: dict[str, Callable[[Rows], float]] = {
    "accuracy": _accuracy,
    "f1": _binary(2),
    "precision": _binary(0),
    "recall": _binary(1),
    "f1_macro": _averaged("macro", 2),
    "f1_micro": _averaged("micro", 2),
    "f1_weighted": _averaged("weighted", 2),
    "precision_macro": _averaged("macro", 0),
    "recall_macro": _averaged("macro", 1),
    "matthews_correlation": _matthews,
    "subset_accuracy": _accuracy,
    "pearson": _correlation("pearsonr"),
    "spearman": _correlation("spearmanr"),
    "mse": _error("mean_squared_error"),
    "mae": _error("mean_absolute_error"),
    "span_f1": lambda rows: pooled(rows.lenient_spans.values()).f1,
    "span_precision": lambda rows: pooled(rows.lenient_spans.values()).precision,
    "span_recall": lambda rows: pooled(rows.lenient_spans.values()).recall,
    "span_f1_strict": lambda rows: pooled(rows.strict_spans.values()).f1,
    "token_accuracy": _token_accuracy,
    "exact_match": _answers(exact),
    "qa_f1": _answers(overlap_f1),
    "ndcg": _queries(ndcg),
    "ndcg@10": _queries(partial(ndcg, cutoff=10)),
    "mrr": _queries(reciprocal_rank),
    "mrr@10": _queries(partial(reciprocal_rank, cutoff=10)),
    "recall@1": _queries(partial(recall, cutoff=1)),
    "recall@5": _queries(partial(recall, cutoff=5)),
    "recall@10": _queries(partial(recall, cutoff=10)),
    "map": _queries(average_precision),
}
