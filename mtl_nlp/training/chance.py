"""The loss of the best constant prediction of each task, from its training labels: what "knowing nothing of the text" costs.

A constant prediction is the same logits for every unit (row, labelled token). The best one is the labels' own distribution: its
cross entropy is their entropy, its squared error their variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..data.features import IGNORE, EncodedSplit
from ..task import Task
from .prepare import Prepared


def chance_losses(prepared: Prepared) -> dict[str, float]:
    """Task → loss of the best constant prediction on the training split, in the task's own unit (nats; squared)."""
    found: dict[str, float] = {}
    special = set(prepared.tokenizer.all_special_ids)
    for corpus in prepared.corpora:
        split = prepared.encoded["train"][corpus.name]
        for task in corpus.tasks:
            found[task.name] = chance_loss(task, split, special)
    return {task.name: found[task.name] for task in prepared.tasks}


def chance_loss(task: Task, split: EncodedSplit, special: Iterable[int] = ()) -> float:
    """One task's.

    Args:
        special: token ids that masked language modelling never masks.
    """
    kind = task.kind.annotation
    if kind == "none":
        ids = np.concatenate([np.asarray(row) for row in split.rows["input_ids"]])
        return entropy(ids[~np.isin(ids, list(special))])
    column = split.rows[f"@{task.name}"]
    if kind == "choice":
        return _choices(column, split.offsets.tolist())
    targets = [target for target in column if target is not None]
    if kind == "tags":
        tags = np.concatenate([np.asarray(row) for row in targets])
        return entropy(tags[tags != IGNORE])
    if kind == "labels":
        share = np.asarray(targets, dtype=np.float64).mean(0)
        return float(np.mean([_entropy(np.array([p, 1 - p])) for p in share]))
    if kind == "value":
        return float(np.var(np.asarray(targets, dtype=np.float64)))
    if kind == "answer":
        spans = np.asarray(targets)
        return (entropy(spans[:, 0]) + entropy(spans[:, 1])) / 2
    return entropy(np.asarray(targets))


def _choices(column: Sequence[Any], offsets: Sequence[int]) -> float:
    """Choices have no names, so a constant scores all alike: log C, averaged over labelled texts."""
    sizes = [end - start for start, end in pairwise(offsets) if column[start] is not None]
    return sum(math.log(size) for size in sizes) / len(sizes)


def entropy(values: np.ndarray[Any, Any]) -> float:
    """Entropy of the values' own distribution, in nats."""
    _, counts = np.unique(values, return_counts=True)
    return _entropy(counts / counts.sum())


def _entropy(shares: np.ndarray[Any, Any]) -> float:
    there = shares[shares > 0]
    return float(-(there * np.log(there)).sum())
