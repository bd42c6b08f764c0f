"""`inverse_frequency` → numbers, counted on what the loss will see: the encoded training split.

A label's weight is N / (K · n): N labelled units (rows, or labelled tokens), n of them with the label, K labels that occur. So the
mean weight of a unit is 1 (scikit-learn's `balanced`, after King and Zeng 2001). A label of several a text gets its negatives over
its positives as `pos_weight`. Labels that do not occur in training have weight 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import Faults
from ..loss import INVERSE_FREQUENCY, Loss, name_faults, outputs_of
from ..task import Task
from .features import EncodedSplit

BATCH = 4096


def settle_losses(
    tasks: Sequence[Task], owners: Mapping[str, Sequence[str]], train: Mapping[str, EncodedSplit]
) -> list[Task]:
    """The tasks with every weight a number; as they are where there is no training split to count.

    Args:
        tasks: labels settled.
        owners: corpus → names of its tasks.
        train: corpus → encoded training split.

    Raises:
        FaultyInput: weights for labels that a task does not have.
    """
    faults = Faults()
    split = {name: train[corpus] for corpus, names in owners.items() if corpus in train for name in names}
    settled = []
    for task in tasks:
        outputs = outputs_of(task.kind, task.labels, task.tag_scheme)
        for problem in name_faults(task.loss, outputs, task.labels or ()):
            faults.add(problem, where=task.place_of("loss"), key=f"{task.name}.loss")
        if task.name in split and INVERSE_FREQUENCY in (task.loss.class_weights, task.loss.pos_weight):
            loss = _counted(task, outputs, split[task.name])
            task = task.model_copy(update={"loss": loss}).placed(task._source, task.base)
        settled.append(task)
    faults.check()
    return settled


def _counted(task: Task, outputs: Sequence[str], split: EncodedSplit) -> Loss:
    counts, units = label_counts(split, f"@{task.name}", len(outputs), several=task.kind.annotation == "labels")
    if task.loss.class_weights == INVERSE_FREQUENCY:
        return task.loss.model_copy(update={"class_weights": dict(zip(outputs, balanced(counts), strict=True))})
    weights = [(units - n) / n if 0 < n < units else 1.0 for n in counts.tolist()]
    return task.loss.model_copy(update={"pos_weight": dict(zip(outputs, weights, strict=True))})


def balanced(counts: NDArray[np.int64]) -> list[float]:
    """N / (K · n) for each label that occurs, 1 for the others."""
    occurring = int((counts > 0).sum())
    total = int(counts.sum())
    return [total / (occurring * n) if n else 1.0 for n in counts.tolist()]


def label_counts(split: EncodedSplit, column: str, labels: int, *, several: bool) -> tuple[NDArray[np.int64], int]:
    """How often each label is a target, and how many units have one (with `several`: how many rows)."""
    counts, units = np.zeros(labels, dtype=np.int64), 0
    for batch in split.rows.select_columns([column]).with_format("arrow").iter(BATCH):
        values = batch.column(column).drop_null().combine_chunks()
        if several:
            table = np.asarray(values.flatten(), dtype=np.float64).reshape(-1, labels)
            counts += table.sum(0).astype(np.int64)
            units += len(table)
            continue
        flat = np.asarray(values.flatten() if hasattr(values, "flatten") and values.type.num_fields else values)
        found = flat[flat >= 0].astype(np.int64)
        counts += np.bincount(found, minlength=labels)
        units += len(found)
    return counts, units
