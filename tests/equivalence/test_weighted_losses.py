"""Losses that weigh units: eight micro-batches of one are one of eight, and the step's mean is torch's weighted mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mtl_nlp.task import Task

from .test_one_pass import assert_close_states, mixed_batch, model_of, train

SENT = Task(
    name="sent",
    head="sequence_classification",
    labels=["a", "b", "c"],
    loss={"class_weights": {"a": 0.1, "b": 3.0, "c": 0.7}, "smoothing": 0.1},
)
NER = Task(
    name="ner",
    head="token_classification",
    labels=["PER", "LOC"],
    loss={"class_weights": {"O": 0.05, "PER": 2.5}, "focal": 2.0},
)


def test_eight_micro_batches_of_one_are_one_of_eight(tmp_path: Path) -> None:
    one, eight = model_of("bert", [SENT, NER]), model_of("bert", [SENT, NER])
    before = {name: value.clone() for name, value in one.state_dict().items()}
    train(one, [SENT, NER], tmp_path, 20, accumulation=1)
    train(eight, [SENT, NER], tmp_path, 20, accumulation=8)
    assert_close_states(one.state_dict(), eight.state_dict(), 1e-5)
    assert max(float((one.state_dict()[name] - before[name]).abs().max()) for name in before) > 1e-4


def test_the_mean_is_torchs_weighted_mean() -> None:
    model = model_of("bert", [SENT]).eval()
    records, collator = mixed_batch([SENT])
    batch = collator(records)
    logits, labels = model(**batch).logits["sent"], batch["tasks"]["sent"]["labels"]
    total, units = model.task_losses({"sent": logits}, batch["tasks"])["sent"]
    theirs = nn.CrossEntropyLoss(weight=torch.tensor([0.1, 3.0, 0.7]), label_smoothing=0.1)(logits, labels)
    assert float((total / units).detach()) == pytest.approx(float(theirs.detach()), rel=1e-6)
