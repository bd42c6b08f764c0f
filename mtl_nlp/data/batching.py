"""Rows of several corpora → one padded batch.

`MixtureDataset` fetches the rows of drawn texts, `Collator` pads them together: `input_ids` [B, T], `attention_mask` [B, T],
`tokens` (how many are real, a number), and `tasks`: name → `rows` [b] (row numbers), `width` (the longest of them, a number) and
`labels`. `MicroBatches` cuts the mixture's
stream into the micro-batches of one process; the loader is not sharded a second time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import fault
from ..task import Task
from .features import IGNORE, EncodedSplit
from .mixture import Draw, Draws, Mixture
from .padding import Padding

Record = dict[str, Any]


class MixtureDataset(Dataset[Record]):
    """The training rows of all corpora, fetched a micro-batch at a time."""

    def __init__(self, corpora: Mapping[str, EncodedSplit]) -> None:
        self.corpora = dict(corpora)

    def __len__(self) -> int:
        return sum(len(split) for split in self.corpora.values())

    def __getitems__(self, draws: Sequence[Draw]) -> list[Record]:
        """The rows of the drawn texts, in order; one query a corpus."""
        wanted: dict[str, list[int]] = {}
        for draw in draws:
            wanted.setdefault(draw.corpus, []).append(draw.index)
        fetched = {name: iter(fetch(self.corpora[name], texts)) for name, texts in wanted.items()}
        records: list[Record] = []
        for draw in draws:
            for record in next(fetched[draw.corpus]):
                record["draw"] = draw
                records.append(record)
        return records


def fetch(split: EncodedSplit, texts: Sequence[int]) -> list[list[Record]]:
    """The rows of each text."""
    rows = split.rows_of(texts)
    columns = split.columns(rows)
    records = [{name: values[i] for name, values in columns.items()} for i in range(len(rows))]
    sizes = [int(split.offsets[t + 1] - split.offsets[t]) for t in texts]
    ends = np.cumsum(sizes)
    return [_begun(records[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


def _begun(records: list[Record]) -> list[Record]:
    """Mark the row that begins a text."""
    for i, record in enumerate(records):
        record["first"] = i == 0
    return records


class MicroBatches(Sampler[Any]):
    """The mixture's stream, epoch by epoch, as the micro-batches of one process.

    A pure function of the epoch, so that a resumed run sees what an uninterrupted one would have. An epoch that follows the one
    before goes on where that ended, so that a block which lies across its beginning is planned once.
    """

    def __init__(
        self, mixture: Mixture, steps_per_epoch: int, *, process: int, processes: int, accumulation: int
    ) -> None:
        self.mixture, self.steps = mixture, steps_per_epoch
        self.process, self.processes, self.accumulation = process, processes, accumulation
        self.epoch = 0
        self._left: tuple[int, Iterator[Draws]] | None = None  # the stream where an epoch ended, and its next step

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.accumulation

    def __iter__(self) -> Iterator[Any]:
        return self.epochs(1)

    def epochs(self, count: int | None = None) -> Iterator[Draws]:
        """So many epochs from the chosen one on; without an end if None."""
        start = self.epoch * self.steps
        kept, self._left = self._left, None
        stream = kept[1] if kept and kept[0] == start else self.mixture.batches(start_step=start)
        steps = None if count is None else count * self.steps
        for number, batch in enumerate(islice(stream, steps), 1):
            parts = self.mixture.parts(batch, self.process, self.processes, self.accumulation)
            if number == steps:  # who is given the last one does not ask for another
                self._left = (start + number, stream)
            yield from parts


class _Onward(Sampler[Any]):
    """The micro-batches of an epoch and of all that follow."""

    def __init__(self, batches: MicroBatches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return self.batches.epochs()


class MixtureLoader(DataLoader[Record]):
    """A loader whose epoch reaches its sampler (the Trainer sets it on the loader).

    Args:
        onward: worker processes go on with the next epoch's batches while the last ones of this are trained on; for a stream that
            does not change on the way.
        settings: of torch's `DataLoader`.
    """

    def __init__(
        self, dataset: Dataset[Record], *, batch_sampler: MicroBatches, onward: bool = False, **settings: Any
    ) -> None:
        super().__init__(dataset, batch_sampler=batch_sampler, **settings)
        self._micro_batches = batch_sampler
        self._onward: DataLoader[Record] | None = None
        if onward and self.num_workers:
            self._onward = DataLoader(dataset, batch_sampler=_Onward(batch_sampler), **settings)
        self._left: tuple[int, Iterator[Any]] | None = None  # what is prepared where an epoch ended, and its next epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        self._micro_batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return super().__iter__() if self._onward is None else self._epoch(self._onward)

    def _epoch(self, onward: DataLoader[Record]) -> Iterator[Any]:
        epoch = self._micro_batches.epoch
        kept, self._left = self._left, None
        batches = kept[1] if kept and kept[0] == epoch else iter(onward)
        for number, batch in enumerate(islice(batches, len(self)), 1):
            if number == len(self):
                self._left = (epoch + 1, batches)
            yield batch

    def close(self) -> None:
        """End the worker processes, which stay from epoch to epoch."""
        self._iterator, self._onward, self._left = None, None, None


def lookahead(workers: int, prefetch: int | None, most: int | None) -> tuple[int, int | None]:
    """Loader workers and batches that each prepares ahead, such that they are at most `most` micro-batches ahead of training.

    Where rates change on the way, a loader that ran further would draw at rates that are not decided yet.
    """
    if not workers:
        return 0, None
    each = prefetch or 2
    if most is not None:
        workers = min(workers, most)
        each = max(1, min(each, most // workers))
    return workers, each


class Collator:
    """Pads rows together and gathers each task's rows and labels.

    Args:
        tokenizer: pads (its side and ids); masks for masked LM.
        tasks: name → definition.
        owners: corpus → names of its tasks.
        labelled: only rows with a label belong to a task, with their labels (training); otherwise every row of the corpus belongs
            to each of its tasks, without labels (prediction).
        seed: for masking, keyed by (seed, text, pass).
    """

    def __init__(
        self,
        tokenizer: Any,
        tasks: Sequence[Task],
        owners: Mapping[str, Sequence[str]],
        *,
        labelled: bool,
        seed: int = 0,
    ) -> None:
        self.tokenizer, self.labelled, self.seed = tokenizer, labelled, seed
        self.padding = Padding(tokenizer)
        self.tasks = {task.name: task for task in tasks}
        self.owners = {corpus: list(names) for corpus, names in owners.items()}
        masking = [task.name for task in tasks if task.kind.annotation == "none"]
        if labelled and masking and tokenizer.mask_token_id is None:
            cure = "choose an encoder that was trained with masked tokens, or leave the task out"
            raise fault("the tokenizer has no mask token", key=f"{masking[0]}.head", cure=cure)

    def __call__(self, records: Sequence[Record]) -> dict[str, Any]:
        """One batch."""
        records = [self._masked(record) for record in records]
        batch: dict[str, Any] = self.padding(records)
        batch["tokens"] = int(batch["attention_mask"].sum())
        batch["tasks"] = {}
        rows = self._rows_of(records)
        for name in self.tasks:
            if name in rows:
                task = self.tasks[name]
                batch["tasks"][name] = self._task_rows(task, rows[name], records, batch["input_ids"].shape[1])
        return batch

    def _rows_of(self, records: Sequence[Record]) -> dict[str, list[int]]:
        """Task → its rows, for the tasks that have any: asked by row, because there may be hundreds of tasks."""
        found: dict[str, list[int]] = {}
        for i, record in enumerate(records):
            for name in self.owners[record["draw"].corpus]:
                if not self.labelled or record.get(f"@{name}") is not None:
                    found.setdefault(name, []).append(i)
        return found

    def _task_rows(self, task: Task, rows: list[int], records: Sequence[Record], width: int) -> dict[str, Any]:
        longest = max(len(records[i]["input_ids"]) for i in rows)
        # Left-padded rows end at the right edge, so only right-padded ones can be cut.
        right = self.padding.right
        cut = longest if right else width
        # The width stays a number: as a tensor on a GPU it would have to be waited for, task by task.
        found: dict[str, Any] = {"rows": torch.tensor(rows), "width": cut}
        kind = task.kind.annotation
        if kind in ("choice", "relevance") or (task.kind.chain and self.labelled):
            starts = [i for i, row in enumerate(rows) if records[row]["first"]]
            found["sizes"] = torch.tensor([b - a for a, b in zip(starts, [*starts[1:], len(rows)], strict=True)])
            rows = rows if task.kind.chain else [rows[i] for i in starts]
        if kind == "match" and self.labelled:
            return found | _matching(records, rows)
        if self.labelled:
            values = [records[i][f"@{task.name}"] for i in rows]
            shift = [0 if right else width - len(records[i]["input_ids"]) for i in rows]
            found["labels"] = _labels(kind, values, cut, shift)
        return found

    def _masked(self, record: Record) -> Record:
        names = self.owners[record["draw"].corpus]
        task = next((self.tasks[name] for name in names if self.tasks[name].kind.annotation == "none"), None)
        if task is None or not self.labelled:
            return record
        draw = record["draw"]
        key = np.random.SeedSequence([self.seed, crc32(draw.corpus.encode()), draw.index, draw.pass_])
        ids, labels = mask_tokens(
            record["input_ids"], self.tokenizer, task.mask_probability, np.random.default_rng(key)
        )
        return {**record, "input_ids": ids, f"@{task.name}": labels}


def _matching(records: Sequence[Record], rows: Sequence[int]) -> dict[str, Tensor]:
    """For retrieval: `sizes` [b], rows of each text; `labels` [b], the place of its positive among all passages; `same` [r], a
    number for each row's tokens, by which repeated passages are known."""
    starts = [i for i, row in enumerate(rows) if records[row]["first"]]
    sizes = torch.tensor([b - a for a, b in zip(starts, [*starts[1:], len(rows)], strict=True)])
    numbers: dict[tuple[int, ...], int] = {}
    same = [numbers.setdefault(tuple(records[row]["input_ids"]), len(numbers)) for row in rows]
    return {"sizes": sizes, "labels": torch.tensor(starts) - torch.arange(len(starts)), "same": torch.tensor(same)}


def _labels(kind: str, values: list[Any], width: int, shift: Sequence[int]) -> Tensor:
    if kind in ("tags", "none"):
        table = np.full((len(values), width), IGNORE)
        for row, value, start in zip(table, values, shift, strict=True):
            row[start : start + len(value)] = value
        return torch.from_numpy(table)
    if kind == "answer":
        return torch.tensor([[p + start for p in value] for value, start in zip(values, shift, strict=True)])
    if kind == "relevance":
        most = max(len(value) for value in values)
        return torch.tensor([[*value, *[math.nan] * (most - len(value))] for value in values], dtype=torch.float32)
    if kind in ("value", "labels"):
        return torch.tensor(values, dtype=torch.float32)
    return torch.tensor(values, dtype=torch.long)


def mask_tokens(
    ids: Sequence[int], tokenizer: Any, probability: float, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """BERT's masking: of the chosen tokens 80 % become the mask, 10 % a random token, 10 % stay.

    Returns:
        The ids, and the labels: the original id where a token was chosen, −100 elsewhere.
    """
    original = np.asarray(ids)
    special = np.isin(original, tokenizer.all_special_ids)
    chosen = (rng.random(len(original)) < probability) & ~special
    fate = rng.random(len(original))
    masked = np.where(chosen & (fate < 0.8), tokenizer.mask_token_id, original)
    random_ids = rng.integers(0, len(tokenizer), len(original))
    masked = np.where(chosen & (fate >= 0.8) & (fate < 0.9), random_ids, masked)
    return masked.tolist(), np.where(chosen, original, IGNORE).tolist()
