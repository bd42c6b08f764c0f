"""SIGKILL at any moment, then resume: the weights are those of an uninterrupted run, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.schema import dump_yaml

ROOT = Path(__file__).resolve().parents[2]


def trials(recipe: dict[str, Any], folder: Path, number: int, seed: int) -> list[dict[str, Any]]:
    (folder / "recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    (folder / "runs").mkdir()
    command = [
        sys.executable,
        "-m",
        "tests.integration.killing",
        "recipe.yaml",
        "runs",
        str(number),
        str(seed),
        "writing",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=1500)
    errors = [path.read_text() for path in (folder / "runs").glob("*.error")]
    assert done.returncode == 0, (done.stderr[-2000:], errors)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def longer(recipe: dict[str, Any], **training: Any) -> dict[str, Any]:
    """A run with dropout, several checkpoints and evaluations."""
    settings = {
        "max_steps": 24,
        "learning_rate": 1e-3,
        "save_strategy": "steps",
        "save_steps": 3,
        "eval_strategy": "steps",
        "eval_steps": 6,
        "load_best_model_at_end": False,
        "save_total_limit": 2,
        "logging_steps": 5,
        **training,
    }
    return {**recipe, "training": settings}


def assert_bit_equal(report: list[dict[str, Any]], number: int) -> None:
    whole, runs = report[0], report[1:]
    assert whole["code"] == 0
    assert len(runs) == number
    assert [run["code"] for run in runs] == [0] * number
    assert {run["checksum"] for run in runs} == {whole["checksum"]}
    assert sum(run["kills"] for run in runs) >= number // 2
    assert all(run["left"] == [] for run in runs)


def test_killed_and_resumed_is_bit_equal(recipe: dict[str, Any], data: Path) -> None:
    assert_bit_equal(trials(longer(recipe), data, 4, seed=1), 4)


@pytest.mark.slow
def test_at_twenty_random_moments(recipe: dict[str, Any], data: Path) -> None:
    assert_bit_equal(trials(longer(recipe), data, 20, seed=2), 20)


@pytest.mark.slow
def test_with_two_workers_and_accumulation_four(recipe: dict[str, Any], data: Path) -> None:
    settings = longer(recipe, dataloader_num_workers=2, gradient_accumulation_steps=4)
    assert_bit_equal(trials(settings, data, 20, seed=3), 20)


@pytest.mark.slow
def test_with_best_model_and_early_stopping(recipe: dict[str, Any], data: Path) -> None:
    settings = longer(recipe, load_best_model_at_end=True, save_steps=6)
    settings["stopping"] = {"patience": 3}
    assert_bit_equal(trials(settings, data, 6, seed=4), 6)
