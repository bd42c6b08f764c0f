"""A row of input → what it gives to which tasks.

A row is a text, a list of words, or a mapping with fields. Fields are found by the column names of the task's definition, in
their order, then by the name of the role (`text`, `tokens`, `pair`, `question`, `context`, `choices`). A `Piece` is one input
that several tasks read, so that it is encoded once. Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.annotations import bracketed_words
from ..data.json_text import no_unicode
from ..errors import fault, listed
from ..task import Task

PREDICTIONS = "predictions"
MISSING = object()
FRAME_PART = 1000


@dataclass(frozen=True)
class Item:
    """One row of input: its fields, and where it stands (`in.jsonl:7`), for messages."""

    fields: dict[str, Any]
    where: str


@dataclass(frozen=True)
class Piece:
    """One input of a row, and the tasks that read it.

    Attributes:
        row: the number of the row in its window.
        form: `text`, `tokens`, `question` or `choices`.
        fields: the input columns as `RowEncoder` takes them.
        tasks: names, in order.
    """

    row: int
    form: str
    fields: dict[str, Any]
    tasks: tuple[str, ...]

    @property
    def group(self) -> tuple[str, ...]:
        """Pieces of one group are encoded and answered together."""
        return (self.form, *sorted(self.fields), *self.tasks)

    @property
    def text(self) -> str:
        """What offsets point into: the raw text, the words joined by single spaces, or the context."""
        if self.form == "tokens":
            return " ".join(self.fields["tokens"])
        return str(self.fields["text" if self.form == "text" else "context"])

    @property
    def word_offsets(self) -> list[tuple[int, int]]:
        """For given words: their places in `text`."""
        offsets, start = [], 0
        for word in self.fields["tokens"]:
            offsets.append((start, start + len(word)))
            start += len(word) + 1
        return offsets


class _Absent(Exception):
    """A task lacks these fields; each entry is what would do."""

    def __init__(self, wanted: list[str]) -> None:
        super().__init__(listed(wanted))
        self.wanted = wanted


def rows_of(texts: Any) -> Iterable[Any]:
    """What is given to be answered as rows: one text or mapping is one row, a DataFrame gives its rows as mappings.

    Raises:
        FaultyInput: (while iterating) a DataFrame with two columns of one name.
    """
    if isinstance(texts, str | Mapping | Item):
        return [texts]
    # By its name, so that pandas is not imported for those who do not use it. Iterated, a frame would give its columns' names.
    if type(texts).__name__ == "DataFrame" and hasattr(texts, "iloc"):
        return _frame_rows(texts)
    rows: Iterable[Any] = texts
    return rows


def _frame_rows(frame: Any) -> Iterator[dict[str, Any]]:
    """The rows of a pandas DataFrame without its index; what is missing is None, arrays are lists."""
    if not frame.columns.is_unique:
        doubled = listed(dict.fromkeys(frame.columns[frame.columns.duplicated()]))
        raise fault(f"column {doubled} stands more than once", where="DataFrame", allowed="columns of distinct names")
    for start in range(0, len(frame), FRAME_PART):
        part = frame.iloc[start : start + FRAME_PART]
        filled = part.astype(object).where(part.notna(), None)
        for row in filled.to_dict("records"):
            yield {str(name): value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}


def as_item(row: Any, where: str) -> Item:
    """A row of any allowed form as fields.

    Raises:
        FaultyInput: neither a text, a list of words nor a mapping.
    """
    if isinstance(row, Item):
        return row
    if isinstance(row, str) or _is_missing(row):
        return Item({"text": row if isinstance(row, str) else ""}, where)
    if isinstance(row, Mapping):
        return Item({str(key): value for key, value in row.items()}, where)
    if isinstance(row, list | tuple):
        return Item({"tokens": list(row)}, where)
    fields = "text, tokens, pair, question, context, choices, query, candidates"
    allowed = f"a text, a list of words, or a mapping with fields ({fields})"
    raise fault(f"found a {type(row).__name__}", where=where, allowed=allowed)


def pieces_of(item: Item, row: int, tasks: Sequence[Task], *, named: bool) -> list[Piece]:
    """What a row gives to the tasks.

    Args:
        row: the number that the pieces bear.
        named: the user asked for these tasks, so each must be fed; otherwise those are answered that the row can feed. An empty
            field (`null`) feeds a task that was not asked for only if no task is fed without.

    Raises:
        FaultyInput: a named task is not fed, or no task at all; names the fields that would do.
    """
    fed, lacking = _feed(item, tasks, empty_counts=named)
    if not fed and not named:
        fed, lacking = _feed(item, tasks, empty_counts=True)
    if lacking and (named or not fed):
        name, wanted = next(iter(lacking.items()))
        others = [other for other in lacking if other != name]
        key = f"{name} (and {listed(others, 4)})" if others and not named else name
        here = listed(field for field in item.fields if field != PREDICTIONS)
        raise fault(
            f"no field {listed(wanted)}; the row has {here}", where=item.where, key=key, allowed=_allowed(tasks, name)
        )
    pieces = [Piece(row, form, fields, tuple(names)) for form, fields, names in _gathered(fed)]
    return _words_win(pieces, [task.name for task in tasks])


def given_words(task: Task, fields: Mapping[str, Any], where: str) -> list[str] | None:
    """The words that a row gives to a token task; None if it gives a raw text."""
    try:
        form, content = _content(task, fields, where, empty_counts=True)
    except _Absent:
        return None
    return list(content["tokens"]) if form == "tokens" else None


Fed = list[tuple[str, dict[str, Any], str]]


def _feed(item: Item, tasks: Sequence[Task], *, empty_counts: bool) -> tuple[Fed, dict[str, list[str]]]:
    fed: Fed = []
    lacking: dict[str, list[str]] = {}
    for task in tasks:
        try:
            form, content = _content(task, item.fields, item.where, empty_counts=empty_counts)
        except _Absent as absent:
            lacking[task.name] = absent.wanted
        else:
            fed.append((form, content, task.name))
    return fed, lacking


def _gathered(fed: Fed) -> list[tuple[str, dict[str, Any], list[str]]]:
    """The same input of several tasks, once."""
    pieces: list[tuple[str, dict[str, Any], list[str]]] = []
    for form, content, name in fed:
        same = next((names for f, c, names in pieces if (f, c) == (form, content)), None)
        if same is None:
            pieces.append((form, content, [name]))
        else:
            same.append(name)
    return pieces


def _words_win(pieces: list[Piece], order: Sequence[str]) -> list[Piece]:
    """Where a row has both a text and its words, tasks on the text read the words: one pass, as in training."""
    words = next((p for p in pieces if p.form == "tokens" and "pair" not in p.fields), None)
    text = next((p for p in pieces if p.form == "text" and "pair" not in p.fields), None)
    if words is None or text is None or "".join(words.text.split()) != "".join(text.text.split()):
        return pieces
    names = {*words.tasks, *text.tasks}
    joined = Piece(words.row, "tokens", words.fields, tuple(name for name in order if name in names))
    return [joined, *(piece for piece in pieces if piece is not words and piece is not text)]


def _allowed(tasks: Sequence[Task], name: str) -> str:
    task = next(task for task in tasks if task.name == name)
    roles = task.data.columns.roles()
    inputs = {
        "question": ["question", "context"],
        "candidates": ["query", "candidates"],
        "passages": ["query or text"],
        "choices": ["context", *(["question"] if "question" in roles else []), "choices"],
        "text": ["text or tokens", *(["pair"] if "pair" in roles else [])],
    }
    return f"{task.head} reads {' and '.join(inputs[task.kind.input])}"


class _Fields:
    """Looks roles up in a row; gathers what is absent."""

    def __init__(self, task: Task, fields: Mapping[str, Any], where: str, empty_counts: bool) -> None:
        self.fields, self.where, self.empty_counts = fields, where, empty_counts
        self.roles = task.data.columns.roles()
        self.absent: list[str] = []

    def names(self, role: str) -> list[str]:
        return list(dict.fromkeys([*self.roles.get(role, []), role]))

    def find(self, role: str) -> tuple[str, Any]:
        """(field, value) of a role; `MISSING` where it is absent."""
        for name in self.names(role):
            if name in self.fields and (self.empty_counts or not _is_missing(self.fields[name])):
                return name, self.fields[name]
        return role, MISSING

    def need(self, role: str) -> tuple[str, Any]:
        name, value = self.find(role)
        if value is MISSING:
            self.absent.append(" or ".join(self.names(role)))
        return name, value

    def text(self, role: str) -> str:
        """A needed text; empty where it is absent (which is noted)."""
        name, value = self.need(role)
        return "" if value is MISSING else as_text(value, name, self.where)

    def check(self) -> None:
        if self.absent:
            raise _Absent(self.absent)


def _content(task: Task, fields: Mapping[str, Any], where: str, *, empty_counts: bool) -> tuple[str, dict[str, Any]]:
    """(form, input columns) that a row gives to a task; raises `_Absent`."""
    found, reads = _Fields(task, fields, where, empty_counts), task.kind.input
    if reads == "question":
        content: dict[str, Any] = {role: found.text(role) for role in ("question", "context")}
        found.check()
        return "question", content
    if reads == "candidates":
        content = {"context": found.text("query")} | _listing(found, "candidates")
        found.check()
        return "choices", content
    if reads == "choices":
        return "choices", _choices(found)
    if reads == "passages":
        # A question is a text as any other, so that a plain text asks every task with one encoder pass.
        names = [role for role in ("query", "text") if found.find(role)[1] is not MISSING]
        content = {"text": found.text(names[0] if names else "query")}
        found.check()
        return "text", content
    form, value = _text_or_words(found)
    content = {form: value}
    if "pair" in found.roles or (not found.roles and found.find("pair")[1] is not MISSING):
        content["pair"] = found.text("pair")
    found.check()
    return form, content


def _text_or_words(found: _Fields) -> tuple[str, Any]:
    """What the task was trained on if it is there, else the other."""
    for role in ["text", "bracketed", "tokens"] if "text" in found.roles else ["bracketed", "tokens", "text"]:
        name, value = found.find(role)
        if value is MISSING or (role == "bracketed" and role not in found.roles):
            continue
        if role == "bracketed":
            return "tokens", _bracketed(as_text(value, name, found.where))
        return (role, as_text(value, name, found.where) if role == "text" else _words(value, name, found.where))
    own = [name for role in ("text", "bracketed", "tokens") for name in found.roles.get(role, [])]
    found.absent.append(" or ".join(dict.fromkeys([*own, "text", "tokens"])))
    return "text", ""


def _choices(found: _Fields) -> dict[str, Any]:
    content: dict[str, Any] = {"context": found.text("context")}
    if "question" in found.roles or (not found.roles and found.find("question")[1] is not MISSING):
        content["question"] = found.text("question")
    columns = found.roles.get("choice_columns", [])
    if columns and all(name in found.fields for name in columns):
        content["choices"] = [as_text(found.fields[name], name, found.where) for name in columns]
    else:
        content |= _listing(found, "choices", " + ".join(columns))
    found.check()
    return content


def _listing(found: _Fields, role: str, instead: str = "") -> dict[str, Any]:
    """The texts of a list under `choices`; what is absent is noted (`instead` is what would do)."""
    name, value = found.find(role)
    if value is MISSING:
        found.absent.append(instead or " or ".join(found.names(role)))
        return {}
    return {"choices": _listed_choices(value, name, found.where)}


def _listed_choices(value: Any, name: str, where: str) -> list[str]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise fault(
                "not valid JSON", where=where, key=name, allowed='a list of texts, ["first", "second"]'
            ) from None
    if not isinstance(value, list | tuple) or not value:
        found = "an empty list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
        raise fault(f"found {found}", where=where, key=name, allowed="a list of at least one text")
    return [as_text(choice, name, where) for choice in value]


def _words(value: Any, name: str, where: str) -> list[str]:
    if isinstance(value, str):
        return value.split()
    if _is_missing(value):
        return []
    if not isinstance(value, list | tuple):
        raise fault(f"found a {type(value).__name__}", where=where, key=name, allowed="a list of words")
    return [as_text(word, name, where) for word in value]


def _bracketed(text: str) -> list[str]:
    try:
        return bracketed_words(text)[0]
    except ValueError:
        return text.split()


def as_text(value: Any, name: str, where: str) -> str:
    """A field's value as a text; a missing one is empty.

    Raises:
        FaultyInput: a list or a mapping, or a text with half a surrogate pair, which no tokenizer reads.
    """
    if isinstance(value, str):
        unreadable = no_unicode(value, where, name)
        if unreadable is not None:
            raise unreadable
        return value
    if _is_missing(value):
        return ""
    if isinstance(value, list | tuple | Mapping):
        kind = "mapping" if isinstance(value, Mapping) else "list"
        raise fault(f"found a {kind}", where=where, key=name, allowed="a text", cure="words go into `tokens`")
    return str(value)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
