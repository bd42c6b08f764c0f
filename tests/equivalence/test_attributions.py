"""Attributions on many architectures: the same logits from embeddings as from token ids, and sums that are right within 1 %."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModel

from mtl_nlp.analysis.attribution import attribute
from mtl_nlp.analysis.explained_rows import EmbeddedRow, InputWords
from mtl_nlp.conditioning import Conditioning as Settings
from mtl_nlp.model.conditioning import condition
from mtl_nlp.model.config import MultiTaskConfig, task_record
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.task import Task

from .architectures import configs

pytest.importorskip("captum")

TASKS = [
    Task(name="sent", head="sequence_classification", labels=["a", "b", "c"]),
    Task(name="ner", head="token_classification", labels=["PER"]),
]
CONFIGS = configs()


KINDS = ("vector", "token", "film", "lora")
# MPNet computes its relative positions otherwise where positions are given.
CONDITIONED = [(name, kind) for name in CONFIGS for kind in KINDS if (name, kind) != ("mpnet", "token")]


@pytest.mark.parametrize(("name", "kind"), [*((name, None) for name in CONFIGS), *CONDITIONED])
def test_an_architecture_is_explained(name: str, kind: Any) -> None:
    torch.manual_seed(1)
    config = CONFIGS[name]
    model = MultiTaskModel(
        MultiTaskConfig(config, [task_record(task) for task in TASKS]), AutoModel.from_config(config)
    )
    if kind is not None:
        condition(model, Settings(kind=kind))
        for value in model.conditioning.parameters():  # fresh ones do nothing
            torch.nn.init.normal_(value, std=0.1)
    model.eval().use_fast_paths()
    ids = torch.tensor([[3, 17, 40, 8, 23, 4]])  # MPNet takes token 1 for padding, whatever its configuration says
    words = torch.tensor([-1, 0, 1, 1, 2, -1])
    with torch.no_grad():
        inputs, masked = (model.get_input_embeddings()(i).detach() for i in (ids, torch.full_like(ids, 5)))
    baselines = torch.where((words < 0)[None, :, None], inputs, masked)
    row = EmbeddedRow(model, ids, None, words, InputWords([], (0,), False), inputs, baselines)
    for task in TASKS:
        row.check(task.name)
        own = model(ids, torch.ones_like(ids), tasks={task.name: {"rows": torch.tensor([0])}}).logits[task.name]
        torch.testing.assert_close(row.logits(task.name, inputs), own, rtol=0, atol=1e-4)
    numbers = {
        "sent": lambda embeddings: row.logits("sent", embeddings)[:, 1],
        "ner": lambda embeddings: row.logits("ner", embeddings)[:, 2, 1],
    }
    for task, number in numbers.items():
        found = attribute("integrated_gradients", number, inputs, baselines, words)
        assert found.complete, (task, found.delta, found.value - found.baseline)
        assert found.tokens[[0, 5]].tolist() == [0.0, 0.0], "special tokens are kept"
