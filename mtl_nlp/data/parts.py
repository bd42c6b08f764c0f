"""A mixed batch → batches of tasks that share no row.

For gradients of single tasks: rows of different tasks can be encoded in passes of their own, cut to their own width, at no more
work than one mixed pass; tasks with common rows (several annotations of a text) stay together and share the pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def split_by_rows(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Batches whose tasks share rows with none of another one; rows without a label are left out.

    Args:
        batch: as `Collator` makes it: [B, T] tensors, and `tasks`: name → `rows` [b], `width`, `labels` …

    Returns:
        The parts, in the order of their first tasks; the tasks keep their order.
    """
    parts: list[tuple[set[int], list[str]]] = []
    for name, task in batch["tasks"].items():
        rows, names = set(task["rows"].tolist()), [name]
        apart = [part for part in parts if not part[0] & rows]
        for part in parts:
            if part[0] & rows:
                rows, names = rows | part[0], part[1] + names
        parts = [*apart, (rows, names)]
    order = list(batch["tasks"])
    parts.sort(key=lambda part: min(order.index(name) for name in part[1]))
    return [_part(batch, sorted(rows), sorted(names, key=order.index)) for rows, names in parts]


def _part(batch: Mapping[str, Any], rows: list[int], names: list[str]) -> dict[str, Any]:
    tasks = {name: batch["tasks"][name] for name in names}
    whole = batch["input_ids"].shape
    width = max(int(task["width"]) if "width" in task else whole[1] for task in tasks.values())
    chosen = torch.tensor(rows, device=batch["input_ids"].device)
    found = {name: _cut(value, chosen, whole, width) for name, value in batch.items() if name != "tasks"}
    if "tokens" in found:
        found["tokens"] = int(found["attention_mask"].sum())
    place = torch.empty(whole[0], dtype=torch.long, device=chosen.device)
    place[chosen] = torch.arange(len(rows), device=chosen.device)
    found["tasks"] = {name: {**task, "rows": place[task["rows"]]} for name, task in tasks.items()}
    return found


def _cut(value: Any, rows: Tensor, whole: torch.Size, width: int) -> Any:
    if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != whole[0]:
        return value
    return value[rows, :width] if value.dim() > 1 and value.shape[1] == whole[1] else value[rows]
