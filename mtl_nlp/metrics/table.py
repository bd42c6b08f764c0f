"""The table of metrics: what each is called, what it scores, and which way is better. No third-party
import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError, closest, listed

KINDS = ("label", "labels", "value", "tags", "answer", "choice", "relevance")
"""What the predictions of a task look like; the package's docstring shows each."""

HUB = "hub:"
"""A metric named `hub:NAME`, or `hub:NAME:KEY` where it gives several numbers, is always
`evaluate.load(NAME)`."""


@dataclass(frozen=True)
class MetricInfo:
    """What is known of a metric before any library is imported.

    Attributes:
        name: its name in a task file and in the results of `compute`.
        result_key: the Hub's key under which the `evaluate.Metric` of that name returns it.
        kinds: the kinds of predictions that it scores.
        description: what it measures, exactly.
        bounds: the range of its values.
        higher_better: whether more is better; only then may it be a task's primary metric.
    """

    name: str
    result_key: str
    kinds: tuple[str, ...]
    description: str
    bounds: str = "[0, 1]"
    higher_better: bool = True


_CLASSES = ("label", "labels")
_SEEN = "over the labels that occur in predictions or references"
_LENIENT = "spans as conlleval reads them (an I- may open one), pooled over types: what most papers report"
_STRICT = "spans of strict IOB2 (an I- that continues nothing is no span), pooled over types"
_QUERIES = "mean over queries that have a relevant one; ties count against the model"

_TABLE = (
    MetricInfo("accuracy", "accuracy", ("label", "choice"), "share of texts whose label, or choice, is right"),
    MetricInfo("f1", "f1", ("label",), "F1 of the positive class, the last of two labels"),
    MetricInfo("precision", "precision", ("label",), "precision of the positive class, the last of two labels"),
    MetricInfo("recall", "recall", ("label",), "recall of the positive class, the last of two labels"),
    MetricInfo("f1_macro", "f1", _CLASSES, f"plain mean of the labels' F1, {_SEEN}"),
    MetricInfo("f1_micro", "f1", _CLASSES, "F1 of all decisions pooled; for one label a text it is accuracy"),
    MetricInfo("f1_weighted", "f1", _CLASSES, "mean of the labels' F1, weighted by their number in the references"),
    MetricInfo("precision_macro", "precision", _CLASSES, f"plain mean of the labels' precision, {_SEEN}"),
    MetricInfo("recall_macro", "recall", _CLASSES, f"plain mean of the labels' recall, {_SEEN}"),
    MetricInfo(
        "matthews_correlation",
        "matthews_correlation",
        ("label",),
        "Matthews correlation of labels, 0 for constant predictions",
        bounds="[-1, 1]",
    ),
    MetricInfo("subset_accuracy", "accuracy", ("labels",), "share of texts whose whole set of labels is right"),
    MetricInfo("pearson", "pearsonr", ("value",), "Pearson correlation, 0 where undefined", bounds="[-1, 1]"),
    MetricInfo("spearman", "spearmanr", ("value",), "Spearman rank correlation, 0 where undefined", bounds="[-1, 1]"),
    MetricInfo("mse", "mse", ("value",), "mean squared error", bounds="[0, inf]", higher_better=False),
    MetricInfo("mae", "mae", ("value",), "mean absolute error", bounds="[0, inf]", higher_better=False),
    MetricInfo("span_f1", "overall_f1", ("tags",), f"F1 of {_LENIENT}"),
    MetricInfo("span_precision", "overall_precision", ("tags",), f"precision of {_LENIENT}"),
    MetricInfo("span_recall", "overall_recall", ("tags",), f"recall of {_LENIENT}"),
    MetricInfo("span_f1_strict", "overall_f1", ("tags",), f"F1 of {_STRICT}"),
    MetricInfo("token_accuracy", "overall_accuracy", ("tags",), "share of words whose tag is right, O included"),
    MetricInfo(
        "exact_match",
        "exact_match",
        ("answer",),
        "share of answers equal to a right one, as SQuAD normalises",
    ),
    MetricInfo("qa_f1", "f1", ("answer",), "mean over texts of the best word-overlap F1 with a right answer (SQuAD)"),
    MetricInfo("ndcg", "ndcg", ("relevance",), f"normalised discounted cumulative gain, gain linear, {_QUERIES}"),
    MetricInfo("ndcg@10", "ndcg", ("relevance",), f"the same of the first ten, {_QUERIES}"),
    MetricInfo("mrr", "mrr", ("relevance",), f"reciprocal rank of the first relevant candidate, {_QUERIES}"),
    MetricInfo("mrr@10", "mrr", ("relevance",), f"the same, 0 where it is not among the first ten, {_QUERIES}"),
    *(
        MetricInfo(
            f"recall@{k}", "recall", ("relevance",), f"share of the relevant candidates among the first {k}, {_QUERIES}"
        )
        for k in (1, 5, 10)
    ),
    MetricInfo("map", "map", ("relevance",), f"average precision of the relevant candidates, {_QUERIES}"),
)

METRICS: dict[str, MetricInfo] = {info.name: info for info in _TABLE}
"""Every metric that needs no Hub, by its name."""

ALIASES: dict[str, str] = {
    "matthews": "matthews_correlation",
    "pearsonr": "pearson",
    "spearmanr": "spearman",
    "seqeval": "span_f1",
}
"""Other names of the same metrics, the Hub's among them."""


def metric_info(name: str) -> MetricInfo | None:
    """What the table says of a name or alias; None for a metric that only the Hub has."""
    return METRICS.get(ALIASES.get(name, name))


def metrics_for(kind: str) -> list[str]:
    """The names of the metrics that score predictions of this kind, in the table's order."""
    return [info.name for info in METRICS.values() if kind in info.kinds]


def did_you_mean(name: str) -> str:
    """` Did you mean "accuracy"?` for a name near a known one, else nothing."""
    return str(closest(name, [*METRICS, *ALIASES]))


def primary(names: Sequence[str]) -> str:
    """The primary metric of a task: the first of its metrics, as it was named.

    Raises:
        UserError: there is none, or it is one where lower is better, so that it cannot enter `eval_mean`.
    """
    if isinstance(names, str) or not names:
        raise UserError(f"metrics: found {names!r} → a list with at least one name; the first is the primary metric")
    info = metric_info(names[0])
    if info is not None and not info.higher_better:
        better = [name for kind in info.kinds for name in metrics_for(kind) if METRICS[name].higher_better]
        raise UserError(
            f'metrics: "{names[0]}" is better when lower and cannot be the primary metric; '
            f"put one of {listed(better)} before it"
        )
    return names[0]
