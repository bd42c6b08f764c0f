"""`tasks list` and `tasks show`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from mtl_nlp.kinds import HEADS
from mtl_nlp.task import shipped_folder
from tests.conftest import write_jsonl

ROOT = Path(__file__).parents[2]


def mtl(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "mtl_nlp", "tasks", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)


def shipped() -> set[str]:
    """The stems of all task files that ship."""
    folder = shipped_folder()
    return {path.stem for path in (*folder.glob("*.yaml"), *(folder / "demo").glob("*.yaml"))}


def test_the_list_has_every_shipped_task_and_every_head() -> None:
    done = mtl("list")
    assert done.returncode == 0, done.stderr
    first = {line.split("│")[1].strip() for line in done.stdout.splitlines() if line.startswith("│")}
    assert shipped() <= first
    assert set(HEADS.names()) <= first
    line = next(line for line in done.stdout.splitlines() if line.startswith("│ conll2003 "))
    assert [cell.strip() for cell in line.split("│")[1:5]] == [
        "conll2003",
        "token_classification",
        "lhoestq/conll2003",
        "span_f1",
    ]


def test_the_list_as_json() -> None:
    done = mtl("list", "--json")
    found = json.loads(done.stdout)
    assert {task["name"] for task in found["tasks"]} == shipped()
    stsb = next(task for task in found["tasks"] if task["name"] == "stsb")
    assert (stsb["head"], stsb["source"], stsb["primary_metric"]) == ("regression", "nyu-mll/glue stsb", "spearman")
    assert {head["name"] for head in found["heads"]} == set(HEADS.names())
    regression = next(head for head in found["heads"] if head["name"] == "regression")
    assert (regression["columns"], regression["metrics"]) == ([["label"]], ["pearson", "spearman"])


def test_a_recipe_adds_its_own_tasks_and_those_beside_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "label": "x"}])
    body = "head: sequence_classification\ndata: {source: a.jsonl, columns: {text: text, label: label}}\n"
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text(body, encoding="utf-8")
    (tmp_path / "sst2.yaml").write_text(f"description: my own\n{body}", encoding="utf-8")
    (tmp_path / "other.yaml").write_text("a: file of something else\n", encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    inline = "{name: inner, head: regression, data: {source: a.jsonl, columns: {text: text, label: label}}}"
    recipe.write_text(f"tasks: [{inline}, conll2003]\n", encoding="utf-8")
    done = mtl("list", "--json", "--recipe", recipe)
    assert done.returncode == 0, done.stderr
    found = {task["name"]: task for task in json.loads(done.stdout)["tasks"]}
    assert set(found) == shipped() | {"inner", "mine"}
    assert list(found)[:2] == ["inner", "conll2003"]
    assert found["inner"]["file"] is None
    assert found["sst2"]["description"] == "my own"
    assert Path(found["mine"]["file"]) == tmp_path / "tasks" / "mine.yaml"


def test_show_prints_the_file_as_it_is(tmp_path: Path) -> None:
    done = mtl("show", "snips_slots", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = shipped_folder() / "snips_slots.yaml"
    assert done.stdout == path.read_text(encoding="utf-8")
    assert done.stderr.startswith("from ")
    assert done.stderr.strip().endswith("snips_slots.yaml")


def test_show_as_json_writes_defaults_out(tmp_path: Path) -> None:
    body = "head: token_classification\ndata: {source: a.jsonl, columns: {tokens: words, labels: tags}}\n"
    (tmp_path / "mine.yaml").write_text(body, encoding="utf-8")
    done = mtl("show", "mine.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["name"], found["scheme"], found["words"]) == ("mine", "iob2", "given")
    assert found["metrics"] == ["span_f1", "span_precision", "span_recall"]
    assert found["data"]["validation"] == 0.1


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    done = mtl("show", "snips_slot")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'no task "snips_slot". Did you mean "snips_slots"?' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_path_that_leads_nowhere_is_named() -> None:
    done = mtl("show", "nowhere/x.yaml", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'task file "nowhere/x.yaml" not found' in done.stderr
