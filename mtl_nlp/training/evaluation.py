"""Scoring all tasks: one encoder pass a corpus, decoded annotations against references."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from ..consistency import consistency_of
from ..data.features import EncodedSplit
from ..data.unlabelled import InputCollator
from ..decoding import Decoded, Decoder, by_length, run_batch, texts_of
from ..errors import fault
from ..joint import Agreement, joint_scores
from ..metrics import ABSTAINED, compute
from ..metrics.pool import pooled
from ..model.multitask import MultiTaskModel
from ..task import Task

logger = logging.getLogger("mtl_nlp")


class Scorer:
    """Scores a model on one split of every corpus.

    Args:
        tasks: definitions, in order.
        splits: corpus → its encoded split, with references.
        owners: corpus → names of its tasks.
        contexts: corpus → the contexts of its questions, where it has any.
        tokenizer: pads.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        splits: Mapping[str, EncodedSplit],
        owners: Mapping[str, Sequence[str]],
        tokenizer: Any,
        contexts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.tasks = {task.name: task for task in tasks}
        self.splits, self.owners, self.contexts = dict(splits), dict(owners), dict(contexts or {})
        self.collators = {
            corpus: InputCollator(tokenizer, [task for task in tasks if task.name in names])
            for corpus, names in self.owners.items()
        }
        self.decoders = {task.name: Decoder(task) for task in tasks if task.kind.annotation != "none"}
        self.batches = 0

    def score(
        self,
        model: MultiTaskModel,
        *,
        device: torch.device,
        batch: int = 64,
        prefix: str = "eval",
        process: int = 0,
        processes: int = 1,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        on_batch: Callable[[], Any] = lambda: None,
        on_answers: Callable[[str, Mapping[str, Mapping[int, Decoded]]], Any] = lambda corpus, answers: None,
    ) -> dict[str, float]:
        """`PREFIX_TASK_METRIC` for every metric, and `PREFIX_mean`, the mean of the primary metrics.

        Args:
            on_answers: is given each corpus' answers, task → text → decoded.

        Raises:
            FaultyInput: a task has no reference in any of the splits.
        """
        start = time.perf_counter()
        model.eval()
        metrics: dict[str, float] = {}
        for corpus, split in self.splits.items():
            found = self._run(model, corpus, split, device, batch, (process, processes), context, on_batch)
            on_answers(corpus, found)
            metrics |= self.measure(corpus, found, prefix)
        metrics |= self.mean(metrics, prefix)
        seconds = time.perf_counter() - start
        texts = sum(len(split) for split in self.splits.values())
        return metrics | {
            f"{prefix}_runtime": round(seconds, 3),
            f"{prefix}_texts_per_second": round(texts / seconds, 1),
        }

    def answers(
        self, model: MultiTaskModel, *, device: torch.device, batch: int = 64
    ) -> Iterator[tuple[str, dict[str, dict[int, Decoded]]]]:
        """Corpus by corpus: task → number of the text → what `decoders` make of it."""
        model.eval()
        for corpus, split in self.splits.items():
            yield corpus, self._run(model, corpus, split, device, batch, (0, 1), nullcontext, lambda: None)

    def measure(
        self, corpus: str, found: Mapping[str, Mapping[int, Decoded]], prefix: str = "eval"
    ) -> dict[str, float]:
        """`PREFIX_TASK_METRIC` of the answers for one corpus.

        Raises:
            FaultyInput: a task has no reference in it.
        """
        split = self.splits[corpus]
        metrics: dict[str, float] = {}
        for measured in (
            lambda name: self._metrics(name, split, found[name]),
            lambda name: self._joint_metrics(name, split, found),
        ):
            for name in found:
                metrics |= {f"{prefix}_{name}_{metric}": value for metric, value in measured(name).items()}
        return metrics

    def mean(self, metrics: Mapping[str, float], prefix: str = "eval") -> dict[str, float]:
        """`PREFIX_mean`, the mean of the primary metrics; nothing where there is none."""
        primary = [metrics[key] for name in self.tasks for key in self._primary(name, prefix, metrics)]
        return {f"{prefix}_mean": sum(primary) / len(primary)} if primary else {}

    def _primary(self, name: str, prefix: str, metrics: Mapping[str, float]) -> list[str]:
        task = self.tasks[name]
        key = f"{prefix}_{name}_{task.metric_names[0]}" if task.counts_in_mean else ""
        return [key] if key in metrics else []

    def _run(
        self,
        model: MultiTaskModel,
        corpus: str,
        split: EncodedSplit,
        device: torch.device,
        batch: int,
        part: tuple[int, int],
        context: Callable[[], AbstractContextManager[Any]],
        on_batch: Callable[[], Any],
    ) -> dict[str, dict[int, Decoded]]:
        wanted = {name: self.decoders[name] for name in self.owners[corpus] if name in self.decoders}
        if not wanted:
            return {}
        answers: dict[str, dict[int, Decoded]] = {name: {} for name in wanted}
        batches = list(by_length(split.lengths, batch))
        for number in range(part[0], -(-len(batches) // part[1]) * part[1], part[1]):
            # As many passes in every process: a sharded model gathers its parameters in all of them at once.
            texts = batches[min(number, len(batches) - 1)]
            inputs = texts_of(split, texts, self.contexts.get(corpus))
            found = run_batch(model, wanted, self.collators[corpus], corpus, inputs, device=device, context=context)
            for name, decoded in found.items():
                answers[name].update(zip(texts, decoded, strict=True))
            on_batch()
        return _gathered(answers, part[1])

    def _metrics(self, name: str, split: EncodedSplit, answers: Mapping[int, Decoded]) -> dict[str, float]:
        task, gold = self.tasks[name], split.gold[name]
        scored = [i for i, reference in enumerate(gold) if reference is not None]
        if not scored:
            raise fault("no annotated text to score", where=task.where, key=f"{name}.data.splits")
        predictions, references = [answers[i].value for i in scored], [gold[i] for i in scored]
        if task.kind.annotation == "label":
            predictions = [ABSTAINED if label is None else label for label in predictions]
        if task.kind.annotation == "match":
            predictions, references = pooled(predictions, references)
        scheme = "none" if task.scheme == "none" else "iob2"
        return compute(task.metric_names, predictions, references, labels=task.labels, scheme=scheme)

    def _joint_metrics(
        self, name: str, split: EncodedSplit, answers: Mapping[str, Mapping[int, Decoded]]
    ) -> dict[str, float]:
        """What joint decoding makes of two tasks (`consistent_with`): sentence accuracy and consistency, with it and without."""
        given = consistency_of(self.tasks[name])
        if given is None or given.task not in answers:
            return {}
        other = self.tasks[given.task]
        agreement = Agreement.of(other.labels or (), self.decoders[name].labels, self.tasks[name])
        if agreement is None:
            return {}
        pairs = [(answers[given.task][i], answers[name][i]) for i in sorted(answers[name])]
        return joint_scores(
            [(label.value, tags.value) for label, tags in pairs],
            [(label.alone, tags.alone) for label, tags in pairs],
            list(zip(split.gold[given.task], split.gold[name], strict=True)),
            agreement,
        )


def _gathered(answers: dict[str, dict[int, Decoded]], processes: int) -> dict[str, dict[int, Decoded]]:
    """The answers of all processes: decoded annotations, not logits."""
    if processes == 1:
        return answers
    parts: list[Any] = [None] * processes
    torch.distributed.all_gather_object(parts, answers)
    return {name: {k: v for part in parts for k, v in part[name].items()} for name in answers}
