"""What a column's values are: text, numbers, lists of words, spans, answers."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .guess_names import SPLIT_VALUES

Kind = Literal["empty", "text", "int", "float", "bool", "strings", "ints", "spans", "answers", "pylist", "other"]


@dataclass(frozen=True)
class Column:
    """A column of a sample.

    Attributes:
        values: one a row, as the source gives them.
        kind: what the filled values are; `pylist` is a list as Python prints it, which no reader takes for a list.
        filled: (row, value) of those that are not missing; JSON in a string is parsed.
        class_names: names of integer codes, where the source knows them.
        coded: the lists or mappings are JSON in strings.
    """

    name: str
    values: Sequence[Any]
    kind: Kind
    filled: list[tuple[int, Any]]
    class_names: tuple[str, ...] = ()
    coded: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def distinct(self) -> int:
        """How many different labels (or list items) there are."""
        return len(self.counts)

    @property
    def mean_length(self) -> float:
        """Characters a value; 0 for anything but text."""
        if self.kind != "text" or not self.filled:
            return 0.0
        return sum(len(value) for _, value in self.filled) / len(self.filled)


def profile(name: str, values: Sequence[Any], class_names: Sequence[str] = ()) -> Column:
    """Sort a column's values; `class_names` names its integer codes."""
    filled = [(row, value) for row, value in enumerate(values) if not _is_gap(value)]
    parsed = _parsed([value for _, value in filled])
    coded = parsed is not None
    if parsed is not None:
        filled = [(row, value) for (row, _), value in zip(filled, parsed, strict=True)]
    kind = _kind([value for _, value in filled])
    counts: Counter[str] = Counter()
    for _, value in filled:
        counts.update(label_name(item, class_names) for item in items(value))
    return Column(name, values, kind, filled, tuple(class_names), coded, counts)


def _is_gap(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def items(value: Any) -> list[Any]:
    """The scalars of a value: itself, or a list's; none of mappings and nested lists."""
    found = value if isinstance(value, list) else [value]
    return [item for item in found if isinstance(item, str | int | float)]


def label_name(value: Any, class_names: Sequence[str] = ()) -> str:
    """A label as a task calls it (see `annotations`): integers are codes, booleans `true` and `false`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and 0 <= value < len(class_names):
        return class_names[value]
    return str(value)


def _parsed(values: Sequence[Any]) -> list[Any] | None:
    """Lists or mappings that are written as JSON in strings; None if the column is anything else."""
    if not values or not all(isinstance(value, str) and value[:1] in ("[", "{") for value in values):
        return None
    try:
        parsed = [json.loads(value) for value in values]
    except json.JSONDecodeError:
        return None
    return parsed if all(isinstance(value, list | dict) for value in parsed) else None


def _kind(values: Sequence[Any]) -> Kind:
    if not values:
        return "empty"
    types = {type(value) for value in values}
    if types == {str}:
        python_list = all(re.match(r"\[\s*(['\"\d(]|\])", value) for value in values)
        return "pylist" if python_list and any(value != "[]" for value in values) else "text"
    if types == {bool}:
        return "bool"
    if types <= {int, float}:
        return "int" if all(float(value).is_integer() for value in values) else "float"
    if types == {dict}:
        return "answers" if all(_is_answers(value) for value in values) else "other"
    return _list_kind([item for value in values for item in value]) if types == {list} else "other"


def _list_kind(inner: Sequence[Any]) -> Kind:
    if not inner:
        return "empty"
    if all(isinstance(item, str) for item in inner):
        return "strings"
    if all(isinstance(item, int) and not isinstance(item, bool) for item in inner):
        return "ints"
    if all(isinstance(item, dict) and _is_answers(item) for item in inner):
        return "answers"
    return "spans" if all(_is_span(item) for item in inner) else "other"


def _is_answers(value: Any) -> bool:
    return isinstance(value, dict) and {"text", "answer_start"} <= value.keys()


def _is_span(value: Any) -> bool:
    if isinstance(value, dict):
        named = any(key in value for key in ("label", "entity_group", "type", "entity"))
        return named and _is_number(value.get("start")) and _is_number(value.get("end"))
    return isinstance(value, list) and len(value) == 3 and _is_number(value[0]) and _is_number(value[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def span_label(value: Any) -> str:
    """The label of a span in any of the forms that `annotations` reads."""
    if isinstance(value, dict):
        value = next(value[key] for key in ("label", "entity_group", "type", "entity") if key in value)
    else:
        value = value[2]
    return str(value[0] if isinstance(value, list) and value else value)


def is_split_column(column: Column) -> bool:
    """Whether a column says to which split each row belongs."""
    return bool(column.counts) and all(name.casefold() in SPLIT_VALUES for name in column.counts)


def longest(columns: Iterable[Column]) -> Column | None:
    """The column of the longest texts; of equally long ones the one with the most different values."""
    return max(columns, key=lambda column: (column.mean_length, column.distinct), default=None)
