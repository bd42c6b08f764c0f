"""From stored token ids to arg max labels on the host, for `bench_training.py --inference`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import DataLoader, Dataset

from mtl_nlp.data.batching import fetch
from mtl_nlp.data.unlabelled import InputCollator
from mtl_nlp.decoding import to_device
from mtl_nlp.inference.precision import NarrowEncoder
from mtl_nlp.training.finetune import build_trainer
from mtl_nlp.training.prepare import Prepared

# Of each corpus, whose texts are repeated until there are as many; and of ours on a GPU, which is quicker and has to go on for as
# many seconds.
BATCHES, STREAM = 6, 240


def predicted(model: Any, collate: Any, data: Any, batch: int, workers: int, bf16: bool) -> tuple[int, float]:
    """(Real tokens, seconds) of a plain Trainer's predictions."""
    data = data.select([i % len(data) for i in range(BATCHES * batch)])
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_eval_batch_size=batch,
        dataloader_num_workers=workers,
        bf16_full_eval=bf16,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(
        model, arguments, data_collator=collate, preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1)
    )
    trainer.predict(data.select(range(2 * batch)))
    start = time.perf_counter()
    trainer.predict(data)
    return sum(len(ids) for ids in data["input_ids"]), time.perf_counter() - start


class Texts(Dataset[Any]):
    """The texts of several corpora, fetched and padded a batch at a time."""

    def __init__(self, prepared: Prepared) -> None:
        self.splits = prepared.encoded["train"]
        self.collators = {
            corpus: InputCollator(prepared.tokenizer, [t for t in prepared.tasks if t.name in prepared.owners[corpus]])
            for corpus in self.splits
        }

    def __getitem__(self, batch: tuple[str, Sequence[int]]) -> dict[str, Any]:
        """The first row of each text."""
        corpus, texts = batch
        return self.collators[corpus]([rows[0] for rows in fetch(self.splits[corpus], texts)])

    def batches(self, size: int, number: int) -> list[tuple[str, list[int]]]:
        """So many of each corpus, its texts repeated and sorted by length."""
        found = []
        for corpus, split in self.splits.items():
            texts = np.arange(number * size) % len(split)
            texts = texts[np.argsort(-np.asarray(split.lengths)[texts], kind="stable")]
            found += [(corpus, texts[begin : begin + size].tolist()) for begin in range(0, len(texts), size)]
        return found


def answered(prepared: Prepared, batch: int, workers: int, bf16: bool) -> tuple[int, float]:
    """(Real tokens, seconds) of our arg max labels, all corpora in one stream."""
    model = build_trainer(prepared).multi.eval()
    device = next(model.parameters()).device
    runner: Any = NarrowEncoder(model) if bf16 else model
    data = Texts(prepared)

    def run(batches: list[tuple[str, list[int]]]) -> int:
        options: dict[str, Any] = {"batch_size": None, "num_workers": workers, "pin_memory": device.type == "cuda"}
        tokens, waiting = 0, []
        with torch.inference_mode():
            for found in DataLoader(data, sampler=batches, **options):
                tokens += found["tokens"]
                moved = {name: to_device(value, device) for name, value in found.items()}
                waiting += [logits.argmax(-1) for logits in runner(**moved).logits.values()]
            for labels in waiting:
                labels.cpu()
        return tokens

    run(data.batches(batch, 1))
    start = time.perf_counter()
    return run(data.batches(batch, STREAM if device.type == "cuda" else BATCHES)), time.perf_counter() - start
