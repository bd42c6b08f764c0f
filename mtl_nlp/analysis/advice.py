"""From affinities to advice: which tasks to train together, which apart, and from which layer on to split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TOGETHER, APART, UNCLEAR = "together", "apart", "no clear effect"
EXHAUSTIVE = 9  # tasks; 21 147 partitions of nine


@dataclass(frozen=True)
class Pair:
    """Two tasks.

    Attributes:
        affinity: mean of both directions; `error` its standard error.
        verdict: `together` or `apart` where the affinity is two standard errors from 0, else `no clear effect`.
        share_until: the last layer group to share, counted from the bottom: where the affinity summed over the layers up to it is
            greatest; None where it is best to share nothing.
    """

    tasks: tuple[str, str]
    affinity: float
    error: float
    verdict: str
    share_until: str | None


@dataclass(frozen=True)
class Advice:
    """What follows from a measurement.

    Attributes:
        groups: tasks to train together; a task alone is best alone.
        share_until: as of a pair, for all tasks under one encoder.
    """

    groups: list[list[str]]
    share_until: str | None
    pairs: list[Pair]


def advise(tasks: Sequence[str], affinity: Any, error: Any, by_layer: Mapping[str, Any]) -> Advice:
    """The advice.

    Args:
        affinity, error: [M, M], row helps column, with standard errors.
        by_layer: layer group, from the bottom → [M, M], its part of the affinity.
    """
    numbers = range(len(tasks))
    pairs = [_pair(tasks, i, j, affinity, error, by_layer) for i in numbers for j in range(i + 1, len(tasks))]
    best = best_partition(np.asarray(affinity))
    whole = {group: float(np.sum(table) - np.trace(table)) for group, table in by_layer.items()}
    return Advice([[tasks[i] for i in part] for part in best], until(whole), pairs)


def _pair(tasks: Sequence[str], i: int, j: int, affinity: Any, error: Any, by_layer: Mapping[str, Any]) -> Pair:
    mean = float(affinity[i][j] + affinity[j][i]) / 2
    deviation = float(np.hypot(error[i][j], error[j][i])) / 2
    verdict = UNCLEAR if abs(mean) <= 2 * deviation else TOGETHER if mean > 0 else APART
    layers = {group: float(table[i][j] + table[j][i]) for group, table in by_layer.items()}
    return Pair((tasks[i], tasks[j]), mean, deviation, verdict, until(layers))


def until(layers: Mapping[str, float]) -> str | None:
    """The layer group up to which the sum from the bottom is greatest; None where no such sum is above 0.

    `{embeddings: 1, layer 0: 2, layer 1: −1}` → `layer 0`.
    """
    best, total, found = 0.0, 0.0, None
    for group, value in layers.items():
        total += value
        if total > best:
            best, found = total, group
    return found


def best_partition(affinity: Any) -> list[list[int]]:
    """The partition with the most help: the sum of affinities, both directions, inside its parts.

    Fifty et al. take a task's mean over its group, for a budget of models; the sum is what fits a budget in which every task sees
    its own texts as often alone as in company. Up to nine tasks all partitions are compared; beyond, parts are merged greedily.
    """
    size = len(affinity)
    gain = affinity + affinity.T
    if size <= EXHAUSTIVE:
        # Among equals the one with the most parts, so that nobody is joined without a gain.
        return max(partitions(size), key=lambda parts: (round(_help(parts, gain), 12), len(parts)))
    parts = [[i] for i in range(size)]
    while len(parts) > 1:
        options = [(sum(gain[i][j] for i in a for j in b), a, b) for n, a in enumerate(parts) for b in parts[n + 1 :]]
        value, one, other = max(options, key=lambda option: option[0])
        if value <= 0:
            break
        parts = [part for part in parts if part is not one and part is not other] + [sorted(one + other)]
    return sorted(parts)


def _help(parts: Sequence[Sequence[int]], gain: Any) -> float:
    return float(sum(gain[i][j] for part in parts for i in part for j in part if i < j))


def partitions(size: int) -> Iterator[list[list[int]]]:
    """All partitions of 0 … size − 1."""
    if size == 0:
        yield []
        return
    last = size - 1
    for parts in partitions(last):
        for i in range(len(parts)):
            yield [*parts[:i], [*parts[i], last], *parts[i + 1 :]]
        yield [*parts, [last]]
