"""The order of the texts inside a block, and the random bits behind every shuffle of the mixture.

In: the corpus of each text of a block, whether corpora take turns, and the lengths where texts are bucketed.
Out: a permutation of the block, to be cut into global batches of equal size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def random_bits(*words: int) -> np.random.PCG64:
    """The stream of random bits that belongs to some whole numbers below 2³²."""
    return np.random.PCG64(np.random.SeedSequence(words))


def shuffled(bits: np.random.PCG64, size: int) -> Indices:
    """A random permutation, `[size]`: the positions of sorted random bits.

    Not `Generator.permutation`: NumPy keeps a bit generator's stream the same from release to release, its
    shuffles not, and a run must resume under another release.
    """
    return np.argsort(bits.random_raw(size), kind="stable")


def mixed_order(
    corpus: Indices, turns: Indices | None, lengths: NDArray[Any] | None, batch: int, bits: np.random.PCG64
) -> Indices:
    """The order of a block in batches that mix corpora.

    Args:
        corpus: place of the corpus of each text, ascending, `[texts]`.
        turns: the corpus wanted at each position, `[texts]`, or None for a shuffle.
        lengths: `[texts]`; the texts (with `turns`: those of each corpus) are sorted by it, equal ones in
            random order (with `turns`: as given), and whole batches shuffled. None: no bucketing.
        batch: texts in a batch.
        bits: where the randomness comes from.

    Returns:
        A permutation of the texts, `[texts]`.
    """
    order = text_order(corpus, turns, lengths, bits)
    if lengths is not None:
        batches = order.reshape(-1, batch)
        order = batches[shuffled(bits, len(batches))].ravel()
    return order


def text_order(corpus: Indices, turns: Indices | None, lengths: NDArray[Any] | None, bits: np.random.PCG64) -> Indices:
    """The order of `mixed_order` before batches are shuffled: a permutation of the texts, `[texts]`."""
    if turns is not None:
        by_corpus = np.arange(len(corpus)) if lengths is None else np.lexsort((lengths, corpus))
        return _placed(by_corpus, turns)
    order = shuffled(bits, len(corpus))
    return order if lengths is None else order[np.argsort(lengths[order], kind="stable")]


def homogeneous_order(
    corpus: Indices, turns: Indices | None, lengths: NDArray[Any] | None, batch: int, bits: np.random.PCG64
) -> Indices:
    """The order of a block in batches of one corpus each; whole batches are shuffled.

    Args:
        corpus: place of the corpus of each text, ascending, a multiple of `batch` texts each, `[texts]`.
        turns: the corpus wanted for each batch, `[batches]`, or None for any.
        lengths: `[texts]`; the texts of each corpus are sorted by it before they are cut. None: no bucketing.
        batch: texts in a batch.
        bits: where the randomness comes from.

    Returns:
        A permutation of the texts, `[texts]`.
    """
    by_corpus = np.arange(len(corpus)) if lengths is None else np.lexsort((lengths, corpus))
    batches = by_corpus.reshape(-1, batch)
    batches = batches[shuffled(bits, len(batches))]
    if turns is not None:
        batches = _placed(batches[np.argsort(corpus[batches[:, 0]], kind="stable")], turns)
    return batches.ravel()


def _placed(units: Indices, turns: Indices) -> Indices:
    """Units that stand corpus by corpus, moved to where their corpus is wanted, in the same order."""
    placed = np.empty_like(units)
    placed[np.argsort(turns, kind="stable")] = units
    return placed
