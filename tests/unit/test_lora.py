"""LoRA: outputs that do not move when adapters are put in or merged, and runs that resume bit by bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from mtl_nlp.errors import UserError
from mtl_nlp.hub.checkpoint import load_model, write_checksums
from mtl_nlp.model.config import MultiTaskConfig, task_record
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.recipe import Lora, make_recipe
from mtl_nlp.task import Task
from mtl_nlp.training import lora
from mtl_nlp.training.finetune import finetune
from tests.equivalence.architectures import VOCABULARY, configs

TASKS = [
    Task(name="sent", head="sequence_classification", labels=["a", "b"]),
    Task(name="ner", head="token_classification", labels=["PER"]),
]


def model_of(config: Any) -> MultiTaskModel:
    torch.manual_seed(3)
    encoder = AutoModel.from_config(config, attn_implementation="eager")
    made = MultiTaskConfig(encoder.config, [task_record(task) for task in TASKS])
    made._attn_implementation = "eager"
    return MultiTaskModel(made, encoder).eval()


def outputs(model: MultiTaskModel) -> dict[str, torch.Tensor]:
    torch.manual_seed(4)
    with torch.inference_mode():
        return dict(model(input_ids=torch.randint(5, VOCABULARY, (3, 9))).logits)


def disturbed(model: MultiTaskModel) -> MultiTaskModel:
    """B is zero at first; give it something to say."""
    for name, value in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(value, std=0.1)
    return model


@pytest.mark.parametrize("name", list(configs()))
def test_adapters_go_in_without_a_trace_and_are_merged_without_loss(name: str) -> None:
    model = model_of(configs()[name])
    before, keys = outputs(model), set(model.state_dict())
    lora.add_adapters(model, Lora(r=4, alpha=8.0))
    assert lora.is_adapted(model)
    fresh = outputs(model)
    assert all(torch.equal(fresh[task], before[task]) for task in before)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.startswith("heads.") or ".lora_" in name for name in trained)
    assert {name for name, _ in model.named_parameters() if name.startswith("heads.")} <= trained
    adapted, state = outputs(disturbed(model)), lora.merged_state(model)
    assert set(state) == keys
    assert not torch.equal(adapted["sent"], before["sent"])
    lora.merge(model)
    assert not lora.is_adapted(model)
    assert set(model.state_dict()) == keys
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    merged = outputs(model)
    for task in merged:
        torch.testing.assert_close(merged[task], adapted[task], rtol=0, atol=1e-5)


def test_the_merged_weight_by_hand() -> None:
    model = model_of(configs()["bert"])
    lora.add_adapters(model, Lora(r=1, alpha=3.0, targets=["query"]))
    layer = model.encoder.encoder.layer[0].attention.self.query
    weight = layer.base_layer.weight.detach().clone()
    a, b = torch.zeros(1, 32), torch.zeros(32, 1)
    a[0, 2], b[5, 0] = 0.5, 2.0  # one entry: row 5, column 2, 3 / 1 · 2 · 0.5 = 3
    layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data = a, b
    merged = lora.merged_state(model)["encoder.encoder.layer.0.attention.self.query.weight"]
    expected = weight.clone()
    expected[5, 2] += 3.0
    assert torch.equal(merged, expected)
    adapted = {key.split(".")[6] for key in lora.adapter_state(model)}
    assert adapted == {"query"}


@pytest.mark.parametrize("targets", [["nothing"], ["attention"], []])
def test_targets_that_are_not_there_are_refused(targets: list[str]) -> None:
    with pytest.raises(UserError, match=r"lora.targets: the encoder has no (linear )?module .*attention.self.query"):
        lora.add_adapters(model_of(configs()["bert"]), Lora(targets=targets))


def adapted_run(recipe: dict[str, Any], folder: Path, **training: Any) -> Any:
    settings = {
        "max_steps": 6,
        "learning_rate": 1e-2,
        "save_strategy": "steps",
        "save_steps": 3,
        "eval_strategy": "steps",
    }
    settings |= {"eval_steps": 3, "save_total_limit": 3, **training}
    keys = {"lora": {"r": 4, "dropout": 0.1}, "training": settings, "output_dir": str(folder)}
    return make_recipe({**recipe, **keys})


def test_a_run_resumes_bit_equal_and_its_checkpoints_are_ordinary_models(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    whole = finetune(adapted_run(recipe, tmp_path / "whole", load_best_model_at_end=False)).folder
    assert set(load_file(whole / "model.safetensors")) == set(load_model(whole).state_dict())
    part = whole / "checkpoint-3"
    assert (part / "lora.safetensors").is_file()
    load_model(part)  # strictly
    resumed = adapted_run(recipe, tmp_path / "resumed", load_best_model_at_end=False)
    again = finetune(resumed, resume=part).folder
    assert (whole / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    last = load_file(whole / "checkpoint-6" / "model.safetensors")
    assert all(torch.equal(value, last[key]) for key, value in load_file(whole / "model.safetensors").items())
    # The encoder that the run began with is not the one in the checkpoint: refused.
    shutil.copytree(part, tmp_path / "odd")
    weights = load_file(tmp_path / "odd" / "model.safetensors")
    weights["encoder.embeddings.word_embeddings.weight"][7, 7] += 1
    save_file(weights, tmp_path / "odd" / "model.safetensors", metadata={"format": "pt"})
    write_checksums(tmp_path / "odd")
    other = adapted_run(recipe, tmp_path / "other", load_best_model_at_end=False)
    with pytest.raises(UserError, match=r"the encoder is another one: .*word_embeddings"):
        finetune(other, resume=tmp_path / "odd")


def test_the_best_model_comes_back(recipe: dict[str, Any], tmp_path: Path) -> None:
    result = finetune(adapted_run(recipe, tmp_path / "run", metric_for_best_model="eval_sent_accuracy"))
    import json

    state = json.loads((result.folder / "checkpoint-6" / "trainer_state.json").read_text(encoding="utf-8"))
    best = load_file(result.folder / f"checkpoint-{state['best_global_step']}" / "model.safetensors")
    assert all(torch.equal(value, best[key]) for key, value in load_file(result.folder / "model.safetensors").items())
