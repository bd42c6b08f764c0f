"""A column's values → normal annotations: the label as its name, tags in IOB2, spans in characters.

One `AnnotationReader` a task. What a source writes as integers is named here (by the task's `names`, the source's ClassLabel or
the task's `labels`, in this order), what means "not annotated" becomes None, and every value that cannot be taken is noted with
its row for a fault. Files and lines are added in `sources`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..labels import LabelSet, Span, parse_bracketed, to_iob2, types_in_order, whitespace_words
from ..task import Task

Normal = Any
MOST_PROBLEMS = 20


@dataclass(frozen=True)
class Problem:
    """A value that cannot be taken: the row in the split, the word in it (tags), what was found and what is allowed."""

    row: int
    found: str
    allowed: str = ""
    word: int | None = None


@dataclass
class AnnotationCounts:
    """What was met while reading one task's annotations of one split."""

    annotated: int = 0
    missing: int = 0
    invalid_sequences: int = 0
    repaired_tags: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    unknown_rows: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    more_problems: int = 0
    skipped: list[Problem] = field(default_factory=list)


class AnnotationReader:
    """Reads one task's annotations of one split.

    Args:
        task: the definition.
        class_names: names of the integer codes from the source's ClassLabel, if it has one.
        skip: a value that cannot be taken is skipped and counted, not a fault: for Hub datasets, which a user cannot mend.
    """

    def __init__(self, task: Task, class_names: Sequence[str] | None, *, skip: bool = False) -> None:
        self.task = task
        self._skip = skip
        self.names = task.data.names or (list(class_names) if class_names else None)
        self.counts = AnnotationCounts()
        self._known = set(task.labels) if task.labels is not None else None
        # For a regression −1 is a number like any other, unless the task says that it marks a gap.
        implicit = "missing" not in task.data.model_fields_set
        self._missing = [""] if implicit and task.kind.annotation == "value" else list(task.data.missing)
        self._read: Callable[..., Normal] = getattr(self, f"_{task.kind.annotation}")

    def read(self, row: int, value: Any, text: Any) -> Normal:
        """The normal form of a value, or None if it is missing or cannot be taken (which is then noted).

        `text` is what the annotation speaks of: the words for tags, the raw text for spans, the context for answers.
        """
        if self.is_missing(value):
            self.counts.missing += 1
            return None
        try:
            normal = self._read(row, value, text)
        except ValueError as error:
            self._note(Problem(row, str(error)))
            return None
        if normal is None:
            self.counts.missing += 1
        else:
            self.counts.annotated += 1
        return normal

    def refuse(self, row: int, found: str) -> None:
        """Note a value that is wrong before it gets here."""
        self._note(Problem(row, found))

    def is_missing(self, value: Any) -> bool:
        """Whether a value means "not annotated"."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return True
        # A column of codes with gaps comes as floats, so numbers are compared as such; true is no 1.
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return any(
            value == mark if number and not isinstance(mark, str) else type(value) is type(mark) and value == mark
            for mark in self._missing
        )

    def _note(self, problem: Problem) -> None:
        if self._skip:
            self.counts.skipped.append(problem)
        elif len(self.counts.problems) < MOST_PROBLEMS:
            self.counts.problems.append(problem)
        else:
            self.counts.more_problems += 1

    def _named(self, value: Any) -> str:
        """A label's name; integers are codes."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int):
            names = self.names or self.task.labels
            if names is None:
                return str(value)
            if str(value) in names:
                return str(value)
            if not 0 <= value < len(names):
                raise ValueError(f"label code {value} → allowed: 0 to {len(names) - 1}, or a name")
            return names[value]
        if not isinstance(value, str):
            raise ValueError(f"found {value!r} ({type(value).__name__}) → allowed: a label's name or code")
        return value

    def _count(self, row: int, label: str, word: int | None = None) -> str:
        self.counts.labels[label] += 1
        if self._known is not None and label not in self._known:
            self.counts.unknown[label] += 1
            self.counts.unknown_rows.setdefault(label, (row, word))
        return label

    def _label(self, row: int, value: Any, text: Any) -> str:
        return self._count(row, self._named(value))

    def _labels(self, row: int, value: Any, text: Any) -> list[str]:
        if isinstance(value, str):
            value = _from_json(value) if value.startswith("[") else [part.strip() for part in value.split("|")]
        if not isinstance(value, list | tuple):
            raise ValueError(f"found {value!r} → allowed: a list of labels, or one string `a|b`")
        names = list(dict.fromkeys(self._named(one) for one in value))
        return [self._count(row, name) for name in names]

    def _value(self, row: int, value: Any, text: Any) -> float:
        if isinstance(value, bool):
            raise ValueError(f"found {str(value).lower()} → allowed: a number")
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"found {value!r} → allowed: a number") from None
        if not math.isfinite(number):
            raise ValueError(f"found {number} → allowed: a finite number")
        return number

    def _tags(self, row: int, value: Any, text: Any) -> list[str] | list[dict[str, Any]] | None:
        if self.reads_spans:
            return self._spans(row, value, text)
        if isinstance(value, str):
            value = value.split()
        if not isinstance(value, list | tuple):
            raise ValueError(
                f"found {value!r} ({type(value).__name__}) → allowed: one tag a word, in a list or a string"
            )
        if not value and text:
            return None
        if len(value) != len(text):
            raise ValueError(f"{len(value)} tags for {len(text)} words → one tag a word")
        named = [self._named(tag) for tag in value]
        tags, repaired = to_iob2(named, self.task.tag_scheme)
        self.counts.repaired_tags += repaired
        self.counts.invalid_sequences += repaired > 0
        for word, tag in enumerate(tags):
            if self.task.tag_scheme == "none":
                self._count(row, tag, word)
            elif tag.startswith("B-"):
                self._count(row, tag[2:], word)
        return tags

    @property
    def reads_spans(self) -> bool:
        """Whether the annotation comes as character spans."""
        return "spans" in self.task.data.columns.roles()

    def _spans(self, row: int, value: Any, text: str) -> list[dict[str, Any]]:
        if isinstance(value, str):
            value = _from_json(value)
        if not isinstance(value, list | tuple):
            raise ValueError(f"found {value!r:.80} → allowed: a list of {{start, end, label}}, or its JSON")
        spans = [_as_span(one) for one in value]
        for span in spans:
            if not 0 <= span.start < span.end <= len(text):
                raise ValueError(f"span {span.start}:{span.end} {span.label} → within 0:{len(text)}, start before end")
        return [{"start": s.start, "end": s.end, "label": self._count(row, s.label)} for s in spans]

    def _answer(self, row: int, value: Any, text: str) -> dict[str, Any]:
        texts, starts = _as_answers(value)
        for answer, start in zip(texts, starts, strict=True):
            if text[start : start + len(answer)] != answer:
                raise ValueError(
                    f'answer "{answer[:40]}" does not stand at {start} → the context has "{text[start:][:40]}"'
                )
        return {"text": texts, "answer_start": starts}

    def _relevance(self, row: int, value: Any, text: Sequence[str]) -> list[float]:
        if isinstance(value, str):
            value = _from_json(value)
        if not isinstance(value, list | tuple):
            raise ValueError(f"found {value!r:.80} → allowed: a list with the relevance of each candidate")
        if len(value) != len(text):
            raise ValueError(f"{len(value)} values for {len(text)} candidates → one a candidate")
        return [_as_relevance(one) for one in value]

    def _match(self, row: int, value: Any, text: Sequence[str]) -> str | None:
        if not isinstance(value, str):
            raise ValueError(f"found {value!r:.80} → allowed: the text of the passage that answers the query")
        return value if value.strip() else None

    def _none(self, row: int, value: Any, text: Any) -> None:
        """Masked LM has no annotation."""

    def _choice(self, row: int, value: Any, text: Sequence[str]) -> int:
        names = self.task.labels
        if isinstance(value, str) and names is not None and value in names:
            number = names.index(value)
        elif isinstance(value, bool | list | dict) or (isinstance(value, str) and not value.isdigit()):
            raise ValueError(f'found "{value}" → allowed: the number of the right choice, from 0, or a name in labels')
        else:
            number = int(value)
        if not 0 <= number < len(text):
            raise ValueError(f"choice {number} of {len(text)} → allowed: 0 to {len(text) - 1}")
        return number


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise ValueError(f'found "{text[:80]}" → allowed: a list, as JSON') from None


def _as_answers(value: Any) -> tuple[list[str], list[int]]:
    """Texts and starts of SQuAD's `{text: […], answer_start: […]}` or of a list of `{text, answer_start}`; of their JSON."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
        keys = ("text", "answer_start")
        texts, starts = ([one[key] for one in value] if isinstance(value, list) else list(value[key]) for key in keys)
        if isinstance(value, dict) and isinstance(value["text"], str):
            raise TypeError
        if len(texts) != len(starts) or not all(isinstance(text, str) for text in texts):
            raise TypeError
        return texts, [int(start) for start in starts]
    except (json.JSONDecodeError, KeyError, TypeError):
        allowed = "{text: [a, …], answer_start: [0, …]}"
        raise ValueError(f"found {value!r:.80} → allowed: {allowed}") from None


def _as_relevance(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"found relevance {value!r} → allowed: a number from 0 (not relevant) up")
    return number


def _as_span(value: Any) -> Span:
    """A span as Doccano, spaCy or Label Studio write it: `{start, end, label}` or `[start, end, label]`."""
    if isinstance(value, dict):
        label = next((value[key] for key in ("label", "entity_group", "type", "entity") if key in value), None)
        start, end = value.get("start"), value.get("end")
    elif isinstance(value, list | tuple) and len(value) == 3:
        start, end, label = value
    else:
        start = end = label = None
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    whole = isinstance(start, int | float) and isinstance(end, int | float)
    if not whole or not isinstance(label, str):
        raise ValueError(f"found {value!r} → allowed: {{start, end, label}} or [start, end, label]")
    return Span(int(start), int(end), label)  # type: ignore[arg-type]


def bracketed_words(text: str) -> tuple[list[str], list[str]]:
    """MASSIVE's `[slot : words]` annotation → words and their IOB2 tags."""
    from ..labels import spans_to_tags

    plain, spans = parse_bracketed(text)
    offsets = whitespace_words(plain)
    tags, _ = spans_to_tags(spans, offsets)
    return [plain[start:end] for start, end in offsets], tags


def label_order(task: Task, class_names: Sequence[str] | None, seen: Counter[str]) -> list[str] | None:
    """The task's labels in order: as given; else the source's names; else by code point.

    Raises:
        ValueError: no label at all.
    """
    if not task.kind.form.has_labels:
        return task.labels
    names: Sequence[str] | None = task.data.names or class_names
    if names and task.kind.annotation == "tags" and task.tag_scheme != "none":
        names = types_in_order(names, task.tag_scheme)
    return list(LabelSet.from_values(task.labels, names, seen))
