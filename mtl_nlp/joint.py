"""Joint decoding of a label and of tags whose types have to go with it (an intent and its slots).

Heads are trained apart and answer apart: a text may be given the intent of a booking and a slot of a song. The joint answer is
the most probable pair under the product of the heads, among the pairs in which every type goes with the label: the exact maximum,
by one Viterbi a label, the likeliest labels first, until none that is left can win. Where the heads agree already that is their
answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .consistency import consistency_of
from .task import Task

FLOOR = 1e-30


@dataclass(frozen=True)
class Agreement:
    """Which tags go with which label.

    Attributes:
        labels: of the label task, in order.
        possible: [labels, K], whether a tag goes with a label; all do with a label that was never seen with tags.
        types: label → its types, for labels that were.
    """

    labels: list[str]
    possible: NDArray[np.bool_]
    types: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, labels: Sequence[str], tags: Sequence[str], task: Task) -> Agreement | None:
        """From a token task's `consistent_with`; None where it has none, or its types are not settled."""
        given = consistency_of(task)
        if given is None or given.types is None:
            return None
        types = {label: frozenset(allowed) for label, allowed in given.types.items()}
        possible = [[tag == "O" or label not in types or tag[2:] in types[label] for tag in tags] for label in labels]
        return cls(list(labels), np.asarray(possible, dtype=np.bool_), types)

    def holds(self, label: str, tags: Iterable[str]) -> bool:
        """Whether every type among the tags goes with the label."""
        return label not in self.types or {tag[2:] for tag in tags if tag != "O"} <= self.types[label]


def best_pair(probabilities: NDArray[Any], agreement: Agreement, paths: Any) -> tuple[int, NDArray[np.int64]]:
    """The best consistent label and tag sequence of one text.

    Args:
        probabilities: [labels].
        paths: [K] bool or None → (tag indices [W], log-probability up to a constant) of the best sequence of these tags (all).
    """
    logs = np.log(np.maximum(probabilities.astype(np.float64), FLOOR))
    _, bound = paths(None)
    best: tuple[float, int, NDArray[np.int64]] | None = None
    known: dict[bytes, tuple[NDArray[np.int64], float]] = {}
    for label in np.argsort(-logs, kind="stable").tolist():
        if best is not None and logs[label] + bound <= best[0]:
            break
        possible = agreement.possible[label]
        if possible.tobytes() not in known:
            known[possible.tobytes()] = paths(possible)
        tags, value = known[possible.tobytes()]
        if best is None or logs[label] + value > best[0]:
            best = (float(logs[label] + value), label, tags)
    assert best is not None
    return best[1], best[2]


def joint_scores(
    pairs: Sequence[tuple[Any, Any]],
    alone: Sequence[tuple[Any, Any]],
    references: Sequence[tuple[Any, Any]],
    agreement: Agreement,
) -> dict[str, float]:
    """Sentence accuracy (label and all tags right) over texts that have both references, and the share of consistent answers.

    Args:
        pairs: (label, tags) of each text, as answered.
        alone: as the heads answer alone.
        references: (label, tags) of each text, None where missing.
    """
    both = [i for i, (label, tags) in enumerate(references) if label is not None and tags is not None]
    found: dict[str, float] = {}
    for suffix, answers in (("", pairs), ("_alone", alone)):
        right = sum(answers[i][0] == references[i][0] and list(answers[i][1]) == list(references[i][1]) for i in both)
        agreeing = sum(agreement.holds(*answer) for answer in answers)
        found[f"sentence_accuracy{suffix}"] = right / len(both) if both else 0.0
        found[f"consistency{suffix}"] = agreeing / len(answers) if answers else 1.0
    return found
