"""How good the decoded predictions of a task are.

In: the decoded predictions and references of one task, one entry a *text*, and the names of its metrics. Out:
plain floats under those names, and precision, recall and F1 by label. Metrics have the Hub's names and
`evaluate`'s interface, but need no Hub.

| kind     | a prediction        | a reference                          |
|----------|---------------------|--------------------------------------|
| `label`  | a label             | a label                              |
| `labels` | a list of labels    | a list of labels                     |
| `value`  | a number            | a number                             |
| `tags`   | a tag for each word | a tag for each word, IOB2 for spans  |
| `answer` | a string            | a list of strings, all of them right |
| `choice` | its index           | the right index                      |
| `relevance` | a score for each candidate | the relevance of each, 0 for none |

>>> compute(["accuracy", "f1"], ["no", "yes"], ["no", "yes"], labels=["no", "yes"])
{'accuracy': 1.0, 'f1': 1.0}

Importing this package imports none of scikit-learn, scipy, seqeval, evaluate, torch: each is imported when it
is first needed.
"""

from __future__ import annotations

from .loading import load_metric
from .report import compute, per_label
from .rows import ABSTAINED
from .table import ALIASES, KINDS, METRICS, MetricInfo, metric_info, metrics_for, primary

__all__ = [
    "ABSTAINED",
    "ALIASES",
    "KINDS",
    "METRICS",
    "MetricInfo",
    "compute",
    "load_metric",
    "metric_info",
    "metrics_for",
    "per_label",
    "primary",
]
