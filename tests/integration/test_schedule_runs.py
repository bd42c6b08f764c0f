"""Runs that change on the way: every strategy and retired tasks resume bit-equal, on one process and on two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.schema import dump_yaml
from tests.conftest import ENTITIES, SENTIMENT, write_conll, write_jsonl

ROOT = Path(__file__).resolve().parents[2]
EPOCH = 14  # steps: 64 + 48 texts in batches of 8

STRATEGIES: dict[str, dict[str, Any]] = {
    "proportional": {},
    "uniform": {"max_passes": 2},
    "temperature": {"temperature": 3.0, "cap": 50},
    "capped": {"cap": 20},
    "round_robin": {},
    "fixed": {"rates": {"sent": 3, "ner": 1}},
    "annealed": {},
    "adaptive_loss": {},
    "adaptive_metric": {"adapt": 0.9},
}
PER_TASK = {"per_task": True, "patience": 2, "tolerance": 0.01}


@pytest.fixture
def longer(recipe: dict[str, Any], data: Path) -> dict[str, Any]:
    """Three epochs of 14 steps, scored and saved on the way, two loader workers, four micro-batches a step."""
    write_jsonl(data / "sent" / "train.jsonl", SENTIMENT * 2)
    write_conll(data / "ner" / "train.conll", ENTITIES * 2)
    training = {
        "num_train_epochs": 3,
        "learning_rate": 2e-3,
        "save_strategy": "steps",
        "save_steps": 5,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "load_best_model_at_end": False,
        "gradient_accumulation_steps": 4,
        "dataloader_num_workers": 2,
        "disable_tqdm": True,
    }
    return {**recipe, "training": training}


def drive(
    recipes: dict[str, dict[str, Any]], folder: Path, *, seed: int, processes: str = "1 1 1"
) -> list[dict[str, Any]]:
    runs = folder / "runs"
    runs.mkdir()
    table = {}
    for name, recipe in recipes.items():
        path = folder / f"{name}.yaml"
        path.write_text(dump_yaml(recipe), encoding="utf-8")
        table[name] = (str(path), EPOCH)
    command = [sys.executable, "-m", "tests.integration.killing_steps", json.dumps(table), str(runs), str(seed)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *processes.split()], cwd=ROOT, env=env, capture_output=True, text=True, timeout=900
    )
    errors = [path.read_text()[-2000:] for path in runs.glob("*.error")]
    assert done.returncode == 0, (done.stderr[-2000:], errors)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def assert_bit_equal(told: list[dict[str, Any]]) -> None:
    for one in told:
        assert set(one["kills"]) == {-9}, one
        assert set(one["codes"]) == {0}, one
        assert one["sums"][0] == one["sums"][1], one["name"]
        for volatile in ("seconds",):
            one["run"].pop(volatile), one["again"].pop(volatile)
        assert one["run"] == one["again"]


def variants(longer: dict[str, Any], names: list[str], **changes: Any) -> dict[str, dict[str, Any]]:
    return {
        name: {**longer, "mixture": {"batch": 8, "strategy": name, **STRATEGIES[name]}, **changes} for name in names
    }


def test_adaptive_rates_and_retired_tasks_resume_bit_equal(longer: dict[str, Any], data: Path) -> None:
    told = drive(variants(longer, ["adaptive_loss"], stopping={**PER_TASK, "freed": "redistribute"}), data, seed=3)
    assert_bit_equal(told)
    assert any(regime["retired"] for regime in told[0]["run"]["regimes"]), "somebody retired"
    assert len({str(regime.get("rates")) for regime in told[0]["run"]["regimes"]}) > 2, "rates moved"


@pytest.mark.slow
def test_every_strategy_resumes_bit_equal(longer: dict[str, Any], data: Path) -> None:
    assert_bit_equal(drive(variants(longer, list(STRATEGIES)), data, seed=4))


@pytest.mark.slow
def test_two_processes_resume_bit_equal(longer: dict[str, Any], data: Path) -> None:
    recipes = variants(
        longer, ["adaptive_loss", "adaptive_metric", "round_robin"], stopping={**PER_TASK, "freed": "save"}
    )
    told = drive(recipes, data, seed=5, processes="2 2 2")
    assert_bit_equal(told)
    assert any(regime["retired"] for one in told for regime in one["run"]["regimes"])
