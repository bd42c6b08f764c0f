"""Prediction files: every annotated example once, with answers that give the checkpoint's scores again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_nlp.decoding import Decoded
from mtl_nlp.errors import UserError
from mtl_nlp.metrics import compute
from mtl_nlp.schema import Source
from mtl_nlp.task import make_task
from mtl_nlp.training.finetune import finetune
from mtl_nlp.training.predictions import answer_of, read_predictions, write_predictions
from mtl_nlp.training.score import score_checkpoint
from tests.conftest import ENTITIES, SENTIMENT, write_jsonl


def task(head: str, **more: Any) -> Any:
    return make_task({"name": "t", "head": head, "data": {"source": "x"}, **more}, Source(), Path())


def test_answers_of_every_form() -> None:
    p = np.array([0.25, 0.75], dtype=np.float32)
    labels = task("sequence_classification", labels=["a", "b"])
    assert answer_of(labels, Decoded("b", p)) == {"predicted": "b", "score": 0.75, "scores": {"a": 0.25, "b": 0.75}}
    several = task("multi_label_classification", labels=["a", "b"])
    assert answer_of(several, Decoded(["b"], p)) == {
        "predicted": ["b"],
        "score": 0.5625,
        "scores": {"a": 0.25, "b": 0.75},
    }
    assert answer_of(task("regression"), Decoded(1.5)) == {"predicted": 1.5}
    tags = task("token_classification", labels=["X"])
    assert answer_of(tags, Decoded(["O", "B-X"], p)) == {
        "predicted": ["O", "B-X"],
        "score": 0.5,
        "scores": [0.25, 0.75],
    }
    assert answer_of(task("question_answering"), Decoded("x", score=0.5)) == {"predicted": "x", "score": 0.5}
    assert answer_of(task("multiple_choice"), Decoded("1", p))["scores"] == {"0": 0.25, "1": 0.75}


def test_the_files_give_the_scores_of_the_checkpoint(recipe: dict[str, Any], data: Path) -> None:
    rows = [dict(row) for row in SENTIMENT[:8]]
    rows[3]["label"] = ""  # nobody annotated it
    write_jsonl(data / "sent" / "test.jsonl", rows)
    folder = finetune(recipe).folder
    found = write_predictions(folder, "test")
    scores, mean = score_checkpoint(folder)
    assert found.metrics == scores
    assert found.mean == mean
    assert found.files == {name: folder / "predictions" / f"test-{name}.jsonl" for name in ("sent", "ner")}
    sent, ner = read_predictions(found.files["sent"]), read_predictions(found.files["ner"])
    assert [line["row"] for line in sent] == [0, 1, 2, 4, 5, 6, 7]
    assert [line["text"] for line in sent] == [row["text"] for row in rows if row["label"]]
    assert [line["words"] for line in ner] == [[word for word, _ in sentence] for sentence in ENTITIES[:8]]
    assert [line["gold"] for line in ner] == [[tag for _, tag in sentence] for sentence in ENTITIES[:8]]
    for name, metric, lines in (("sent", "accuracy", sent), ("ner", "span_f1", ner)):
        again = compute([metric], [line["predicted"] for line in lines], [line["gold"] for line in lines])
        assert again[metric] == scores[name][metric]
    assert all(abs(sum(line["scores"].values()) - 1) < 1e-5 for line in sent)


def test_a_damaged_file_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "test-x.jsonl"
    path.write_text(json.dumps({"row": 0, "gold": "a", "predicted": "a"}) + "\n{\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"test-x\.jsonl:2: found another thing → an object with row, gold and predicted"
    ):
        read_predictions(path)
