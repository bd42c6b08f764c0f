"""Small local copies of what the shipped task files read: as the Hub has it, and as people keep it.

The Hub's form is Parquet with `ClassLabel` columns of integers where the source has them; the local form is JSONL with the names,
under the last of the names that a role tries.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_nlp.labels import tag_names
from mtl_nlp.task import Task
from tests.conftest import write_jsonl

WORDS = "anna was in london and bob play a song at acme corp today not good".split()
SIZES = {"train": 24, "validation": 6, "test": 6}
# Sources whose labels are strings on the Hub too: no ClassLabel.
PLAIN = {"tuetschek/atis", "bkonkle/snips-joint-intent", "AmazonScience/massive", "ehovy/race"}
SLOTS = ["date", "place_name", "time"]
ATIS = ["atis_flight", "atis_airfare", "atis_flight#atis_airfare"]


def names_of(task: Task) -> list[str]:
    """The labels as they stand in the source: the codes' names, the task's own, or some of our making."""
    if task.data.names:
        return list(task.data.names)
    if task.kind.annotation == "tags":
        return tag_names(task.labels or SLOTS, task.tag_scheme)
    return list(task.labels or ATIS)


def text_of(number: int) -> str:
    """A text of a few words; no two rows have the same."""
    start = number % len(WORDS)
    return " ".join([*(WORDS[start:] + WORDS[:start])[: 3 + number % 5], f"{number}"])


def tags_for(names: list[str], words: list[str], number: int) -> list[str]:
    """One entity of one or two words in every second text."""
    tags = ["O"] * len(words)
    types = [name[2:] for name in names if name.startswith("B-")]
    if number % 2 == 0:
        label = types[number // 2 % len(types)]
        tags[1:3] = [f"B-{label}", f"I-{label}"]
    return tags


def bracketed(words: list[str], tags: list[str]) -> str:
    """MASSIVE's annotation of a text."""
    label = next((tag[2:] for tag in tags if tag.startswith("B-")), None)
    if label is None:
        return " ".join(words)
    return " ".join([words[0], f"[{label} : {' '.join(words[1:3])}]", *words[3:]])


def annotation(task: Task, number: int, words: list[str]) -> Any:
    """What row `number` holds in the annotation's column, with names."""
    kind, names = task.kind.annotation, names_of(task)
    if kind == "label":
        return names[number % len(names)]
    if kind == "labels":
        return [names[number % len(names)], names[(number + 3) % len(names)]][: 1 + number % 2]
    if kind == "value":
        return number % 11 / 2
    if kind == "answer":
        context = " ".join(words)
        texts = [words[1], words[-1]]
        return {"text": texts, "answer_start": [context.index(text) for text in texts]}
    if kind == "choice":
        return names[number % 4] if names[:4] == ["A", "B", "C", "D"] else number % 4
    return tags_for(names, words, number)


def rows_of(task: Task, split: str, which: int, skip: int) -> list[dict[str, Any]]:
    """The rows of a split; `which` of the names that each role tries (0 the first, −1 the last)."""
    roles = task.data.columns.roles()
    rows = []
    for number in range(skip, skip + SIZES[split]):
        words = text_of(number).split()
        value = annotation(task, number, words)
        row: dict[str, Any] = {}
        for role, names in roles.items():
            if role == "choice_columns":
                row |= {name: f"{name} {words[0]}" for name in names}
            elif role == "choices":
                row[names[which]] = [f"{letter} {words[0]}" for letter in "abcd"]
            elif role == "tokens":
                row[names[which]] = " ".join(words) if task.data.source in PLAIN else words
            elif role == "bracketed":
                row[names[which]] = bracketed(words, value)
            elif role in ("label", "labels", "answers"):
                spelled = task.kind.annotation == "tags" and task.data.source in PLAIN
                row[names[which]] = " ".join(value) if spelled else value
            else:
                row[names[which]] = " ".join(words) if role in ("text", "context") else f"what is {words[0]} ?"
        rows.append(row)
    return rows


def local_copy(task: Task, folder: Path) -> Path:
    """JSONL with names, columns under the last names tried."""
    skip = 0
    for split, size in SIZES.items():
        write_jsonl(folder / f"{split}.jsonl", rows_of(task, split, -1, skip))
        skip += size
    return folder


def hub_copy(task: Task, folder: Path) -> Path:
    """Parquet, columns under the first names tried, integers with `ClassLabel` where the Hub has them."""
    from datasets import ClassLabel, Dataset, List

    folder.mkdir(parents=True)
    skip, names = 0, names_of(task)
    column = next((n[0] for role, n in task.data.columns.roles().items() if role in ("label", "labels")), None)
    coded = task.kind.annotation in ("label", "labels", "tags") and task.data.source not in PLAIN
    for split, size in SIZES.items():
        data = Dataset.from_list(rows_of(task, split, 0, skip))
        if coded and column is not None:
            codes = [_codes(value, names) for value in data[column]]
            feature: Any = ClassLabel(names=names)
            feature = feature if task.kind.annotation == "label" else List(feature)
            data = data.remove_columns(column).add_column(column, codes).cast_column(column, feature)
        data.to_parquet(folder / f"{split}.parquet")
        skip += size
    return folder


def coded_copy(task: Task, folder: Path) -> Path:
    """JSONL with bare integer codes, as an export without its class names has them."""
    skip, names = 0, names_of(task)
    for split, size in SIZES.items():
        rows = rows_of(task, split, -1, skip)
        for row in rows:
            for role in ("label", "labels"):
                for column in task.data.columns.roles().get(role, []):
                    if column in row:
                        row[column] = _codes(row[column], names)
        write_jsonl(folder / f"{split}.jsonl", rows)
        skip += size
    return folder


def _codes(value: Any, names: list[str]) -> Any:
    return names.index(value) if isinstance(value, str) else [names.index(one) for one in value]


def normal_rows(corpus: Any) -> Mapping[str, list[dict[str, Any]]]:
    """A corpus' splits as plain rows."""
    return {split: part.data.to_list() for split, part in corpus.splits.items()}
