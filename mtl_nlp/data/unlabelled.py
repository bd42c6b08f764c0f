"""Rows without labels → one padded batch: what scoring and prediction feed to a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..task import Task
from .batching import Record
from .padding import Padding


class InputCollator:
    """As `Collator(labelled=False)` gives it where every row belongs to every task, in less time.

    Args:
        tokenizer: its padding side and ids.
        tasks: those that read the rows.
    """

    def __init__(self, tokenizer: Any, tasks: Sequence[Task]) -> None:
        self.padding = Padding(tokenizer)
        self.compared = {task.name: task.kind.annotation in ("choice", "relevance") for task in tasks}

    def __call__(self, records: Sequence[Record]) -> dict[str, Any]:
        """`input_ids`, `attention_mask` (and `token_type_ids`) [B, T], `tokens`, and `tasks`, each with all the rows."""
        batch: dict[str, Any] = self.padding(records)
        batch["tokens"] = sum(len(record["input_ids"]) for record in records)
        width = batch["input_ids"].shape[1]
        whole = {"rows": torch.from_numpy(np.arange(len(records))), "width": width}
        sizes = _sizes(records) if any(self.compared.values()) else {}
        batch["tasks"] = {
            name: {**whole, **sizes} if compared else {**whole} for name, compared in self.compared.items()
        }
        return batch


def _sizes(records: Sequence[Record]) -> dict[str, torch.Tensor]:
    """How many rows each text has, for tasks that compare them with each other."""
    starts = [i for i, record in enumerate(records) if record["first"]]
    return {"sizes": torch.tensor([b - a for a, b in zip(starts, [*starts[1:], len(records)], strict=True)])}
