"""Attributions on many architectures: the same logits from embeddings as from token ids, and sums that are right within 1 %."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel

from mtl_nlp.analysis.attribution import attribute
from mtl_nlp.analysis.explained_rows import EmbeddedRow, InputWords
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


@pytest.mark.parametrize("name", CONFIGS)
def test_an_architecture_is_explained(name: str) -> None:
    torch.manual_seed(1)
    config = CONFIGS[name]
    model = MultiTaskModel(
        MultiTaskConfig(config, [task_record(task) for task in TASKS]), AutoModel.from_config(config)
    )
    model.eval().use_fast_paths()
    ids = torch.tensor([[3, 17, 40, 8, 23, 4]])  # MPNet takes token 1 for padding, whatever its configuration says
    words = torch.tensor([-1, 0, 1, 1, 2, -1])
    with torch.no_grad():
        inputs, masked = (model.get_input_embeddings()(i).detach() for i in (ids, torch.full_like(ids, 5)))
    baselines = torch.where((words < 0)[None, :, None], inputs, masked)
    row = EmbeddedRow(model, ids, None, words, InputWords([], (0,), False), inputs, baselines)
    for task in TASKS:
        row.check(task.name)
    numbers = {
        "sent": lambda embeddings: row.logits("sent", embeddings)[:, 1],
        "ner": lambda embeddings: row.logits("ner", embeddings)[:, 2, 1],
    }
    for task, number in numbers.items():
        found = attribute("integrated_gradients", number, inputs, baselines, words)
        assert found.complete, (task, found.delta, found.value - found.baseline)
        assert found.tokens[[0, 5]].tolist() == [0.0, 0.0], "special tokens are kept"
