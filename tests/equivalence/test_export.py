"""Checkpoints and exports of many architectures: save → load, vanilla folders without this library, ONNX."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from mtl_nlp.errors import UserError
from mtl_nlp.hub.checkpoint import load_model, load_tokenizer, write_model
from mtl_nlp.hub.single_task import checkpoint_logits, export_task, exportable, sample
from mtl_nlp.inference.onnx import GRAPH, OnnxModel
from mtl_nlp.inference.onnx_attention import fuse
from mtl_nlp.inference.onnx_export import TOLERANCE, difference, export_onnx
from mtl_nlp.kinds import HEADS, head_kind
from mtl_nlp.model.config import MultiTaskConfig, task_record
from mtl_nlp.model.heads import VanillaHead, make_head
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.task import Task
from tests.conftest import build_tokenizer

from .architectures import more_configs
from .export_child import TEXTS

ARCHITECTURES = ["bert", "distilbert", "roberta", "xlm-roberta", "electra", "albert", "deberta-v2", "deberta-v3"]
ARCHITECTURES += ["mpnet", "modernbert", "eurobert"]
VANILLA = [name for name in HEADS.names() if issubclass(head_kind(name).torch_half(), VanillaHead)]
# Attention without other positions than the input's.
FUSED = {"bert", "distilbert", "roberta", "xlm-roberta", "electra", "albert"}
LACKING = {"eurobert": {"question_answering", "multiple_choice"}}


def task_of(kind: str) -> Task:
    labelled = head_kind(kind).form.has_labels
    return Task(name=kind, head=kind, labels=["PER", "LOC"] if labelled else None)


def fitting(name: str) -> tuple[list[Task], list[Task]]:
    """(Tasks whose heads the architecture has, the others), one a kind."""
    config, have, lack = more_configs()[name], [], []
    for kind in VANILLA:
        task = task_of(kind)
        try:
            make_head(task).build(copy.deepcopy(config))
            have.append(task)
        except UserError:
            lack.append(task)
    return have, lack


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[MultiTaskModel, Path]]:
    """Every architecture with every head that it has, random weights, in memory and on the disk."""
    found = {}
    for name in ARCHITECTURES:
        folder = tmp_path_factory.mktemp(name)
        torch.manual_seed(3)
        encoder = more_configs()[name]
        encoder.vocab_size = 200  # as many as the tokenizer has, and some
        config = MultiTaskConfig(encoder, [task_record(task) for task in fitting(name)[0]])
        config._attn_implementation = "eager"
        model = MultiTaskModel(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                # Fresh biases are 0, and a lost bias would not be seen.
                parameter.add_(torch.randn_like(parameter) * 0.05)

        def write(target: Path, model: MultiTaskModel = model) -> None:
            model.save_pretrained(target)
            build_tokenizer(target)

        write_model(folder, write)
        found[name] = model, folder
    return found


def logits_of(model: MultiTaskModel, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    kinds: dict[str, Any] = model.kinds
    return {name: checkpoint_logits(model, kind, batch) for name, kind in kinds.items()}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_loaded_checkpoint_gives_the_same_bits(
    name: str, checkpoints: dict[str, tuple[MultiTaskModel, Path]]
) -> None:
    model, folder = checkpoints[name]
    loaded = load_model(folder)
    batch = sample(model, load_tokenizer(folder))
    assert bool((batch["attention_mask"] == 0).any())
    before, after = logits_of(model, batch), logits_of(loaded, batch)
    assert list(before) == [task.name for task in fitting(name)[0]]
    assert set(VANILLA) - set(before) == LACKING.get(name, set())
    for task, value in before.items():
        assert torch.equal(value, after[task]), task


@pytest.fixture(scope="module")
def exported(
    checkpoints: dict[str, tuple[MultiTaskModel, Path]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, torch.Tensor]:
    """NAME.TASK → the logits of every exported folder, from one process without this library."""
    place, output = tmp_path_factory.mktemp("exports"), tmp_path_factory.mktemp("out") / "logits.safetensors"
    for name, (model, folder) in checkpoints.items():
        tokenizer = load_tokenizer(folder)
        batch = sample(model, tokenizer)
        for task in model.tasks:
            target = place / f"{name}.{task.name}"
            export_task(folder, task.name, target, loaded=(model, tokenizer))
            choice = task.kind.annotation == "choice"
            fed = {key: value[None] if choice else value for key, value in batch.items()}
            save_file({key: value.contiguous() for key, value in fed.items()}, target / "batch.safetensors")
    child = Path(__file__).with_name("export_child.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(child), str(place), str(output)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=place,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(output)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_exported_task_gives_the_bits_without_this_library(
    name: str, checkpoints: dict[str, tuple[MultiTaskModel, Path]], exported: dict[str, torch.Tensor]
) -> None:
    model, folder = checkpoints[name]
    tokenizer = load_tokenizer(folder)
    coded = tokenizer(TEXTS, padding=True, return_tensors="pt")
    texts = {key: coded[key] for key in ("input_ids", "token_type_ids", "attention_mask")}
    batch = sample(model, tokenizer)
    for task in model.tasks:
        by_text = task.kind.annotation in ("label", "labels", "value", "tags", "relevance")
        kind: Any = model.kinds[task.name]
        expected = checkpoint_logits(model, kind, texts if by_text else batch)
        found = exported[f"{name}.{task.name}"]
        # Candidates are one query's to us, texts to the stock pipeline.
        found = found.view(1, -1) if task.kind.annotation == "relevance" else found
        assert torch.equal(found, expected), task.name


def test_a_pair_that_transformers_lacks_is_refused_by_name() -> None:
    torch.manual_seed(0)
    for task in fitting("eurobert")[1]:
        config = MultiTaskConfig(more_configs()["eurobert"], [task_record(task)])
        with pytest.raises(UserError, match=rf"{task.name}\.head: transformers has no \w+ model for eurobert"):
            MultiTaskModel(config)


def test_a_head_without_a_twin_is_refused_by_name(checkpoints: dict[str, tuple[MultiTaskModel, Path]]) -> None:
    model, _ = checkpoints["bert"]
    kind = model.kinds["regression"]
    try:
        model.kinds["regression"] = object()  # type: ignore[assignment]
        reasons = exportable(model)
    finally:
        model.kinds["regression"] = kind
    assert "head regression has no twin in transformers" in reasons["regression"]
    assert {name for name, reason in reasons.items() if reason} == {"regression"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_onnx_graph_gives_the_logits(
    name: str, checkpoints: dict[str, tuple[MultiTaskModel, Path]], tmp_path: Path
) -> None:
    model, folder = checkpoints[name]
    made = export_onnx(folder, tmp_path / "onnx")
    assert made.tasks == [task.name for task in model.tasks if task.kind.annotation != "none"]
    assert made.difference <= 1e-5
    graph = onnx.load(str(made.folder / GRAPH))
    layers = sum(node.op_type == "Softmax" for node in graph.graph.node)
    assert fuse(graph.graph) == (layers if name in FUSED else 0)
    graph.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(graph, str(tmp_path / GRAPH))
    gap, largest = difference(model, OnnxModel(tmp_path / GRAPH), load_tokenizer(folder))
    assert gap <= TOLERANCE * max(1.0, largest)
