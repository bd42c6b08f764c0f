"""Task files and recipes: what is refused, where a fault stands, overrides, paths, and the resolved recipe."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mtl_nlp.data.places import place_of
from mtl_nlp.errors import FaultyInput
from mtl_nlp.recipe import DEFAULT_ENCODER, Recipe, is_local, load_recipe, make_recipe
from mtl_nlp.schema import dump_yaml, read_yaml
from mtl_nlp.task import Task, find_task, load_folder, load_task

TASK = """name: mine
head: sequence_classification
data:
  source: data/mine
  columns: {text: body, label: team}
labels: [a, b]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a task file and its data."""
    (tmp_path / "mine.yaml").write_text(TASK)
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "mine" / "train.jsonl").write_text("{}\n")
    return tmp_path


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def faults_of(call: Any) -> list[str]:
    with pytest.raises(FaultyInput) as caught:
        call()
    return [str(item) for item in caught.value.faults]


def task_faults(folder: Path, text: str) -> list[str]:
    path = folder / "t.yaml"
    path.write_text(text)
    return [item.replace(str(path), "t.yaml") for item in faults_of(lambda: load_task(path))]


def test_a_task_knows_its_file_lines_and_defaults(folder: Path) -> None:
    task = load_task(folder / "mine.yaml")
    assert (task.where, task.base) == (str(folder / "mine.yaml"), folder)
    assert task.place_of("data", "columns", "label") == f"{folder / 'mine.yaml'}:5"
    assert task.metric_names == ["accuracy", "f1_macro"]
    assert task.counts_in_mean
    assert task.data.columns.roles() == {"text": ["body"], "label": ["team"]}


def test_the_files_stem_is_the_name(tmp_path: Path) -> None:
    (tmp_path / "by_stem.yaml").write_text(TASK.removeprefix("name: mine\n"))
    assert load_task(tmp_path / "by_stem.yaml").name == "by_stem"


def test_several_faults_of_a_task_are_told_at_once(tmp_path: Path) -> None:
    text = "name: 1st\nhead: sequence_classification\nlabel: [a]\ndata:\n  source: 3\n  columns: {txt: a}\n"
    told = task_faults(tmp_path, text)
    assert [item.split(":")[1] for item in told] == ["1", "5", "6", "3"]
    assert "data.columns.txt: unknown key" in told[2]
    assert told[3].endswith('(Did you mean "labels"?)')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "sequence_clasification"}, 'Did you mean "sequence_classification"?'),
        ({"labels": ["a", "a"]}, "labels has a more than once"),
        ({"labels": ["a"]}, "needs at least two"),
        ({"labels": []}, "labels is an empty list"),
        ({"labels": ["a", ""]}, "labels has an empty name"),
        ({"scheme": "iob2"}, "scheme is for token tasks"),
        ({"words": "whitespace"}, "words is for token tasks"),
        ({"mask_probability": 0.3}, "mask_probability is for masked_language_modeling"),
        ({"data": {"columns": {"text": "a"}}}, "needs the role label"),
        ({"data": {"columns": {"label": "a"}}}, "reads text or tokens or bracketed"),
        ({"data": {"validation": 0.1, "splits": {"validation": "dev"}}}, "keep one of them"),
        ({"head": "regression", "labels": ["a", "b"]}, "labels are not used by head regression"),
    ],
)
def test_what_does_not_hang_together_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Task.model_validate({"name": "mine", "head": "sequence_classification"} | change)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "change", "message"),
    [
        ({"tokens": "a", "labels": "b"}, {"labels": ["B-PER", "O"]}, "labels has the tags B-PER, O"),
        ({"tokens": "a", "spans": "b"}, {}, "give text in place of tokens"),
        ({"text": "a", "spans": "b", "labels": "c"}, {}, "reads one of them"),
        ({"text": "a", "spans": "b"}, {"words": "given"}, "words: given needs a column of words"),
    ],
)
def test_token_tasks_that_cannot_be_read(columns: dict[str, str], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Task.model_validate({"name": "mine", "head": "token_classification", "data": {"columns": columns}} | change)
    assert message in str(caught.value)


def test_the_word_splitter_follows_the_columns() -> None:
    def splitter(columns: dict[str, str], **more: Any) -> str:
        return Task(name="m", head="token_classification", data={"columns": columns}, **more).word_splitter  # type: ignore[arg-type]

    assert splitter({"tokens": "a", "labels": "b"}) == "given"
    assert splitter({"text": "a", "spans": "b"}) == "pretokenizer"
    assert splitter({"text": "a", "spans": "b"}, words="whitespace") == "whitespace"


def test_a_folders_faults_are_gathered(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.yaml").write_text("head: no_head\n")
    told = faults_of(lambda: load_folder(tmp_path))
    assert len(told) == 2
    assert "a.yaml" in told[0]
    assert "b.yaml" in told[1]


def test_a_name_is_found_beside_the_recipe_first(folder: Path) -> None:
    assert find_task("sst2", folder).parent.name == "tasks"
    (folder / "tasks").mkdir()
    (folder / "tasks" / "sst2.yaml").write_text(TASK)
    assert find_task("sst2", folder) == folder / "tasks" / "sst2.yaml"
    (folder / "sst2.yaml").write_text(TASK)
    assert find_task("sst2", folder) == folder / "sst2.yaml"
    assert find_task("tasks/sst2.yaml", folder) == folder / "tasks" / "sst2.yaml"
    assert 'no task "conll2033". Did you mean "conll2003"?' in faults_of(lambda: find_task("conll2033", folder))[0]
    assert "not found" in faults_of(lambda: find_task("no/such.yaml", folder))[0]


def test_entries_by_name_path_and_inline(folder: Path) -> None:
    text = f"tasks:\n  - mine\n  - use: mine.yaml\n    name: again\n  - name: own\n{_indented(TASK)}"
    recipe = load_recipe(recipe_file(folder, text))
    assert [task.name for task in recipe.definitions] == ["mine", "again", "own"]
    assert [task.base for task in recipe.definitions] == [folder] * 3
    assert (recipe.encoder_spec.name, recipe.seed, recipe.mixture.batch) == (DEFAULT_ENCODER, 13, 32)


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines()[1:])


def test_an_override_merges_and_faults_stand_where_they_were_written(folder: Path) -> None:
    text = "tasks:\n  - use: mine\n    loss: {weight: 0.5}\n    data:\n      columns: {label: other}\n"
    (task,) = load_recipe(recipe_file(folder, text)).definitions
    assert (task.loss.weight, task.data.columns.text, task.data.columns.label) == (0.5, "body", "other")
    (folder / "mine.yaml").write_text(TASK.replace("labels: [a, b]", "labels: [a, 1]\nauxiliary: maybe"))
    told = faults_of(lambda: load_recipe(recipe_file(folder, text.replace("0.5", "half")), ["tasks.mine.head=3"]))
    assert [item.replace(str(folder), "") for item in told] == [
        '--set: head: found 3 → a string (write it in quotes: "3")',
        '/mine.yaml:6: labels.1: found 1 → a string (write it in quotes: "1")',
        '/recipe.yaml:3: loss.weight: found "half" → a number',
        '/mine.yaml:7: auxiliary: found "maybe" → true or false',
    ]


def test_faults_of_recipe_and_tasks_come_together(folder: Path) -> None:
    text = "encodr: x\ntasks: [mine, mine, nine, 3]\nmixture: {batch: 0}\nseed: yes\n"
    told = [item.replace(str(folder), "") for item in faults_of(lambda: load_recipe(recipe_file(folder, text)))]
    for fragment in (
        "/recipe.yaml:1: encodr: unknown key",
        "/recipe.yaml:3: mixture.batch: found 0",
        '/recipe.yaml:4: seed: found "yes" → a whole number',
        'tasks.2: no task "nine"',
        "tasks.3: found 3 → a task's name, a path, or a mapping",
        'tasks: task "mine" stands 2 times',
    ):
        assert any(fragment in item for item in told), (fragment, told)
    assert len(told) == 6


def test_set_on_every_kind_of_path(folder: Path) -> None:
    path = recipe_file(folder, "tasks: [mine]\ntraining: {learning_rate: 1.0e-4}\n")
    sets = ["training.learning_rate=3e-5", "seed=5", "encoder.max_length=64", "tasks.mine.labels=[x, no]",
            "tasks.mine.data.columns.text=[t, u]", "mixture.strategy=uniform", "output_dir=out"]  # fmt: skip
    recipe = load_recipe(path, sets)
    (task,) = recipe.definitions
    assert recipe.training == {"learning_rate": 3e-5}
    assert (recipe.seed, recipe.mixture.strategy) == (5, "uniform")
    assert (recipe.encoder_spec.name, recipe.encoder_spec.max_length) == (DEFAULT_ENCODER, 64)
    assert (task.labels, task.data.columns.text) == (["x", "no"], ["t", "u"])
    assert recipe.output_dir == str(folder / "out")


def test_output_is_relative_to_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    recipe = load_recipe(recipe_file(folder, "tasks: [mine]\noutput_dir: a\n"), output="b")
    assert recipe.output_dir == str(folder / "elsewhere" / "b")


def test_plain_data_is_not_changed(folder: Path) -> None:
    data = {"tasks": [{"use": "mine", "loss": {"weight": 1.0}}], "training": {"max_steps": 3}}
    before = copy.deepcopy(data)
    make_recipe(data, base=folder, sets=["training.max_steps=5", "tasks.mine.loss.weight=2"])
    assert data == before


def test_another_source_leaves_nothing_of_the_old_one(folder: Path) -> None:
    data = {"source": "./data/mine", "columns": {"text": "body", "label": "team"}}
    recipe = make_recipe({"tasks": [{"use": "cola", "data": data}]}, base=folder)
    (task,) = recipe.definitions
    assert (task.data.config, task.data.revision, task.data.splits.given()) == (None, None, {})
    assert task.base == folder
    (hub,) = make_recipe({"tasks": [{"use": "cola", "data": {"revision": "abc"}}]}, base=folder).definitions
    assert (hub.data.config, hub.data.revision) == ("cola", "abc")


def round_trip(recipe: Recipe, folder: Path) -> Recipe:
    elsewhere = folder / "run" / "deep"
    elsewhere.mkdir(parents=True)
    recipe.write_resolved(elsewhere)
    again = load_recipe(elsewhere / "recipe.resolved.yaml")
    assert again.resolved() == recipe.resolved()
    assert read_yaml(elsewhere / "recipe.resolved.yaml")[0] == recipe.resolved()
    return again


def test_a_resolved_recipe_stands_alone(folder: Path) -> None:
    text = "tasks: [mine, sst2, squad, massive_slots]\ntraining: {learning_rate: 5e-5}\nseed: 3\noutput_dir: x\n"
    recipe = load_recipe(recipe_file(folder, text))
    again = round_trip(recipe, folder)
    for one, other in zip(recipe.definitions, again.definitions, strict=True):
        assert one.model_dump(exclude={"data"}) == other.model_dump(exclude={"data"})
    assert again.definitions[0].data.source == str(folder / "data" / "mine")
    assert again.definitions[1].data == recipe.definitions[1].data
    assert (again.output_dir, again.seed, again.training) == (None, 3, {"learning_rate": 5e-5})


def test_files_of_a_folder_and_of_a_hub_dataset_resolve_to_what_they_were(folder: Path) -> None:
    columns = {"text": "body", "label": "team"}
    local = {"source": "data/mine", "splits": {"train": "train.jsonl"}, "columns": columns}
    # A file of that name beside the recipe changes nothing: these are files inside the Hub's data set.
    (folder / "a.csv").write_text("x\n")
    hub = {"source": "owner/set", "data_files": {"train": "a.csv"}, "columns": columns}
    (folder / "train").mkdir()
    named = {"source": "owner/set", "splits": {"train": "train"}, "columns": columns}
    tasks = [
        {"name": n, "head": "sequence_classification", "data": d}
        for n, d in zip("abc", (local, hub, named), strict=True)
    ]
    again = round_trip(make_recipe({"tasks": tasks}, base=folder), folder)
    assert again.definitions[0].data.splits.train == str(folder / "data" / "mine" / "train.jsonl")
    assert again.definitions[1].data.data_files == {"train": "a.csv"}
    assert again.definitions[2].data.splits.train == "train"


def test_a_resolved_recipe_finds_its_local_copies_again(folder: Path, tmp_path: Path) -> None:
    columns = {"text": "body", "label": "team"}
    for place in ("first", "second"):
        (tmp_path / place / "short").mkdir(parents=True)
        (tmp_path / place / "short" / "train.jsonl").write_text("{}\n")
    files = str(tmp_path / "first" / "short" / "train.jsonl")
    entry = {
        "name": "long_name",
        "head": "sequence_classification",
        "data": {"splits": {"train": files}, "columns": columns},
    }
    (task,) = make_recipe({"tasks": [entry]}, base=folder).definitions
    moved = place_of(task, data_root=tmp_path / "second")
    assert moved.files == (("train", (tmp_path / "second" / "short" / "train.jsonl",)),)
    # A folder without a copy of it: its own files are taken, as those of a local source are.
    (tmp_path / "third").mkdir()
    assert place_of(task, data_root=tmp_path / "third").files == (("train", (Path(files),)),)


def test_marks_of_a_gap_that_were_written_out_stay_written_out(folder: Path) -> None:
    data = {"source": "data/mine", "columns": {"text": "body", "label": "team"}, "missing": [-1, ""]}
    recipe = make_recipe({"tasks": [{"name": "mine", "head": "regression", "data": data}]}, base=folder)
    (task,) = round_trip(recipe, folder).definitions
    assert "missing" in task.data.model_fields_set


def test_what_is_local(folder: Path) -> None:
    for source in ("data/mine", "./x", "../x", "a/*.txt", "x.jsonl", "x.conll", "x.bio", "/abs/x", "~/x"):
        assert is_local(source, folder), source
    for source in ("stanfordnlp/sst2", "train", "validation_matched"):
        assert not is_local(source, folder), source


def test_a_task_without_data_is_refused_unless_it_is_in_memory(folder: Path) -> None:
    entry = {"name": "mine", "head": "sequence_classification"}
    told = faults_of(lambda: make_recipe({"tasks": [entry]}))
    assert [item.split(": ")[1] for item in told] == ["mine.data.source", "mine.data.columns"]
    assert make_recipe({"tasks": [entry]}, memory=["mine"]).definitions[0].name == "mine"
    assert "data given for yours" in faults_of(lambda: make_recipe({"tasks": [entry]}, memory=["mine", "yours"]))[0]


def test_a_recipe_of_yaml_is_the_recipe_of_its_data(folder: Path) -> None:
    data = {"tasks": ["mine"], "mixture": {"batch": 4}, "stopping": {"patience": 2}}
    one, other = make_recipe(data, base=folder), load_recipe(recipe_file(folder, dump_yaml(data)))
    assert one.resolved() == other.resolved()
