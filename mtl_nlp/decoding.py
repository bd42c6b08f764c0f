"""Scores of rows → decoded annotations of texts; and the loop that runs a model over texts.

Training (to score) and inference (to predict) both stand on this, so that a text is decoded the same way in either. A text's
rows are always in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .consistency import consistency_of
from .data.batching import Collator, Record, fetch
from .data.features import EncodedSplit
from .data.mixture import Draw
from .data.unlabelled import InputCollator
from .joint import Agreement, best_pair
from .labels import Chain, best_scores, best_tags, tag_names, tag_probabilities, transition_mask, viterbi
from .model.multitask import MultiTaskModel
from .task import Calibration, Task

LONGEST_ANSWER = 30
EVEN = 0.5
FLOOR = 1e-30


@dataclass
class Decoded:
    """One task's answer for one text.

    Attributes:
        value: label (None: abstained), labels, number, a tag a word, answer text, the choice's number as a string, a score a
            candidate, or the vectors [rows, D] of a retrieval.
        scores: [K] probabilities (label, labels, choice); [words] probability of each word's tag; [candidates] scores; None for a
            number.
        span: for an answer, its characters in the context.
        score: the answer's probability.
        alone: the value before joint decoding with another task; None where there was none.
    """

    value: Any
    scores: NDArray[np.float32] | None = None
    span: tuple[int, int] = (0, 0)
    score: float = 0.0
    alone: Any = None


@dataclass
class TextInput:
    """What decoding has to know of a text: its rows, how many words it has, and the context of a question."""

    records: list[Record]
    words: int = 0
    context: str = ""


class Decoder:
    """Decodes one task as its calibration says.

    Attributes:
        joins: whether its answers may be put right together with another task's (`consistent_with`).
    """

    joins = True

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
        # A chain's scores begin with its transitions, and with the potentials of a first and a last tag.
        self.packed = len(self.labels) + 2 if task.kind.chain else 0

    def decode(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        """One `Decoded` a text; `scores` are the head's, its rows in the order of the texts' rows."""
        return self._decode(scores, texts)

    def _first_rows(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> NDArray[np.float32]:
        return scores[list(accumulate((len(text.records) for text in texts[:-1]), initial=0))]

    def calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits at the task's temperature (Guo et al. 2017, arXiv:1706.04599)."""
        return logits if self.temperature == 1.0 else logits.float() / self.temperature

    def _label(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        return [Decoded(self._one_label(row), row) for row in self._first_rows(scores, texts)]

    def abstains(self, row: NDArray[np.float32]) -> bool:
        """Whether the highest probability is too low for an answer."""
        return self.abstain is not None and bool(row.max() < self.abstain.threshold)

    def _one_label(self, row: NDArray[np.float32]) -> str | None:
        if self.abstain is not None and self.abstains(row):
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

    def _relevance(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        pairs = zip(scores, texts, strict=True)
        return [Decoded(row[: len(text.records)].tolist(), row[: len(text.records)]) for row, text in pairs]

    def _match(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        """The vectors of a text's rows: the query's, and in evaluation those of its passages."""
        ends = np.cumsum([len(text.records) for text in texts])
        return [Decoded(scores[end - len(text.records) : end]) for end, text in zip(ends, texts, strict=True)]

    def _tags(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        lengths = np.asarray([text.words for text in texts])
        table = self.word_scores(scores, texts)
        best = self.paths(scores, table, lengths)
        if self.task.kind.chain:
            table = tag_probabilities(table, lengths, self._chain(scores))
        return [self.tagged(ids[:n], probs[:n]) for ids, probs, n in zip(best, table, lengths, strict=True)]

    def _chain(self, scores: NDArray[np.float32]) -> Chain:
        return Chain.unpacked(scores[0, : self.packed], *self.constraint)

    def paths(
        self, scores: NDArray[np.float32], table: NDArray[Any], lengths: NDArray[np.int64], possible: Any = None
    ) -> NDArray[np.int64]:
        """The best valid tags of each text, [texts, words].

        Args:
            table: of `word_scores`.
            possible: [K], the tags that may be used; all if absent.
        """
        usable = self._potentials(table, possible)
        if self.task.kind.chain:
            return best_tags(usable, lengths, self._chain(scores))
        return viterbi(usable, lengths, *self.constraint)

    def path_values(
        self,
        scores: NDArray[np.float32],
        table: NDArray[Any],
        lengths: NDArray[np.int64],
        best: NDArray[np.int64],
        possible: Any = None,
    ) -> NDArray[Any]:
        """Log-probabilities of the tags that `paths` gives for the same, up to a constant, [texts]."""
        if self.task.kind.chain:
            return best_scores(self._potentials(table, possible), lengths, self._chain(scores), best)
        # A tag that may not be used, but that the rules leave no way around, counts with what the head says of it.
        own = np.take_along_axis(self._potentials(table, None), np.maximum(best, 0)[:, :, None], 2)[:, :, 0]
        return np.where(best >= 0, own, 0.0).sum(1)

    def _potentials(self, table: NDArray[Any], possible: Any) -> NDArray[Any]:
        """What is summed along a path."""
        logs = table if self.task.kind.chain else np.log(np.maximum(table, FLOOR)).astype(np.float64)
        return logs if possible is None else np.where(possible, logs, -np.inf)

    def word_scores(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> NDArray[Any]:
        """[texts, words, K], what the head says of each word: probabilities, or a chain's log-potentials."""
        most = max((text.words for text in texts), default=0)
        # A word without sub-token has no score: it is O.
        impossible, sure = (-np.inf, 0.0) if self.task.kind.chain else (FLOOR, 1.0)
        outside = "O" in self.labels
        nothing = impossible if outside else (0.0 if self.task.kind.chain else FLOOR)
        table = np.full((len(texts), max(most, 1), len(self.labels)), nothing, dtype=np.float32)
        if outside:
            table[:, :, self.labels.index("O")] = sure
        row = 0
        for number, text in enumerate(texts):
            for record in text.records:
                words = np.asarray(record["words"])
                places = np.nonzero(words >= 0)[0]
                table[number, words[places]] = scores[row, self.packed + places + record.get("shift", 0)]
                row += 1
        return table

    def tagged(self, ids: NDArray[np.int64], probabilities: NDArray[Any]) -> Decoded:
        """The answer of one text: its tags' names and their probabilities ([words, K])."""
        own = probabilities[np.arange(len(ids)), ids].astype(np.float32)
        return Decoded([self.labels[i] for i in ids], own)

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
    collator: Collator | InputCollator,
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
    scores = score_records(model, decoders, collator, records, device=device, context=context)
    return decode_all(decoders, scores, dict.fromkeys(scores, texts))


def score_records(
    model: MultiTaskModel,
    decoders: Mapping[str, Decoder],
    collator: Collator | InputCollator,
    records: Sequence[Record],
    *,
    device: torch.device,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, NDArray[np.float32]]:
    """Each task's scores of the rows, calibrated: one encoder pass. Notes in the rows how far padding on the left shifts them."""
    batch = collator(records)
    width = batch["input_ids"].shape[1]
    if not collator.padding.right:
        for record in records:
            record["shift"] = width - len(record["input_ids"])
    batch["tasks"] = {name: rows for name, rows in batch["tasks"].items() if name in decoders}
    moved = batch if device.type == "cpu" else {name: to_device(value, device) for name, value in batch.items()}
    # Parameters that are gathered under inference mode could not be trained on afterwards.
    with torch.no_grad() if getattr(model, "is_sharded", False) else torch.inference_mode(), context():
        logits = model(**moved).logits
    return {
        name: model.kinds[name].scores(decoder.calibrated(logits[name])).cpu().numpy()
        for name, decoder in decoders.items()
        if name in logits
    }


def decode_all(
    decoders: Mapping[str, Decoder],
    scores: Mapping[str, NDArray[np.float32]],
    texts: Mapping[str, Sequence[TextInput]],
) -> dict[str, list[Decoded]]:
    """Each task's answers; tasks that have to be consistent with each other (`consistent_with`) are decoded together."""
    found = {name: decoders[name].decode(scores[name], texts[name]) for name in scores}
    for name in found:
        given = consistency_of(decoders[name].task)
        if given is not None and given.task in found and decoders[name].joins:
            _reconcile(found, decoders[given.task], decoders[name], scores[name], texts[name])
    return found


def _reconcile(
    found: dict[str, list[Decoded]],
    labelling: Decoder,
    tagging: Decoder,
    scores: NDArray[np.float32],
    texts: Sequence[TextInput],
) -> None:
    """Put the best consistent pair in the place of answers that do not go together; note in all what the heads said alone."""
    agreement = Agreement.of(labelling.labels, tagging.labels, tagging.task)
    labels, tags = found[labelling.task.name], found[tagging.task.name]
    if agreement is None:
        return
    table = tagging.word_scores(scores, texts)
    for number, (label, tagged) in enumerate(zip(labels, tags, strict=True)):
        label.alone, tagged.alone = label.value, tagged.value
        if label.scores is not None and labelling.abstains(label.scores):
            continue
        if agreement.holds(label.value, tagged.value):
            continue
        words, one = np.asarray([texts[number].words]), table[number : number + 1]

        def paths(possible: Any, words: Any = words, one: Any = one) -> tuple[NDArray[np.int64], float]:
            best = tagging.paths(scores, one, words, possible)
            return best[0], float(tagging.path_values(scores, one, words, best, possible)[0])

        assert label.scores is not None
        chosen, ids = best_pair(label.scores, agreement, paths)
        label.value = labelling.labels[chosen]
        probabilities = tag_probabilities(one, words, tagging._chain(scores))[0] if tagging.packed else one[0]
        answer = tagging.tagged(ids[: words[0]], probabilities[: words[0]])
        tagged.value, tagged.scores = answer.value, answer.scores


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors in (nested) mappings, moved."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=device.type == "cuda")
    return {name: to_device(inner, device) for name, inner in value.items()} if isinstance(value, Mapping) else value


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
