"""Linear chains with potentials: the best tag sequence and each word's tag probabilities.

What a linear-chain CRF (Lafferty, McCallum and Pereira 2001) is decoded with, at word level: Viterbi and forward-backward, exact,
in float64. A score may be −inf (a forbidden transition, a tag that cannot be). b texts, W words, K tags.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Chain:
    """Log-potentials of a chain.

    Attributes:
        transitions: [K, K], of tag i before tag j.
        start: [K], of a first tag.
        end: [K], of a last tag.
    """

    transitions: NDArray[Any]
    start: NDArray[Any]
    end: NDArray[Any]

    @classmethod
    def unpacked(cls, rows: NDArray[Any], start_allowed: NDArray[np.bool_], allowed: NDArray[np.bool_]) -> Chain:
        """From [K + 2, K] (transitions, start, end), what is not allowed −inf."""
        import numpy as np

        size = rows.shape[1]
        wide = rows.astype(np.float64)
        transitions = np.where(allowed, wide[:size], -np.inf)
        return cls(transitions, np.where(start_allowed, wide[size], -np.inf), wide[size + 1])


def best_tags(emissions: NDArray[Any], lengths: ArrayLike, chain: Chain) -> NDArray[np.int64]:
    """The sequence with the highest score, for each text; among equal ones that with the lower tag where they first differ.

    Args:
        emissions: [b, W, K] log-potentials; what stands beyond a text's length is not read.
        lengths: [b], words of each text.

    Returns:
        [b, W] tag indices, −1 beyond a text's length.
    """
    import numpy as np

    scores, inside = _checked(emissions, lengths)
    texts, width, count = scores.shape
    last = _last(inside)
    follower = np.zeros((width, texts, count), dtype=np.int64)
    ahead = np.zeros((texts, count))
    for word in range(width - 1, -1, -1):
        if word + 1 < width:
            reach = chain.transitions + (scores[:, word + 1] + ahead)[:, None, :]
            follower[word] = reach.argmax(axis=2)
            ahead = np.where(inside[:, word + 1, None], reach.max(axis=2), 0.0)
        ahead = np.where((last == word)[:, None], chain.end, ahead)
    path = np.full((texts, width), -1, dtype=np.int64)
    if not width:
        return path
    tags = (chain.start + scores[:, 0] + ahead).argmax(axis=1)
    for word in range(width):
        if word:
            tags = follower[word - 1, np.arange(texts), tags]
        path[:, word] = np.where(inside[:, word], tags, -1)
    return path


def best_scores(emissions: NDArray[Any], lengths: ArrayLike, chain: Chain, paths: NDArray[np.int64]) -> NDArray[Any]:
    """[b], the score of the sequence `paths` [b, W] of each text; 0 for a text without words."""
    import numpy as np

    scores, inside = _checked(emissions, lengths)
    texts = np.arange(len(scores))
    total = np.zeros(len(scores))
    if not scores.shape[1]:
        return total
    tags = np.maximum(paths, 0)
    total += np.where(inside, np.take_along_axis(scores, tags[:, :, None], 2)[:, :, 0], 0.0).sum(1)
    total += np.where(inside[:, 1:], chain.transitions[tags[:, :-1], tags[:, 1:]], 0.0).sum(1)
    whole = inside[:, 0]
    last = np.maximum(_last(inside), 0)
    return np.where(whole, total + chain.start[tags[:, 0]] + chain.end[tags[texts, last]], 0.0)


def tag_probabilities(emissions: NDArray[Any], lengths: ArrayLike, chain: Chain) -> NDArray[np.float64]:
    """[b, W, K], the marginal probability of each word's tags; 0 beyond a text's length."""
    import numpy as np

    scores, inside = _checked(emissions, lengths)
    texts, width, count = scores.shape
    if not width:
        return np.zeros((texts, width, count))
    before = np.zeros((width, texts, count))
    before[0] = chain.start + scores[:, 0]
    for word in range(1, width):
        before[word] = _log_sum(before[word - 1][:, :, None] + chain.transitions, 1) + scores[:, word]
    after = np.zeros((width, texts, count))
    last = _last(inside)
    for word in range(width - 1, -1, -1):
        if word + 1 < width:
            after[word] = _log_sum(chain.transitions + (scores[:, word + 1] + after[word + 1])[:, None, :], 2)
        after[word] = np.where((last == word)[:, None], chain.end, after[word])
    joint = np.swapaxes(before + after, 0, 1)
    found: NDArray[np.float64] = np.exp(joint - _log_sum(joint, 2)[:, :, None])
    return np.where(inside[:, :, None], found, 0.0)


def _checked(emissions: NDArray[Any], lengths: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Scores in float64, 0 beyond a text's length, and which words are inside."""
    import numpy as np

    counts = np.asarray(lengths)
    if emissions.ndim != 3 or counts.shape != emissions.shape[:1]:
        raise ValueError(f"emissions: found shape {emissions.shape} and lengths {counts.shape} → [b, W, K] and [b]")
    inside = np.arange(emissions.shape[1]) < counts[:, None]
    return np.where(inside[:, :, None], emissions.astype(np.float64), 0.0), inside


def _last(inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[b], the last word of each text, −1 for one without words."""
    result: NDArray[np.int64] = inside.sum(1) - 1
    return result


def _log_sum(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """log Σ exp, −inf where all are."""
    import numpy as np

    highest = values.max(axis=axis, keepdims=True)
    steady = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):
        result: NDArray[Any] = np.log(np.exp(values - steady).sum(axis=axis)) + steady.squeeze(axis)
    return result
