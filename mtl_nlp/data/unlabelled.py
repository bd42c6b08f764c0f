"""Rows without labels → one padded batch: what scoring and prediction feed to a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
        self.tasks, self.padding = list(tasks), Padding(tokenizer)

    def __call__(self, records: Sequence[Record]) -> dict[str, Any]:
        """`input_ids`, `attention_mask` (and `token_type_ids`) [B, T], `tokens`, and `tasks`, each with all the rows."""
        batch: dict[str, Any] = self.padding(records)
        batch["tokens"] = int(batch["attention_mask"].sum())
        width = batch["input_ids"].shape[1]
        whole = {"rows": torch.arange(len(records)), "width": width}
        batch["tasks"] = {task.name: whole | self._sizes(task, records) for task in self.tasks}
        return batch

    def _sizes(self, task: Task, records: Sequence[Record]) -> dict[str, torch.Tensor]:
        """How many rows each text has, where they are compared with each other."""
        if task.kind.annotation not in ("choice", "relevance"):
            return {}
        starts = [i for i, record in enumerate(records) if record["first"]]
        return {"sizes": torch.tensor([b - a for a, b in zip(starts, [*starts[1:], len(records)], strict=True)])}
