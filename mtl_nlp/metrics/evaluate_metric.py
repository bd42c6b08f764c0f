"""The table's metrics as `evaluate.Metric`s that need no Hub.

Importing this module imports evaluate, which takes seconds; `loading` does it when a metric is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import evaluate
from datasets import Features, List, Value

from .rows import Rows
from .scores import score
from .table import MetricInfo

_TEXT, _NUMBER = Value("string"), Value("float64")
_FEATURES = {
    "label": Features({"predictions": _TEXT, "references": _TEXT}),
    "labels": Features({"predictions": List(_TEXT), "references": List(_TEXT)}),
    "value": Features({"predictions": _NUMBER, "references": _NUMBER}),
    "tags": Features({"predictions": List(_TEXT), "references": List(_TEXT)}),
    "answer": Features({"predictions": _TEXT, "references": List(_TEXT)}),
    "choice": Features({"predictions": Value("int64"), "references": Value("int64")}),
    "relevance": Features({"predictions": List(_NUMBER), "references": List(_NUMBER)}),
}


class TaskMetric(evaluate.Metric):
    """One metric of the table behind `evaluate`'s interface: decoded labels in, `{result_key: float}` out.

    `compute` also takes `labels=` and `scheme=`, with the meaning they have in `mtl_nlp.metrics.compute`.

    Args:
        metric: the metric.
        keep_in_memory: hold the rows in memory, so that nothing is written and two metrics cannot meet in one
            file. False is for several processes that share a file system (`num_process`, `process_id`,
            `experiment_id`).
        options: the other arguments of `evaluate.Metric`.
    """

    def __init__(self, metric: MetricInfo, *, keep_in_memory: bool = True, **options: Any) -> None:
        self.metric = metric
        super().__init__(keep_in_memory=keep_in_memory, **options)
        self.info.module_name = metric.name

    def _info(self) -> evaluate.MetricInfo:
        features = [_FEATURES[kind] for kind in self.metric.kinds]
        return evaluate.MetricInfo(
            description=f"{self.metric.description}, in {self.metric.bounds}",
            citation="",
            features=features[0] if len(features) == 1 else features,
        )

    def _build_data_dir(self) -> str:
        """No folder in the user's cache for rows that stay in memory."""
        return "" if self.keep_in_memory else str(super()._build_data_dir())

    def _infer_feature_from_batch(self, batch: dict[str, Any]) -> Features:
        """The features that fit the first row; evaluate fails obscurely where there is none to look at."""
        if not len(batch["references"]):
            return _FEATURES[self.metric.kinds[0]]
        return super()._infer_feature_from_batch(batch)

    def _compute(
        self,
        predictions: Sequence[Any],
        references: Sequence[Any],
        *,
        labels: Sequence[str] | None = None,
        scheme: str = "iob2",
    ) -> dict[str, float]:
        return {self.metric.result_key: score(self.metric, Rows(predictions, references, labels, scheme))}
