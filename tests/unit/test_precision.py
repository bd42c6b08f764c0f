"""`training.bf16: auto`: asked of the machine, said, written down, and kept by a run that is resumed."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from mtl_nlp.errors import FaultyInput
from mtl_nlp.recipe import RESOLVED, Recipe, make_recipe
from mtl_nlp.training.arguments import check_training, training_arguments
from mtl_nlp.training.finetune import build_trainer, finetune
from mtl_nlp.training.precision import NARROWEST, keep_precision, machine_bf16, precision_of, settle_precision
from mtl_nlp.training.prepare import prepare

WIDE, NARROW = SimpleNamespace(hidden_size=384), SimpleNamespace(hidden_size=NARROWEST - 1)


def made(recipe: dict[str, Any], base: Path, performance: str = "auto", **training: Any) -> Recipe:
    settings = {**recipe["training"], **training}
    return make_recipe({**recipe, "performance": performance, "training": settings}, base=base)


def test_the_machine_is_asked() -> None:
    found, reason = machine_bf16(use_cpu=True)
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert found == bool({"avx512_bf16", "amx_bf16"} & set(flags))
    assert reason


@pytest.mark.parametrize("given", [{}, {"bf16": "auto"}])
def test_auto_is_what_the_machine_has(recipe: dict[str, Any], data: Path, given: dict[str, Any]) -> None:
    there, _ = machine_bf16()
    assert precision_of(made(recipe, data, **given), WIDE).bf16 == there
    assert not precision_of(made(recipe, data, "plain", **given), WIDE).bf16
    assert not precision_of(made(recipe, data, fp16=True, **given), WIDE).bf16
    if not torch.cuda.is_available():
        assert not precision_of(made(recipe, data, **given), NARROW).bf16


@pytest.mark.parametrize("given", [True, False])
def test_what_the_recipe_says_holds(recipe: dict[str, Any], data: Path, given: bool) -> None:
    for performance in ("auto", "plain"):
        assert precision_of(made(recipe, data, performance, bf16=given), NARROW).bf16 is given


def test_only_auto_is_a_word(recipe: dict[str, Any], data: Path) -> None:
    with pytest.raises(FaultyInput, match=r"training\.bf16: found 'maybe'"):
        check_training(made(recipe, data, bf16="maybe"))


def test_the_default_is_settled_written_and_said(
    recipe: dict[str, Any], data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mtl_nlp"):
        result = finetune(made(recipe, data, max_steps=1))
    written = yaml.safe_load((result.folder / RESOLVED).read_text())
    assert written["training"]["bf16"] is False
    assert any(message.startswith("precision: float32 (") for message in caplog.messages)


def test_weights_and_optimizer_stay_in_float32(recipe: dict[str, Any], data: Path) -> None:
    trainer = build_trainer(prepare(made(recipe, data, bf16=True, max_steps=2)))
    assert trainer.args.bf16
    seen = []
    trainer.multi.encoder.register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    layer = trainer.multi.encoder.encoder.layer[0].intermediate.dense
    dtypes = []
    layer.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    trainer.train()
    assert set(dtypes) == {torch.bfloat16}
    assert {p.dtype for p in trainer.multi.parameters()} == {torch.float32}
    moments = [value.dtype for state in trainer.optimizer.state.values() for value in state.values()]
    assert set(moments) == {torch.float32}


def test_a_resumed_run_keeps_its_precision(recipe: dict[str, Any], data: Path, tmp_path: Path) -> None:
    other = not precision_of(made(recipe, data), WIDE).bf16
    (tmp_path / RESOLVED).write_text(yaml.safe_dump({"training": {"bf16": other}}))
    auto = made(recipe, data)
    kept = keep_precision(auto, settle_precision(auto, WIDE), tmp_path)
    assert kept.bf16 is other
    assert auto.training["bf16"] is other
    asked = made(recipe, data, bf16=not other)
    assert keep_precision(asked, settle_precision(asked, WIDE), tmp_path).bf16 is not other


def test_an_unsettled_auto_is_float32(recipe: dict[str, Any], data: Path) -> None:
    assert not training_arguments(made(recipe, data), max_steps=1)[0].bf16
