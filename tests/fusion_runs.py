"""Small finished models that have one ancestor, for the tests of fusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import ENTITIES, SENTIMENT, write_conll, write_jsonl


def write_data(folder: Path) -> dict[str, dict[str, Any]]:
    """Data of two tasks; their definitions by name."""
    for split, size in (("train", 32), ("validation", 12), ("test", 8)):
        write_jsonl(folder / "sent" / f"{split}.jsonl", SENTIMENT[:size])
        write_conll(folder / "ner" / f"{split}.conll", ENTITIES[:size])
    columns = {"sent": {"text": "text", "label": "label"}, "ner": {"tokens": "tokens", "labels": "labels"}}
    heads = {"sent": "sequence_classification", "ner": "token_classification"}
    return {
        name: {"name": name, "head": heads[name], "data": {"source": str(folder / name), "columns": columns[name]}}
        for name in heads
    }


def recipe_of(encoder: Path, tasks: list[dict[str, Any]], output: Path, seed: int = 13, **training: Any) -> Any:
    """A short run."""
    settings = {"max_steps": 10, "learning_rate": 3e-3, "save_strategy": "no", "eval_strategy": "no", **training}
    return {
        "encoder": {"name": str(encoder), "max_length": 32},
        "tasks": tasks,
        "mixture": {"batch": 8},
        "training": settings,
        "seed": seed,
        "output_dir": str(output),
    }


def build_singles(encoder: Path, folder: Path) -> dict[str, Path]:
    """`sent`, `ner`, and `again` (`sent` with another seed)."""
    from mtl_nlp.training.finetune import finetune

    tasks = write_data(folder)
    runs = {"sent": ("sent", 13), "ner": ("ner", 13), "again": ("sent", 14)}
    return {
        name: finetune(recipe_of(encoder, [tasks[task]], folder / f"run-{name}", seed)).folder
        for name, (task, seed) in runs.items()
    }
