"""Runs that begin at a checkpoint: what is taken over, what is kept, what is said of it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mtl_nlp.errors import UserError
from mtl_nlp.hub.checkpoint import load_model, write_checksums
from mtl_nlp.recipe import make_recipe
from mtl_nlp.schema import dump_yaml, read_yaml
from mtl_nlp.training.add_task import add_task, add_task_recipe
from mtl_nlp.training.finetune import finetune
from mtl_nlp.training.forgetting import forgetting, forgetting_rows
from mtl_nlp.training.warm_start import copy_head
from tests.conftest import SENTIMENT

TOPICS = [
    {"text": "the food was fine", "label": "food"},
    {"text": "the delivery was slow", "label": "delivery"},
    {"text": "where is my parcel", "label": "delivery"},
    {"text": "awful food and staff", "label": "food"},
] * 4
TOPIC = {"name": "topic", "head": "sequence_classification", "data": {"columns": {"text": "text", "label": "label"}}}
DATA = {"topic": {"train": TOPICS, "validation": TOPICS[:8]}}
SHORT = ["training.max_steps=3", "mixture.batch=4"]


@pytest.fixture(scope="module")
def base(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with `sent` and `ner`."""
    from tests.conftest import ENTITIES, write_conll, write_jsonl

    folder = tmp_path_factory.mktemp("base")
    for split, size in (("train", 32), ("validation", 8), ("test", 8)):
        write_jsonl(folder / "sent" / f"{split}.jsonl", SENTIMENT[:size])
        write_conll(folder / "ner" / f"{split}.conll", ENTITIES[:size])
    tasks = [
        {
            "name": "sent",
            "head": "sequence_classification",
            "data": {"source": str(folder / "sent"), "columns": {"text": "text", "label": "label"}},
        },
        {
            "name": "ner",
            "head": "token_classification",
            "data": {"source": str(folder / "ner"), "columns": {"tokens": "tokens", "labels": "labels"}},
        },
    ]
    recipe = {
        "encoder": {"name": str(tiny_encoder), "max_length": 32},
        "tasks": tasks,
        "mixture": {"batch": 8},
        "training": {"max_steps": 8, "learning_rate": 5e-3, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(folder / "run"),
    }
    return finetune(recipe).folder


def logits(folder: Path, tasks: Sequence[str] = ("sent", "ner")) -> dict[str, torch.Tensor]:
    # A copy, because weights that are mapped from a file may lie unaligned, and then round otherwise.
    model = copy.deepcopy(load_model(folder))
    ids = torch.arange(8, 48).view(4, 10)
    with torch.inference_mode():
        found = model(input_ids=ids, tasks={name: {"rows": torch.arange(4)} for name in tasks}).logits
    return dict(found)


def entries(base: Path) -> list[dict[str, Any]]:
    from mtl_nlp.schema import read_yaml

    return list(read_yaml(base / "recipe.resolved.yaml")[0]["tasks"])


def test_frozen_leaves_the_old_tasks_bit_equal_and_trains_the_new(base: Path, tmp_path: Path) -> None:
    result = add_task(base, TOPIC, "frozen", output=tmp_path / "new", sets=SHORT, datasets=DATA)
    before, after = logits(base), logits(tmp_path / "new")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [task.name for task in load_model(result.folder).tasks] == ["sent", "ner", "topic"]
    assert result.forgetting is not None
    assert set(result.forgetting["tasks"]) == {"sent", "ner"}
    assert result.forgetting["mean_change"] == 0.0
    assert all(found["change"] == 0.0 for values in result.forgetting["tasks"].values() for found in values.values())
    written = json.loads((result.folder / "metrics.json").read_text(encoding="utf-8"))
    assert written["forgetting"] == result.forgetting
    assert set(written["validation"]) == {"sent", "ner", "topic"}
    # Nothing of the old tasks is drawn.
    assert set(result.report["corpora"]) == {"topic"}


def test_a_head_that_came_from_elsewhere_is_now_the_checkpoints(base: Path, tmp_path: Path) -> None:
    sent, ner = entries(base)
    second = {**read_yaml(base / "recipe.resolved.yaml")[0], "tasks": [{**sent, "from": f"{base}#sent"}, ner]}
    second = {**second, "output_dir": str(tmp_path / "second"), "training": {**second["training"], "max_steps": 3}}
    folder = finetune(second).folder
    result = add_task(folder, TOPIC, "frozen", output=tmp_path / "new", sets=SHORT, datasets=DATA)
    before, after, oldest = logits(folder), logits(tmp_path / "new"), logits(base)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(after["sent"], oldest["sent"])
    assert set(result.report["corpora"]) == {"topic"}
    assert result.forgetting is not None
    assert set(result.forgetting["tasks"]) == {"sent", "ner"}


def test_a_task_whose_head_is_kept_has_nothing_left_to_learn(base: Path, tmp_path: Path) -> None:
    sent = entries(base)[0]
    again = {**sent, "name": "again", "share_head_with": "sent"}
    with pytest.raises(UserError, match="again: the head is one that is kept, so nothing is left to learn"):
        add_task(base, again, "frozen", output=tmp_path / "new", sets=SHORT)


def test_what_a_calibration_did_is_no_forgetting(base: Path, tmp_path: Path, caplog: Any) -> None:
    folder = tmp_path / "calibrated"
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # No probability reaches it, so every text of the old checkpoint is out of scope.
    config["tasks"][0]["calibration"] = {"temperature": 1.0, "abstain": {"threshold": 0.999999}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_checksums(folder)
    result = add_task(folder, TOPIC, "rehearsal", output=tmp_path / "new", sets=SHORT, datasets=DATA)
    assert "sent: the calibration is of the weights before this run, so it is left out" in caplog.text
    known = json.loads((base / "metrics.json").read_text(encoding="utf-8"))["validation"]
    assert result.forgetting is not None
    assert result.forgetting["tasks"]["sent"]["accuracy"]["before"] == known["sent"]["accuracy"]


@pytest.mark.parametrize("way", ["rehearsal", "distil", "lora"])
def test_the_other_ways_train_the_encoder_and_report_what_is_lost(base: Path, tmp_path: Path, way: Any) -> None:
    result = add_task(base, TOPIC, way, output=tmp_path / "new", sets=SHORT, datasets=DATA)
    before, after = logits(base), logits(tmp_path / "new")
    assert not any(torch.equal(before[name], after[name]) for name in before)
    drawn = {"rehearsal": {"sent", "ner", "topic"}, "lora": {"sent", "ner", "topic"}, "distil": {"topic"}}
    assert set(result.report["corpora"]) == drawn[way]
    assert result.forgetting is not None
    report = result.forgetting["tasks"]["sent"]["accuracy"]
    assert report["after"] == result.metrics["sent"]["accuracy"]
    assert (
        report["before"]
        == json.loads((base / "metrics.json").read_text(encoding="utf-8"))["validation"]["sent"]["accuracy"]
    )
    assert not list(result.folder.glob("lora*"))


def test_the_row_length_and_the_encoders_name_are_the_checkpoints(
    base: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    from mtl_nlp.schema import read_yaml

    result = add_task(base, TOPIC, "frozen", output=tmp_path / "new", sets=SHORT, datasets=DATA)
    encoder = read_yaml(result.folder / "recipe.resolved.yaml")[0]["encoder"]
    assert encoder["max_length"] == 32
    assert encoder["name"] == str(tiny_encoder)
    assert encoder["from"] == str(base)


def test_the_resolved_recipe_repeats_the_run(base: Path, tmp_path: Path) -> None:
    from tests.conftest import write_jsonl

    write_jsonl(tmp_path / "topic" / "train.jsonl", TOPICS)
    write_jsonl(tmp_path / "topic" / "validation.jsonl", TOPICS[:8])
    task = {**TOPIC, "data": {**TOPIC["data"], "source": str(tmp_path / "topic")}}
    add_task(base, task, "distil", output=tmp_path / "a", sets=SHORT)
    finetune(make_recipe_of(tmp_path / "a", tmp_path / "b"))
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def make_recipe_of(folder: Path, output: Path) -> Any:
    from mtl_nlp.recipe import load_recipe

    return load_recipe(folder / "recipe.resolved.yaml", output=str(output))


def test_without_old_data_the_old_tasks_are_kept_unscored(base: Path, tmp_path: Path) -> None:
    result = add_task(base, TOPIC, "distil", output=tmp_path / "new", old_data=False, sets=SHORT, datasets=DATA)
    assert set(result.metrics) == {"topic"}
    assert result.forgetting is None
    assert [task.name for task in load_model(result.folder).tasks] == ["sent", "ner", "topic"]
    with pytest.raises(UserError, match="rehearsal needs the old tasks' data"):
        add_task_recipe(base, TOPIC, "rehearsal", old_data=False, output=tmp_path / "x", memory=["topic"])


def test_training_goes_on_from_a_checkpoint(base: Path, tmp_path: Path) -> None:
    recipe = {
        "encoder": {"from": str(base)},
        "tasks": entries(base)[:1],
        "training": {"max_steps": 1, "learning_rate": 0.0, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(tmp_path / "on"),
    }
    result = finetune(recipe)
    # A step at rate 0: the same weights, less the task that is not in the recipe.
    assert torch.equal(logits(base, ["sent"])["sent"], logits(result.folder, ["sent"])["sent"])
    assert [task.name for task in load_model(result.folder).tasks] == ["sent"]


def test_labels_are_matched_by_name_in_the_checkpoints_order(base: Path, tmp_path: Path) -> None:
    [sent] = entries(base)[:1]
    rows = [{"text": "the box", "label": "neutral"}, *SENTIMENT[:4], *SENTIMENT[4:8]]
    entry = {
        **sent,
        "labels": ["neutral", "positive", "negative"],
        "data": {"columns": {"text": "text", "label": "label"}},
    }
    recipe = {
        "encoder": {"from": str(base)},
        "tasks": [entry],
        "training": {"max_steps": 1, "learning_rate": 0.0, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(tmp_path / "wider"),
    }
    result = finetune(recipe, datasets={"sent": {"train": rows, "validation": rows}})
    model = load_model(result.folder)
    assert model.tasks[0].labels == ["negative", "positive", "neutral"]
    assert torch.equal(logits(result.folder, ["sent"])["sent"][:, :2], logits(base, ["sent"])["sent"])


def test_outputs_are_copied_by_name_whatever_their_places(base: Path) -> None:
    from mtl_nlp.training.warm_start import starting_point, warm_model

    start = starting_point(make_recipe({"encoder": {"from": str(base)}, "tasks": ["demo_intent"]}))
    assert start is not None
    ner = next(task for task in start.tasks if task.name == "ner")
    turned = ner.model_copy(update={"labels": ["PER", "X", "LOC"]})  # was LOC, ORG, PER: O B-LOC I-LOC B-ORG …
    torch.manual_seed(1)
    model = warm_model(start, [turned], make_recipe({"tasks": ["demo_intent"]}).encoder_spec)
    old, new = start.model().heads["ner"].classifier.weight, model.heads["ner"].classifier.weight
    assert old.shape == new.shape
    assert torch.equal(new[[0, 1, 2, 5, 6]], old[[0, 5, 6, 1, 2]])
    assert not torch.equal(new[3:5], old[3:5])
    copy_head(model, model, "ner")  # onto itself: nothing moves
    assert torch.equal(model.heads["ner"].classifier.weight, new)


def test_the_report_by_hand() -> None:
    before = {"a": {"accuracy": 0.9, "f1_macro": 0.8}, "b": {"span_f1": 0.5}, "gone": {"accuracy": 1.0}}
    after = {"a": {"accuracy": 0.85, "f1_macro": 0.8}, "b": {"span_f1": 0.75}, "new": {"accuracy": 0.3}}
    found = forgetting(before, after)
    assert found is not None
    assert found["mean_change"] == pytest.approx((-0.05 + 0.25) / 2)
    assert found["tasks"]["b"] == {"span_f1": {"before": 0.5, "after": 0.75, "change": 0.25}}
    assert set(found["tasks"]) == {"a", "b"}
    assert forgetting_rows(found)[0] == ["a", "accuracy", 0.9, 0.85, "-0.0500"]
    assert forgetting({}, after) is None


def test_rehearsal_draws_at_its_rate(base: Path, tmp_path: Path) -> None:
    sets = ["retain.rate=0.25", "training.num_train_epochs=3", "mixture.batch=4"]
    result = add_task(base, TOPIC, "rehearsal", output=tmp_path / "new", sets=sets, datasets=DATA)
    # 3 passes over 16 texts are 48 draws, which are three quarters: 64 draws, 16 steps.
    assert result.report["steps"] == 16
    draws = {name: found["draws"] for name, found in result.report["corpora"].items()}
    assert draws["topic"] == 48
    assert draws["sent"] + draws["ner"] == 16


def test_check_reads_what_the_run_will_read(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl_nlp.cli import main
    from mtl_nlp.schema import dump_yaml
    from tests.conftest import write_jsonl

    write_jsonl(tmp_path / "topic" / "train.jsonl", TOPICS)
    task = {**TOPIC, "data": {**TOPIC["data"], "source": "topic"}}
    recipe = {"encoder": {"from": str(base)}, "tasks": [*entries(base), task], "retain": {"method": "distil"}}
    (tmp_path / "recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["mtl-nlp", "check", str(tmp_path / "recipe.yaml"), "--json", "--no-probe"])
    with pytest.raises(SystemExit) as leaving:
        main()
    told = json.loads(capsys.readouterr().out)
    assert leaving.value.code in (0, 1)
    assert [c["corpus"] for c in told["run"]["corpora"]] == ["topic"]
    splits = {c["name"]: set(c["splits"]) for c in told["corpora"]}
    assert splits["sent"] == {"validation", "test"}
    assert "train" in splits["topic"]


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"retain": {"method": "keep"}, "encoder": "x"}, "encoder.from: missing"),
    ({"retain": {"method": "distil", "rate": 0.5}}, "retain.rate: found it with distil"),
    ({"retain": {"method": "rehearsal", "temperature": 3.0}}, "retain.temperature: found it with rehearsal"),
    (
        {"retain": {"method": "rehearsal", "rate": 0.5}, "mixture": {"strategy": "uniform"}},
        "mixture.strategy: found uniform",
    ),
    (
        {"retain": {"method": "distil"}, "balancing": {"weighting": "uncertainty"}},
        "balancing.weighting: found uncertainty with distil",
    ),
    ({"lora": {}, "encoder": {"freeze": "all"}}, "encoder.freeze: found all beside lora"),
    ({"lora": {"r": 0}}, "lora.r: found 0"),
]


@pytest.mark.parametrize(("keys", "message"), FAULTS)
def test_keys_that_contradict_each_other(base: Path, keys: dict[str, Any], message: str) -> None:
    recipe = {"encoder": {"from": str(base)}, "tasks": ["demo_intent"], **keys}
    with pytest.raises(UserError, match=message):
        make_recipe(recipe)


def test_what_does_not_fit_the_checkpoint_is_named(base: Path, tmp_path: Path) -> None:
    def fault_of(**keys: Any) -> str:
        recipe = {"encoder": {"from": str(base)}, "tasks": entries(base), "output_dir": str(tmp_path / "out"), **keys}
        with pytest.raises(UserError) as error:
            finetune(recipe, datasets=DATA if any(e is TOPIC for e in recipe["tasks"]) else None)
        return str(error.value)

    sent, ner = entries(base)
    assert 'encoder.name: found "bert" beside from' in fault_of(encoder={"from": str(base), "name": "bert"})
    assert "every task of the recipe is kept" in fault_of(retain={"method": "distil"})
    assert "no task of the recipe is in the checkpoint → sent, ner" in fault_of(
        tasks=[TOPIC], retain={"method": "keep"}
    )
    assert 'sent.head: found "regression"' in fault_of(tasks=[{**sent, "head": "regression", "labels": None}, ner])
    kept = {**sent, "labels": ["negative", "positive", "other"]}
    assert "a task that is only kept has the checkpoint's labels" in fault_of(
        tasks=[kept, TOPIC], retain={"method": "keep"}
    )
    assert "cannot be loaded" in fault_of(encoder={"from": str(tmp_path / "nowhere")})
    assert "encoder: {from: CHECKPOINT} takes its encoder" in fault_of(encoder=str(base))
    with pytest.raises(UserError, match="the checkpoint has sent"):
        add_task_recipe(base, sent, output=tmp_path / "x")
    (tmp_path / "another.yaml").write_text(dump_yaml(sent), encoding="utf-8")
    with pytest.raises(UserError, match="the checkpoint has sent"):
        add_task_recipe(base, str(tmp_path / "another.yaml"), output=tmp_path / "x")
    (tmp_path / "sent.yaml").write_text(dump_yaml({**sent, "name": "fresh"}), encoding="utf-8")
    assert add_task_recipe(base, str(tmp_path / "sent.yaml"), output=tmp_path / "x").definitions[-1].name == "fresh"
    with pytest.raises(UserError, match='--way: found "magic" → frozen, lora, rehearsal, distil'):
        add_task_recipe(base, TOPIC, "magic", output=tmp_path / "x")
