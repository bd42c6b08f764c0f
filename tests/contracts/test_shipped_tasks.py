"""Every task file that ships runs: on a small copy of what the Hub has, and of what people keep on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.data.sources import read_corpora
from mtl_nlp.recipe import load_recipe, make_recipe
from mtl_nlp.task import Task, load_folder, load_task, shipped_folder
from mtl_nlp.training.finetune import finetune
from mtl_nlp.training.score import score_checkpoint
from tests.conftest import write_jsonl

from .hub_copies import SIZES, coded_copy, hub_copy, local_copy, normal_rows, rows_of, text_of

TASKS = Path(__file__).parents[2] / "tasks"
FILES = sorted(TASKS.glob("*.yaml"))
RECIPES = sorted((Path(__file__).parents[2] / "scripts" / "recipes").glob("*.yaml"))
# Task files with `names` or `labels` say what an integer code means; the others take the names of their source.
CODED = [
    path
    for path in FILES
    if (task := load_task(path)).kind.annotation in ("label", "labels", "tags")
    and (task.data.names or (task.labels and task.kind.annotation != "tags"))
]


def by_stem(path: Path) -> str:
    return path.stem


def recipe_of(task: Task, encoder: Path, folder: Path) -> dict[str, Any]:
    return {
        "encoder": str(encoder),
        "tasks": [task.name],
        "mixture": {"batch": 8},
        "training": {"max_steps": 2, "eval_strategy": "no", "save_strategy": "no"},
        "output_dir": str(folder / "run"),
    }


def test_every_shipped_file_is_walked() -> None:
    assert shipped_folder().resolve() == TASKS.resolve()
    assert len(FILES) == len([path for path in TASKS.iterdir() if path.suffix in (".yaml", ".yml")]) >= 30
    tasks = load_folder(TASKS)
    assert [task.name for task in tasks] == [path.stem for path in FILES]
    assert len({task.head for task in tasks}) == 6


@pytest.mark.parametrize("path", FILES, ids=by_stem)
def test_it_trains_and_is_scored_on_a_copy_of_the_hubs(path: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    task = load_task(path)
    hub_copy(task, tmp_path / "data" / task.name)
    result = finetune(recipe_of(task, tiny_encoder, tmp_path), data_root=tmp_path / "data")
    assert result.report["steps"] == 2
    assert list(result.metrics[task.name]) == task.metric_names
    assert result.mean == result.metrics[task.name][task.metric_names[0]]
    scores, mean = score_checkpoint(result.folder, split="test")
    assert list(scores[task.name]) == task.metric_names
    assert mean is not None
    assert -1.0 <= mean <= 1.0


@pytest.mark.parametrize("path", FILES, ids=by_stem)
def test_names_on_disk_give_the_same_corpus(path: Path, tmp_path: Path) -> None:
    task = load_task(path)
    recipe = make_recipe({"tasks": [task.name], "output_dir": "run"})
    hub_copy(task, tmp_path / "hub" / task.name)
    local_copy(task, tmp_path / "local" / str(task.data.source).split("/")[-1])
    one, other = (read_corpora(recipe, data_root=tmp_path / form)[0] for form in ("hub", "local"))
    assert one.tasks[0].labels == other.tasks[0].labels
    assert normal_rows(one) == normal_rows(other)
    assert {split: len(rows) for split, rows in normal_rows(one).items()} == {"train": 24, "validation": 6, "test": 6}
    if task.labels is not None:
        assert one.tasks[0].labels == task.labels


@pytest.mark.parametrize("path", CODED, ids=by_stem)
def test_bare_codes_mean_the_names_that_the_file_gives(path: Path, tmp_path: Path) -> None:
    task = load_task(path)
    recipe = make_recipe({"tasks": [task.name], "output_dir": "run"})
    local_copy(task, tmp_path / "names" / task.name)
    coded_copy(task, tmp_path / "codes" / task.name)
    one, other = (read_corpora(recipe, data_root=tmp_path / form)[0] for form in ("names", "codes"))
    assert normal_rows(one) == normal_rows(other)


@pytest.mark.parametrize("family", ["atis", "snips", "massive"])
@pytest.mark.parametrize("which", [0, -1], ids=["hub", "local"])
def test_intent_and_slots_of_one_source_share_a_corpus(family: str, which: int, tmp_path: Path) -> None:
    tasks = [load_task(TASKS / f"{family}_{part}.yaml") for part in ("intent", "slots")]
    folder = tmp_path / str(tasks[0].data.source).split("/")[-1]
    for split in SIZES:
        both = zip(*(rows_of(task, split, which, 0) for task in tasks), strict=True)
        write_jsonl(folder / f"{split}.jsonl", [one | other for one, other in both])
    recipe = make_recipe({"tasks": [task.name for task in tasks]})
    (corpus,) = read_corpora(recipe, data_root=tmp_path)
    assert corpus.task_names == [f"{family}_intent", f"{family}_slots"]
    assert (corpus.reads, len(corpus.splits["train"]), corpus.notes) == ("tokens", 24, [])
    row = corpus.splits["train"].data[0]
    assert row["tokens"] == text_of(0).split()
    assert row[f"@{family}_intent"] is not None
    assert row[f"@{family}_slots"][:3] == ["O", row[f"@{family}_slots"][1], "I" + row[f"@{family}_slots"][1][1:]]


@pytest.mark.parametrize("path", RECIPES, ids=by_stem)
def test_shipped_recipes_load(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.definitions
    assert load_recipe(path, ["seed=7"]).seed == 7
