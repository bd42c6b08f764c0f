"""A checkpoint of every head kind, trained for two steps on data in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import ENTITIES, SENTIMENT

CONTEXT = "anna is in london and bob was at acme corp in paris"

DATA: dict[str, list[dict[str, Any]]] = {
    "sent": SENTIMENT,
    "topics": [
        {"text": "the food was good and the staff fast", "labels": ["food", "staff"]},
        {"text": "the delivery was late", "labels": ["delivery"]},
        {"text": "what a song", "labels": []},
        {"text": "the staff was slow", "labels": ["staff"]},
    ]
    * 4,
    "stars": [{"text": row["text"], "label": float(i % 5)} for i, row in enumerate(SENTIMENT)],
    "ner": [{"tokens": [w for w, _ in s], "labels": [t for _, t in s]} for s in ENTITIES],
    "places": [{"text": "a flight from paris to london", "spans": [{"start": 14, "end": 19, "label": "CITY"}]}] * 8,
    "nli": [
        {"premise": "the food was good", "hypothesis": "i love the food", "label": "yes"},
        {"premise": "the food was bad", "hypothesis": "i love the food", "label": "no"},
    ]
    * 6,
    "qa": [
        {"question": "who is in london", "context": CONTEXT, "answers": {"text": ["anna"], "answer_start": [0]}},
        {"question": "where was bob", "context": CONTEXT, "answers": {"text": ["acme corp"], "answer_start": [33]}},
    ]
    * 6,
    "swag": [
        {"context": "anna was late", "e0": "she cost paris", "e1": "she love the flight", "label": 1},
        {"context": "the box is good", "e0": "i want it", "e1": "acme weather", "label": 0},
    ]
    * 6,
}


def _task(name: str, head: str, columns: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "head": head, "data": {"columns": columns}, **more}


TASKS = [
    _task("sent", "sequence_classification", {"text": "text", "label": "label"}),
    _task("topics", "multi_label_classification", {"text": "text", "labels": "labels"}),
    _task("stars", "regression", {"text": "text", "label": "label"}),
    _task("ner", "token_classification", {"tokens": ["tokens", "words"], "labels": "labels"}),
    _task("places", "token_classification", {"text": "text", "spans": "spans"}, words="whitespace"),
    _task("nli", "sequence_classification", {"text": "premise", "pair": "hypothesis", "label": "label"}),
    _task("qa", "question_answering", {"question": "question", "context": "context", "answers": "answers"}),
    _task("swag", "multiple_choice", {"context": "context", "choice_columns": ["e0", "e1"], "label": "label"}),
    _task("mlm", "masked_language_modeling", {"text": "text"}, auxiliary=True),
]


def build_checkpoint(folder: Path, encoder: Path, *, max_length: int | None = None) -> Path:
    """Train for two steps and return the folder; the rate is high, so that token heads predict entities too."""
    from mtl_nlp.training.finetune import finetune

    recipe = {
        "encoder": {"name": str(encoder), "max_length": max_length, "stride": 4},
        "tasks": TASKS,
        "mixture": {"batch": 32},
        "training": {"max_steps": 2, "learning_rate": 1e-2, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(folder),
    }
    data = {**DATA, "mlm": [{"text": row["text"]} for row in SENTIMENT]}
    return finetune(
        recipe, datasets={name: {"train": rows, "validation": rows[:4]} for name, rows in data.items()}
    ).folder
