"""`train` and `evaluate` as programs: what goes to which stream, and how they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.schema import dump_yaml

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mtl_nlp", *arguments]
    return subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=300)


@pytest.fixture
def file(recipe: dict[str, Any], data: Path) -> Path:
    (data / "recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    return data / "recipe.yaml"


def test_results_on_stdout_and_progress_on_stderr(file: Path, data: Path) -> None:
    done = program(
        "train", str(file), "--json", "--set", "training.eval_strategy=steps", "--set", "training.eval_steps=3"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == {"folder", "validation", "mean", "run"}
    assert set(report["validation"]) == {"sent", "ner"}
    assert report["run"]["steps"] == 6
    assert "6/6" in done.stderr
    assert "sent " in done.stderr
    assert "mean 0." in done.stderr
    scored = program("evaluate", str(data / "run"), "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["split"] == "test"
    assert program("evaluate", str(data / "run"), "--fail-under", "1.1").returncode == 1


def test_control_c_leaves_with_130_and_a_word_on_resuming(file: Path, data: Path) -> None:
    command = [sys.executable, "-m", "mtl_nlp", "train", str(file), "--set", "training.max_steps=5000"]
    child = subprocess.Popen(
        command,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores the signal and hands that on; a user's program does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 120
    while not (data / "run").exists() and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(4)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 130
    assert "--resume" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_help_answers_in_under_four_tenths_of_a_second() -> None:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert program("--help").returncode == 0
        times.append(time.perf_counter() - start)
    assert min(times) < 0.4


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['mtl-nlp', '--help']\n"
        "from mtl_nlp.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'evaluate', 'pydantic', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"
