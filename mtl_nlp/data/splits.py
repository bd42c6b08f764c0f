"""Carving a validation split, seeded, with no text on both sides."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray


def carve(texts: Sequence[Hashable], share: float, seed: int, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers for (train, validation), each ascending.

    Rows with the same text go to the same side; `validation` gets texts, in an order drawn from (seed, name), until it holds at
    least `share` of the rows. Both sides get at least one text where there are two.
    """
    groups: dict[Hashable, list[int]] = {}
    for row, text in enumerate(texts):
        groups.setdefault(text, []).append(row)
    members = list(groups.values())
    order = np.random.default_rng(np.random.SeedSequence([seed, crc32(name.encode())])).permutation(len(members))
    wanted, taken = max(1, round(share * len(texts))), np.zeros(len(texts), dtype=bool)
    for place in order[: max(len(members) - 1, 0)]:
        if taken.sum() >= wanted:
            break
        taken[members[place]] = True
    rows = np.arange(len(texts))
    return rows[~taken], rows[taken]
