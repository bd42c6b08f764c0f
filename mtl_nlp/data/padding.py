"""Rows of token ids → padded tensors, without a tokenizer's own padding, which walks through every id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Padding:
    """Pads rows to the longest of them.

    Args:
        tokenizer: its padding side and ids.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.right = tokenizer.padding_side == "right"
        self.fill = {
            "input_ids": tokenizer.pad_token_id or 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0) or 0,
        }

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask`, and `token_type_ids` where the rows have them, [B, T]."""
        lengths = np.fromiter((len(record["input_ids"]) for record in records), dtype=np.int64, count=len(records))
        width = int(lengths.max())
        place = np.arange(width)
        mask = place < lengths[:, None] if self.right else place >= width - lengths[:, None]
        batch: dict[str, Tensor] = {}
        for name, value in self.fill.items():
            if name in records[0]:
                batch[name] = torch.from_numpy(_filled([record[name] for record in records], mask, value))
        return batch | {"attention_mask": torch.from_numpy(mask.astype(np.int64))}


def _filled(rows: Sequence[Sequence[int]], mask: NDArray[np.bool_], value: int) -> NDArray[np.int64]:
    if len(rows) == 1:
        return np.asarray(rows, dtype=np.int64)
    table = np.full(mask.shape, value, dtype=np.int64)
    table[mask] = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(mask.sum()))
    return table
