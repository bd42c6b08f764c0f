"""The texts of a split of a checkpoint's own data, as `Predictor` takes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..task import Task
from .prepare import Prepared
from .score import open_checkpoint


@dataclass(frozen=True)
class CorpusRows:
    """One corpus.

    Attributes:
        rows: input fields, without annotations.
        tasks: those that are annotated in it.
        gold: task → references, None where a text has none.
    """

    name: str
    rows: list[dict[str, Any]]
    tasks: list[Task]
    gold: dict[str, list[Any]]


def split_rows(
    checkpoint: str | Path, split: str, *, data_root: Path | None = None, most: int | None = None
) -> list[CorpusRows]:
    """Every corpus of a split, in the recipe's order; at most `most` texts of each, evenly spread.

    Raises:
        UserError: no checkpoint, or its data cannot be read.
    """
    prepared = _prepared(checkpoint, split, data_root)
    found = []
    for corpus in prepared.corpora:
        if corpus.name not in prepared.encoded[split]:
            continue
        data, gold = corpus.splits[split].data, prepared.encoded[split][corpus.name].gold
        step = 1 if most is None else max(1, -(-len(data) // most))
        # A corpus keeps the inputs of all choices alike; a ranking is asked by other names.
        ranked = any(task.kind.input == "candidates" for task in corpus.tasks)
        names = {"context": "query", "choices": "candidates"} if ranked else {}
        rows = [
            {names.get(key, key): value for key, value in row.items() if not key.startswith("@")}
            for number, row in enumerate(data)
            if number % step == 0
        ]
        tasks = [task for task in prepared.tasks if task.name in corpus.task_names and task.name in gold]
        found.append(CorpusRows(corpus.name, rows, tasks, {task.name: gold[task.name][::step] for task in tasks}))
    return found


def _prepared(checkpoint: str | Path, split: str, data_root: Path | None) -> Prepared:
    """A run that read local copies has their places in its recipe, which may still hold."""
    first: UserError | None = None
    for root in dict.fromkeys([data_root, None]):
        try:
            return open_checkpoint(checkpoint, split=split, data_root=root)[1]
        except UserError as error:
            first = first or error
    assert first is not None
    raise first
