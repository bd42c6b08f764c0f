"""The model card, written from the checkpoint's own facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import listed
from ..task import Task


def model_card(encoder: str, tasks: Sequence[Task], metrics: Mapping[str, Mapping[str, float]]) -> str:
    """`README.md` of a checkpoint: what it answers, how well (validation), how to use it."""
    front: dict[str, Any] = {"library_name": "mtl-nlp", "base_model": encoder, "tags": ["multi-task", "mtl-nlp"]}
    lines = ["---", *(f"{key}: {value}" for key, value in front.items()), "---", "", "# One encoder, several tasks", ""]
    lines += ["| task | head | labels | validation |", "|---|---|---|---|"]
    for task in tasks:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in metrics.get(task.name, {}).items())
        labels = listed(task.labels or (), 12)
        lines.append(f"| {task.name} | {task.head} | {labels} | {scores or 'not scored'} |")
    lines += ["", "```python", "from mtl_nlp import Predictor", "", 'predictor = Predictor.from_pretrained("FOLDER")']
    lines += [
        'print(predictor(["a text"]))',
        "```",
        "",
        "Weights are safetensors; `checksums.json` vouches for them.",
        "",
    ]
    return "\n".join(lines)
