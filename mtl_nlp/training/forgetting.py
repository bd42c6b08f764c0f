"""What a run that began at a checkpoint has done to the tasks that it inherited: each one's validation scores before and after.

Both are scored on the same texts by the same code, without a calibration that the new weights do not have, so a task that is
untouched has equal numbers, digit by digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from .evaluation import Scorer
from .prepare import Prepared

Scores = Mapping[str, Mapping[str, float]]


def old_scores(prepared: Prepared, settings: Mapping[str, Any]) -> dict[str, float]:
    """The checkpoint's own scores on validation, as `eval_TASK_METRIC`; empty where the run began at no checkpoint.

    Args:
        settings: of `Scorer.score` (device, batch, context).
    """
    start, names = prepared.start, set(prepared.recipe.inherited)
    owners = {corpus: [name for name in tasks if name in names] for corpus, tasks in prepared.owners.items()}
    splits = {corpus: split for corpus, split in prepared.encoded["validation"].items() if owners[corpus]}
    if start is None or not splits:
        return {}
    own = {task.name: task for task in start.tasks}
    # The checkpoint's labels, the run's metrics and calibration: a task that is trained further has none any more.
    tasks = [
        own[task.name].model_copy(
            update={"metrics": task.metrics, "auxiliary": task.auxiliary, "calibration": task.calibration}
        )
        for task in prepared.tasks
        if task.name in names
    ]
    scorer = Scorer(tasks, splits, owners, prepared.tokenizer, prepared.contexts("validation"))
    model = nn.Module.to(start.model(), settings["device"])
    if prepared.recipe.performance != "plain":
        model.use_fast_paths()  # as the trained model: equal weights then give equal scores
    return scorer.score(model, **settings)


def forgetting(before: Scores, after: Scores) -> dict[str, Any] | None:
    """`{"tasks": {TASK: {METRIC: {"before", "after", "change"}}}, "mean_change"}`, None where nothing was inherited.

    The mean is over the primary (first) metrics; a task without data is left out.
    """
    tasks = {
        task: {
            metric: {"before": old, "after": after[task][metric], "change": after[task][metric] - old}
            for metric, old in values.items()
            if metric in after[task]
        }
        for task, values in before.items()
        if task in after
    }
    if not tasks:
        return None
    primary = [next(iter(values.values()))["change"] for values in tasks.values() if values]
    return {"tasks": tasks, "mean_change": sum(primary) / len(primary)}


def forgetting_rows(report: Mapping[str, Any]) -> list[list[Any]]:
    """The report as rows (task, metric, before, after, change) for a table."""
    return [
        [task if place == 0 else "", metric, found["before"], found["after"], f"{found['change']:+.4f}"]
        for task, values in report["tasks"].items()
        for place, (metric, found) in enumerate(values.items())
    ]
