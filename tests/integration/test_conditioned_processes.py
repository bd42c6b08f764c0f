"""A conditioned encoder under DDP: two processes take the steps of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.integration.test_distributed import STEPS, assert_same_weights, folder, train

__all__ = ["folder"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vector", "lora"])
def test_two_processes_are_one(folder: Path, kind: str) -> None:
    sets = ("--set", f"conditioning={kind}", "--set", "training.eval_strategy='no'")
    train(folder / "recipe.yaml", folder / f"{kind}-1", 1, *sets)
    train(folder / "recipe.yaml", folder / f"{kind}-2", 2, *sets)
    for part in ("", f"checkpoint-{STEPS}"):
        assert_same_weights(folder / f"{kind}-1" / part, folder / f"{kind}-2" / part, 1e-5)
    state = load_file(folder / f"{kind}-2" / "model.safetensors")
    rare = [value for name, value in state.items() if name.startswith("conditioning.tasks.rare.") and name[-2:] != ".a"]
    assert rare
    assert any(value.abs().max() > 0 for value in rare)
