"""A small local data set for every form of annotation, so that each registered head can be trained on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtl_nlp.kinds import HeadKind
from tests.conftest import write_jsonl

TEXTS = (
    "the film was great",
    "i hate this slow delivery and the food was awful",
    "bob was at acme corp",
    "where is my parcel ?",
    "anna is in london today",
    "the staff was very good",
)
TAGS = {
    "bob": "B-PER",
    "anna": "B-PER",
    "acme": "B-ORG",
    "corp": "I-ORG",
    "london": "B-LOC",
}
COLUMNS: dict[str, dict[str, Any]] = {
    "label": {"text": "text", "label": "label"},
    "labels": {"text": "text", "labels": "labels"},
    "value": {"text": "text", "label": "value"},
    "tags": {"tokens": "tokens", "labels": "tags"},
    "answer": {"question": "question", "context": "context", "answers": "answers"},
    "choice": {"context": "context", "choices": "choices", "label": "right"},
    "relevance": {"query": "query", "candidates": "candidates", "relevance": "relevance"},
    "match": {"query": "query", "positive": "positive", "negatives": "negatives"},
    "none": {"text": "text"},
}
ANNOTATED = {
    "label": "label",
    "labels": "labels",
    "value": "value",
    "tags": "tags",
    "answer": "answers",
    "choice": "right",
    "relevance": "relevance",
    "match": "positive",
}


def row_of(annotation: str, number: int) -> dict[str, Any]:
    """One text with its annotation; all forms but the number of rows are the same for every kind of that form."""
    text = TEXTS[number % len(TEXTS)]
    words = text.split()
    if annotation == "label":
        return {"text": text, "label": ("bad", "good", "neutral")[number % 3]}
    if annotation == "labels":
        return {"text": text, "labels": [["joy"], [], ["anger", "joy"]][number % 3]}
    if annotation == "value":
        return {"text": text, "value": float(number % 4) - 1.0}
    if annotation == "tags":
        return {"tokens": words, "tags": [TAGS.get(word, "O") for word in words]}
    if annotation == "answer":
        last = words[-1]
        return {
            "question": "what is it ?",
            "context": text,
            "answers": {"text": [last], "answer_start": [text.rindex(last)]},
        }
    if annotation == "choice":
        choices = ["the box", "a great film", "it was late"][: 2 + number % 2]
        return {"context": text, "choices": choices, "right": number % 2}
    if annotation == "relevance":
        candidates = ["the box", "a great film", "it was late"][: 2 + number % 2]
        return {"query": text, "candidates": candidates, "relevance": [1.0, 0.0, 2.0][: len(candidates)]}
    if annotation == "match":
        answers = ("the box", "a great film", "it was late", "bob and anna")
        # Some questions have the same answer, and some bring a hard negative.
        return {"query": text, "positive": answers[number % 4], "negatives": ["the song"][: number % 2]}
    return {"text": text}


def write_example(folder: Path, kind: HeadKind, *, gap: bool = True) -> Path:
    """Train, validation and test of a kind; with `gap` the first training row is not annotated."""
    for split, size in (("train", 18), ("validation", 6), ("test", 6)):
        rows = [row_of(kind.annotation, number) for number in range(size)]
        if gap and split == "train" and kind.annotation in ANNOTATED:
            rows[0][ANNOTATED[kind.annotation]] = None
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


def example_task(kind: HeadKind, source: Path, name: str = "mine") -> dict[str, Any]:
    """The task that reads it."""
    return {"name": name, "head": kind.name, "data": {"source": str(source), "columns": COLUMNS[kind.annotation]}}


def example_recipe(encoder: Path, tasks: list[dict[str, Any]], output: Path) -> dict[str, Any]:
    """Two optimizer steps, no checkpoint but the final one."""
    return {
        "encoder": str(encoder),
        "tasks": tasks,
        "mixture": {"batch": 8, "strategy": "uniform"},
        "training": {"max_steps": 2, "learning_rate": 1e-3, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(output),
    }
