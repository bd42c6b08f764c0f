"""Whether a column is a label, a number to predict, several labels, or nothing to learn from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ..errors import listed
from .guess_columns import Column, is_split_column
from .guess_names import name_role

MOST_LABELS = 50
LONGEST_LABEL = 60


def is_label(column: Column, *, named: bool) -> bool:
    """Whether a column has few values for its rows, and short ones; a telling name allows more of them."""
    rows, labels = len(column.filled), [name for name in column.counts if name != "-1" or gaps(column)[0] is not None]
    if column.kind not in ("text", "int", "bool") or len(labels) < 2 or column.mean_length > LONGEST_LABEL:
        return False
    return len(labels) <= (max(20, rows // 2) if named else min(MOST_LABELS, rows // 2))


def is_value(column: Column, *, named: bool) -> bool:
    """Whether a column is a number to predict: fractions, or many whole numbers under a name such as score."""
    if column.kind == "float":
        return column.distinct >= (3 if named else 10)
    if name_role(column.name) != "value" or column.distinct <= 10:
        return False
    return column.kind == "int" or (column.kind == "text" and all(_is_numeric(name) for name in column.counts))


def _is_numeric(text: str) -> bool:
    return re.fullmatch(r"\s*[-+]?\d*\.?\d+([eE][-+]?\d+)?\s*", text) is not None


def gaps(column: Column) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """`data.missing` for a label column and what to say: −1 is a gap by default, but a label in −1, 0, 1."""
    if column.kind != "int" or "-1" not in column.counts:
        return None, ()
    if not column.class_names and set(column.counts) <= {"-1", "0", "1"}:
        return ("",), ("-1 is taken for a label; if it means not annotated, remove `missing`",)
    return None, ("-1 is taken for not annotated",)


def codes(columns: Sequence[Column]) -> list[tuple[Column, Column]]:
    """Integer columns that only number the labels of a text column (`label` beside `label_text`)."""
    found = []
    for code in [column for column in columns if column.kind == "int" and column.distinct > 1]:
        for name in [column for column in columns if column.kind == "text" and column.distinct == code.distinct]:
            values = dict(name.filled)
            if len({(value, values.get(row)) for row, value in code.filled}) == code.distinct and len(values) >= 8:
                found.append((code, name))
                break
    return found


def parts(column: Column, *, named: bool) -> Counter[str]:
    """The parts of `a|b` strings, if a telling share of the values has a bar."""
    barred = sum("|" in value for _, value in column.filled)
    if not barred or (not named and barred < 0.1 * len(column.filled)):
        return Counter()
    return Counter(part.strip() for _, value in column.filled for part in value.split("|"))


def mean_length(counts: Counter[str]) -> float:
    """Characters a label, over all texts that have it."""
    return sum(len(name) * number for name, number in counts.items()) / max(counts.total(), 1)


def remarks(column: Column) -> tuple[str, ...]:
    """What is worth a look in a column of labels: numbers, several labels in one value, spellings of one label."""
    found = []
    if name_role(column.name) == "value" and column.kind == "int":
        found.append("`head: regression` would predict the number itself")
    for mark in (";", ","):
        several = any(mark in name for name in column.counts)
        if several and len({part.strip() for name in column.counts for part in name.split(mark)}) < column.distinct:
            found.append(
                f'the values hold "{mark}"; several labels a text are written a|b, for multi_label_classification'
            )
    spellings: dict[str, list[str]] = {}
    for name in column.counts:
        spellings.setdefault(name.strip().casefold(), []).append(f'"{name}"')
    alike = next((names for names in spellings.values() if len(names) > 1), None)
    if alike:
        found.append(f"{listed(alike)} count as different labels; if they are one, write them alike")
    return tuple(found)


def why_unused(column: Column) -> str:
    """Why a column has no role."""
    if column.kind == "empty":
        return "empty"
    if column.kind == "pylist":
        return "lists as Python prints them; JSONL keeps lists"
    if is_split_column(column):
        return "names splits"
    if column.kind in ("text", "int", "bool") and column.distinct < 2:
        return "one value only"
    role = name_role(column.name)
    if role in ("identifier", "meta") or column.kind in ("other", "ints"):
        return "no annotation, it seems"
    if is_label(column, named=False):
        return f"{column.distinct} values, could be a label"
    if role == "label" and column.kind in ("text", "int"):
        return f"{column.distinct} different values in {len(column.filled)} rows, too many or too long for labels"
    forms = {
        "text": "another text",
        "strings": "lists of strings",
        "spans": "spans",
        "answers": "answers without question and context",
    }
    return forms.get(column.kind, "numbers")
