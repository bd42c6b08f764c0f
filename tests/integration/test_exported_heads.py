"""A shared head and a CRF as vanilla models: each task of the one, and why there is none of the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from mtl_nlp import finetune
from mtl_nlp.errors import FaultyInput
from mtl_nlp.hub.checkpoint import load_model
from mtl_nlp.hub.single_task import export_task
from mtl_nlp.kinds import head_kind
from tests.contracts.examples import example_recipe, example_task, write_example


@pytest.fixture(scope="module")
def checkpoint(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    names = ["token_classification_crf", "sequence_classification"]
    tasks = [example_task(head_kind(n), write_example(folder / n, head_kind(n)), n) for n in names]
    shared = example_task(head_kind(names[1]), write_example(folder / "more", head_kind(names[1])), "more")
    tasks.append({**shared, "share_head_with": "sequence_classification"})
    return finetune(example_recipe(tiny_encoder, tasks, folder / "run")).folder


@pytest.mark.parametrize("task", ["sequence_classification", "more"])
def test_both_tasks_of_a_shared_head_are_exported(checkpoint: Path, tmp_path: Path, task: str) -> None:
    export_task(checkpoint, task, tmp_path / task)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / task)
    assert sorted(plain.config.label2id) == ["bad", "good", "neutral"]
    assert torch.equal(
        plain.classifier.weight, load_model(checkpoint).heads["sequence_classification"].classifier.weight
    )


def test_a_crf_has_no_vanilla_twin(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(FaultyInput, match="token_classification_crf has no twin in transformers"):
        export_task(checkpoint, "token_classification_crf", tmp_path / "crf")
