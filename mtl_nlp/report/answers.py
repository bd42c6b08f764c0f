"""Predictions → confusion matrices, entity error types, calibration, and the worst mistakes. Pure functions of their lines.

A line is what `mtl_nlp.training.predictions` writes: `row`, the inputs, `gold`, `predicted`, `score`, `scores`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..labels.schemes import chunks
from ..metrics.calibration import BINS, expected_calibration_error
from .facts import ERROR_TYPES, Answers, Bin, Confusion, LabelScore, Mark, Mistake, Numbers, Reliability, SpanErrors

Line = Mapping[str, Any]
Span = tuple[int, int, str]
WORST = 10
PAIRS = 400
LONGEST = 320  # characters of a mistake's text
NOT_INPUTS = frozenset({"row", "gold", "predicted", "score", "scores", "ranks"})
NO_ANSWER = "(no answer)"


def answers_of(
    lines: Sequence[Line], annotation: str, labels: Sequence[str], split: str, scheme: str = "iob2"
) -> Answers:
    """What a task answered on a split.

    Args:
        annotation: the form of its annotations, a key of `mtl_nlp.kinds.ANNOTATIONS`.
        labels: the task's labels in order.
    """
    wrong = None if annotation in ("value", "relevance") else sum(not is_right(line, annotation) for line in lines)
    made: dict[str, Any] = {"split": split, "texts": len(lines), "wrong": wrong}
    if annotation == "label":
        pairs = [(str(line["gold"]), _shown(line["predicted"])) for line in lines]
        made["confusion"] = confusion(pairs, labels, "texts")
    elif annotation == "labels":
        made["labels"] = label_scores(lines, labels)
    elif annotation == "tags" and scheme == "none":
        pairs = [(g, p) for line in lines for g, p in zip(line["gold"], line["predicted"], strict=False)]
        made["confusion"] = confusion(pairs, labels, "words")
    elif annotation == "tags":
        made["spans"] = span_errors([(chunks(line["gold"]), chunks(line["predicted"])) for line in lines])
    elif annotation == "value":
        made["numbers"] = numbers(lines)
    confidences, right, unit = decisions(lines, annotation)
    made["reliability"] = reliability(confidences, right, unit) if confidences else None
    made["worst"] = worst(lines, annotation, scheme)
    return Answers(**made)


def is_right(line: Line, annotation: str) -> bool:
    """Whether the whole answer is right; of a question with several references, whether one of them is hit."""
    gold, predicted = line["gold"], line["predicted"]
    if annotation == "labels":
        return set(gold) == set(predicted or ())
    if annotation == "match":
        return predicted in gold
    if annotation == "answer":
        wanted = [gold] if isinstance(gold, str) else list(gold or ())
        return _plain(predicted) in {_plain(one) for one in wanted} if wanted else not _plain(predicted)
    return bool(gold == predicted)


def _plain(text: Any) -> str:
    return " ".join(str(text or "").lower().split())


def _shown(value: Any) -> str:
    return NO_ANSWER if value is None else str(value)


def confusion(pairs: Iterable[tuple[str, str]], labels: Sequence[str], unit: str) -> Confusion:
    """Counts of (reference, prediction); labels that the task does not know follow its own."""
    names = list(labels)
    places = {name: i for i, name in enumerate(names)}
    counts: dict[tuple[int, int], int] = {}
    for pair in pairs:
        for name in pair:
            if name not in places:
                places[name] = len(names)
                names.append(name)
        key = (places[pair[0]], places[pair[1]])
        counts[key] = counts.get(key, 0) + 1
    return Confusion(names, counts, unit)


def label_scores(lines: Sequence[Line], labels: Sequence[str]) -> list[LabelScore]:
    """Each label by itself, where a text may have several."""
    names = list(dict.fromkeys([*labels, *(label for line in lines for label in line["gold"])]))
    right, found, wanted = dict.fromkeys(names, 0), dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for line in lines:
        gold, predicted = set(line["gold"]), set(line["predicted"] or ())
        for counts, chosen in ((right, gold & predicted), (found, predicted), (wanted, gold)):
            for label in chosen:
                counts[label] = counts.get(label, 0) + 1
    return [
        LabelScore(
            name,
            precision=right[name] / found[name] if found[name] else 0.0,
            recall=right[name] / wanted[name] if wanted[name] else 0.0,
            f1=2 * right[name] / (found[name] + wanted[name]) if found[name] + wanted[name] else 0.0,
            support=wanted[name],
        )
        for name in names
    ]


def span_errors(texts: Iterable[tuple[Sequence[Span], Sequence[Span]]]) -> SpanErrors:
    """What became of every entity: (reference spans, predicted spans) of each text, as (first, stop, type).

    Each span is used once, in this order: the same words and type (`correct`), the same words (`type`), overlapping words of the
    same type (`boundary`), overlapping words (`both`); where several overlap, the longest overlap first. What is left is
    `missed` or `spurious`.
    """
    counts: dict[str, dict[str, int]] = {}

    def note(kind: str, error: str) -> None:
        counts.setdefault(kind, dict.fromkeys(ERROR_TYPES, 0))[error] += 1

    for gold, predicted in texts:
        matched, missed, spurious = match_spans(gold, predicted)
        for wanted, _, error in matched:
            note(wanted[2], error)
        for span in missed:
            note(span[2], "missed")
        for span in spurious:
            note(span[2], "spurious")
    return SpanErrors(dict(sorted(counts.items())))


def match_spans(
    gold: Sequence[Span], predicted: Sequence[Span]
) -> tuple[list[tuple[Span, Span, str]], list[Span], list[Span]]:
    """(reference, prediction, error type) of those that go together, missed references, spurious predictions."""
    pairs = []
    for i, wanted in enumerate(gold):
        for j, found in enumerate(predicted):
            overlap = min(wanted[1], found[1]) - max(wanted[0], found[0])
            if overlap <= 0:
                continue
            same, words = wanted[2] == found[2], wanted[:2] == found[:2]
            error = ("correct" if same else "type") if words else ("boundary" if same else "both")
            pairs.append((ERROR_ORDER[error], -overlap, i, j, error))
    left, unused, matched = set(range(len(gold))), set(range(len(predicted))), []
    for _, _, i, j, error in sorted(pairs):
        if i in left and j in unused:
            left.remove(i)
            unused.remove(j)
            matched.append((gold[i], predicted[j], error))
    return matched, [gold[i] for i in sorted(left)], [predicted[j] for j in sorted(unused)]


ERROR_ORDER = {"correct": 0, "type": 1, "boundary": 2, "both": 3}


def numbers(lines: Sequence[Line]) -> Numbers | None:
    """A regression's errors, and evenly picked pairs to draw."""
    pairs = [(float(line["gold"]), float(line["predicted"])) for line in lines]
    if not pairs:
        return None
    errors = np.array([predicted - gold for gold, predicted in pairs])
    step = max(1, math.ceil(len(pairs) / PAIRS))
    return Numbers(pairs[::step], float(np.abs(errors).mean()), float(np.sqrt((errors**2).mean())))


def decisions(lines: Sequence[Line], annotation: str) -> tuple[list[float], list[float], str]:
    """Confidence of every decision, whether it is right, and what a decision is about; as `mtl-nlp calibrate` counts them."""
    confidences: list[float] = []
    right: list[float] = []
    for line in lines:
        scores = line.get("scores")
        if annotation in ("label", "choice") and isinstance(scores, Mapping) and scores:
            best = max(scores, key=lambda name: scores[name])
            confidences.append(float(scores[best]))
            right.append(float(best == str(line["gold"])))
        elif annotation == "labels" and isinstance(scores, Mapping):
            confidences += [float(score) for score in scores.values()]
            right += [float(name in line["gold"]) for name in scores]
        elif annotation == "tags" and isinstance(scores, Sequence):
            words = list(zip(scores, line["gold"], line["predicted"], strict=False))
            confidences += [float(score) for score, _, _ in words]
            right += [float(gold == predicted) for _, gold, predicted in words]
        elif annotation in ("label", "choice", "answer") and isinstance(line.get("score"), int | float):
            confidences.append(float(line["score"]))
            right.append(float(is_right(line, annotation)))
    return confidences, right, {"tags": "words", "labels": "labels of texts"}.get(annotation, "texts")


def reliability(confidences: Sequence[float], right: Sequence[float], unit: str, bins: int = BINS) -> Reliability:
    """Bins are equally wide and closed above, as the expected calibration error has them."""
    confidence, hit = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    place = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(np.int64)
    made = []
    for number in range(bins):
        inside = place == number
        if inside.any():
            edges = (number / bins, (number + 1) / bins)
            made.append(Bin(*edges, int(inside.sum()), float(confidence[inside].mean()), float(hit[inside].mean())))
    return Reliability(expected_calibration_error(confidence, hit, bins), len(confidence), unit, made)


def worst(lines: Sequence[Line], annotation: str, scheme: str = "iob2", most: int = WORST) -> list[Mistake]:
    """The wrong answers of which the model was surest; of numbers those that are farthest off."""
    if annotation == "relevance":
        return []
    if annotation == "value":
        far = sorted(lines, key=lambda line: -abs(float(line["predicted"]) - float(line["gold"])))
        return [_mistake(line, annotation, error=float(line["predicted"]) - float(line["gold"])) for line in far[:most]]
    found = [
        (confidence, number, line)
        for number, line in enumerate(lines)
        if not is_right(line, annotation)
        for confidence in [_confidence(line, annotation, scheme)]
    ]
    found.sort(key=lambda one: (-(one[0] if one[0] is not None else -1.0), one[1]))
    return [_mistake(line, annotation, confidence=confidence, scheme=scheme) for confidence, _, line in found[:most]]


def _confidence(line: Line, annotation: str, scheme: str) -> float | None:
    """Of tags that of the surest wrong entity (its least sure word), of labels that of the surest wrong one."""
    scores = line.get("scores")
    if annotation == "tags" and isinstance(scores, Sequence):
        wrong = [
            min(float(score) for score in scores[first:stop])
            for first, stop in _wrong_spans(line, scheme)
            if first < len(scores)
        ]
        return max(wrong, default=None)
    if annotation == "labels" and isinstance(scores, Mapping):
        gold, predicted = set(line["gold"]), set(line["predicted"] or ())
        sure = [
            float(p) if name in predicted else 1 - float(p) for name, p in scores.items() if name in gold ^ predicted
        ]
        return max(sure, default=None)
    score = line.get("score")
    return float(score) if isinstance(score, int | float) else None


def _wrong_spans(line: Line, scheme: str) -> list[tuple[int, int]]:
    """Words of predicted entities that are wrong, and of missed ones."""
    if scheme == "none":
        pairs = enumerate(zip(line["gold"], line["predicted"], strict=False))
        return [(i, i + 1) for i, (gold, predicted) in pairs if gold != predicted]
    matched, missed, spurious = match_spans(chunks(line["gold"]), chunks(line["predicted"]))
    found = [found for _, found, error in matched if error != "correct"]
    return [(first, stop) for first, stop, _ in [*found, *missed, *spurious]]


def _mistake(
    line: Line, annotation: str, confidence: float | None = None, error: float | None = None, scheme: str = "iob2"
) -> Mistake:
    row = line.get("row")
    gold, predicted = _said(line["gold"]), _said(line["predicted"])
    common: dict[str, Any] = {"row": row if isinstance(row, int) else None, "confidence": confidence, "error": error}
    words = line.get("words")
    if annotation == "tags":
        words = [str(word) for word in words] if words else str(line.get("text", "")).split()
        if len(words) != len(line["gold"]):  # raw text whose words we do not have
            words = []
        marks = [[Mark(*span) for span in chunks(line[key], scheme)] for key in ("gold", "predicted")]
        inputs = [] if words else _inputs(line)
        return Mistake(
            **common, inputs=inputs, gold="", predicted="", words=words, gold_marks=marks[0], predicted_marks=marks[1]
        )
    return Mistake(**common, inputs=_inputs(line), gold=gold, predicted=predicted)


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, str):
        return value or NO_ANSWER
    if isinstance(value, Sequence):
        return " · ".join(str(one) for one in value) or "none"
    return _shown(value)


def _inputs(line: Line) -> list[tuple[str, str]]:
    found = []
    for key, value in line.items():
        if key in NOT_INPUTS or value is None:
            continue
        between = " " if key == "words" else " ¦ "
        text = between.join(str(one) for one in value) if isinstance(value, list) else str(value)
        found.append((key, text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"))
    return found
