"""Imbalance inside a task: class weights, focal loss, smoothing, pos_weight; exact values, torch as the judge, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn

from mtl_nlp.data.class_weights import balanced, label_counts
from mtl_nlp.data.features import EncodedSplit
from mtl_nlp.errors import FaultyInput
from mtl_nlp.loss import weights_in_order
from mtl_nlp.model.config import task_record
from mtl_nlp.model.heads import make_head
from mtl_nlp.model.losses import IGNORE, binary_cross_entropy, cross_entropy
from mtl_nlp.recipe import make_recipe
from mtl_nlp.schema import Source
from mtl_nlp.task import Task, make_task
from mtl_nlp.training.prepare import prepare
from tests.conftest import write_jsonl

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
NAN = float("nan")


def mean(result: tuple[Tensor, Tensor]) -> float:
    return float(result[0]) / float(result[1])


def test_a_weighted_mean_is_over_weights() -> None:
    # −ln(1/2) with weight 3 and −ln(1/4) with weight 1: (3 ln 2 + ln 4) / 4, and four units.
    logits = torch.tensor([[0.0, 0.0], [LN3, 0.0], [9.0, 0.0]])
    total, units = cross_entropy(logits, torch.tensor([0, 1, IGNORE]), weights=[3.0, 1.0])
    assert (float(total), float(units)) == (pytest.approx(3 * LN2 + LN4), 4.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.0, 1.5]])
def test_it_is_the_mean_of_torchs_own_loss(weights: list[float] | None, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(20, 4, generator=generator), torch.randint(0, 4, (20,), generator=generator)
    labels[3] = IGNORE
    weight = None if weights is None else torch.tensor(weights)
    theirs = nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)(logits, labels)
    assert mean(cross_entropy(logits, labels, weights=weights, smoothing=smoothing)) == pytest.approx(float(theirs))


def test_smoothing_by_hand() -> None:
    # Target (0.9 + 0.05, 0.05) at p = (3/4, 1/4).
    total, units = cross_entropy(torch.tensor([[LN3, 0.0]]), torch.tensor([0]), smoothing=0.1)
    assert float(total) == pytest.approx(-0.95 * math.log(3 / 4) - 0.05 * math.log(1 / 4))
    assert int(units) == 1


def test_the_focal_loss_by_hand() -> None:
    # (1 − p)^2 · −ln p at p = 3/4 and 1/4: the sure one counts 1/16, the other 9/16.
    logits = torch.tensor([[LN3, 0.0], [LN3, 0.0]])
    total, units = cross_entropy(logits, torch.tensor([0, 1]), focal=2.0)
    assert float(total) == pytest.approx(math.log(4 / 3) / 16 + LN4 * 9 / 16)
    assert int(units) == 2
    weighted, mass = cross_entropy(logits, torch.tensor([0, 1]), focal=2.0, weights=[2.0, 3.0])
    assert float(weighted) == pytest.approx(2 * math.log(4 / 3) / 16 + 3 * LN4 * 9 / 16)
    assert float(mass) == 5.0


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_focal_losses_gradient_stays_finite_on_sure_predictions(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0], [0.0, 0.0]], requires_grad=True)
    cross_entropy(logits, torch.tensor([0, 0, 1]), focal=gamma)[0].backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    several = torch.tensor([[200.0, -200.0]], requires_grad=True)
    binary_cross_entropy(several, torch.tensor([[1.0, 1.0]]), focal=gamma)[0].backward()
    assert several.grad is not None
    assert bool(several.grad.isfinite().all())


def test_pos_weight_smoothing_and_focal_of_several_labels_by_hand() -> None:
    logits, labels = torch.tensor([[0.0, LN3], [5.0, 5.0]]), torch.tensor([[1.0, 0.0], [NAN, NAN]])
    total, units = binary_cross_entropy(logits, labels, pos_weight=[3.0, 7.0])
    # Only the positive's term is multiplied: 3 ln 2 and −ln(1/4).
    assert (float(total), int(units)) == (pytest.approx((3 * LN2 + LN4) / 2), 1)
    smoothed, _ = binary_cross_entropy(logits, labels, smoothing=0.2)
    assert float(smoothed) == pytest.approx((LN2 - 0.1 * math.log(3 / 4) - 0.9 * math.log(1 / 4)) / 2)
    focal, _ = binary_cross_entropy(logits, labels, focal=1.0)
    assert float(focal) == pytest.approx((LN2 / 2 + LN4 * 3 / 4) / 2)


def test_pos_weight_is_torchs() -> None:
    logits, labels = torch.randn(6, 3), torch.randint(0, 2, (6, 3)).float()
    theirs = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 4.0, 0.5]))(logits, labels)
    assert mean(binary_cross_entropy(logits, labels, pos_weight=[1.0, 4.0, 0.5])) == pytest.approx(float(theirs))


def test_a_head_counts_units_as_its_loss_does() -> None:
    task = Task(name="t", head="token_classification", labels=["PER"], loss={"class_weights": {"PER": 4.0, "O": 0.5}})
    head, labels = make_head(task), torch.tensor([[IGNORE, 0, 1], [2, IGNORE, 0]])
    total, units = head.loss(torch.zeros(2, 3, 3), labels)
    assert head.units(labels) == float(units) == 0.5 + 4.0 + 4.0 + 0.5
    assert float(total) == pytest.approx(9.0 * LN3)


def test_weights_are_found_by_tag_then_by_type() -> None:
    outputs = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    assert weights_in_order({"PER": 3.0, "I-PER": 2.0, "O": 0.1}, outputs) == [0.1, 3.0, 2.0, 1.0, 1.0]
    assert weights_in_order(2.0, ["a", "b"]) == [2.0, 2.0]
    assert weights_in_order(None, ["a"]) is None


def test_inverse_frequencies_by_hand() -> None:
    # 8 units of 3 labels that occur; the fourth does not.
    assert balanced(np.array([1, 2, 5, 0])) == [8 / 3, 8 / 6, 8 / 15, 1.0]


def split(values: list[Any]) -> EncodedSplit:
    return EncodedSplit(Dataset.from_dict({"@t": values}), np.arange(len(values) + 1), np.ones(len(values)))


def test_labels_are_counted_as_the_loss_sees_them() -> None:
    counts, units = label_counts(split([0, 2, None, 2]), "@t", 3, several=False)
    assert (counts.tolist(), units) == ([1, 0, 2], 3)
    counts, units = label_counts(split([[IGNORE, 0, 1], None, [1, IGNORE]]), "@t", 3, several=False)
    assert (counts.tolist(), units) == ([1, 2, 0], 3)
    counts, units = label_counts(split([[1.0, 0.0], None, [1.0, 1.0]]), "@t", 2, several=True)
    assert (counts.tolist(), units) == ([2, 1], 2)


@pytest.fixture
def several(tmp_path: Path, tiny_encoder: Path) -> dict[str, Any]:
    rows = [
        {"text": f"film {i}", "label": "rare" if i == 0 else "usual", "labels": ["x"] if i < 2 else []}
        for i in range(8)
    ]
    write_jsonl(tmp_path / "d" / "train.jsonl", rows)
    write_jsonl(tmp_path / "d" / "validation.jsonl", rows[:2])
    source = {"source": str(tmp_path / "d"), "columns": {"text": "text", "label": "label"}}
    other = {**source, "columns": {"text": "text", "labels": "labels"}}
    return {
        "encoder": str(tiny_encoder),
        "tasks": [
            {
                "name": "one",
                "head": "sequence_classification",
                "data": source,
                "loss": {"class_weights": "inverse_frequency"},
            },
            {
                "name": "many",
                "head": "multi_label_classification",
                "data": other,
                "loss": {"pos_weight": "inverse_frequency"},
            },
        ],
        "mixture": {"batch": 4},
    }


def test_inverse_frequency_is_settled_from_the_training_split(several: dict[str, Any]) -> None:
    prepared = prepare(make_recipe(several))
    one, many = prepared.tasks
    assert one.loss.class_weights == {"rare": 8 / 2, "usual": 8 / 14}
    assert many.loss.pos_weight == {"x": 6 / 2}
    resolved = {task["name"]: task["loss"] for task in prepared.recipe.resolved()["tasks"]}
    assert resolved == {"one": {"class_weights": {"rare": 4.0, "usual": 8 / 14}}, "many": {"pos_weight": {"x": 3.0}}}
    assert task_record(one)["loss"] == {"class_weights": {"rare": 4.0, "usual": 8 / 14}}


def test_a_name_that_the_data_does_not_have_is_told_before_training(several: dict[str, Any]) -> None:
    several["tasks"][0]["loss"] = {"class_weights": {"rar": 2.0}}
    with pytest.raises(FaultyInput, match=r'class_weights has "rar", which is no label of the task.*"rare"'):
        prepare(make_recipe(several))


WRONG = [
    ("regression", {"class_weights": {"a": 1.0}}, "loss.class_weights: does not fit head regression"),
    ("multi_label_classification", {"class_weights": {"a": 1.0}}, "pos_weight is for several labels"),
    ("sequence_classification", {"pos_weight": 2.0}, "loss.pos_weight: does not fit"),
    ("question_answering", {"smoothing": 0.1}, "loss.smoothing: does not fit head question_answering"),
    ("multiple_choice", {"focal": 2.0}, "loss.focal: does not fit"),
    ("sequence_classification", {"focal": 2.0, "smoothing": 0.1}, "keep one of them"),
    ("sequence_classification", {"focal": 0.0}, "greater than 0"),
    ("sequence_classification", {"smoothing": 1.0}, "less than 1"),
    ("sequence_classification", {"class_weights": "balanced"}, "inverse_frequency"),
    ("sequence_classification", {"class_weights": {"a": -1.0}}, "greater than or equal to 0"),
    ("sequence_classification", {"class_weights": {"a": 0.0}}, "at least one weight above 0"),
    ("multi_label_classification", {"pos_weight": 0.0}, "greater than 0"),
    ("sequence_classification", {"wieght": 2.0}, "unknown key"),
    ("sequence_classification", {"objective": "pairwise"}, "loss.objective: does not fit"),
]


@pytest.mark.parametrize(("head", "loss", "told"), WRONG)
def test_what_does_not_fit_is_refused(head: str, loss: dict[str, Any], told: str) -> None:
    with pytest.raises(FaultyInput, match=told):
        make_task({"name": "t", "head": head, "loss": loss}, Source("t.yaml"), Path())


def test_a_weight_for_a_label_that_is_not_listed_is_refused() -> None:
    data = {"name": "t", "head": "token_classification", "labels": ["PER"], "loss": {"class_weights": {"PRE": 2.0}}}
    with pytest.raises(FaultyInput, match=r'"PRE", which is no label of the task.*"PER".*B-PER'):
        make_task(data, Source("t.yaml"), Path())
