"""The model's forward pass beside what training does with it: all tasks on all rows, and heads without rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mtl_nlp.kinds import HEADS, head_kind
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.task import Task


def task_of(head: str, **more: object) -> Task:
    kind = head_kind(head)
    return Task(name=head, head=head, labels=["a", "b", "c"] if kind.form.has_labels else None, **more)


def test_without_tasks_every_head_answers_every_row(tiny_encoder: Path) -> None:
    kinds = HEADS.names()
    model = MultiTaskModel.from_encoder(str(tiny_encoder), [task_of(name) for name in kinds]).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.randint(5, 60, (3, 7))).logits
    assert list(logits) == kinds
    assert logits["sequence_classification"].shape == (3, 3)
    # The rows are the choices of one text, the candidates of one query.
    assert logits["multiple_choice"].shape == logits["ranking"].shape == (1, 3)
    assert logits["token_classification_crf"].shape == (3, 7 + 7 + 2, 7)


def test_idle_heads_get_zeros_and_others_nothing(tiny_encoder: Path) -> None:
    names = ["sequence_classification", "token_classification_crf", "regression"]
    model = MultiTaskModel.from_encoder(str(tiny_encoder), [task_of(name) for name in names])
    rows = {"regression": {"rows": torch.arange(2), "labels": torch.tensor([1.0, 2.0])}}
    output = model(input_ids=torch.randint(5, 60, (2, 5)), tasks=rows, idle=["token_classification_crf"])
    assert float(output.idle.detach()) == 0.0
    loss, _ = model.task_losses(output.logits, rows)["regression"]
    (loss + output.idle).backward()
    assert all(p.grad is None for p in model.heads["sequence_classification"].parameters())
    zeros = [p.grad for p in model.heads["token_classification_crf"].parameters()]
    assert zeros
    assert all(grad is not None and not bool(grad.any()) for grad in zeros)
    assert any(bool(p.grad.any()) for p in model.heads["regression"].parameters() if p.grad is not None)


@pytest.mark.parametrize("head", ["sequence_classification", "multi_label_classification", "token_classification"])
def test_weights_travel_with_the_checkpoints_record(head: str, tiny_encoder: Path, tmp_path: Path) -> None:
    loss = {"pos_weight": {"a": 3.0}} if head.startswith("multi") else {"class_weights": {"a": 3.0}}
    MultiTaskModel.from_encoder(str(tiny_encoder), [task_of(head, loss=loss)]).save_pretrained(tmp_path)
    assert MultiTaskModel.from_pretrained(tmp_path).tasks[0].loss.given() == list(loss)


def test_rows_gathered_for_all_heads_are_those_gathered_for_each(tiny_encoder: Path) -> None:
    names = ["sequence_classification", "token_classification", "regression"]
    # In float64: one backward pass and three round differently.
    model = MultiTaskModel.from_encoder(str(tiny_encoder), [task_of(name) for name in names]).eval().double()
    ids = torch.randint(5, 60, (4, 9))
    places = {"sequence_classification": [0, 2], "token_classification": [1, 2, 3], "regression": [3]}
    tasks = {name: {"rows": torch.tensor(places[name]), "width": 9 - i} for i, name in enumerate(names)}
    together = model(input_ids=ids, tasks=tasks).logits
    sum(logits.square().sum() for logits in together.values()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for name, rows in tasks.items():
        alone = model(input_ids=ids, tasks={name: rows}).logits[name]
        torch.testing.assert_close(alone, together[name], rtol=0, atol=1e-10)
        alone.square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-10)


def test_a_fixed_structure_changes_nothing_but_the_search(tiny_encoder: Path) -> None:
    model = MultiTaskModel.from_encoder(str(tiny_encoder), [task_of("regression")])
    parameters = list(model.parameters())
    model.encoder.encoder.layer[1].eval()
    model.fix_structure()
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in model.eval().modules())
    assert all(module.training for module in model.train().modules())
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    parameters[3].grad = torch.ones_like(parameters[3])
    model.zero_grad()
    assert parameters[3].grad is None
    model.free_structure()
    model.extra = torch.nn.Linear(2, 2)
    assert len(list(model.parameters())) == len(parameters) + 2
