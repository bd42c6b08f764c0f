"""`mtl-nlp compare` as a process: killed and gone on with, or started several times, it ends with the same comparison."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mtl_nlp.analysis.compare import compare
from mtl_nlp.errors import UserError
from mtl_nlp.schema import dump_yaml
from mtl_nlp.training.predictions import read_predictions

ROOT = Path(__file__).resolve().parents[2]
TIMES = ("seconds", "texts_per_second", "minutes", "inference_ratio")


def command(folder: Path, *arguments: str) -> tuple[list[str], dict[str, Any]]:
    # As many threads as here: the environment is a part of what is compared.
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return [sys.executable, "-m", "mtl_nlp", "compare", *arguments], {"cwd": folder, "env": env, "text": True}


def run(folder: Path, *arguments: str) -> Any:
    words, options = command(folder, *arguments)
    return subprocess.run(words, capture_output=True, timeout=500, **options)


def untimed(data: Any) -> Any:
    """The same without what a clock gave."""
    if isinstance(data, dict):
        return {key: untimed(value) for key, value in data.items() if key not in TIMES}
    return [untimed(value) for value in data] if isinstance(data, list) else data


@pytest.fixture
def file(recipe: dict[str, Any], data: Path) -> Path:
    """A recipe with a variant and two learning rates."""
    recipe["training"] |= {"disable_tqdm": True, "save_strategy": "steps", "save_steps": 2}
    recipe["compare"] = {
        "seeds": 2,
        "learning_rates": [1e-3, 3e-3],
        "variants": {"even": {"mixture": {"strategy": "uniform"}}},
    }
    (data / "recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    return data / "recipe.yaml"


def test_killed_and_gone_on_with(file: Path) -> None:
    folder = file.parent
    words, options = command(folder, "recipe.yaml", "--output", "killed")
    # After the third finished trial, in the middle of what follows.
    child = subprocess.Popen(
        words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True, **options
    )
    end = time.monotonic() + 300
    while len(list((folder / "killed" / "rates").glob("*"))) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    started = {path.name: path.stat().st_mtime_ns for path in (folder / "killed" / "rates").iterdir()}
    assert len(started) >= 3

    planned = run(folder, "recipe.yaml", "--output", "killed", "--plan", "--json")
    states = {
        (row["side"], row["learning_rate"]): row["state"] for row in json.loads(planned.stdout) if row["seed"] == "13"
    }
    assert states["joint", "0.001"] == "done"
    assert states["even", "0.003"] == "to do"

    again = run(folder, "recipe.yaml", "--output", "killed")
    assert again.returncode == 0, again.stderr[-2000:]
    assert re.search(r"run [4-9] of 12: ", again.stderr)
    assert "run 1 of 12" not in again.stderr
    assert "verdict: " in again.stdout
    whole = compare(file, output=folder / "whole")
    killed = json.loads((folder / "killed" / "comparison.json").read_text(encoding="utf-8"))
    assert untimed(killed) == untimed(whole.data)
    assert killed["variants"] == whole.data["variants"]
    check_content(whole.folder, whole.data)
    done = run(folder, "recipe.yaml", "--output", "killed", "--json")
    assert "run " not in done.stderr.replace("comparing 8 runs", ""), "nothing is trained twice"
    assert untimed(json.loads(done.stdout)) == untimed(killed)


def test_several_processes_share_the_runs_of_one_comparison(file: Path) -> None:
    folder = file.parent
    words, options = command(folder, "recipe.yaml", "--output", "shared")
    children = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) for _ in range(3)]
    told = [child.communicate(timeout=500) for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], told
    trained = [len(re.findall(r"run \d+ of 12: ", errors)) for _, errors in told]
    # Eight runs and three learning rates that lost: the one that won becomes the run of the first seed. Each once.
    assert sum(trained) == 12
    assert sum(count > 0 for count in trained) >= 2
    assert len({output.split("verdict: ")[1] for output, _ in told}) == 1
    alone = compare(file, output=folder / "alone")
    shared = json.loads((folder / "shared" / "comparison.json").read_text(encoding="utf-8"))
    assert untimed(shared) == untimed(alone.data)
    check_content(folder / "shared", shared)


def check_content(folder: Path, data: dict[str, Any]) -> None:
    """Scores are those of the prediction files; both sides had the same budget; weights of the first seed stay."""
    assert [variant["name"] for variant in data["variants"]] == ["joint", "single", "even"]
    assert len(data["runs"]) == 8
    for one in data["runs"]:
        place = folder / one["folder"]
        assert (place / "model.safetensors").exists() == (one["seed"] == 13)
        for task, scores in one["test"].items():
            lines = read_predictions(place / "predictions" / f"test-{task}.jsonl")
            assert len(lines) == data["tasks"][task]["test_rows"]
            if task == "sent":
                right = sum(line["gold"] == line["predicted"] for line in lines) / len(lines)
                assert scores["accuracy"] == pytest.approx(right, abs=1e-5)
    joint = next(one for one in data["runs"] if one["variant"] == "joint")
    alone = [one for one in data["runs"] if one["variant"] == "single" and one["seed"] == joint["seed"]]
    # 6 steps of 8 texts, of 32 and 24: 3.43 → 3 and 2.57 → 3 steps.
    assert (joint["cost"]["steps"], [one["cost"]["steps"] for one in alone]) == (6, [3, 3])
    for result in data["results"]:
        mine = [one["test"][result["task"]] for one in data["runs"] if one["variant"] == result["variant"]]
        values = [scores[result["metric"]] for scores in mine]
        assert result["mean"] == pytest.approx(sum(values) / 2, abs=1e-5)
        assert result["low"] <= result["difference"] <= result["high"]
        assert result["verdict"] in ("helps", "harms", "no difference at this size")
    page = (folder / "comparison.md").read_text(encoding="utf-8")
    assert "(chosen on validation)" in page
    assert page.count("no difference at this size") >= 2


def test_a_comparison_grows_and_refuses_another_recipe(recipe: dict[str, Any], data: Path) -> None:
    recipe["training"] |= {"disable_tqdm": True, "max_steps": 2}
    first = compare(recipe, seeds=2, output=data / "out", keep="none")
    assert not list(first.folder.rglob("*.safetensors"))
    times = {path: path.stat().st_mtime_ns for path in first.folder.glob("runs/*/run.json")}
    recipe["compare"] = {"variants": {"even": {"mixture": {"strategy": "uniform"}}}}
    second = compare(recipe, seeds=2, output=data / "out")
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert [entry["variant"] for entry in second.data["overall"]] == ["joint", "even"]
    assert second.result("sent", "joint")["mean"] == first.result("sent", "joint")["mean"]
    recipe["training"]["head_learning_rate"] = 0.5
    recipe["training"]["weight_decay"] = 0.5
    with pytest.raises(UserError) as caught:
        compare(recipe, seeds=2, output=data / "out")
    assert str(caught.value).count("training.head_learning_rate: 0.5, but it was trained with 'absent'") == 8
    assert str(caught.value).count("training.weight_decay: 0.5") == 8


def test_data_in_memory(recipe: dict[str, Any], data: Path) -> None:
    from tests.conftest import SENTIMENT

    tasks = [{"name": name, "head": "sequence_classification"} for name in ("sent", "mood")]
    rows = {"train": SENTIMENT[:16], "validation": SENTIMENT[:8], "test": SENTIMENT[:12]}
    training = {**recipe["training"], "max_steps": 2, "disable_tqdm": True}
    found = compare(
        {**recipe, "tasks": tasks, "training": training},
        datasets={"sent": rows, "mood": rows},
        seeds=[1, 2],
        output=data / "out",
    )
    assert found.data["tasks"]["mood"]["test_rows"] == 12
    assert found.data["seeds"] == [1, 2]


def test_faults_end_with_code_2(file: Path) -> None:
    folder = file.parent
    odd = run(folder, "recipe.yaml", "--seeds", "1", "--set", "training.learning_rat=1")
    assert odd.returncode == 2
    assert "--seeds: found 1 → two seeds or more" in odd.stderr
    assert "training.learning_rat" in odd.stderr
    assert "Traceback" not in odd.stderr
    (folder / "mine").mkdir()
    (folder / "mine" / "letter.txt").touch()
    other = run(folder, "recipe.yaml", "--output", "mine")
    assert other.returncode == 2
    assert "is not empty and holds no comparison" in other.stderr
    helped = run(folder, "--help")
    assert "mtl-nlp compare scripts/recipes/compare.yaml --seeds 5" in helped.stdout


@pytest.mark.slow
def test_fusions_are_variants(recipe: dict[str, Any], data: Path) -> None:
    recipe["training"] |= {"disable_tqdm": True, "save_strategy": "steps", "save_steps": 2}
    recipe["compare"] = {
        "seeds": 2,
        "variants": {
            "both": {"fuse": {"method": "ensemble"}},
            "merged": {"fuse": {"method": "ties", "coefficients": [0.5], "density": 0.4}},
            "taught": {"fuse": {"method": "distil"}},
        },
    }
    folder = compare(recipe, output=data / "compared")
    found = json.loads((data / "compared" / "comparison.json").read_text(encoding="utf-8"))
    assert folder is not None
    kinds = {one["name"]: one["kind"] for one in found["variants"]}
    assert [kinds[name] for name in ("both", "merged", "taught")] == ["fusion"] * 3
    runs = {
        (run["variant"], run["seed"]): run for run in found["runs"] if run["variant"] in ("both", "merged", "taught")
    }
    assert len(runs) == 6
    for (variant, _), run in runs.items():
        assert run["cost"]["parameters"] > 0
        assert (run["cost"]["encoder_tokens"] > 0) == (variant == "taught")
        for task in ("sent", "ner"):
            lines = read_predictions(data / "compared" / run["folder"] / "predictions" / f"test-{task}.jsonl")
            assert all("gold" in line and "predicted" in line for line in lines)
            assert lines
    costs = found["costs"]
    assert {name: cost["models"] for name, cost in costs.items()} == {
        "joint": 1,
        "single": 2,
        "both": 3,
        "merged": 1,
        "taught": 1,
    }
    # A student is as large as the joint model: what training left on the way is not counted, and not kept.
    assert costs["taught"]["parameters"] == costs["joint"]["parameters"]
    assert abs(costs["taught"]["bytes"] - costs["joint"]["bytes"]) < 2000
    left = [path.name for path in (data / "compared" / "runs" / "taught-13").iterdir() if path.is_dir()]
    assert left == ["predictions"]
    assert costs["both"]["parameters"] == costs["joint"]["parameters"] + costs["single"]["parameters"]


def test_settings_of_a_fusion_are_checked_before_training(recipe: dict[str, Any], data: Path) -> None:
    variants = {
        "merged": {"fuse": {"method": "ties", "densty": 0.4}},
        "both": {"fuse": {"method": "ensemble", "tags": "x"}},
    }
    with pytest.raises(UserError) as caught:
        compare(recipe | {"compare": {"seeds": 2, "variants": variants}}, output=data / "compared")
    assert "fuse.densty" in str(caught.value)
    assert "fuse.tags" in str(caught.value)
    assert not (data / "compared").exists()
