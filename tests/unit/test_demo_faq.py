"""The demo's questions and answers: splits without a common template, files that can be made again."""

from __future__ import annotations

import importlib
import json
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "tasks" / "demo" / "faq"
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def script() -> Any:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return importlib.import_module("make_demo_faq")
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def read(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (SHIPPED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_files_are_what_the_script_writes(script: Any, tmp_path: Path) -> None:
    script.write(tmp_path, script.SEED)
    for name in (*SPLITS, "knowledge"):
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (SHIPPED / f"{name}.jsonl").read_bytes()


def test_the_knowledge_base_holds_every_answer(script: Any) -> None:
    knowledge = {row["id"]: row["answer"] for row in read("knowledge")}
    assert len(knowledge) == len(script.ENTRIES) == 50
    assert len(set(knowledge.values())) == 50
    for split in SPLITS:
        rows = read(split)
        assert {row["id"] for row in rows} == set(knowledge), "every entry is asked for in every split"
        assert all(knowledge[row["id"]] == row["answer"] for row in rows)


def test_splits_share_no_template(script: Any) -> None:
    cores = [core for _, listed in script.ENTRIES.values() for core in listed]
    assert len(set(cores)) == len(cores) == 250
    for one, other in combinations(SPLITS, 2):
        assert not set(script.FRAMES[one]) & set(script.FRAMES[other])
        assert not set(script.CORES[one]) & set(script.CORES[other])
        assert not {row["question"] for row in read(one)} & {row["question"] for row in read(other)}
