"""A task's metrics on its decoded predictions: every named number, and the breakdown by label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import UserError, listed
from .loading import hub_score
from .rows import Rows
from .scores import class_scores, defined, score
from .table import KINDS, metric_info


def compute(
    names: Sequence[str],
    predictions: Sequence[Any],
    references: Sequence[Any],
    *,
    labels: Sequence[str] | None = None,
    scheme: str = "iob2",
) -> dict[str, float]:
    """Every named metric of one task, `{name as given: value}`, all values plain floats and none NaN.

    An undefined value (a correlation with constant predictions, spans where there are none) counts as 0 and
    is logged. Means over labels run over those that occur in predictions or references, so that right
    predictions score 1; a reference outside `labels` is such a label, never predicted, hence wrong.

    Args:
        names: names of `METRICS`, aliases, `hub:NAME`.
        predictions: decoded predictions, one a text, in the form of the task's kind.
        references: what is right, one a text.
        labels: the task's labels in order; the last of two is the positive class of f1, precision and recall.
        scheme: `iob2`, or `none` for tags that mark no spans.

    Raises:
        UserError: no texts, an unknown metric, or one that does not fit the predictions.
    """
    rows = Rows(predictions, references, labels, scheme)
    return {name: _value(name, rows) for name in ([names] if isinstance(names, str) else names)}


def _value(name: str, rows: Rows) -> float:
    info = metric_info(name)
    return defined(name, hub_score(name, rows)) if info is None else score(info, rows)


def per_label(
    kind: str,
    predictions: Sequence[Any],
    references: Sequence[Any],
    labels: Sequence[str] | None = None,
    *,
    scheme: str = "iob2",
) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of each label, and its number in the references (`support`, an int).

    The task's labels come in order, also those that occur nowhere (all 0); others that occur follow by code
    point. For `tags` the labels are the types of the spans, read leniently as by `span_f1`; with
    `scheme="none"` they are the tags, counted by word.

    Raises:
        UserError: no texts, or a kind that has no labels.
    """
    if kind not in ("label", "labels", "tags"):
        raise UserError(f'kind "{kind}" of {listed(KINDS)} → label, labels or tags: the others have no labels')
    rows = Rows(predictions, references, labels, scheme)
    if kind not in rows.kinds:
        raise UserError(f"the predictions are {' or '.join(rows.kinds)} → {kind}")
    if kind == "tags" and scheme != "none":
        return _by_type(rows)
    if kind == "tags":
        wanted, found = rows.words
        if not wanted:
            return {label: _entry(0.0, 0.0, 0.0, 0) for label in labels or ()}
        rows = Rows(found, wanted, labels)
    ids = list(range(len(rows.classes)))
    columns = class_scores(rows, ids, None) if ids else ((), (), (), ())
    return {label: _entry(*values) for label, *values in zip(rows.classes, *columns, strict=True)}


def _by_type(rows: Rows) -> dict[str, dict[str, float]]:
    spans = rows.lenient_spans
    none = _entry(0.0, 0.0, 0.0, 0)
    return {
        kind: _entry(spans[kind].precision, spans[kind].recall, spans[kind].f1, spans[kind].wanted)
        if kind in spans
        else none
        for kind in dict.fromkeys([*(rows.labels or ()), *spans])
    }


def _entry(precision: float, recall: float, f1: float, support: int) -> dict[str, float]:
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
