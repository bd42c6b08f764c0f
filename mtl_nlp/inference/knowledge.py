"""A knowledge base, and the answer that it has to a question: the entry whose vector is nearest.

An entry is a passage that is searched, the answer that is given (the passage itself, if there is no other), and an id. Files are
JSONL, CSV or TSV with the fields `answer`, and optionally `passage` and `id`; or plain text, an answer a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.json_text import no_unicode
from ..errors import Faults, fault, listed
from ..task import Task
from .formats import read_items
from .inputs import Item, as_item

MOST_FAULTS = 20


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        id: its name; the number of its line or place, from 1, where it has none.
        answer: what is given.
        passage: what is searched.
    """

    id: str
    answer: str
    passage: str


KnowledgeBase = str | Path | Iterable[Any]


def read_knowledge(source: KnowledgeBase) -> list[Entry]:
    """The entries of a file, or of rows: texts, or mappings with `answer`, `passage` and `id`.

    Raises:
        UserError: no such file, no entry, or entries without an answer or with an id that is taken, all at once.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            raise fault("file not found", where=str(path), key="knowledge", allowed="JSONL, CSV, TSV or text")
        with path.open("rb") as stream:
            return _entries(list(read_items(stream, str(path), "auto")), str(path))
    rows = list(source)
    if all(isinstance(row, Entry) for row in rows) and rows:
        return rows
    return _entries([as_item(row, f"knowledge, entry {number}") for number, row in enumerate(rows, 1)], "knowledge")


def _entries(items: Sequence[Item], name: str) -> list[Entry]:
    faults, entries = Faults(), []
    seen: dict[str, str] = {}
    for number, item in enumerate(items, 1):
        answer, passage = (_field(item, role) for role in ("answer", "passage"))
        answer = answer or passage or _field(item, "text")
        given = item.fields.get("id")
        key = str(number) if given is None or given == "" else str(given)
        if len(faults) >= MOST_FAULTS:
            break
        unreadable = no_unicode([answer, passage, key], item.where)
        if unreadable is not None:
            faults.extend(unreadable)
        elif not answer:
            found = f"no answer; the entry has {listed(item.fields) or 'nothing'}"
            faults.add(found, where=item.where, key="answer", allowed="a text in `answer`, `passage` or `text`")
        elif key in seen:
            faults.add(f'id "{key}" is taken ({seen[key]})', where=item.where, key="id", cure="give each entry its own")
        seen.setdefault(key, item.where)
        entries.append(Entry(key, answer, passage or answer))
    if not entries:
        faults.add("no entry", where=name, key="knowledge", allowed="at least one answer")
    faults.check()
    return entries


def _field(item: Item, role: str) -> str:
    value = item.fields.get(role)
    return value.strip() if isinstance(value, str) else ""


class Knowledge:
    """An encoded knowledge base.

    Args:
        entries: its entries.
        vectors: one each, [D], of length 1.
    """

    def __init__(self, entries: Sequence[Entry], vectors: Sequence[NDArray[np.float32]]) -> None:
        self.entries = list(entries)
        self.vectors = np.stack(vectors)

    def vector(self, name: str) -> NDArray[np.float32]:
        """[D], the vector of the entry with this id."""
        return self.vectors[next(i for i, entry in enumerate(self.entries) if entry.id == name)]

    def answer(self, task: Task, query: NDArray[np.float32], top: int | None) -> Mapping[str, Any]:
        """`{"answer", "id", "score"}`: the nearest entry and its cosine; answer and id are None below the task's threshold.

        Args:
            query: [D], of length 1.
            top: how many entries to add under `matches`, the nearest first; 0 for all, None for none.
        """
        scores = self.vectors @ query
        order = np.argsort(-scores, kind="stable")
        best, score = self.entries[order[0]], float(scores[order[0]])
        abstain = task.calibration.abstain if task.calibration is not None else None
        silent = abstain is not None and score < abstain.threshold
        found: dict[str, Any] = {
            "answer": None if silent else best.answer,
            "id": None if silent else best.id,
            "score": score,
        }
        if top is not None:
            found["matches"] = [
                {"id": self.entries[i].id, "score": float(scores[i]), "answer": self.entries[i].answer}
                for i in order[: top or None]
            ]
        return found
