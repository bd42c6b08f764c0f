"""How good an order of candidates is: relevance in the order of the model's scores → a number in [0, 1].

NDCG: Järvelin and Kekäläinen 2002, with linear gain and log2 discount as in trec_eval and scikit-learn.
Reciprocal rank: Voorhees 1999.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import UserError


def ranked(scores: Sequence[float], relevance: Sequence[float]) -> list[float]:
    """The relevance of the candidates, best score first; of equal scores (and NaN, which is last) the less relevant first.

    Raises:
        UserError: not one score a candidate.
    """
    if len(scores) != len(relevance):
        raise UserError(f"{len(scores)} scores for {len(relevance)} candidates → one a candidate")
    pairs = [(math.inf if math.isnan(score) else -score, value) for score, value in zip(scores, relevance, strict=True)]
    return [value for _, value in sorted(pairs)]


def reciprocal_rank(order: Sequence[float], cutoff: int | None = None) -> float:
    """1 / rank of the first relevant candidate, 0 if none is among the first `cutoff`."""
    return next((1 / rank for rank, value in enumerate(order[:cutoff], 1) if value > 0), 0.0)


def average_precision(order: Sequence[float]) -> float:
    """Mean, over the relevant candidates, of the precision at their rank; 0 without any."""
    ranks = [rank for rank, value in enumerate(order, 1) if value > 0]
    return math.fsum(found / rank for found, rank in enumerate(ranks, 1)) / len(ranks) if ranks else 0.0


def recall(order: Sequence[float], cutoff: int) -> float:
    """The share of the relevant candidates that are among the first `cutoff`; 0 without any."""
    relevant = sum(value > 0 for value in order)
    return sum(value > 0 for value in order[:cutoff]) / relevant if relevant else 0.0


def ndcg(order: Sequence[float], cutoff: int | None = None) -> float:
    """Discounted cumulative gain over that of the best order; 0 where nothing is relevant."""
    ideal = _gain(sorted(order, reverse=True)[:cutoff])
    return _gain(order[:cutoff]) / ideal if ideal else 0.0


def _gain(order: Sequence[float]) -> float:
    return math.fsum(value / math.log2(rank + 1) for rank, value in enumerate(order, 1))
