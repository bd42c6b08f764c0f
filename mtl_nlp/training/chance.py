"""The loss of the best constant prediction of each task, from its training labels: what "knowing nothing of the text" costs.

A constant prediction is the same logits for every unit (row, labelled token). The best one is the labels' own distribution: its
cross entropy is their entropy, its squared error their variance. Where `loss:` changes the loss (class weights, focal, smoothing,
pos_weight), the best constant logits are searched for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ..data.features import IGNORE, EncodedSplit
from ..model.heads import make_head
from ..task import Task
from .prepare import Prepared


def chance_losses(prepared: Prepared) -> dict[str, float]:
    """Task → loss of the best constant prediction on the training split, in the task's own unit (nats; squared)."""
    special = set(prepared.tokenizer.all_special_ids)
    splits = {name: prepared.encoded["train"][one.name] for one in prepared.corpora for name in one.task_names}
    # The tasks as settled: those of a corpus may still say `inverse_frequency` where these have numbers.
    return {task.name: chance_loss(task, splits[task.name], special) for task in prepared.tasks}


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
    if kind == "match":
        # As if all passages of the split were in one batch: no more is known of a batch beforehand.
        return math.log(max(2, sum(end - start - 1 for start, end in pairwise(split.offsets.tolist()))))
    targets = [target for target in column if target is not None]
    if kind == "relevance":
        return _candidates(targets, pairwise=task.loss.objective == "pairwise")
    if task.loss.given() and kind in ("label", "labels", "tags") and not task.kind.chain:
        return fitted(task, targets)
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


def _candidates(queries: Sequence[Sequence[float]], *, pairwise: bool) -> float:
    """A constant scores all candidates alike: log 2 a pair, log C a list, over the queries that teach something."""
    if pairwise:
        return math.log(2)
    sizes = [len(query) for query in queries if sum(query) > 0]
    return sum(math.log(size) for size in sizes) / max(len(sizes), 1)


def fitted(task: Task, targets: Sequence[Any], most: int = 20_000) -> float:
    """The task's own loss at the best constant logits, over `most` rows evenly spread."""
    chosen = targets[:: max(1, math.ceil(len(targets) / most))]
    head = make_head(task)
    if task.kind.annotation == "labels":
        labels = torch.tensor(chosen, dtype=torch.float32)
    else:
        flat = np.concatenate([np.atleast_1d(np.asarray(row)) for row in chosen])
        labels = torch.from_numpy(flat[flat != IGNORE]).long()
    logits = torch.zeros(head.outputs, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        total, units = head.loss(logits.expand(len(labels), -1), labels)
        mean = total / units
        mean.backward()
        return mean

    optimizer.step(loss)
    return float(loss().detach())


def entropy(values: np.ndarray[Any, Any]) -> float:
    """Entropy of the values' own distribution, in nats."""
    _, counts = np.unique(values, return_counts=True)
    return _entropy(counts / counts.sum())


def _entropy(shares: np.ndarray[Any, Any]) -> float:
    there = shares[shares > 0]
    return float(-(there * np.log(there)).sum())
