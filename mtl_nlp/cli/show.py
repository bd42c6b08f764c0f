"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on stdout; its first column is text, the others are set right."""
    from rich.console import Console
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*(shown(value) for value in row))
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(made)


def shown(value: Any) -> str:
    """A cell."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    return str(value)


def as_json(data: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False, indent=2) + "\n")


def scores(title: str, metrics: Mapping[str, Mapping[str, float]], mean: float | None) -> None:
    """A row a task and metric, the mean of the primary metrics last."""
    rows: list[list[Any]] = []
    for task, values in metrics.items():
        rows.extend([task if i == 0 else "", metric, value] for i, (metric, value) in enumerate(values.items()))
    if mean is not None:
        rows.append(["mean of the primary metrics", "", mean])
    table(title, ["task", "metric", "value"], rows)
