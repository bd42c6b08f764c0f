"""Vectors of a split → its rankings: each query against all passages of the split, not of its batch alone.

N texts, each with the vector of its query and of its passages (the right one first, then hard negatives). Passages with the same
text are one; a query's relevant ones are the first passages of every text with the same query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 256


@dataclass(frozen=True)
class Retrieved:
    """What one query found among the passages of its split.

    Attributes:
        passage: the nearest one, and its score.
        right: the passages that answer it.
        ranks: their places in the order of scores, from 1; of equal scores the wrong ones stand first.
    """

    passage: str
    score: float
    right: list[str]
    ranks: list[int]


def pooled(
    vectors: Sequence[NDArray[np.float32]], texts: Sequence[Mapping[str, Any]]
) -> tuple[list[list[float]], list[list[float]]]:
    """(scores, relevance), a list a query, as the ranking metrics take them.

    Passages that score below a query's last relevant one are left out: no metric of the relevant ones' ranks depends on them.

    Args:
        vectors: of each text, [1 + its passages, D].
        texts: `query` and `passages` of each, in the same order.
    """
    pool, answers, _ = _pool(vectors, texts)
    scores: list[list[float]] = []
    relevance: list[list[float]] = []
    for start in range(0, len(vectors), BLOCK):
        queries = np.stack([rows[0] for rows in vectors[start : start + BLOCK]]).astype(np.float64)
        for row, text in zip(queries @ pool.T, texts[start : start + BLOCK], strict=True):
            right = sorted(answers[text["query"]])
            found = np.nonzero(row >= row[right].min())[0]
            scores.append(row[found].tolist())
            relevance.append([float(place in answers[text["query"]]) for place in found])
    return scores, relevance


def nearest(
    vectors: Sequence[NDArray[np.float32]], texts: Sequence[Mapping[str, Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """([N] the score of each query's nearest passage of the pool, [N] 1 where it is a right one, else 0); arguments as `pooled`."""
    pool, answers, _ = _pool(vectors, texts)
    table = np.stack([rows[0] for rows in vectors]).astype(np.float64) @ pool.T
    best = table.argmax(1)
    right = [float(place in answers[text["query"]]) for place, text in zip(best, texts, strict=True)]
    return table.max(1), np.asarray(right)


def retrieved(vectors: Sequence[NDArray[np.float32]], texts: Sequence[Mapping[str, Any]]) -> list[Retrieved]:
    """What each query found; arguments as `pooled`."""
    pool, answers, passages = _pool(vectors, texts)
    found = []
    for rows, text in zip(vectors, texts, strict=True):
        scores, right = pool @ rows[0].astype(np.float64), sorted(answers[text["query"]])
        wrong = np.delete(scores, right)
        ranks = [
            1 + int((wrong >= scores[place]).sum()) + sum(bool(scores[other] > scores[place]) for other in right)
            for place in right
        ]
        # Of right ones with equal scores one stands after the other.
        ranks = [rank + ranks[:i].count(rank) for i, rank in enumerate(ranks)]
        best = int(scores.argmax())
        found.append(Retrieved(passages[best], float(scores[best]), [passages[i] for i in right], sorted(ranks)))
    return found


def _pool(
    vectors: Sequence[NDArray[np.float32]], texts: Sequence[Mapping[str, Any]]
) -> tuple[NDArray[np.float64], dict[str, set[int]], list[str]]:
    """(the vectors of all passages, query → the places of its answers, the passages)."""
    places: dict[str, int] = {}
    kept: list[NDArray[np.float32]] = []
    answers: dict[str, set[int]] = {}
    for rows, text in zip(vectors, texts, strict=True):
        for number, passage in enumerate(text["passages"]):
            if passage not in places:
                places[passage] = len(kept)
                kept.append(rows[1 + number])
        answers.setdefault(text["query"], set()).add(places[text["passages"][0]])
    return np.stack(kept).astype(np.float64), answers, list(places)
