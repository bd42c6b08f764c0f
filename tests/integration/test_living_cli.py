"""`add-task`, `drop-task` and `calibrate` as programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mtl_nlp.schema import dump_yaml
from mtl_nlp.training.finetune import finetune
from tests.conftest import write_jsonl

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mtl_nlp", *arguments]
    return subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=300)


def test_a_checkpoint_gains_a_task_is_calibrated_and_loses_one(recipe: dict[str, Any], data: Path) -> None:
    base, both = str(finetune({**recipe, "output_dir": str(data / "base")}).folder), str(data / "both")
    rows = [{"text": text, "label": label} for text, label in (("the food", "food"), ("my parcel", "parcel"))] * 8
    for split in ("train", "validation"):
        write_jsonl(data / "topic" / f"{split}.jsonl", rows)
    task = {
        "head": "sequence_classification",
        "data": {"source": "topic", "columns": {"text": "text", "label": "label"}},
    }
    (data / "topic.yaml").write_text(dump_yaml(task), encoding="utf-8")
    steps = ("--set", "training.max_steps=2", "--set", "mixture.batch=4")
    added = program("add-task", base, str(data / "topic.yaml"), "--way", "frozen", "--output", both, *steps)
    assert added.returncode == 0, added.stderr
    assert "Forgetting (validation)" in added.stdout
    assert "+0.0000" in added.stdout
    assert f"checkpoint: {both}" in added.stdout
    tuned = program("calibrate", both, "--json", "--tasks", "sent,topic")
    assert tuned.returncode == 0, tuned.stderr
    reports = json.loads(tuned.stdout)
    assert set(reports) == {"sent", "topic"}
    assert set(reports["sent"]) == {"units", "temperature", "loss", "error", "metrics"}
    dropped = program("drop-task", both, "ner", "sent", "--output", str(data / "one"))
    assert dropped.returncode == 0, dropped.stderr
    config = json.loads((data / "one" / "config.json").read_text(encoding="utf-8"))
    assert [(task["name"], task["calibration"]) for task in config["tasks"]] == [
        ("topic", {"temperature": reports["topic"]["temperature"]})
    ]


def test_what_is_wrong_is_said_with_code_2(tmp_path: Path) -> None:
    for arguments, message in (
        (("add-task", "nowhere", "x", "--output", "y"), "error: nowhere: no such folder"),
        (("calibrate", "nowhere", "--accuracy", "topics"), 'error: --accuracy: found "topics" → TASK=VALUE'),
        (("calibrate", "nowhere", "--accuracy", "topics=high"), "error: --accuracy: found high → TASK=SHARE"),
        (
            ("calibrate", "nowhere", "--clear", "--accuracy", "topics=0.9"),
            "error: --clear: found it with --accuracy (it does no more: leave the others out)",
        ),
        (("drop-task", "nowhere", "x"), "Missing option '--output'"),
    ):
        done = program(*arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
