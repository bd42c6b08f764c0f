"""A checkpoint without some of its tasks: the others are bit by bit what they were, and nothing names those that went."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mtl_nlp.errors import UserError
from mtl_nlp.hub.checkpoint import load_model, load_tokenizer, write_checksums
from mtl_nlp.hub.drop import drop_task
from mtl_nlp.inference.predictor import Predictor
from mtl_nlp.schema import dump_yaml, read_yaml
from tests.tiny_checkpoint import build_checkpoint

DROPPED = ["sent", "topics", "mlm"]


@pytest.fixture(scope="module")
def base(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_checkpoint(tmp_path_factory.mktemp("base") / "run", tiny_encoder)
    recipe, _ = read_yaml(folder / "recipe.resolved.yaml")
    recipe["mixture"] |= {"strategy": "fixed", "rates": {"sent": 1.0, "ner": 2.0}}
    recipe["training"]["metric_for_best_model"] = "eval_topics_f1_micro"
    (folder / "recipe.resolved.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    write_checksums(folder)
    return folder


@pytest.fixture(scope="module")
def smaller(base: Path) -> Path:
    return drop_task(base, DROPPED, output=base.parent / "smaller")


def test_what_stays_is_bit_equal(base: Path, smaller: Path) -> None:
    before, after = load_file(base / "model.safetensors"), load_file(smaller / "model.safetensors")
    assert set(after) == {key for key in before if not any(key.startswith(f"heads.{name}.") for name in DROPPED)}
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert [task.name for task in load_model(smaller).tasks] == ["stars", "ner", "places", "nli", "qa", "swag"]
    assert load_tokenizer(smaller).get_vocab() == load_tokenizer(base).get_vocab()
    text = {"text": "anna is in london", "premise": "the food was good", "hypothesis": "i love the food"}
    names = ["stars", "nli"]
    old, new = (Predictor.from_pretrained(folder)(text, tasks=names)[0]["predictions"] for folder in (base, smaller))
    assert new["stars"]["value"] == pytest.approx(old["stars"]["value"], abs=1e-5)
    assert new["nli"]["label"] == old["nli"]["label"]
    assert new["nli"]["score"] == pytest.approx(old["nli"]["score"], abs=1e-5)


def test_nothing_names_what_went(base: Path, smaller: Path) -> None:
    recipe, _ = read_yaml(smaller / "recipe.resolved.yaml")
    assert [entry["name"] for entry in recipe["tasks"]] == ["stars", "ner", "places", "nli", "qa", "swag"]
    assert not {"strategy", "temperature", "rates"} & recipe["mixture"].keys()  # so it is proportional
    assert "metric_for_best_model" not in recipe["training"]
    metrics = json.loads((smaller / "metrics.json").read_text(encoding="utf-8"))
    old = json.loads((base / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["validation"] == {name: found for name, found in old["validation"].items() if name not in DROPPED}
    primary = [next(iter(found.values())) for found in metrics["validation"].values()]
    assert metrics["mean"] == pytest.approx(sum(primary) / len(primary))
    assert metrics["dropped"] == DROPPED
    assert "| topics |" not in (smaller / "README.md").read_text(encoding="utf-8")
    again = drop_task(smaller, "qa", output=base.parent / "smallest")
    assert json.loads((again / "metrics.json").read_text(encoding="utf-8"))["dropped"] == [*DROPPED, "qa"]


def test_a_shared_head_passes_to_the_next_and_no_task_refers_to_one_that_went(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    from mtl_nlp.training.finetune import finetune
    from tests.conftest import ENTITIES, SENTIMENT

    columns = {"text": "text", "label": "label"}
    one = {"head": "sequence_classification", "data": {"columns": columns}, "labels": ["negative", "positive"]}
    tasks = [
        {"name": "a", **one},
        {"name": "b", **one, "share_head_with": "a"},
        {"name": "c", **one, "share_head_with": "a"},
        {
            "name": "ner",
            "head": "token_classification",
            "data": {"columns": {"tokens": "tokens", "labels": "labels"}},
        },
    ]
    words = [{"tokens": [w for w, _ in s], "labels": [t for _, t in s]} for s in ENTITIES]
    recipe = {
        "encoder": str(tiny_encoder),
        "tasks": tasks,
        "training": {"max_steps": 1, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(tmp_path / "run"),
    }
    rows = {name: {"train": SENTIMENT, "validation": SENTIMENT[:4]} for name in "abc"}
    folder = finetune(recipe, datasets={**rows, "ner": {"train": words, "validation": words[:4]}}).folder
    smaller = drop_task(folder, "a", output=tmp_path / "smaller")
    before, after = load_file(folder / "model.safetensors"), load_file(smaller / "model.safetensors")
    assert {key for key in after if key.startswith("heads.")} == {
        key.replace("heads.a.", "heads.b.") for key in before if key.startswith("heads.")
    }
    assert torch.equal(after["heads.b.classifier.weight"], before["heads.a.classifier.weight"])
    assert [task.share_head_with for task in load_model(smaller).tasks] == [None, "b", None]
    entries = {entry["name"]: entry for entry in read_yaml(smaller / "recipe.resolved.yaml")[0]["tasks"]}
    assert "share_head_with" not in entries["b"]
    assert entries["c"]["share_head_with"] == "b"


def test_what_cannot_be_dropped_is_said(base: Path, smaller: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="task: no task sentt, x → sent, topics"):
        drop_task(base, ["sentt", "x"], output=tmp_path / "new")
    every = [task.name for task in load_model(smaller).tasks]
    with pytest.raises(UserError, match="no task would stay"):
        drop_task(smaller, every, output=tmp_path / "new")
    with pytest.raises(UserError, match="--output: is not empty"):
        drop_task(base, "sent", output=smaller)
    assert not (tmp_path / "new").exists()
