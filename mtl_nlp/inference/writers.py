"""Predictions → lines: JSONL, CSV and TSV (one row a text, two columns a task), CoNLL (one predicted tag column a token task)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ..data.conll import CONLL_2003, CONLL_U
from ..errors import fault, listed
from ..task import Task
from .inputs import PREDICTIONS, given_words

FORMATS = ("jsonl", "csv", "tsv", "conll")
KEY = "--output-format conll"

Prediction = Mapping[str, Any]
Writer = Callable[[Iterable[Prediction], Sequence[Task]], Iterator[str]]


def writer(kind: str) -> Writer:
    """The writer of a format: predictions and the tasks that they answer → texts, one a prediction (the first with a header).

    Raises:
        FaultyInput: an unknown format.
    """
    known: dict[str, Writer] = {
        "jsonl": write_jsonl,
        "csv": write_csv,
        "tsv": partial(write_csv, delimiter="\t"),
        "conll": write_conll,
    }
    if kind not in known:
        raise fault(f'found "{kind}"', key="--output-format", allowed=listed(FORMATS))
    return known[kind]


def write_jsonl(predictions: Iterable[Prediction], tasks: Sequence[Task]) -> Iterator[str]:
    """One object a line."""
    for prediction in predictions:
        yield json.dumps(prediction, ensure_ascii=False) + "\n"


def write_csv(predictions: Iterable[Prediction], tasks: Sequence[Task], delimiter: str = ",") -> Iterator[str]:
    """A header, then the input's fields, `TASK` and, where it has one, `TASK_score`; lists as JSON, several labels as `a|b`.

    Raises:
        FaultyInput: a row with a field that the first one lacks, or a field called like a column of a task.
    """
    columns: list[str] = []
    key = "--output-format " + ("tsv" if delimiter == "\t" else "csv")
    answers = [column for task in tasks for column in _columns(task)]
    for number, prediction in enumerate(predictions, 1):
        fields = {name: _cell(value) for name, value in prediction.items() if name != PREDICTIONS}
        out = io.StringIO()
        lines = csv.writer(out, delimiter=delimiter, lineterminator="\n")
        if not columns:
            doubled = [name for name in fields if name in answers]
            if doubled:
                cure = "rename it, or write JSONL"
                raise fault(
                    f"the input has a field {listed(doubled)}, as a task is called",
                    key=key,
                    cure=cure,
                )
            columns = list(fields)
            lines.writerow([*columns, *answers])
        further = [name for name in fields if name not in columns]
        if further:
            found = f"row {number} has a field {listed(further)} that the first has not"
            raise fault(found, key=key, cure="write JSONL")
        row = [fields.get(column, "") for column in columns]
        for task in tasks:
            row += _cells(task, prediction[PREDICTIONS].get(task.name))
        lines.writerow(row)
        yield out.getvalue()


def _columns(task: Task) -> list[str]:
    scored = task.kind.annotation in ("label", "answer", "choice", "match")
    return [task.name, f"{task.name}_score"] if scored else [task.name]


def _cells(task: Task, answer: Prediction | None) -> list[str]:
    kind = task.kind.annotation
    if answer is None:
        return [""] * len(_columns(task))
    if kind == "labels":
        return ["|".join(one["label"] for one in answer["labels"])]
    if kind == "value":
        return [_cell(answer["value"])]
    if kind in ("tags", "relevance"):
        return [_cell(answer["entities" if kind == "tags" else "ranking"])]
    return [_cell(answer["answer" if kind in ("answer", "match") else "label"]), _cell(answer["score"])]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def write_conll(predictions: Iterable[Prediction], tasks: Sequence[Task]) -> Iterator[str]:
    """One word a line with the input's other columns and a predicted tag a task (IOB2, or the task's own tags where its scheme
    is none); a blank line after each sentence. The first line is a comment that names the columns.

    Raises:
        FaultyInput: a task without tags, or a row without words.
    """
    other = [task.name for task in tasks if task.kind.annotation != "tags"]
    if not tasks:
        raise fault("the checkpoint has no token task", key=KEY, allowed="jsonl, csv or tsv")
    if other:
        tagging = "token tasks: name them with --tasks"
        raise fault(f"{listed(other)} has no tag a word", key=KEY, allowed=tagging)
    kept: list[str] | None = None
    for number, prediction in enumerate(predictions, 1):
        words = _words_of(prediction, tasks, number)
        header = ""
        if kept is None:
            kept = [name for name in prediction if _is_column(prediction, name, len(words))]
            header = f"# columns: {' '.join(['tokens', *kept, *(task.name for task in tasks)])}\n"
        columns = [words, *(_column(prediction, name, len(words)) for name in kept)]
        columns += [prediction[PREDICTIONS][task.name]["tags"] for task in tasks]
        # A word or tag with a tab or a line's end in it would break the file.
        rows = (
            ["_".join(cell.split()) if _breaks(cell) else cell for cell in row] for row in zip(*columns, strict=True)
        )
        yield header + "".join("\t".join(row) + "\n" for row in rows) + "\n"


def _breaks(cell: str) -> bool:
    return any(c in cell for c in "\t\n\r")


def _is_column(prediction: Prediction, name: str, words: int) -> bool:
    """Whether a field is one of the other columns of CoNLL input (they have names that the reader gives)."""
    called = name in (
        *CONLL_2003[1:],
        *(column for column in CONLL_U if column != "tokens"),
        "labels",
    ) or name.startswith("column_")
    return called and isinstance(prediction[name], list) and len(prediction[name]) == words


def _column(prediction: Prediction, name: str, words: int) -> list[str]:
    if name not in prediction or not _is_column(prediction, name, words):
        raise fault(f'not every row has the column "{name}"', key=KEY, allowed="rows of one form")
    return [str(value) for value in prediction[name]]


def _words_of(prediction: Prediction, tasks: Sequence[Task], number: int) -> list[str]:
    found = [given_words(task, prediction, f"row {number}") for task in tasks]
    words = found[0]
    if words is None or any(other != words for other in found):
        told = "no words" if None in found else "different words for different tasks"
        raise fault(f"row {number} has {told}", key=KEY, allowed="CoNLL, or rows with a list `tokens`")
    return words
