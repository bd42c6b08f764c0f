"""Several models' answers → one: probabilities averaged with weights, entities by vote.

- One label, several labels, a choice: the weighted mean of the probabilities, decoded as any.
- A number, a ranking: the weighted mean of the numbers, or of the scores.
- Tags: an entity (its words and its type) is taken if more than half of the weight has it; at exactly half, if the best tags under
  the mean probabilities have it. Without a scheme, or on request, it is these best tags themselves.
- A retrieval: the weighted mean of the cosines. The members' vectors stand beside each other, each times the root of its weight, so
  that inner products of these are that mean.
- An answer: the text whose members' scores, times their weights, sum to the most; "no answer" is a text like any.

A member is asked for its `Decoded` by a `KeepingDecoder`, which keeps each word's probabilities too. Training scores and inference
predicts with this, as with `decoding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data.batching import Record
from .decoding import Decoded, Decoder, TextInput
from .errors import fault
from .labels import chunks, tag_names
from .task import Task

HALF, SLACK = 0.5, 1e-9


@dataclass
class Kept(Decoded):
    """An answer of a token task with the probability of every tag, [words, K]."""

    table: NDArray[np.float32] | None = None


class KeepingDecoder(Decoder):
    """A member's own decoding, without regard to its other tasks."""

    joins = False

    def tagged(self, ids: NDArray[np.int64], probabilities: NDArray[Any]) -> Decoded:
        """The answer of one text, with all probabilities."""
        found = super().tagged(ids, probabilities)
        return Kept(found.value, found.scores, table=np.asarray(probabilities, dtype=np.float32))


def outputs_of_task(task: Task) -> list[str]:
    """What the K outputs of a task are called."""
    labels = list(task.labels or ())
    return tag_names(labels, task.tag_scheme) if task.kind.annotation == "tags" else labels


def places(names: Sequence[str], among: Sequence[str]) -> list[int]:
    """Where each name stands among others."""
    where = {name: place for place, name in enumerate(among)}
    return [where[name] for name in names]


@dataclass
class Ballot(TextInput):
    """A text with what each member answered."""

    records: list[Record] = field(default_factory=list)
    answers: list[Decoded] = field(default_factory=list)


class EnsembleDecoder(Decoder):
    """Decodes one task from its members' answers.

    Args:
        task: labels and thresholds of the ensemble.
        members: the task as each member has it: the same labels in any order.
        weights: one a member, with sum 1.
        vote: entities by vote; False for the best tags under the mean probabilities.
    """

    def __init__(self, task: Task, members: Sequence[Task], weights: Sequence[float], *, vote: bool = True) -> None:
        # Members' probabilities are combined, not a chain's potentials.
        plain = task.model_copy(update={"head": "token_classification"}) if task.kind.chain else task
        super().__init__(plain)
        self.weights = [float(w) for w in weights]
        self.vote = vote and task.kind.annotation == "tags" and task.tag_scheme != "none"
        own = outputs_of_task(task)
        self.orders = [places(own, outputs_of_task(member)) for member in members]

    def gather(self, answers: Sequence[Sequence[Decoded]]) -> tuple[NDArray[np.float32], list[TextInput]]:
        """What `decode` takes, from each member's answers for the same texts."""
        texts = [Ballot(answers=list(of_text)) for of_text in zip(*answers, strict=True)]
        forms = {"tags": self._tables, "value": self._numbers, "answer": self._numbers, "match": self._vectors}
        build = forms.get(self.task.kind.annotation, self._rows)
        return build(texts), list(texts)

    def _rows(self, texts: Sequence[Ballot]) -> NDArray[np.float32]:
        found: list[NDArray[Any]] = []
        reorder = self.task.kind.annotation in ("label", "labels")
        for text in texts:
            rows = [np.asarray(one.scores, dtype=np.float64) for one in text.answers]
            if reorder:
                rows = [row[order] for row, order in zip(rows, self.orders, strict=True)]
            text.records = [{}] if reorder else [{} for _ in rows[0]]
            found.append(np.sum([w * row for w, row in zip(self.weights, rows, strict=True)], axis=0))
        width = max((len(row) for row in found), default=1)
        table = np.full((len(found), width), -np.inf, dtype=np.float32)
        if not reorder:
            # `_first_rows` is for labels; choices and candidates are a row a text.
            for place, row in enumerate(found):
                table[place, : len(row)] = row
            return table
        return np.asarray(found, dtype=np.float32).reshape(len(found), -1)

    def _vectors(self, texts: Sequence[Ballot]) -> NDArray[np.float32]:
        found = []
        for text in texts:
            parts = [np.sqrt(w) * np.asarray(one.value) for w, one in zip(self.weights, text.answers, strict=True)]
            found.append(np.concatenate(parts, axis=1))
            text.records = [{} for _ in found[-1]]
        return np.concatenate(found).astype(np.float32)

    def _numbers(self, texts: Sequence[Ballot]) -> NDArray[np.float32]:
        for text in texts:
            text.records = [{}]
        if self.task.kind.annotation == "answer":
            return np.zeros(len(texts), dtype=np.float32)
        pairs = [zip(self.weights, text.answers, strict=True) for text in texts]
        return np.asarray([sum(w * float(one.value) for w, one in pair) for pair in pairs], dtype=np.float64)

    def _tables(self, texts: Sequence[Ballot]) -> NDArray[np.float32]:
        for text in texts:
            counts = {len(one.value) for one in text.answers}
            if len(counts) > 1:
                raise fault(
                    f"{self.task.name}: the members cut a text into {' and '.join(map(str, sorted(counts)))} words",
                    key="words",
                    cure="give the words, or words: whitespace",
                )
            text.words = counts.pop()
            text.records = [{}]
        most = max((text.words for text in texts), default=0)
        table = np.full((len(texts), max(most, 1), len(self.labels)), 1e-30, dtype=np.float32)
        for place, text in enumerate(texts):
            parts = [
                w * np.asarray(one.table, dtype=np.float64)[:, order]
                for w, one, order in zip(self.weights, _kept(text), self.orders, strict=True)
            ]
            table[place, : text.words] = sum(parts)
        return table

    def word_scores(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> NDArray[Any]:
        """[texts, words, K], the mean probabilities: `scores` are that already."""
        return scores

    def _tags(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        if not self.vote:
            return super()._tags(scores, texts)
        found = []
        for table, text in zip(scores, texts, strict=True):
            assert isinstance(text, Ballot)
            tags = self._elected(text, table)
            found.append(self.tagged(np.asarray(places(tags, self.labels), dtype=np.int64), table[: text.words]))
        return found

    def _elected(self, text: Ballot, table: NDArray[np.float32]) -> list[str]:
        votes: dict[tuple[int, int, str], float] = {}
        for weight, one in zip(self.weights, text.answers, strict=True):
            for entity in chunks(one.value):
                votes[entity] = votes.get(entity, 0.0) + weight
        taken = [entity for entity, weight in votes.items() if weight > HALF + SLACK]
        even = [entity for entity, weight in votes.items() if abs(weight - HALF) <= SLACK]
        if even:
            best = self.paths(table[None], table[None], np.asarray([text.words]))
            likely = set(chunks([self.labels[i] for i in best[0][: text.words]]))
            taken += [entity for entity in even if entity in likely]
        tags = ["O"] * text.words
        for first, stop, label in taken:
            tags[first:stop] = [f"B-{label}"] + [f"I-{label}"] * (stop - first - 1)
        return tags

    def _answer(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        found = []
        for text in texts:
            assert isinstance(text, Ballot)
            sums: dict[str, float] = {}
            for weight, one in zip(self.weights, text.answers, strict=True):
                sums[one.value] = sums.get(one.value, 0.0) + weight * one.score
            value = max(sums, key=lambda name: sums[name])
            first = next(one for one in text.answers if one.value == value)
            found.append(Decoded(value, None, first.span, sums[value]))
        return found


def _kept(text: Ballot) -> list[Kept]:
    return [one for one in text.answers if isinstance(one, Kept)]
