"""Do attributions name the words that decide? Deletion and insertion curves (Petsiuk et al. 2018, arXiv:1806.07421).

Deletion takes the words out (puts the baseline in their place), the most important first, and follows the score of the decision;
a good order makes it fall at once, so the area under the curve is small. Insertion begins without any word and puts them back; a
good order makes the area large. Random orders are what both are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from .explain import Decision, Explainer, word_attributions

Order = NDArray[np.int64]
Curve = NDArray[np.float64]
RANDOM = "random"
# Words are taken out in at most so many parts, so that a long text costs no more than a short one.
PARTS = 10


def area(curve: Curve) -> float:
    """The area under a curve over shares of words from 0 to 1, by trapezoids."""
    return float((curve[:-1] + curve[1:]).sum() / 2 / (len(curve) - 1))


def random_orders(words: int, count: int, generator: np.random.Generator) -> list[Order]:
    """`count` random orders of the words."""
    return [generator.permutation(words) for _ in range(count)]


def curves_of(decision: Decision, orders: Sequence[Order], batch: int = 64) -> tuple[Curve, Curve]:
    """(deletion, insertion), each [orders, parts + 1]: the decision's score as the words go, and as they come.

    Args:
        orders: each the places of the words in `decision.row.words`' numbering, the most important first.
        batch: most rows a pass.
    """
    row = decision.row
    total = len(row.shown.words)
    parts = min(PARTS, len(orders[0]))
    gone = []
    for order in orders:
        for inserting in (False, True):
            for part in range(parts + 1):
                taken = order[: round(len(order) * part / parts)]
                mask = np.full(total, inserting)
                mask[taken] = not inserting
                gone.append(mask)
    table = torch.tensor(np.stack(gone), device=row.ids.device)
    scores = []
    with torch.no_grad():
        for start in range(0, len(table), batch):
            logits = row.logits(decision.task.name, row.without(table[start : start + batch]))
            scores.append(decision.target.score(logits).double().cpu().numpy())
    found = np.concatenate(scores).reshape(len(orders), 2, parts + 1)
    return found[:, 0], found[:, 1]


@dataclass
class Measured:
    """Areas of one method on one task, a decision each, and the random orders' on the same decisions.

    Attributes:
        deletion: areas; small is good.
        insertion: areas; large is good.
        random_deletion: the mean area of the random orders.
        random_insertion: as before.
        incomplete: decisions whose integrated gradients did not add up within 1 %.
        worst: the largest gap of the sum, as a share of the difference.
    """

    deletion: list[float] = field(default_factory=list)
    insertion: list[float] = field(default_factory=list)
    random_deletion: list[float] = field(default_factory=list)
    random_insertion: list[float] = field(default_factory=list)
    incomplete: int = 0
    worst: float = 0.0

    def gain(self, what: str) -> tuple[float, float]:
        """(mean, half of its 95 % interval by Student's t) by which the method is better than random, decision by decision."""
        from scipy.stats import t

        own, other = np.asarray(getattr(self, what)), np.asarray(getattr(self, f"random_{what}"))
        better = other - own if what == "deletion" else own - other
        if len(better) < 2:
            return float(better.mean()) if len(better) else math.nan, math.nan
        half = t.ppf(0.975, len(better) - 1) * better.std(ddof=1) / math.sqrt(len(better))
        return float(better.mean()), float(half)


def measure(
    explainer: Explainer, decisions: Sequence[Decision], methods: Sequence[str], *, orders: int = 3, seed: int = 13
) -> dict[str, Measured]:
    """Method → its areas on some decisions of one task; a decision on fewer than two words is left out.

    Args:
        orders: random orders a decision.
    """
    generator = np.random.default_rng(seed)
    found = {method: Measured() for method in methods}
    for decision in decisions:
        read = np.unique(decision.row.words.cpu().numpy())
        read = read[read >= 0]
        if len(read) < 2:
            continue
        ranked = []
        for method in methods:
            attribution = explainer.attribution(decision, method)
            words, _ = word_attributions(decision.row, attribution)
            ranked.append(read[np.argsort(-words[read], kind="stable")])
            if attribution.delta is not None:
                gap = max(abs(attribution.value - attribution.baseline), 1e-12)
                found[method].incomplete += not attribution.complete
                found[method].worst = max(found[method].worst, abs(attribution.delta) / gap)
        chance = [read[order] for order in random_orders(len(read), orders, generator)]
        deletion, insertion = curves_of(decision, [*ranked, *chance])
        for place, method in enumerate(methods):
            found[method].deletion.append(area(deletion[place]))
            found[method].insertion.append(area(insertion[place]))
            found[method].random_deletion.append(float(np.mean([area(curve) for curve in deletion[len(methods) :]])))
            found[method].random_insertion.append(float(np.mean([area(curve) for curve in insertion[len(methods) :]])))
    return found
