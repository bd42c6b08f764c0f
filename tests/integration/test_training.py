"""A run as a whole: what is logged, what stops it, which checkpoint is kept, and that a resolved recipe repeats it."""

from __future__ import annotations

import gc
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from mtl_nlp.errors import FaultyInput
from mtl_nlp.hub.checkpoint import load_model
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.recipe import load_recipe, make_recipe
from mtl_nlp.schema import dump_yaml
from mtl_nlp.training.arguments import OwnArguments
from mtl_nlp.training.finetune import build_trainer, finetune
from mtl_nlp.training.optimizer import learning_rates
from mtl_nlp.training.prepare import prepare
from mtl_nlp.training.score import score_checkpoint


def with_training(recipe: dict[str, Any], **training: Any) -> dict[str, Any]:
    return {**recipe, "training": {**recipe["training"], **training}}


def trained(recipe: dict[str, Any]) -> Any:
    """A trainer after its run."""
    made = make_recipe(recipe)
    trainer = build_trainer(prepare(made))
    trainer.train()
    return trainer


def test_loss_and_share_of_each_task_are_logged(recipe: dict[str, Any]) -> None:
    history = trained(recipe).state.log_history
    lines = [line for line in history if "loss" in line]
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line in lines:
        assert line["share_sent"] + line["share_ner"] == pytest.approx(1.0)
        # One step's loss is Σ share · mean loss; over two steps the shares move little here.
        assert line["loss"] == pytest.approx(
            line["share_sent"] * line["loss_sent"] + line["share_ner"] * line["loss_ner"], rel=0.05
        )


def test_a_runs_model_is_gone_when_the_run_is_over(recipe: dict[str, Any]) -> None:
    def models() -> int:
        return sum(type(thing) is MultiTaskModel for thing in gc.get_objects())

    gc.collect()
    before = models()
    trainer = trained(recipe)
    assert models() > before
    del trainer
    result = finetune(with_training(recipe, save_strategy="no"))
    assert result.folder.is_dir()
    assert models() == before, "what the trainer before it left behind is gone with it"


def test_loader_processes_stay_for_all_epochs_and_end_with_the_run(recipe: dict[str, Any]) -> None:
    seen: list[set[int]] = []

    class Watch(TrainerCallback):
        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            seen.append({process.pid or 0 for process in multiprocessing.active_children()})

    more = {"dataloader_num_workers": 2, "num_train_epochs": 2, "max_steps": -1, "save_strategy": "no"}
    trainer = build_trainer(prepare(make_recipe(with_training(recipe, **more))), callbacks=[Watch()])
    before = set(multiprocessing.active_children())
    trainer.train()
    assert len(seen) == 2
    assert len(seen[0]) >= 2
    assert seen[0] == seen[1]
    assert set(multiprocessing.active_children()) == before


def test_shares_follow_the_mixture(recipe: dict[str, Any]) -> None:
    rates = {"strategy": "fixed", "rates": {"sent": 3, "ner": 1}, "batch": 8}
    history = trained({**recipe, "mixture": rates}).state.log_history
    shares = [line["share_sent"] for line in history if "loss" in line]
    assert sum(shares) / len(shares) == pytest.approx(0.75, abs=0.1)


def test_equal_shares_when_asked_for(recipe: dict[str, Any]) -> None:
    mixture = {"strategy": "fixed", "rates": {"sent": 3, "ner": 1}, "batch": 24, "bucketing": False}
    history = trained({**recipe, "mixture": mixture, "balancing": {"shares": "equal"}}).state.log_history
    assert [line["share_sent"] for line in history if "loss" in line] == pytest.approx([0.5] * 3)


def test_early_stopping_on_eval_mean_stops_the_run(recipe: dict[str, Any]) -> None:
    settings = with_training(
        recipe,
        max_steps=40,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        learning_rate=1e-12,
    )
    result = finetune({**settings, "stopping": {"patience": 2}})
    # With a learning rate of nothing no evaluation beats the first: steps 2, then 4 and 6 without a gain.
    assert result.report["steps"] == 6


def test_the_best_checkpoint_by_a_named_metric_is_kept(recipe: dict[str, Any]) -> None:
    settings = with_training(
        recipe,
        max_steps=12,
        eval_strategy="steps",
        eval_steps=3,
        save_strategy="steps",
        save_steps=3,
        load_best_model_at_end=True,
        metric_for_best_model="eval_sent_accuracy",
        save_total_limit=None,
        learning_rate=5e-3,
    )
    trainer = trained(settings)
    scores = {line["step"]: line["eval_sent_accuracy"] for line in trainer.state.log_history if "eval_mean" in line}
    assert list(scores) == [3, 6, 9, 12]
    best = min(step for step, score in scores.items() if score == max(scores.values()))
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{best}")
    kept = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in trainer.model.state_dict().items())


def test_an_unknown_metric_for_the_best_model_is_refused_before_training(recipe: dict[str, Any]) -> None:
    with pytest.raises(FaultyInput, match="eval_sent_accuracy"):
        finetune(with_training(recipe, metric_for_best_model="eval_loss"))


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("per_device_train_batch_size", 8, "mixture.batch"),
        ("seed", 1, "recipe's own `seed`"),
        ("group_by_length", True, "gone"),
        ("evaluation_strategy", "epoch", "eval_strategy"),
        ("learning_rat", 1e-3, "learning_rate"),
        ("learning_rate", "5e-5", "without quotes"),
        ("num_train_epochs", "two", "num_train_epochs"),
        ("head_learning_rate", -1, "above 0"),
    ],
)
def test_arguments_that_contradict_the_road_are_refused_by_name(
    recipe: dict[str, Any], name: str, value: Any, cure: str
) -> None:
    with pytest.raises(FaultyInput) as caught:
        finetune(with_training(recipe, **{name: value}))
    assert f"training.{name}" in str(caught.value)
    assert cure in str(caught.value)


def test_layer_wise_rates_by_hand(recipe: dict[str, Any]) -> None:
    model = build_trainer(prepare(make_recipe(recipe))).model
    rates = learning_rates(model, 1.0, OwnArguments(head_learning_rate=7.0, layer_lr_decay=0.5))
    assert rates["heads.sent.classifier.weight"] == 7.0
    assert rates["encoder.encoder.layer.1.output.dense.weight"] == 1.0
    assert rates["encoder.encoder.layer.0.output.dense.weight"] == 0.5
    assert rates["encoder.embeddings.word_embeddings.weight"] == 0.25


def test_frozen_layers_do_not_move(recipe: dict[str, Any]) -> None:
    encoder = {"name": recipe["encoder"], "freeze": 1}
    made = make_recipe({**recipe, "encoder": encoder})
    trainer = build_trainer(prepare(made))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    moved = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith(("encoder.embeddings", "encoder.encoder.layer.0")) for name in moved)
    assert any(name.startswith("encoder.encoder.layer.1") for name in moved)
    assert "heads.sent.classifier.weight" in moved


def test_the_resolved_recipe_repeats_the_run_exactly(recipe: dict[str, Any], data: Path) -> None:
    first = finetune(recipe)
    again = finetune(load_recipe(first.folder / "recipe.resolved.yaml", output=str(data / "again")))
    one, other = (load_file(result.folder / "model.safetensors") for result in (first, again))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert first.metrics == again.metrics


def test_a_model_folder_is_complete_and_holds_no_pickle(recipe: dict[str, Any]) -> None:
    folder = finetune(recipe).folder
    names = {path.name for path in folder.iterdir()}
    wanted = {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "recipe.resolved.yaml",
        "metrics.json",
        "README.md",
        "checksums.json",
    }
    assert wanted <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    config = json.loads((folder / "config.json").read_text())
    assert config["format_version"] == 1
    assert [task["name"] for task in config["tasks"]] == ["sent", "ner"]
    assert config["tasks"][0]["labels"] == ["negative", "positive"]
    assert load_model(folder).tasks[1].labels == ["LOC", "ORG", "PER"]


def test_task_order_survives_save_and_load(recipe: dict[str, Any]) -> None:
    turned = {**recipe, "tasks": list(reversed(recipe["tasks"]))}
    result = finetune(turned)
    assert [task.name for task in load_model(result.folder).tasks] == ["ner", "sent"]


def test_data_in_memory_trains_as_files_do(recipe: dict[str, Any], data: Path) -> None:
    from datasets import Dataset

    from mtl_nlp.data.readers import read_files

    parts = {s: read_files([data / "sent" / f"{s}.jsonl"])[0] for s in ("train", "validation", "test")}
    assert isinstance(parts["train"], Dataset)
    on_disk = finetune(recipe)
    tasks = [{"name": "sent", "head": "sequence_classification"}, recipe["tasks"][1]]
    in_memory = finetune({**recipe, "tasks": tasks, "output_dir": str(data / "memory")}, datasets={"sent": parts})
    one, other = (load_file(r.folder / "model.safetensors") for r in (on_disk, in_memory))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_scoring_says_which_task_has_no_such_split(recipe: dict[str, Any], data: Path, caplog: Any) -> None:
    folder = finetune(recipe).folder
    (data / "ner" / "test.conll").unlink()
    metrics, mean = score_checkpoint(folder, make_file(recipe, data))
    assert list(metrics) == ["sent"]
    assert mean == metrics["sent"]["accuracy"]
    assert "ner" in caplog.text


def make_file(recipe: dict[str, Any], data: Path) -> Path:
    (data / "recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    return data / "recipe.yaml"


def test_scores_of_a_loaded_checkpoint_are_those_of_training(recipe: dict[str, Any]) -> None:
    result = finetune(recipe)
    again, mean = score_checkpoint(result.folder, split="validation")
    assert again == result.metrics
    assert mean == result.mean
