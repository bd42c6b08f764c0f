"""`check` as a user meets it: what it prints, its exit codes, and that it writes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.cli.check import LONG_LIST, TOP, duration, render
from mtl_nlp.data.checks import check_data
from mtl_nlp.recipe import make_recipe
from mtl_nlp.schema import dump_yaml
from mtl_nlp.training.prepare import prepare
from mtl_nlp.training.probe import plan_run
from tests.conftest import write_conll, write_jsonl

ROOT = Path(__file__).parents[2]


def check(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "mtl_nlp", "check", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)


def files_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture
def clean(tmp_path: Path, tiny_encoder: Path) -> Path:
    """A recipe in `tmp_path` with nothing wrong, and no `output_dir`."""
    for split, size in (("train", 16), ("validation", 4), ("test", 4)):
        rows = [{"text": f"{split} {i}", "label": "pn"[i % 2]} for i in range(size)]
        write_jsonl(tmp_path / "sent" / f"{split}.jsonl", rows)
        write_conll(
            tmp_path / "ner" / f"{split}.conll", [[(f"{split}{i}x", "B-PER"), ("is", "O")] for i in range(size)]
        )
    columns = {"sent": {"text": "text", "label": "label"}, "ner": {"tokens": "tokens", "labels": "labels"}}
    heads = {"sent": "sequence_classification", "ner": "token_classification"}
    tasks = [{"name": name, "head": heads[name], "data": {"source": name, "columns": columns[name]}} for name in heads]
    data = {
        "encoder": str(tiny_encoder),
        "tasks": tasks,
        "mixture": {"batch": 8},
        "training": {"use_cpu": True, "max_steps": 32},
    }
    (tmp_path / "recipe.yaml").write_text(dump_yaml(data), encoding="utf-8")
    return tmp_path


def test_a_clean_recipe_ends_with_0_and_its_json_has_every_part(clean: Path) -> None:
    before = files_in(clean)
    done = check("recipe.yaml", "--json", cwd=clean)
    assert done.returncode == 0, done.stderr
    assert files_in(clean) == before
    found = json.loads(done.stdout)
    assert list(found) == ["recipe", "corpora", "tasks", "leaks", "run", "estimate", "warnings", "clean"]
    assert (found["warnings"], found["leaks"], found["clean"]) == ([], [], True)
    sent = found["corpora"][0]
    assert set(sent) == {"name", "tasks", "reads", "notes", "splits"}
    assert set(sent["splits"]["train"]) == {
        *("texts", "filtered", "unannotated", "carved", "missing", "skipped", "repaired", "blank_lines_kept", "empty"),
        *(
            "first_empty",
            "repeats",
            "first_repeat",
            "lengths",
            "misaligned_spans",
            "dropped_spans",
            "words_without_tokens",
        ),
    }
    assert set(sent["splits"]["train"]["lengths"]) == {"rows", "mean", "p95", "longest", "windowed", "truncated"}
    task = found["tasks"][0]
    assert set(task) == {"task", "head", "corpus", "splits", "drift", "absent_from_training"}
    assert task["splits"]["train"]["labels"] == {"n": {"count": 8, "share": 0.5}, "p": {"count": 8, "share": 0.5}}
    assert set(task["drift"]["test"]) == {"measure", "distance", "chance", "flagged", "small_split", "moved"}
    run = found["run"]
    # 32 texts in batches of 8: 4 steps an epoch, 8 epochs in 32 steps (one whole block), 6 % of them to warm up.
    assert (run["steps"], run["draws"], run["epochs"], run["warmup_steps"], run["evaluations"]) == (32, 256, 8.0, 2, 8)
    assert [(c["corpus"], c["rate"], c["draws"], c["passes"]) for c in run["corpora"]] == [
        ("sent", 0.5, 128, 8.0),
        ("ner", 0.5, 128, 8.0),
    ]
    cost = found["estimate"]
    assert cost["total_seconds"] == pytest.approx(32 * cost["step_seconds"] + 9 * cost["evaluation_seconds"])
    assert "probing: 7 steps" in done.stderr


def test_something_wanting_ends_with_1_and_is_listed(clean: Path) -> None:
    rows = [json.loads(line) for line in (clean / "sent" / "test.jsonl").read_text().splitlines()]
    write_jsonl(
        clean / "sent" / "test.jsonl", [*rows, {"text": "TRAIN3X is", "label": "p"}, {"text": "x", "label": "q"}]
    )
    (clean / "run").mkdir()
    before = files_in(clean)
    done = check("recipe.yaml", "--no-probe", "--set", "output_dir=run", "--data-root", ".", cwd=clean)
    assert done.returncode == 1, done.stderr
    assert files_in(clean) == before
    assert "Estimate" not in done.stdout
    listing = done.stdout[done.stdout.index("3 things to look at:") :].splitlines()
    test, train = f"{clean}/sent/test.jsonl", f"{clean}/ner/train.conll"
    assert listing == [
        "3 things to look at:",
        f"! sent: 1 test text (16.7 %) also in the training split of ner; first {test}:5 = {train}:10",
        f'! sent: unknown label "q" in test (1 text, counted as wrong); first {test}:6',
        # n, p, q: 1/2, 1/2, 0 in train and 2/6, 3/6, 1/6 in test.
        "- sent: test differs from train (total variation 0.167); moved most: n 50.0 % → 33.3 %, q 0.0 % → 16.7 %; "
        "the split is small: chance alone gives about 0.23",
    ]


def test_faults_end_with_2_all_at_once_without_a_traceback(clean: Path) -> None:
    with (clean / "ner" / "train.conll").open("a", encoding="utf-8") as file:
        file.write("\nword without\ttag\tthree\n")
    (clean / "sent" / "test.jsonl").write_text('{"text": "a", "label"\n', encoding="utf-8")
    done = check("recipe.yaml", cwd=clean)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"{clean}/sent/test.jsonl:1" in done.stderr
    assert f"{clean}/ner/train.conll:49" in done.stderr
    assert "Traceback" not in done.stderr


def reported(recipe: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    prepared = prepare(make_recipe(recipe, base=folder))
    render(check_data(prepared.corpora, prepared.encoded), plan_run(prepared), None)
    return capsys.readouterr().out


def test_long_label_lists_are_cut_to_top_and_bottom(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Label 0 stands 20 times, label 1 19 times, …, label 19 once.
    rows = [{"text": f"good {i} times {n}", "label": f"kind{i:02}"} for i in range(20) for n in range(20 - i)]
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "s" / f"{split}.jsonl", [row | {"text": f"{split} {row['text']}"} for row in rows])
    data = {"source": "s", "columns": {"text": "text", "label": "label"}}
    made = {"encoder": str(tiny_encoder), "tasks": [{"name": "s", "head": "sequence_classification", "data": data}]}
    shown = reported(made, tmp_path, capsys)
    assert (LONG_LIST, TOP) == (12, 5)
    lines = [
        line.split("│")[1].strip() for line in shown.splitlines() if line.startswith("│ kind") or "more labels" in line
    ]
    top, bottom = [f"kind{i:02}" for i in range(5)], [f"kind{i:02}" for i in range(15, 20)]
    assert lines == [*top, "… 10 more labels", *bottom]
    assert "kind00 (20)" in shown
    assert "kind19 (1)" in shown
    assert "20.0" in shown  # the imbalance ratio
    assert "Nothing to look at." in shown


def test_the_printed_report_names_the_parts(
    recipe: dict[str, Any], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = reported(recipe, data, capsys)
    for title in (
        "Corpora",
        "sent (sequence_classification)",
        "ner (token_classification)",
        "Tokens a row (max_length 64)",
    ):
        assert title in shown
    assert "8 texts = 1 process × 1 accumulated × 8 a device" in shown
    # The fixture's splits repeat eight texts and four sentences: everything of validation stands in train.
    assert "8 validation texts (100.0 %) also in its own training split" in shown
    assert f'{data}/sent/validation.jsonl:1 = {data}/sent/train.jsonl:1: "the film was great"' in shown


def test_durations() -> None:
    assert [duration(s) for s in (0.352, 2.04, 42.4, 200, 7505)] == [
        "0.35 s",
        "2.0 s",
        "42 s",
        "3 min 20 s",
        "2 h 5 min",
    ]
