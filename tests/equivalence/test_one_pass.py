"""Two routes must agree, architecture by architecture: mixed batches, accumulation, plain transformers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mtl_nlp.data.batching import Collator
from mtl_nlp.data.features import EncodedSplit
from mtl_nlp.data.mixture import Draw, Mixture
from mtl_nlp.model.config import MultiTaskConfig, task_record
from mtl_nlp.model.dropout import MaskSource
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.task import Task
from mtl_nlp.training.embedding_gradient import keep_row_gradient
from mtl_nlp.training.trainer import MultiTaskTrainer

from .architectures import VOCABULARY, configs

ARCHITECTURES = list(configs())
PATHS = ["plain", "fast"]
SENT = Task(name="sent", head="sequence_classification", labels=["a", "b", "c"])
NER = Task(name="ner", head="token_classification", labels=["PER", "LOC"])
TEXTS = 192


class Padder:
    """What padding asks of a tokenizer."""

    padding_side, pad_token_id = "right", 0


def split_of(task: Task, seed: int) -> EncodedSplit:
    """Random rows with random labels."""
    from datasets import Dataset

    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 14, TEXTS)
    ids = [[1, *rng.integers(5, VOCABULARY, n - 2).tolist(), 2] for n in lengths]
    data: dict[str, list[Any]] = {"input_ids": ids}
    if task.name == "sent":
        data["@sent"] = rng.integers(0, 3, TEXTS).tolist()
    else:
        data["@ner"] = [[-100, *rng.integers(0, 5, n - 2).tolist(), -100] for n in lengths]
    return EncodedSplit(Dataset.from_dict(data), np.arange(TEXTS + 1), lengths)


def model_of(name: str, tasks: list[Task], path: str = "plain") -> MultiTaskModel:
    """A model of random weights, eager attention; `fast` as `performance: auto` makes it."""
    torch.manual_seed(3)
    config = MultiTaskConfig(copy.deepcopy(configs()[name]), [task_record(task) for task in tasks])
    config._attn_implementation = "eager"
    model = MultiTaskModel(config)
    if path == "fast":
        model.use_fast_paths(MaskSource(3))
        keep_row_gradient(model)
    return model


def train(model: MultiTaskModel, tasks: list[Task], folder: Path, steps: int, accumulation: int) -> MultiTaskTrainer:
    """Train with our trainer on random rows."""
    splits = {task.name: split_of(task, i) for i, task in enumerate(tasks)}
    mixture = Mixture({name: len(split) for name, split in splits.items()}, batch=8, seed=5)
    trainer = MultiTaskTrainer(
        model,
        arguments(folder, steps, accumulation),
        mixture=mixture,
        train=splits,
        collator=Collator(Padder(), tasks, {task.name: [task.name] for task in tasks}, labelled=True),
    )
    trainer.train()
    return trainer


def arguments(folder: Path, steps: int, accumulation: int) -> transformers.TrainingArguments:
    """Plain AdamW; the same for both sides."""
    return transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        learning_rate=1e-4,
        optim="adamw_torch",
        adam_epsilon=1e-6,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=5,
    )


def assert_close_states(one: Mapping[str, Tensor], other: Mapping[str, Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    gaps = {name: float((one[name] - other[name]).abs().max()) for name in one}
    worst = max(gaps, key=lambda name: gaps[name])
    assert gaps[worst] <= tolerance, (worst, gaps[worst])


def mixed_batch(tasks: list[Task]) -> tuple[list[Any], Collator]:
    splits = {task.name: split_of(task, i) for i, task in enumerate(tasks)}
    records = []
    for i in range(5):
        for task in tasks:
            row = splits[task.name].rows[i]
            records.append({**row, "draw": Draw(task.name, i, 0), "first": True})
    return records, Collator(Padder(), tasks, {task.name: [task.name] for task in tasks}, labelled=True)


def gradients(model: MultiTaskModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_mixed_batch_gives_the_gradient_of_separate_batches(name: str, path: str) -> None:
    tasks = [SENT, NER]
    model = model_of(name, tasks, path).eval()
    records, collator = mixed_batch(tasks)

    def loss_of(batch: dict[str, Any]) -> dict[str, Tensor]:
        sums = model.task_losses(model(**batch).logits, batch["tasks"])
        return {task: total / units for task, (total, units) in sums.items()}

    mixed = loss_of(collator(records))
    together = gradients(model, 0.5 * mixed["sent"] + 0.5 * mixed["ner"])
    parts = [loss_of(collator([r for r in records if r["draw"].corpus == task.name]))[task.name] for task in tasks]
    apart = gradients(model, 0.5 * parts[0] + 0.5 * parts[1])
    assert_close_states(together, apart, 1e-6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_eight_micro_batches_of_one_are_one_of_eight(name: str, path: str, tmp_path: Path) -> None:
    tasks = [SENT, NER]
    one, eight = model_of(name, tasks, path), model_of(name, tasks, path)
    train(one, tasks, tmp_path, 20, accumulation=1)
    train(eight, tasks, tmp_path, 20, accumulation=8)
    assert_close_states(one.state_dict(), eight.state_dict(), 1e-5)


def vanilla_of(model: MultiTaskModel, task: Task) -> Any:
    """The plain transformers model with the same weights."""
    kind = model.kinds[task.name]
    config = kind.config(model.config.encoder_config)
    config._attn_implementation = "eager"
    plain = kind.vanilla_class(config)(config)
    prefix = plain.base_model_prefix
    state = {f"{prefix}.{key}": value for key, value in model.encoder.state_dict().items()}
    state |= model.heads[task.name].state_dict()
    plain.load_state_dict(state, strict=True)
    return plain


class InOrder(torch.utils.data.Dataset):
    """The rows that the mixture draws, in its order."""

    def __init__(self, task: Task, split: EncodedSplit, steps: int) -> None:
        stream = Mixture({task.name: len(split)}, batch=8, seed=5).batches()
        draws = [draw for _, batch in zip(range(steps), stream, strict=False) for draw in batch]
        self.rows = [split.rows[draw.index] for draw in draws]
        self.task = task

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.rows[i]

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        batch = {"input_ids": pad_sequence(ids, batch_first=True)}
        batch["attention_mask"] = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        labels = [row[f"@{self.task.name}"] for row in rows]
        if self.task is NER:
            width = batch["input_ids"].shape[1]
            labels = [label + [-100] * (width - len(label)) for label in labels]
        return {**batch, "labels": torch.tensor(labels)}


class Sequential(transformers.Trainer):
    """The plain Trainer, without its shuffle."""

    def _get_train_sampler(self, *args: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("task", [SENT, NER], ids=lambda task: task.name)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_task_alone_is_plain_transformers(name: str, task: Task, path: str, tmp_path: Path) -> None:
    model = model_of(name, [task], path)
    plain = vanilla_of(model, task)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    train(model, [task], tmp_path, 20, accumulation=1)
    data = InOrder(task, split_of(task, 0), 20)
    Sequential(plain, arguments(tmp_path, 20, 1), train_dataset=data, data_collator=data.collate).train()
    ours = vanilla_of(model, task).state_dict()
    assert_close_states(plain.state_dict(), ours, 1e-5)
    assert max(float((plain.state_dict()[key] - before[key]).abs().max()) for key in before) > 1e-4
