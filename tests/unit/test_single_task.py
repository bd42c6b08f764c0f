"""Exporting one task: what is written, calibration in the weights, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mtl_nlp.errors import UserError
from mtl_nlp.hub.aligned import align_weights
from mtl_nlp.hub.calibration import Calibration
from mtl_nlp.hub.checkpoint import load_model, load_tokenizer
from mtl_nlp.hub.single_task import NotEqual, export_task, largest_logit, logit_gap, sample, vanilla_logits
from mtl_nlp.model.heads import make_head
from mtl_nlp.task import Task
from mtl_nlp.training.finetune import finetune
from tests.tiny_checkpoint import build_checkpoint

make: Any = transformers.pipeline


@pytest.fixture(scope="module")
def checkpoint(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint", tiny_encoder, max_length=32)


def loaded_with(checkpoint: Path, task: str, calibration: dict[str, Any]) -> tuple[Any, Any]:
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    next(record for record in model.config.tasks if record["name"] == task)["calibration"] = calibration
    return model, tokenizer


def test_the_folder_is_a_vanilla_model(checkpoint: Path, tmp_path: Path) -> None:
    made = export_task(checkpoint, "sent", tmp_path / "sent")
    assert (made.model_class, made.pipeline, made.folded, made.left) == (
        "BertForSequenceClassification",
        "text-classification",
        [],
        [],
    )
    config = json.loads((tmp_path / "sent" / "config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert config["problem_type"] == "single_label_classification"
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert sorted(path.name for path in (tmp_path / "sent").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    # The stock pipeline cuts where the training did.
    assert make("text-classification", model=str(tmp_path / "sent")).tokenizer.model_max_length == 32
    card = (tmp_path / "sent" / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: text-classification" in card
    assert "Not in this folder" not in card
    assert str(checkpoint) not in card


def test_temperature_is_in_the_weights(checkpoint: Path, tmp_path: Path) -> None:
    loaded = loaded_with(checkpoint, "sent", {"temperature": 1.7, "abstain": 0.4})
    made = export_task(checkpoint, "sent", tmp_path / "warm", loaded=loaded)
    assert made.folded == ["temperature"]
    assert made.left == ["the calibration's abstain"]
    plain = export_task(checkpoint, "sent", tmp_path / "plain")
    kind, batch = loaded[0].kinds["sent"], sample(*loaded)
    cls = transformers.BertForSequenceClassification
    before, after = (
        vanilla_logits(cls.from_pretrained(one.folder, attn_implementation="eager").eval(), kind, batch)
        for one in (plain, made)
    )
    assert torch.allclose(after, before / 1.7, atol=1e-6)


def test_thresholds_are_in_the_bias(checkpoint: Path, tmp_path: Path) -> None:
    thresholds = {"delivery": 0.3, "food": 0.5, "staff": 0.8}
    loaded = loaded_with(checkpoint, "topics", {"thresholds": thresholds, "temperature": 0.5})
    made = export_task(checkpoint, "topics", tmp_path / "topics", loaded=loaded)
    assert made.folded == ["temperature", "thresholds"]
    kind, batch = loaded[0].kinds["topics"], sample(*loaded)
    model = transformers.BertForSequenceClassification.from_pretrained(made.folder, attn_implementation="eager")
    found = vanilla_logits(model.eval(), kind, batch).sigmoid() > 0.5
    with torch.no_grad():
        logits = loaded[0](**batch, tasks={"topics": {"rows": torch.arange(len(batch["input_ids"]))}}).logits["topics"]
    assert torch.equal(found, (logits / 0.5).sigmoid() > torch.tensor(list(thresholds.values())))
    assert "Folded into the last layer" in (made.folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": "warm"}, "numbers"),
        ({"thresholds": [0.1, 0.2]}, "one, or 3"),
        ({"thresholds": {"a": 0.1, "b": 0.2}}, "one for each of"),
        ([1.0], "temperature, thresholds, abstain"),
    ],
)
def test_a_damaged_calibration_is_refused(record: Any, told: str) -> None:
    head = make_head(Task(name="t", head="multi_label_classification", labels=["a", "b", "c"]))
    with pytest.raises(UserError, match=told):
        Calibration.of(record, head, "config.json")


def test_a_neutral_calibration_is_none() -> None:
    head = make_head(Task(name="t", head="multi_label_classification", labels=["a", "b"]))
    assert not Calibration.of({"temperature": 1.0, "thresholds": [0.5, 0.5]}, head, "")
    assert not Calibration.of(None, head, "")


def test_places_that_do_not_count_are_neither_the_largest_logit_nor_a_difference() -> None:
    none = float("-inf")
    one = torch.tensor([[1.0, -3.0, none]])
    assert largest_logit(one) == 3.0
    assert logit_gap(one, torch.tensor([[1.5, -3.0, none]])) == 0.5
    assert logit_gap(one, one) == 0.0
    assert logit_gap(one, torch.tensor([[1.0, -3.0, 0.0]])) == float("inf")
    assert logit_gap(one, torch.tensor([[1.0, float("nan"), none]])) == float("inf")


def test_logits_that_differ_are_refused_and_nothing_is_left(checkpoint: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    model.train()  # with dropout the checkpoint's own logits are others each time
    with pytest.raises(NotEqual, match=r"sent: the vanilla model's logits differ .* by up to \d"):
        export_task(checkpoint, "sent", tmp_path / "sent", loaded=(model, tokenizer))
    assert list(tmp_path.iterdir()) == []


def test_a_destination_with_something_in_it_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        export_task(checkpoint, "sent", tmp_path / "x")
    assert (tmp_path / "x" / "mine.txt").read_text() == "mine"
    export_task(checkpoint, "sent", tmp_path / "x", overwrite=True)
    assert not (tmp_path / "x" / "mine.txt").exists()


def test_big_tensors_begin_at_multiples_of_64_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {"a.bias": torch.randn(1), "b.bias": torch.randn(3), "c.weight": torch.randn(3, 32)}
    state |= {"d.weight": torch.randn(16, 16), "e": torch.randn(5).to(torch.bfloat16)}
    save_file(state, tmp_path / "x.safetensors", metadata={"format": "pt"})
    align_weights(tmp_path)
    again = load_file(tmp_path / "x.safetensors")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], value) for key, value in state.items())
    assert again["c.weight"].data_ptr() % 64 == again["d.weight"].data_ptr() % 64 == 0
    with safe_open(tmp_path / "x.safetensors", "pt") as handle:
        assert handle.metadata() == {"format": "pt"}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mtl_nlp", *words], capture_output=True, text=True, check=False)


def test_the_command_exports_all_and_scores_both_decodings(recipe: dict[str, Any], data: Path) -> None:
    folder = finetune(recipe).folder
    done = run("export", str(folder), "--task", "all", "--output", str(data / "out"), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["task"] for one in found["exports"]] == ["sent", "ner"]
    assert found["exports"][0]["validation"] is None
    scores = found["exports"][1]["validation"]
    assert scores["texts"] == 8
    assert set(scores["mtl_nlp"]) == set(scores["stock"]) == {"span_f1", "span_precision", "span_recall"}
    card = (data / "out" / "ner" / "README.md").read_text(encoding="utf-8")
    assert f"| span_f1 | {scores['mtl_nlp']['span_f1']:.4f} | {scores['stock']['span_f1']:.4f} |" in card
    # Where the data is gone, the card says so.
    shutil.rmtree(data / "ner")
    done = run("export", str(folder), "--task", "ner", "--output", str(data / "ner2"))
    assert done.returncode == 0, done.stderr
    assert "not measured: its data cannot be read" in done.stdout
    assert "not measured: its data cannot be read" in (data / "ner2" / "README.md").read_text(encoding="utf-8")
    done = run("export", str(folder), "--output", str(data / "none"))
    assert done.returncode == 2
    assert "--task: missing → sent, ner, all" in done.stderr
