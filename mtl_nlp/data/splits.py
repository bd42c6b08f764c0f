"""Carving a validation split, seeded, with no text on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def carve(texts: Sequence[str], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers for (train, validation), each ascending.

    Rows with the same text go to the same side. Texts come in the order of their hash, keyed by the seed, so that the same texts
    are held out wherever they stand; `validation` takes them until it holds at least `share` of the rows. Both sides get at least
    one text where there are two.
    """
    groups: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        groups.setdefault(text, []).append(row)
    key = seed.to_bytes(8, "big")
    order = sorted(groups, key=lambda text: blake2b(text.encode(), key=key, digest_size=16).digest())
    wanted, taken, held = max(1, round(share * len(texts))), np.zeros(len(texts), dtype=bool), 0
    for text in order[: max(len(order) - 1, 0)]:
        if held >= wanted:
            break
        taken[groups[text]] = True
        held += len(groups[text])
    rows = np.arange(len(texts))
    return rows[~taken], rows[taken]
