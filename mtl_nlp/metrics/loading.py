"""Names to `evaluate.Metric`s: the table's own, any other by `evaluate.load` from the Hub or a script."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

from ..errors import UserError, listed
from .rows import Rows
from .table import HUB, METRICS, did_you_mean, metric_info

if TYPE_CHECKING:
    import evaluate


def load_metric(name: str) -> evaluate.Metric:
    """The metric of that name, ready for `add_batch` and `compute`.

    Names and aliases of the table need no network. `hub:NAME` (or `hub:NAME:KEY`) and every unknown name go
    to `evaluate.load(NAME)`, which runs that metric's script: name only scripts that you trust.

    Raises:
        UserError: `evaluate.load` cannot load it.
    """
    info = metric_info(name)
    if info is not None:
        from .evaluate_metric import TaskMetric

        return TaskMetric(info)
    import evaluate

    path, _ = _hub_name(name)
    try:
        return evaluate.load(path, keep_in_memory=True)
    except Exception as error:  # a script from elsewhere, and the road to it, may raise anything
        raise UserError(
            f'no metric "{name}".{did_you_mean(path)} Known: {listed(METRICS, 40)}; any other comes '
            f"from the Hub, which must be reachable, and that failed: {_first_line(error)}"
        ) from error


def hub_score(name: str, rows: Rows) -> float:
    """The value of a metric that the table does not have, NaN if that metric says so.

    Where it wants integers, labels are given as their positions in the task's label order.

    Raises:
        UserError: it cannot be loaded, cannot score these rows, or gives several numbers and no KEY is named.
    """
    metric = load_metric(name)
    predictions, references = rows.predictions, rows.references
    if rows.kinds == ("label",) and _wants_integers(metric):
        references, predictions = (ids.tolist() for ids in rows.encoded)
    try:
        result = metric.compute(predictions=predictions, references=references)
    except Exception as error:  # as above
        raise UserError(f'metric "{name}" cannot score these predictions: {_first_line(error)}') from error
    return _pick(name, result or {})


def _hub_name(name: str) -> tuple[str, str]:
    """`hub:NAME:KEY` or `NAME` as (NAME, KEY or nothing)."""
    if not name.startswith(HUB):
        return name, ""
    path, _, key = name.removeprefix(HUB).partition(":")
    return path, key


def _wants_integers(metric: evaluate.Metric) -> bool:
    features = metric.features[0] if isinstance(metric.features, list) else metric.features
    return str(getattr(features.get("predictions"), "dtype", "")).startswith("int")


def _pick(name: str, result: dict[str, Any]) -> float:
    """The number that a name means: under its KEY, else under the metric's own name, else the only one."""
    path, key = _hub_name(name)
    numbers = {str(k): float(v) for k, v in result.items() if isinstance(v, Real)}
    for wanted in (key,) if key else (path, path.rpartition("/")[2]):
        if wanted in numbers:
            return numbers[wanted]
    if len(numbers) == 1 and not key:
        return next(iter(numbers.values()))
    raise UserError(f'metric "{name}" gives {listed(numbers)} → name one of them: {HUB}{path}:KEY')


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
