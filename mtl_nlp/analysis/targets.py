"""What of a prediction is explained: one number of the head's output for each decision that a task took on a text.

| annotation | a target | the number |
|---|---|---|
| label | the predicted label | its logit |
| labels | each chosen label (the likeliest if none is) | its logit |
| value | the number | itself |
| tags | each predicted entity | mean logit of its words' tags (of a chain: their emissions) |
| answer | the span | logits of its first and last token, added |
| choice, relevance | the best choice, candidate | its score |
| match | the nearest entry of the knowledge base | its cosine |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import fault, listed
from ..labels import choice_names, tag_names
from ..task import Task
from .explained_rows import TracedRow

Places = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Target:
    """One number of a task's logits over one row.

    Attributes:
        name: the label, the entity's type …
        row: the row of the piece that is read.
        places: indices into one row's logits; the number is their sum × `scale`.
        probability: `softmax`, `sigmoid`, `span` (softmax over tokens) or `none`: how logits become what the answer's score is.
        told: what else the answer says of it, for the reader.
        entry: [D], for a retrieval: the number is the inner product with it.
    """

    name: str
    row: int
    places: Places
    scale: float
    probability: str
    told: dict[str, Any]
    entry: NDArray[np.float32] | None = None

    def number(self, logits: Tensor) -> Tensor:
        """[n] of the head's logits over n copies of the row."""
        if self.entry is not None:
            return logits.float() @ torch.from_numpy(self.entry).to(logits.device)
        flat = logits.float() if logits.dim() > 1 else logits.float()[:, None]
        parts = []
        for place in self.places:
            part = flat
            for index in place:
                part = part.select(1, index)
            parts.append(part)
        return torch.stack(parts).sum(0) * self.scale

    def score(self, logits: Tensor) -> Tensor:
        """[n], the same as the answer's score counts it: a probability, or the number itself."""
        flat = logits.float()
        if self.probability == "none":
            return self.number(logits)
        if self.probability == "sigmoid":
            return self.number(flat.sigmoid())
        if self.probability == "span":
            flat = flat.log_softmax(1)
            return self.number(flat).exp()
        return self.number(flat.softmax(-1))


def targets_of(
    task: Task, answer: dict[str, Any], rows: Sequence[TracedRow], offsets: Sequence[tuple[int, int]], label: str | None
) -> list[Target]:
    """The targets of one task's answer on a piece.

    Args:
        answer: of `Predictor`, with all scores.
        offsets: of a token task's words.
        label: explain this label, or entities of this type, in place of the answer.

    Raises:
        UserError: a label that the task does not have.
    """
    kind = task.kind.annotation
    if label is not None and label not in (task.labels or ()):
        allowed = listed(task.labels or ()) or "none: the head has no labels"
        raise fault(f'no label "{label}"', key=f"--label {task.name}", allowed=allowed)
    if kind in ("label", "labels"):
        return _classes(task, answer, label)
    if kind == "value":
        return [Target("value", 0, ((0,),), 1.0, "none", {"value": answer["value"]})]
    if kind == "tags":
        return _entities(task, answer, rows, offsets, label)
    if kind == "answer":
        return [_span(answer, rows)]
    if kind == "match":
        found = answer["matches"][0]
        told = {"score": found["score"], "answer": found["answer"], "predicted": answer["id"] is not None}
        return [Target(found["id"], 0, (), 1.0, "none", told)]
    if kind == "choice":
        name = answer["label"] if label is None else label
        names = choice_names(task.labels, len(rows))
        if name not in names:
            raise fault(f'no choice "{name}" among {len(rows)}', key=f"--label {task.name}", allowed=listed(names))
        told = {"score": answer["scores"][name], "predicted": name == answer["label"]}
        told |= {"choice": answer["choice"]} if name == answer["label"] else {}
        return [Target(name, names.index(name), ((0,),), 1.0, "none", told)]
    best = answer["ranking"][0]
    told = {"score": best["score"], "candidate": best["candidate"]}
    return [Target(str(best["index"]), best["index"], ((0,),), 1.0, "none", told)]


def _classes(task: Task, answer: dict[str, Any], label: str | None) -> list[Target]:
    names, scores = list(task.labels or ()), answer["scores"]
    chosen = [one["label"] for one in answer["labels"]] if "labels" in answer else [answer["label"]]
    if label is not None:
        wanted = [label]
    else:
        # Abstained, or nothing above its threshold: what came nearest is explained.
        wanted = [name for name in chosen if name is not None] or [max(scores, key=scores.get)]
    form = "sigmoid" if "labels" in answer else "softmax"
    return [
        Target(name, 0, ((names.index(name),),), 1.0, form, {"score": scores[name], "predicted": name in chosen})
        for name in wanted
    ]


def _entities(
    task: Task, answer: dict[str, Any], rows: Sequence[TracedRow], offsets: Sequence[tuple[int, int]], label: str | None
) -> list[Target]:
    tags = tag_names(task.labels or [], task.tag_scheme)
    packed = len(tags) + 2 if task.kind.chain else 0
    # A word is labelled on its first token, in the one row where it has most context.
    home = {word: (number, i) for number, row in enumerate(rows) for i, word in enumerate(row.words) if word >= 0}
    found = []
    for entity in answer["entities"]:
        if label is not None and entity["entity_group"] != label:
            continue
        inside = [
            i
            for i, (start, end) in enumerate(offsets)
            if start >= entity["start"] and end <= entity["end"] and i in home
        ]
        if not inside:
            continue
        row = home[inside[0]][0]
        places = []
        for word in inside:
            if home[word][0] != row:
                break
            kind = entity["entity_group"]
            tag = kind if task.tag_scheme == "none" else ("B-" if word == inside[0] else "I-") + kind
            places.append((packed + home[word][1], tags.index(tag)))
        told = {key: entity[key] for key in ("score", "word", "start", "end")}
        found.append(Target(entity["entity_group"], row, tuple(places), 1 / len(places), "softmax", told))
    return found


def _span(answer: dict[str, Any], rows: Sequence[TracedRow]) -> Target:
    """The answer's span in the row where it stands in most context; the first token for no answer."""
    told = {key: answer[key] for key in ("score", "answer", "start", "end")}
    best: tuple[int, int, int, int] = (-1, 0, 0, 0)
    for number, row in enumerate(rows):
        starts, ends = np.asarray(row.starts), np.asarray(row.ends)
        inside = np.nonzero((starts >= 0) & (starts < answer["end"]) & (ends > answer["start"]))[0]
        if (
            answer["answer"]
            and len(inside)
            and starts[inside[0]] <= answer["start"]
            and ends[inside[-1]] >= answer["end"]
        ):
            first, last = int(inside[0]), int(inside[-1])
            best = max(best, (min(first, len(starts) - 1 - last), number, first, last), key=lambda one: one[0])
    _, number, first, last = best
    return Target(answer["answer"], number, ((first, 0), (last, 1)), 1.0, "span", told)
