"""Constrained decoding: which tag may follow which, and the best tag sequence under that constraint.

Viterbi, "Error bounds for convolutional codes and an asymptotically optimum decoding algorithm" (1967), with
transitions that are either free or forbidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtl_nlp.labels.schemes import TagError, check_scheme, split_tag

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

PADDING = -1
IMPOSSIBLE = -1e30


def transition_mask(tags: Sequence[str], scheme: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (start_allowed [K], allowed [K, K]): whether a tag may begin, whether tag i may precede tag j.

    `tags` are those of the head, in its own order: O, B-x, I-x whatever scheme the data had. O and B-x are
    always allowed, I-x only after B-x or I-x. A type for which the head has no B-x (taken from a model
    trained on IOB1) may begin with I-x, since it could never be predicted otherwise. With `none` everything
    is allowed.

    Raises ValueError for an unknown scheme and for a tag that is not IOB2's.
    """
    import numpy as np

    check_scheme(scheme)
    count = len(tags)
    start = np.ones(count, dtype=np.bool_)
    allowed = np.ones((count, count), dtype=np.bool_)
    if scheme == "none":
        return start, allowed
    try:
        parts = [split_tag(tag, position, "iob2") for position, tag in enumerate(tags)]
    except TagError as error:
        raise ValueError(f"head: found tag {error.tag!r} → a head's tags are O, B-TYPE and I-TYPE") from error
    for j, (prefix, label) in enumerate(parts):
        if prefix == "I" and ("B", label) in parts:
            start[j] = False
            allowed[:, j] = [other == label for _, other in parts]
    return start, allowed


def viterbi(
    log_probs: NDArray[Any], lengths: ArrayLike, start_allowed: NDArray[np.bool_], allowed: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the allowed tag sequence with the highest sum of `log_probs`, per row, exactly.

    Args:
        log_probs: [b, W, K] scores of K tags for W words; they need not be normalised. A tag with −inf is
            impossible but not forbidden: the sequence with the fewest of them wins. Values of −1e30 or less
            count as −inf (masks are written so). Values beyond a row's length are not read.
        lengths: [b] number of words of each row, 0 … W.
        start_allowed: [K] whether a tag may be first.
        allowed: [K, K] whether tag i may precede tag j.

    Returns:
        [b, W] tag indices, −1 beyond a row's length. Among equal sequences the one that has the lower index
        at the first word where they differ. A row's result does not depend on the other rows.

    A row whose unconstrained argmax is allowed is answered by it; only the others are searched, in memory for
    K² floats a row. Raises ValueError for shapes that do not fit, NaN or +inf, and a row that has no
    allowed sequence.
    """
    import numpy as np

    scores = np.asarray(log_probs)
    counts = np.asarray(lengths)
    start_allowed = np.asarray(start_allowed, dtype=np.bool_)
    allowed = np.asarray(allowed, dtype=np.bool_)
    _check(scores, counts, start_allowed, allowed)
    rows, width, _ = scores.shape
    if rows == 0 or width == 0:
        return np.full((rows, width), PADDING, dtype=np.int64)
    inside = np.arange(width) < counts[:, None]
    bad = ~(scores.max(axis=2) < np.inf) & inside  # the highest is NaN where any is
    if bad.any():
        row, word = (int(place) for place in np.argwhere(bad)[0])
        raise ValueError(f"log_probs: row {row}, word {word} holds NaN or +inf → finite values or -inf")
    best: NDArray[np.int64] = scores.argmax(axis=2).astype(np.int64)
    steps = allowed[best[:, :-1], best[:, 1:]] | ~inside[:, 1:]
    valid = (start_allowed[best[:, 0]] | ~inside[:, 0]) & steps.all(axis=1)
    if not valid.all():
        search = np.flatnonzero(~valid)
        best[search] = _search(scores[search], inside[search], start_allowed, allowed)
    best[~inside] = PADDING
    return best


def _search(
    scores: NDArray[Any],
    inside: NDArray[np.bool_],
    start_allowed: NDArray[np.bool_],
    allowed: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Search rows [n, W, K] from the last word to the first, so that ties go to the lower index."""
    import numpy as np

    rows, width, count = scores.shape
    values = np.where(inside[..., None], scores.astype(np.float64), 0.0)
    # Forbidden must stay worse than impossible, so -inf becomes a value which no gain elsewhere outweighs.
    real = inside[..., None] & (values > IMPOSSIBLE)
    low = np.where(real, values, np.inf).min(axis=(1, 2), keepdims=True)
    high = np.where(real, values, -np.inf).max(axis=(1, 2), keepdims=True)
    with np.errstate(invalid="ignore"):
        floor = np.where(np.isfinite(low), low - inside.sum(axis=1)[:, None, None] * (high - low) - 1.0, -1.0)
    values = np.where(real, values, floor)
    follower = np.zeros((width, rows, count), dtype=np.int64)
    ahead = np.zeros((rows, count))
    barred = np.where(allowed, 0.0, -np.inf)
    reach, row, tag = np.empty((rows, count, count)), np.arange(rows)[:, None], np.arange(count)
    for word in range(width - 1, 0, -1):
        np.add(barred, (values[:, word] + ahead)[:, None, :], out=reach)
        follower[word] = reach.argmax(axis=2)
        ahead = np.where(inside[:, word, None], reach[row, tag, follower[word]], 0.0)
    total = np.where(start_allowed, values[:, 0] + ahead, -np.inf)
    if np.isneginf(total.max(axis=1)).any():
        raise ValueError("allowed: no tag sequence is → let some tag begin and every tag have a successor")
    path = np.empty((rows, width), dtype=np.int64)
    path[:, 0] = total.argmax(axis=1)
    for word in range(1, width):
        path[:, word] = follower[word, np.arange(rows), path[:, word - 1]]
    return path


def _check(
    scores: NDArray[Any], counts: NDArray[Any], start_allowed: NDArray[np.bool_], allowed: NDArray[np.bool_]
) -> None:
    """Raise ValueError unless the shapes fit [b, W, K], [b], [K], [K, K] and 0 ≤ lengths ≤ W."""
    if scores.ndim != 3 or scores.shape[2] == 0:
        raise ValueError(f"log_probs: found shape {scores.shape} → [b, W, K] with K > 0")
    rows, width, count = scores.shape
    for name, array, shape in (
        ("lengths", counts, (rows,)),
        ("start_allowed", start_allowed, (count,)),
        ("allowed", allowed, (count, count)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name}: found shape {array.shape} → {shape}")
    if rows and (counts.min() < 0 or counts.max() > width):
        raise ValueError(f"lengths: found {int(counts.min())} to {int(counts.max())} → 0 to {width}")
