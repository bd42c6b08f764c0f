"""Candidates that stand one a row → one row a query, as ranking reads them.

`query`, `candidate`, `relevance` a row become `query`, `[candidate, …]`, `[relevance, …]`: rows with the same query belong
together, wherever they stand; queries and candidates keep the order in which they first occur.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset


def gathered(raw: Dataset, roles: Sequence[Mapping[str, Any]]) -> tuple[Dataset, list[int]]:
    """The rows by query, and for each query the number of its first row.

    Args:
        roles: of each task: role → column.
    """
    from datasets import Dataset

    query = roles[0]["query"]
    listed = dict.fromkeys(of[role] for of in roles for role in ("candidate", "relevance"))
    places: dict[Any, list[int]] = {}
    for row, text in enumerate(raw[query]):
        places.setdefault(text, []).append(row)
    columns = {name: list(raw[name]) for name in listed}
    table: dict[str, list[Any]] = {query: list(places)}
    table |= {name: [[values[row] for row in rows] for rows in places.values()] for name, values in columns.items()}
    return Dataset.from_dict(table), [rows[0] for rows in places.values()]
