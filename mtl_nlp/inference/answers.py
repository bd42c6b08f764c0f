"""Decoded annotations → a task's part of a prediction, as plain JSON data.

By kind: `{"label", "score"}`, `{"labels": [{"label", "score"}]}`, `{"value"}`, `{"entities": [{"entity_group", "score", "word",
"start", "end"}]}` (with `"tags"` for given words), `{"answer", "start", "end", "score"}`, for multiple choice `{"label", "score",
"choice"}`, for ranking `{"ranking": [{"candidate", "score", "index"}]}`. Offsets are characters of the raw text, of the words
joined by single spaces, or of the context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..decoding import Decoded
from ..labels import choice_names, entities, to_iob2
from ..task import Task
from .passes import EncodedPiece

Answer = dict[str, Any]


def answer(task: Task, decoded: Decoded, piece: EncodedPiece, splitter: str | None, top: int | None) -> Answer:
    """A task's answer for one piece.

    Args:
        splitter: of a token task.
        top: how many of the labels' scores to add under `scores`, the highest first; 0 for all, None for none.
    """
    build: dict[str, Callable[..., Answer]] = {
        "label": _label,
        "labels": _labels,
        "value": _value,
        "choice": _choice,
        "answer": _answer,
        "relevance": _ranking,
    }
    if task.kind.annotation == "tags":
        assert splitter is not None
        return _tags(task, decoded, piece, splitter)
    return build[task.kind.annotation](task, decoded, piece, top)


def _label(task: Task, decoded: Decoded, piece: EncodedPiece, top: int | None) -> Answer:
    assert decoded.scores is not None
    labels = list(task.labels or ())
    # Of the label that is answered (joint decoding may have chosen another than the highest); where none is, the highest.
    score = decoded.scores.max() if decoded.value is None else decoded.scores[labels.index(decoded.value)]
    return {"label": decoded.value, "score": float(score)} | _scores(labels, decoded, top)


def _labels(task: Task, decoded: Decoded, piece: EncodedPiece, top: int | None) -> Answer:
    assert decoded.scores is not None
    score = dict(zip(task.labels or (), decoded.scores.tolist(), strict=True))
    chosen = [{"label": name, "score": score[name]} for name in decoded.value]
    chosen.sort(key=lambda one: -one["score"])
    return {"labels": chosen} | _scores(list(task.labels or ()), decoded, top)


def _value(task: Task, decoded: Decoded, piece: EncodedPiece, top: int | None) -> Answer:
    return {"value": decoded.value}


def _choice(task: Task, decoded: Decoded, piece: EncodedPiece, top: int | None) -> Answer:
    assert decoded.scores is not None
    choices = piece.piece.fields["choices"]
    number, names = int(decoded.value), choice_names(task.labels, len(choices))
    found: Answer = {"label": names[number], "score": float(decoded.scores[number]), "choice": choices[number]}
    return found | _scores(names, decoded, top)


def _answer(task: Task, decoded: Decoded, piece: EncodedPiece, top: int | None) -> Answer:
    # A byte-level token may carry the space before its word.
    start = decoded.span[0] + len(decoded.value) - len(decoded.value.lstrip())
    text = decoded.value.strip()
    return {"answer": text, "start": start, "end": start + len(text), "score": decoded.score}


def _ranking(task: Task, decoded: Decoded, piece: EncodedPiece, top: int | None) -> Answer:
    assert decoded.scores is not None
    candidates = piece.piece.fields["choices"]
    order = np.argsort(-decoded.scores, kind="stable")
    return {
        "ranking": [{"candidate": candidates[i], "score": float(decoded.scores[i]), "index": int(i)} for i in order]
    }


def _tags(task: Task, decoded: Decoded, piece: EncodedPiece, splitter: str) -> Answer:
    assert decoded.scores is not None
    scheme = "none" if task.tag_scheme == "none" else "iob2"
    found: Answer = {
        "entities": [
            dict(one)
            for one in entities(piece.piece.text, decoded.value, piece.words(splitter), decoded.scores, scheme)
        ]
    }
    if piece.piece.form == "tokens":
        found["tags"] = to_iob2(decoded.value, scheme)[0]
    return found


def _scores(names: list[str], decoded: Decoded, top: int | None) -> Answer:
    if top is None:
        return {}
    assert decoded.scores is not None
    order = np.argsort(-decoded.scores, kind="stable")[: top or None]
    return {"scores": {names[i]: float(decoded.scores[i]) for i in order}}
