"""The best constant prediction's loss: by hand, and by the two routes that must agree."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from mtl_nlp.data.features import EncodedSplit
from mtl_nlp.recipe import make_recipe
from mtl_nlp.task import Task
from mtl_nlp.training.chance import chance_loss, chance_losses, fitted
from mtl_nlp.training.prepare import prepare
from tests.conftest import write_jsonl

LN2 = math.log(2)
GOOD, BAD = {"text": "good film", "label": "positive"}, {"text": "bad film", "label": "negative"}
QUARTER = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))


def split_of(column: list[Any], sizes: list[int] | None = None, **more: Any) -> EncodedSplit:
    offsets = np.concatenate([[0], np.cumsum(sizes or [1] * len(column))])
    return EncodedSplit(Dataset.from_dict({"@t": column, **more}), offsets, np.ones(len(offsets) - 1))


def task(head: str, **more: Any) -> Task:
    return Task(name="t", head=head, **more)


CASES = [
    (task("sequence_classification", labels=["a", "b"]), split_of([0, 1, 1, 1, None]), QUARTER),
    (task("token_classification", labels=["X"]), split_of([[-100, 0, 1], [1, 0, -100]]), LN2),
    (task("multi_label_classification", labels=["a", "b"]), split_of([[1.0, 0.0], [0.0, 0.0]]), LN2 / 2),
    (task("regression"), split_of([1.0, 3.0, None]), 1.0),
    (task("question_answering"), split_of([[1, 4], [2, 4]]), LN2 / 2),
    # Texts of 2 and 4 choices; a third is not annotated.
    (task("multiple_choice"), split_of([0, 0, 3, 3, 3, 3, None, None], [2, 4, 2]), (math.log(2) + math.log(4)) / 2),
]


@pytest.mark.parametrize(("one", "split", "expected"), CASES, ids=lambda case: getattr(case, "head", None))
def test_by_hand(one: Task, split: EncodedSplit, expected: float) -> None:
    assert chance_loss(one, split) == pytest.approx(expected)


def test_masked_language_modelling_is_the_entropy_of_the_words_that_can_be_masked() -> None:
    split = EncodedSplit(Dataset.from_dict({"input_ids": [[1, 7, 8, 2], [1, 7, 8, 2]]}), np.arange(3), np.ones(2))
    assert chance_loss(task("masked_language_modeling"), split, special=[1, 2]) == pytest.approx(LN2)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_search_for_constant_logits_finds_the_same(number: int) -> None:
    one, split, expected = CASES[number]
    assert fitted(one, [row for row in split.rows["@t"] if row is not None]) == pytest.approx(expected, abs=1e-4)


def test_class_weights_move_it() -> None:
    # Weights 3 and 1 on counts 1 and 3: an even distribution.
    weighted = task("sequence_classification", labels=["a", "b"], loss={"class_weights": {"a": 3.0, "b": 1.0}})
    assert chance_loss(weighted, split_of([0, 1, 1, 1])) == pytest.approx(LN2, abs=1e-5)


def test_counted_class_weights_make_the_best_constant_an_even_one(recipe: dict[str, Any], data: Path) -> None:
    write_jsonl(data / "sent" / "train.jsonl", [GOOD] * 6 + [BAD] * 2)
    recipe["tasks"][0]["loss"] = {"class_weights": "inverse_frequency"}
    recipe["balancing"] = {"weighting": "chance"}
    assert chance_losses(prepare(make_recipe(recipe)))["sent"] == pytest.approx(LN2, abs=1e-5)
