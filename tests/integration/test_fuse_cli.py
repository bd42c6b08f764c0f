"""`fuse` as a program: what it prints, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtl_nlp.schema import dump_yaml
from tests.fusion_runs import build_singles, recipe_of, write_data
from tests.integration.test_living_cli import program


@pytest.mark.slow
def test_models_are_fused_and_faults_are_told(tiny_encoder: Path, tmp_path: Path) -> None:
    runs = {name: str(path) for name, path in build_singles(tiny_encoder, tmp_path).items()}
    merged = str(tmp_path / "merged")
    done = program("fuse", "merge", merged, runs["sent"], runs["ner"], "--coefficients", "0.5,0.7", "--json",
                   "--method", "task_arithmetic")  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["folder"], told["coefficients"], told["method"]) == (merged, [0.5, 0.7], "task_arithmetic")
    assert set(told["validation"]) == {"sent", "ner"}
    both = str(tmp_path / "both")
    done = program("fuse", "ensemble", both, runs["sent"], runs["again"], runs["ner"])
    assert done.returncode == 0, done.stderr
    assert "member 3 of 3 answers validation" in done.stderr
    assert f"ensemble: {both}" in done.stdout
    shown = program("show", both, "--json")
    assert json.loads(shown.stdout)["weights"]["ner"] == [0.0, 0.0, 1.0]
    answer = program("predict", both, "--text", "anna was in london")
    assert set(json.loads(answer.stdout)["predictions"]) == {"sent", "ner"}
    bad = program("fuse", "merge", str(tmp_path / "x"), runs["sent"], "--coefficients", "a")
    assert bad.returncode == 2
    assert bad.stderr.startswith('error: --coefficients: found "a" → search, or numbers')
    tasks = write_data(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_yaml(recipe_of(tiny_encoder, list(tasks.values()), tmp_path / "student")), encoding="utf-8")
    bad = program("fuse", "distil", str(path), "--teacher", "sent")
    assert bad.returncode == 2
    assert 'error: --teacher: found "sent" → TASK=CHECKPOINT' in bad.stderr
    bad = program("fuse", "distil", str(path), "--teacher", f"snet={runs['sent']}")
    assert bad.returncode == 2
    assert 'no task "snet". Did you mean "sent"?' in bad.stderr
    assert "Traceback" not in bad.stderr
