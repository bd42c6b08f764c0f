"""How far probabilities can be believed, and what is tuned on validation: temperature, thresholds, when to give no answer.

Pure functions of probabilities and references; N decisions, K labels. `mtl_nlp.training.calibration` gathers what they need.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 15
EVEN = 0.5
TEMPERATURES = (0.05, 20.0)


def expected_calibration_error(confidences: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """Σ over bins of (their share of N) · |share that is right − mean confidence| (Naeini et al. 2015; Guo et al. 2017).

    Bins are equally wide and closed above: (0, 1/bins], (1/bins, 2/bins], …; 0 falls into the first.

    Args:
        confidences: [N] probabilities.
        right: [N], 1 where the decision was right (for several labels: where the label holds).
    """
    confidence, hit = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not len(confidence):
        return 0.0
    place = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(np.int64)
    gaps = np.bincount(place, weights=hit - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def best_temperature(loss: Callable[[float], float]) -> float | None:
    """The temperature with the least loss (negative log-likelihood on validation), by Brent's method on its logarithm.

    None where the texts do not say: the least stands at an end of `TEMPERATURES`, or is nothing (all of them are right).
    """
    from scipy.optimize import minimize_scalar

    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda x: loss(float(np.exp(x))), bounds=(low, high), method="bounded", options={"xatol": 1e-4}
    )
    best = float(found.x)
    return None if min(best - low, high - best) < 1e-2 or found.fun < 1e-6 else float(np.exp(best))


def f1_threshold(probabilities: ArrayLike, holds: ArrayLike) -> float:
    """The threshold with the highest F1 for "above it" (Lipton et al. 2014, arXiv:1402.1892).

    Half-way between two neighbouring probabilities; 0.5 itself where it does as well, or where no text has the label. Of several,
    the one that is nearest to 0.5.

    Args:
        probabilities: [N].
        holds: [N], 1 where the label holds.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(holds, dtype=np.int64)
    if not y.sum():
        return EVEN
    order = np.argsort(-p, kind="stable")
    p, y = p[order], y[order]
    # With the first i chosen: F1 = 2·TP / (i + positives). A threshold can only stand between different probabilities.
    f1 = 2 * np.cumsum(y) / (np.arange(1, len(p) + 1) + y.sum())
    below = np.append(p[1:], 0.0)
    possible = p > below
    best = possible & np.isclose(f1, f1[possible].max(), rtol=0, atol=1e-12)
    if bool((best & (below <= EVEN) & (p > EVEN)).any()):
        return EVEN
    middles = ((p + below) / 2)[best]
    return float(middles[np.argmin(np.abs(middles - EVEN))])


def label_thresholds(probabilities: NDArray[np.float64], holds: NDArray[np.int64], least: int = 10) -> list[float]:
    """A threshold a label; labels with fewer than `least` texts share the one that is best for all labels together.

    Args:
        probabilities: [N, K].
        holds: [N, K].
    """
    shared = f1_threshold(probabilities.ravel(), holds.ravel())
    return [
        f1_threshold(probabilities[:, k], holds[:, k]) if holds[:, k].sum() >= least else shared
        for k in range(holds.shape[1])
    ]


def answering_threshold(confidences: ArrayLike, right: ArrayLike, accuracy: float) -> float | None:
    """The lowest confidence from which on answers are right as often as `accuracy` says (Geifman and El-Yaniv 2017).

    None where even no threshold is needed, or none suffices; `np.mean(right)` tells which.
    """
    confidence, hit = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    order = np.argsort(-confidence, kind="stable")
    confidence, hit = confidence[order], hit[order]
    reached = np.cumsum(hit) / np.arange(1, len(hit) + 1) >= accuracy
    below = np.append(confidence[1:], 0.0)
    ends = np.nonzero(reached & (confidence > below))[0]
    if not len(ends) or ends[-1] == len(hit) - 1:
        return None
    return float((confidence[ends[-1]] + below[ends[-1]]) / 2)


def out_of_scope_threshold(confidences: ArrayLike, right: ArrayLike, outside: ArrayLike) -> float | None:
    """The threshold with the most right decisions, when a text below it is called out of scope.

    None where no threshold is better than none.

    Args:
        confidences: [N] highest probabilities.
        right: [N], 1 where the likeliest label is right.
        outside: [N], 1 where the text is out of scope.
    """
    confidence = np.asarray(confidences, dtype=np.float64)
    order = np.argsort(confidence, kind="stable")
    confidence = confidence[order]
    gain = np.asarray(outside, dtype=np.int64)[order] - np.asarray(right, dtype=np.int64)[order]
    total = np.cumsum(gain)  # with the first i + 1 called out of scope
    above = np.append(confidence[1:], 1.0)
    possible = above > confidence
    if not possible.any() or total[possible].max() <= 0:
        return None
    best = int(np.nonzero(possible & (total == total[possible].max()))[0][0])
    return float((confidence[best] + above[best]) / 2)
