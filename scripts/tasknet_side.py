"""tasknet's joint training, for `bench_training.py --tasknet`: the same corpora, batches of 32 texts of one task at a time.

    pip install --no-deps tasknet==1.60 easydict frozendict funcy magicattr lazy_load lazy-object-proxy

Its import asks the Hub for metrics; they are not used here, so the question is not put. Texts are padded to 128 tokens when they
are read and cut to a batch's longest before the model, as it does by itself; its other defaults (a task embedding added to the
first token) stay.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import datasets
import torch
import transformers
from transformers.trainer_callback import PrinterCallback

from mtl_nlp.model.encoder import locate
from mtl_nlp.training.prepare import Prepared

LENGTH = 128
ROWS = 2000  # of each corpus, more than the steps of a benchmark ask for


def _tasknet() -> Any:
    """The package, without its questions to the Hub."""
    import evaluate

    load = evaluate.load
    evaluate.load = lambda *args, **kwargs: None
    try:
        import tasknet  # type: ignore[import-not-found]
    except ImportError as error:
        told = "pip install --no-deps tasknet==1.60 easydict frozendict funcy magicattr lazy_load lazy-object-proxy"
        raise SystemExit(f"--tasknet: {error} → {told}") from None
    finally:
        evaluate.load = load
    return tasknet


def _task(tasknet: Any, name: str, prepared: Prepared) -> Any:
    """One corpus with one annotation as tasknet takes it."""
    (definition,) = [task for task in prepared.tasks if task.name == name]
    data = (
        prepared.corpora[0].splits["train"].data.select(range(min(ROWS, len(prepared.corpora[0].splits["train"].data))))
    )
    column = f"@{name}"
    if definition.kind.annotation == "tags":
        names = sorted({tag for tags in data[column] for tag in tags})
        kind: Any = datasets.Sequence(datasets.ClassLabel(names=names))
        coded: list[Any] = [[names.index(tag) for tag in tags] for tags in data[column]]
        first, words = "tokens", [list(row) for row in data["tokens"]]
    else:
        names = sorted(set(data[column]))
        kind, coded = datasets.ClassLabel(names=names), [names.index(label) for label in data[column]]
        first, words = "sentence1", list(data["text"])
    features = datasets.Features(
        {
            first: datasets.Sequence(datasets.Value("string")) if first == "tokens" else datasets.Value("string"),
            "labels": kind,
        }
    )
    train = datasets.Dataset.from_dict({first: words, "labels": coded}, features=features)
    splits = datasets.DatasetDict(train=train, validation=train.select(range(4)), test=train.select(range(4)))
    if definition.kind.annotation == "tags":
        return tasknet.TokenClassification(splits, name=name, tokens="tokens", y="labels")
    return tasknet.Classification(splits, name=name, s1="sentence1", y="labels")


def tasknet_side(singles: Mapping[str, Prepared], *, steps: int, bf16: bool) -> Callable[[Any], list[int]]:
    """A joint run of so many steps; returns, for a clock callback, the real tokens of every step."""
    tasknet = _tasknet()
    (encoder,) = {prepared.recipe.encoder_spec.name for prepared in singles.values()}
    place = str(locate(encoder))

    def train(clock: Any) -> list[int]:
        settings = {
            "model_name": place,
            "output_dir": tempfile.mkdtemp(),
            "max_steps": steps,
            "per_device_train_batch_size": 32,
            "learning_rate": 1e-4,
            "bf16": bf16,
            "use_cpu": not torch.cuda.is_available(),
            "max_length": LENGTH,
            "batched": True,
            "eval_strategy": "no",
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "report_to": [],
        }
        tasks = [_task(tasknet, name, prepared) for name, prepared in singles.items()]
        _, trainer = tasknet.Model_Trainer(tasks, settings)
        trainer.add_callback(clock)
        trainer.remove_callback(PrinterCallback)
        collate, tokens = trainer.data_collator, []

        class Counted:
            """The collator, and how many real tokens it gave."""

            def __call__(self, features: Any) -> Any:
                batch = collate(features)
                tokens.append(int(batch["attention_mask"].sum()))
                return batch

        trainer.data_collator = Counted()
        trainer.train()
        return tokens[:steps]

    transformers.utils.logging.set_verbosity_error()
    return train
