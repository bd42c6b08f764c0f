"""Scores of rows → decoded annotations of texts; and the loop that runs a model over texts.

Training (to score) and inference (to predict) both stand on this, so that a text is decoded the same way in either. A text's
rows are always in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .data.batching import Collator, Record, fetch
from .data.features import EncodedSplit
from .data.mixture import Draw
from .labels import tag_names, transition_mask, viterbi
from .model.multitask import MultiTaskModel
from .task import Calibration, Task

LONGEST_ANSWER = 30
EVEN = 0.5
FLOOR = 1e-30


@dataclass
class Decoded:
    """One task's answer for one text.

    Attributes:
        value: label (None: abstained), labels, number, a tag a word, answer text, or the choice's number as a string.
        scores: [K] probabilities (label, labels, choice); [words] probability of each word's tag; None for a number.
        span: for an answer, its characters in the context.
        score: the answer's probability.
    """

    value: Any
    scores: NDArray[np.float32] | None = None
    span: tuple[int, int] = (0, 0)
    score: float = 0.0


@dataclass
class TextInput:
    """What decoding has to know of a text: its rows, how many words it has, and the context of a question."""

    records: list[Record]
    words: int = 0
    context: str = ""


class Decoder:
    """Decodes one task as its calibration says; `texts` is how many of its rows belong to each text."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.labels = list(task.labels or ())
        calibration = task.calibration or Calibration()
        self.temperature, self.abstain = calibration.temperature, calibration.abstain
        self.thresholds = [(calibration.thresholds or {}).get(label, EVEN) for label in self.labels]
        self._decode: Callable[..., list[Decoded]] = getattr(self, f"_{task.kind.annotation}")
        if task.kind.annotation == "tags":
            self.labels = tag_names(self.labels, task.tag_scheme)
            self.constraint = transition_mask(self.labels, task.tag_scheme)

    def decode(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        """One `Decoded` a text; `scores` are the head's, its rows in the order of the texts' rows."""
        return self._decode(scores, texts)

    def _first_rows(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> NDArray[np.float32]:
        starts = np.cumsum([0] + [len(text.records) for text in texts[:-1]])
        return scores[starts]

    def calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits at the task's temperature (Guo et al. 2017, arXiv:1706.04599)."""
        return logits if self.temperature == 1.0 else logits.float() / self.temperature

    def _label(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        return [Decoded(self._one_label(row), row) for row in self._first_rows(scores, texts)]

    def _one_label(self, row: NDArray[np.float32]) -> str | None:
        if self.abstain is not None and row.max() < self.abstain.threshold:
            return self.abstain.label
        return self.labels[int(row.argmax())]

    def _labels(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        rows = self._first_rows(scores, texts)
        return [
            Decoded([name for name, p, least in zip(self.labels, row, self.thresholds, strict=True) if p > least], row)
            for row in rows
        ]

    def _value(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        return [Decoded(float(number)) for number in self._first_rows(scores, texts)]

    def _choice(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        pairs = zip(scores, texts, strict=True)
        return [Decoded(str(int(row.argmax())), row[: len(text.records)]) for row, text in pairs]

    def _tags(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        most = max((text.words for text in texts), default=0)
        # A word without sub-token has no score: it is O.
        table = np.full((len(texts), max(most, 1), len(self.labels)), FLOOR, dtype=np.float32)
        if "O" in self.labels:
            table[:, :, self.labels.index("O")] = 1.0
        row = 0
        for number, text in enumerate(texts):
            for record in text.records:
                words = np.asarray(record["words"])
                places = np.nonzero(words >= 0)[0]
                table[number, words[places]] = scores[row, places + record.get("shift", 0)]
                row += 1
        lengths = np.asarray([text.words for text in texts])
        best = viterbi(np.log(np.maximum(table, FLOOR)), lengths, *self.constraint)
        return [self._tagged(ids[:n], probs[:n]) for ids, probs, n in zip(best, table, lengths, strict=True)]

    def _tagged(self, ids: NDArray[np.int64], probabilities: NDArray[np.float32]) -> Decoded:
        return Decoded([self.labels[i] for i in ids], probabilities[np.arange(len(ids)), ids])

    def _answer(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        found, row = [], 0
        for text in texts:
            windows = scores[row : row + len(text.records)]
            row += len(text.records)
            found.append(_best_answer(windows, text))
        return found


def _best_answer(windows: NDArray[np.float32], text: TextInput) -> Decoded:
    """The likeliest span over the windows; empty if "no answer" (the first token) wins in every one.

    The score is the span's probability in its window, or that of "no answer" in the window where it is least.
    """
    best, answered, nothing = (-np.inf, 0, 0), False, 0.0
    for scores, record in zip(windows, text.records, strict=True):
        starts, ends, shift = np.asarray(record["starts"]), np.asarray(record["ends"]), record.get("shift", 0)
        scores = _without_padding(scores, shift, len(starts))
        none_here = float(scores[shift].sum())
        nothing = min(nothing, none_here)
        inside = np.nonzero(starts >= 0)[0]
        if not len(inside):
            continue
        first, last = scores[inside + shift, 0], scores[inside + shift, 1]
        total = first[:, None] + last[None, :]
        gap = np.arange(len(inside))[None, :] - np.arange(len(inside))[:, None]
        total = np.where((gap >= 0) & (gap < LONGEST_ANSWER), total, -np.inf)
        i, j = np.unravel_index(int(total.argmax()), total.shape)
        answered |= bool(total[i, j] >= none_here)
        if total[i, j] > best[0]:
            best = (float(total[i, j]), int(starts[inside[i]]), int(ends[inside[j]]))
    if not answered or best[0] == -np.inf:
        return Decoded("", score=float(np.exp(nothing)))
    start, end = best[1], best[2]
    return Decoded(text.context[start:end], None, (start, end), float(np.exp(best[0])))


def _without_padding(scores: NDArray[np.float32], shift: int, length: int) -> NDArray[np.float32]:
    """Log-probabilities [T, 2] over a row's own tokens: padding depends on the neighbours in the batch."""
    own = scores[shift : shift + length]
    highest = own.max(axis=0)
    return scores - (highest + np.log(np.exp(own - highest).sum(axis=0)))


def run_batch(
    model: MultiTaskModel,
    decoders: Mapping[str, Decoder],
    collator: Collator,
    corpus: str,
    texts: Sequence[TextInput],
    *,
    device: torch.device,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, list[Decoded]]:
    """Each task's answers for the texts: one encoder pass."""
    records = [record for text in texts for record in text.records]
    for record in records:
        record["draw"] = Draw(corpus, 0, 0)
    batch = collator(records)
    width = batch["input_ids"].shape[1]
    if collator.tokenizer.padding_side == "left":
        for record in records:
            record["shift"] = width - len(record["input_ids"])
    batch["tasks"] = {name: rows for name, rows in batch["tasks"].items() if name in decoders}
    moved = {name: to_device(value, device) for name, value in batch.items()}
    with torch.inference_mode(), context():
        logits = model(**moved).logits
    return {
        name: decoder.decode(model.kinds[name].scores(decoder.calibrated(logits[name])).cpu().numpy(), texts)
        for name, decoder in decoders.items()
        if name in logits
    }


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors in (nested) mappings, moved."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return {name: to_device(inner, device) for name, inner in value.items()}


def by_length(lengths: NDArray[np.int64], size: int) -> Iterator[list[int]]:
    """Text numbers in batches of similar length, the longest first (so that memory runs out at once or not at all)."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size].tolist()


def texts_of(split: EncodedSplit, numbers: Sequence[int], contexts: Sequence[str] | None) -> list[TextInput]:
    """The texts of an encoded split as decoding takes them."""
    words = split.word_counts if split.word_counts is not None else np.zeros(len(split), dtype=np.int64)
    return [
        TextInput(records, int(words[number]), contexts[number] if contexts is not None else "")
        for number, records in zip(numbers, fetch(split, numbers), strict=True)
    ]
