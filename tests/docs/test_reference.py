"""The pages name what the code has: no key, metric, option, file or public name is missing, and none is left over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

import mtl_nlp
from mtl_nlp.balancing import AGGREGATORS, WEIGHTINGS
from mtl_nlp.cli import commands  # noqa: F401 - registers the commands
from mtl_nlp.cli.app import app
from mtl_nlp.comparison import CompareSpec
from mtl_nlp.conditioning import Conditioning
from mtl_nlp.data.strategies import STRATEGIES
from mtl_nlp.distil import Distil
from mtl_nlp.inference.predictor import Predictor
from mtl_nlp.kinds import HEADS, head_kind
from mtl_nlp.metrics import ALIASES, METRICS
from mtl_nlp.recipe import (
    Balancing,
    Budget,
    EncoderSpec,
    Lora,
    MixtureSpec,
    RecipeFile,
    Retain,
    SchedulePointSpec,
    Stopping,
    make_recipe,
)
from mtl_nlp.schema import parse_yaml
from mtl_nlp.task import load_folder, shipped_folder
from mtl_nlp.training.arguments import DEFAULTS, OWN, REFUSED
from mtl_nlp.training.finetune import Result, finetune
from tests.contracts.examples import example_recipe, example_task, write_example

from .pages import ROOT, blocks, code, section, table
from .runner import shape

README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "reference"
RECIPE = REFERENCE / "recipe.md"
MODELS: dict[str, type[BaseModel]] = {
    "Top level": RecipeFile,
    "encoder": EncoderSpec,
    "mixture": MixtureSpec,
    "balancing": Balancing,
    "stopping": Stopping,
    "schedule": SchedulePointSpec,
    "budget": Budget,
    "conditioning": Conditioning,
    "lora": Lora,
    "retain": Retain,
    "distil": Distil,
    "compare": CompareSpec,
}


def keys(page: Path, title: str) -> dict[str, list[str]]:
    """The table under a heading: what its first cells name → the other cells."""
    return {name: row[1:] for row in table(section(page, title)) for name in code(row[0])}


def test_the_readme_lists_the_public_names() -> None:
    names = list(keys(README, "What is public"))
    assert sorted(names) == sorted(mtl_nlp.__all__)


def test_the_readme_lists_the_tasks_that_ship() -> None:
    tasks = load_folder(shipped_folder())
    assert len(tasks) == 30, "the README says thirty"
    assert "Thirty task files" in section(README, "What ships")
    text = section(README, "What ships")
    for task in tasks:
        family = re.sub(r"_(intent|slots|sentiment|emotion|irony|offensive)$", "", task.name)
        assert re.search(rf"\b{family}\b", text), task.name


def test_the_numbers_of_the_readme_come_from_a_script() -> None:
    measured = section(README, "Measured")
    assert measured.strip().startswith("<!-- headline -->")
    assert measured.strip().endswith("<!-- /headline -->")


@pytest.mark.parametrize("title", MODELS)
def test_every_recipe_key_is_explained(title: str) -> None:
    documented = keys(RECIPE, title)
    fields = {field.alias or name: field for name, field in MODELS[title].model_fields.items()}
    assert list(documented) == list(fields)
    for name, (meaning, default, _) in documented.items():
        assert meaning, name
        value = fields[name].get_default(call_default_factory=True)
        if isinstance(value, bool | int | float | str):
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            assert code(default) == [shown], f"{name}: the default is {shown}"


def test_the_examples_of_recipe_keys_are_valid() -> None:
    for title, model in MODELS.items():
        for name, cells in keys(RECIPE, title).items():
            data, _ = parse_yaml(code(cells[-1])[0], name)
            assert list(data) == [name]
            if title == "Top level":
                start = {"encoder": {"from": "runs/first"}} if name == "retain" else {}
                assert make_recipe({"tasks": ["demo_intent"], **start, **data})
            else:
                needed: dict[str, Any] = {
                    "schedule": {"at": 0.0},
                    "conditioning": {"kind": "lora"},
                    "distil": {"teachers": {"sst2": "runs/sst2"}},
                }.get(title, {})
                assert model.model_validate({**needed, **data}, strict=True)


def test_the_strategies_are_named() -> None:
    meaning = keys(RECIPE, "mixture")["strategy"][0]
    assert sorted(code(meaning)) == STRATEGIES.builtin()
    choosing = ROOT / "docs" / "how-to" / "choose-a-mixture.md"
    assert sorted(keys(choosing, "What the strategies do")) == STRATEGIES.builtin()


def test_the_balancing_methods_and_their_settings_are_those_of_the_code() -> None:
    rows = keys(RECIPE, "balancing")
    named = {"weighting": WEIGHTINGS, "gradients": AGGREGATORS}
    shown = table(section(RECIPE, "Settings of methods"))
    found = [(code(row[0])[0], code(row[1])[0], code(row[-1])[0]) for row in shown]
    expected = []
    for key, registry in named.items():
        names = [name for name in registry.names() if "test" not in name]
        assert set(names) <= set(code(rows[key][0]))
        for name in names:
            fields = registry.get(name).Settings.model_fields
            expected += [(name, setting, str(field.default)) for setting, field in fields.items()]
    assert sorted(found) == sorted(expected)


def test_training_arguments_are_those_of_the_code() -> None:
    assert list(keys(RECIPE, "Our own fields")) == list(OWN)
    defaults = {name: code(cells[-1])[0] for name, cells in keys(RECIPE, "Our defaults").items()}
    assert defaults == {name: str(value) for name, value in DEFAULTS.items()}
    assert set(keys(RECIPE, "Refused fields")) == set(REFUSED)


def test_every_metric_is_explained() -> None:
    page = REFERENCE / "metrics.md"
    rows = [
        [f"`{m.name}`", ", ".join(m.kinds), m.bounds, "higher" if m.higher_better else "lower", m.description]
        for m in METRICS.values()
    ]
    assert table(page.read_text(encoding="utf-8")) == rows
    assert all(f"`{alias}`" in page.read_text(encoding="utf-8") for alias in ALIASES)


def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The commands that do something, by their full name."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for inner in command.commands.values():
        yield from leaves(inner, f"{name} {inner.name}")


COMMANDS = dict(leaves(typer.main.get_command(app), "mtl-nlp"))


def test_every_command_is_explained() -> None:
    text = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^## (mtl-nlp .+)$", text, flags=re.M)) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    options = [parameter for parameter in COMMANDS[name].params if parameter.param_type_name == "option"]
    documented = keys(REFERENCE / "cli.md", name)
    assert sorted(documented) == sorted(option.opts[0] for option in options)
    for option in options:
        if isinstance(option.default, str | int | Path) and not isinstance(option.default, bool):
            assert code(documented[option.opts[0]][1]) == [str(option.default)], option.name


@pytest.fixture(scope="module")
def every_kind(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A checkpoint with a task of each kind that ships, `checkpoint-N` beside it."""
    folder = tmp_path_factory.mktemp("kinds")
    kinds = [head_kind(name) for name in HEADS.names()]
    tasks = [example_task(kind, write_example(folder / kind.name, kind), kind.name) for kind in kinds]
    recipe = example_recipe(tiny_encoder, tasks, folder / "run")
    recipe["training"] |= {"save_strategy": "steps", "save_steps": 2}
    return finetune(recipe)


def test_every_file_of_a_checkpoint_is_explained(every_kind: Result) -> None:
    page = REFERENCE / "checkpoint.md"
    found = {path.name for path in every_kind.folder.iterdir() if path.is_file()}
    assert set(keys(page, "The model")) == found
    state = {path.name for path in (every_kind.folder / "checkpoint-2").iterdir()}
    assert set(keys(page, "checkpoint-N")) == state


def test_the_answer_of_every_head_is_shown(every_kind: Result) -> None:
    shown = {
        name: code(cells[0])[0] for name, cells in keys(REFERENCE / "prediction.md", "The answer of each head").items()
    }
    predictor = Predictor.from_pretrained(every_kind.folder, knowledge=[{"id": "box", "answer": "a box"}])
    assert set(shown) == {task.name for task in predictor.tasks}
    row = {
        "text": "anna is in london",
        "question": "who ?",
        "context": "anna is in london",
        "choices": ["a box", "a film"],
        "query": "who ?",
        "candidates": ["a box", "a film"],
    }
    answers = predictor(row)[0]["predictions"]
    for name, example in shown.items():
        assert shape(json.loads(example)) == shape(answers[name]), name
    documented = json.loads(shown["token_classification"])["entities"][0]
    entities = [e for answer in predictor([row] * 1) for e in answer["predictions"]["token_classification"]["entities"]]
    assert all(shape(entity) == shape(documented) for entity in entities)


def test_the_architecture_names_what_exists() -> None:
    tree, layers = [block.text for block in blocks(ROOT / "docs" / "architecture.md") if block.language == "text"]
    folder = ROOT
    for line in tree.splitlines():
        name, indent = line.split()[0], len(line) - len(line.lstrip())
        if indent == 0:
            folder = ROOT
        elif indent == 2:
            folder = ROOT / "mtl_nlp"
        assert (folder / name).exists(), line
        if name.endswith("/"):
            folder = folder / name
    contract = re.search(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M | re.S)
    assert contract is not None
    assert layers.split("\n")[:-1] == re.findall(r'"(.+)"', contract[1])


def test_a_heads_annotations_are_those_of_the_code() -> None:
    from mtl_nlp.kinds import ANNOTATIONS

    tables = section(ROOT / "docs" / "how-to" / "add-a-head.md", "What a head gets and gives").split("**annotation**")
    assert [code(row[0])[0] for row in table(tables[1])] == list(ANNOTATIONS)
