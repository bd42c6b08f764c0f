"""What a conditioned model has learned of each task (its vector, token or normalisation), and which tasks lie close."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..hub.facts import plain
from ..model.files import CONFIG, read_json, tensor_table, weight_files
from .facts import Table
from .interference import numbers

MARK = "conditioning.tasks."  # in the names of a task's own parameters
FACTORS = "lora"  # two factors of a product: their cosine says nothing


def task_vectors(folder: Path) -> Table | None:
    """Cosines between all that is each task's own in the encoder; None for a model that is not conditioned."""
    config = read_json(folder / CONFIG)
    record = config.get("conditioning")
    if isinstance(record, Mapping) and record.get("kind") == FACTORS:
        return None
    tasks = [plain(task.get("name")) for task in config.get("tasks") or [] if isinstance(task, dict)]
    parts: dict[str, dict[str, Any]] = {task: {} for task in tasks}
    for path in weight_files(folder):
        names = [name for name in tensor_table(path) if MARK in name]
        for name, value in _read(path, names).items():
            task, _, part = name.split(MARK, 1)[1].partition(".")
            if task in parts:
                parts[task][part] = value.ravel()
    vectors = [np.concatenate([found[part] for part in sorted(found)]) for found in parts.values() if found]
    if len(vectors) < 2 or len(vectors) < len(tasks) or len({len(vector) for vector in vectors}) > 1:
        return None
    table = np.stack(vectors)
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return Table(tasks, tasks, numbers(unit @ unit.T))


def _read(path: Path, names: list[str]) -> dict[str, Any]:
    """Some tensors of a weight file, as arrays."""
    if not names:
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).float().numpy() for name in names}
