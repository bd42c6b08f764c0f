"""What a file's columns seem to be: which is read, which is learned, and by which head.

`guess_table` looks at a sample of rows (`read_sample`) and proposes one task an annotation column. Names are tried first, the form of
the values decides. Nothing is certain, so everything that was left out is named with its reason; `mtl-nlp init` shows both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import listed
from ..kinds import head_kind
from ..labels import TagError, to_iob2, types_in
from .profile import (
    SPLIT_COLUMN_NAMES,
    TEXT_NAMES,
    WORD_NAMES,
    Column,
    exact_text_rank,
    items,
    label_name,
    longest,
    name_parts,
    name_role,
    profile,
    span_label,
    text_rank,
)
from .readers import read_files

SAMPLE = 2000
MOST_LABELS = 50
LONGEST_LABEL = 60
PAIRS = (
    ("premise", "hypothesis"),
    ("text", "text_pair"),
    ("sentence", "sentence_pair"),
    ("query", "passage"),
    ("query", "document"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "answer"),
    ("claim", "evidence"),
    ("context", "response"),
)


@dataclass(frozen=True)
class TaskGuess:
    """One task that a file seems to hold.

    Attributes:
        columns: role → column, as `data.columns` of a task takes it.
        annotation: the column that is learned.
        annotated: rows of the sample that carry it.
        labels: labels (or entity types) seen, with their numbers.
        missing: `data.missing`, where the default would drop a label.
        fixed_labels: `labels`, where the head needs them (choices that are called A, B, …).
        notes: what the user should know about this guess.
    """

    head: str
    columns: dict[str, str | list[str]]
    annotation: str
    annotated: int
    labels: Counter[str] = field(default_factory=Counter)
    scheme: str | None = None
    metrics: tuple[str, ...] = ()
    missing: tuple[str, ...] | None = None
    fixed_labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Its metrics, the primary one first."""
        return self.metrics or head_kind(self.head).default_metrics

    def needs(self) -> list[str]:
        """Every column that it reads."""
        return [name for value in self.columns.values() for name in (value if isinstance(value, list) else [value])]


@dataclass(frozen=True)
class TableGuess:
    """What a table seems to hold: its tasks, why each other column is unused, and the problem if there is no task."""

    tasks: list[TaskGuess]
    unused: dict[str, str]
    problem: str = ""


@dataclass(frozen=True)
class Sample:
    """Rows of a file, spread evenly over it (files are often sorted by label), and the size of the whole."""

    rows: int
    columns: dict[str, list[Any]]
    class_names: dict[str, tuple[str, ...]]
    conll: bool


def read_sample(paths: Sequence[Path], most: int = SAMPLE) -> Sample:
    """At most `most` rows of files of one format.

    Raises:
        FaultyInput: what `read_files` finds wrong, with file and line.
    """
    data, origin = read_files(paths)
    part = data.select(range(0, len(data), -(-len(data) // most) or 1))
    names = {}
    for name, feature in data.features.items():
        inner = getattr(feature, "feature", feature)
        names[name] = tuple(getattr(inner, "names", None) or ())
    return Sample(len(data), {name: part[name][:] for name in data.column_names}, names, origin.format == "conll")


def annotated_rows(values: Sequence[Any], guess: TaskGuess) -> int:
    """How many of an annotation column's values the guessed task would take as annotated."""
    marks = {-1} if guess.missing is None and guess.head != "regression" else set()
    return sum(not (_scalar(value) and value in marks) for _, value in profile("", values).filled)


def _scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def guess_table(
    columns: Mapping[str, Sequence[Any]],
    class_names: Mapping[str, Sequence[str]] | None = None,
    *,
    conll: bool = False,
) -> TableGuess:
    """The tasks in a table of sampled rows.

    Args:
        columns: name → one value a row.
        class_names: names of integer codes, for columns whose source has them.
        conll: the table is a CoNLL file: words come first, tags last.
    """
    names = class_names or {}
    table = [profile(name, values, names.get(name, ())) for name, values in columns.items() if name.strip()]
    if conll:
        return _guess_conll(table)
    headless = [column.name for column in table if column.kind == "text" and column.counts[column.name]]
    if headless and not any(exact_text_rank(column.name) is not None for column in table):
        told = f'"{headless[0]}" is the name of a column and a value in it'
        return TableGuess([], {}, f"line 1 seems to be data ({told}): write the columns' names there")
    finder = _Finder(table)
    return finder.result()


def _guess_conll(table: Sequence[Column]) -> TableGuess:
    """The first column holds the words, the last the tags; CoNLL-U numbers its words and has its tags in the fourth."""
    numbered = len(table) > 2 and all(
        all(re.fullmatch(r"\d+([-.]\d+)?", str(item)) for item in value) for _, value in table[0].filled
    )
    words = table[1] if numbered else table[0]
    tags = table[3] if numbered and len(table) == 10 else table[-1]
    if len(table) < 2 or tags is words:
        return TableGuess([], {}, "one column only: no tags beside the words")
    guess = _tag_task(words, tags)
    if guess is None:
        return TableGuess([], {}, f"the column {tags.name} holds no tags: {_shown_counts(tags)}")
    unused = {c.name: "another column of the file" for c in table if c not in (words, tags)}
    return TableGuess([guess], unused)


def _shown_counts(column: Column) -> str:
    return f"{column.distinct} different values such as {listed(list(column.counts)[:3])}"


def guess_scheme(sentences: Sequence[Sequence[str]]) -> str:
    """The tagging scheme of tag sequences: `bioes`, `iob1`, `iob2`, or `none` for tags without prefixes.

    IOB1 and IOB2 have the same tags; the one that needs fewer repairs is taken, IOB2 on ties.
    """
    tags = {tag for sentence in sentences for tag in sentence}
    if any(tag[:2] in ("S-", "E-", "L-", "U-") for tag in tags):
        candidates = ["bioes"]
    elif any(tag[:2] in ("B-", "I-") for tag in tags):
        candidates = ["iob2", "iob1"]
    else:
        return "none"
    repairs: dict[str, int] = {}
    for scheme in candidates:
        try:
            repairs[scheme] = sum(to_iob2(sentence, scheme)[1] for sentence in sentences)
        except TagError:
            return "none"
    return min(candidates, key=lambda scheme: repairs[scheme])


def _tag_task(words: Column, tags: Column) -> TaskGuess | None:
    """A token task, or None if the column holds no tags."""
    split = tags.kind == "text"
    sentences = [
        [label_name(tag, tags.class_names) for tag in (value.split() if split else value)] for _, value in tags.filled
    ]
    counts = Counter(tag for sentence in sentences for tag in sentence)
    size = counts.total()
    if len(counts) < 2 or len(counts) > max(20, size // 4):
        return None
    scheme = guess_scheme(sentences)
    notes: list[str] = []
    if scheme == "none" and all(tag.isdigit() for tag in counts):
        notes.append("the tags are integer codes: name them with data.names, in the order of the codes")
    plain = scheme == "none" and "O" not in counts
    if scheme != "none":
        kinds = set(types_in(counts))
        counts = Counter(tag[2:] for s in sentences for tag in s if tag[:2] in ("B-", "I-", "S-", "U-") and tag[2:] in kinds)
    return TaskGuess(
        "token_classification",
        {"tokens": words.name, "labels": tags.name},
        tags.name,
        len(tags.filled),
        counts,
        scheme,
        ("token_accuracy",) if plain else (),
        notes=tuple(notes),
    )


class _Finder:
    """Assigns the columns of one table, the surest first."""

    def __init__(self, table: Sequence[Column]) -> None:
        self.table = list(table)
        self.used: set[str] = set()
        self.tasks: list[TaskGuess] = []
        self.unused: dict[str, str] = {}
        self.inputs: dict[str, str | list[str]] = {}

    def result(self) -> TableGuess:
        """All tasks of the table."""
        self._tags()
        self._answers()
        self._choices()
        if not self.inputs:
            self._text()
        if self.inputs:
            self._spans()
            self._label_lists()
            self._labels()
        for column in self._free():
            self.unused.setdefault(column.name, _why_unused(column))
        return TableGuess(self.tasks, self.unused, "" if self.tasks else self._problem())

    def _problem(self) -> str:
        if not self.inputs:
            return f"no column of text (it has {listed(c.name for c in self.table)})"
        told = listed(f"{name}: {why}" for name, why in self.unused.items())
        read = " and ".join(str(name) for name in self.inputs.values())
        return f"{read} is read, but no column to learn from it (others: {told})"

    def _free(self, *kinds: str) -> list[Column]:
        return [c for c in self.table if c.name not in self.used and (not kinds or c.kind in kinds)]

    def _named(self, *names: str) -> Column | None:
        """The first free column of one of these names."""
        free = {column.name.casefold(): column for column in reversed(self._free())}
        return next((free[name] for name in names if name in free), None)

    def _add(self, head: str, roles: Mapping[str, str | list[str]], column: Column, **more: Any) -> None:
        self.used.add(column.name)
        self.tasks.append(TaskGuess(head, dict(roles), column.name, more.pop("annotated", len(column.filled)), **more))

    # Words and tags: two lists of equal length in every row, or two strings of equally many words.
    def _tags(self) -> None:
        lists = self._free("strings", "ints")
        lists.sort(key=lambda c: (c.name.casefold() not in WORD_NAMES, -c.distinct))
        for words in [c for c in lists if c.kind == "strings" and not c.coded]:
            aligned = [c for c in lists if c is not words and not c.coded and _aligned(words, c)]
            if aligned:
                self._tag_tasks(words, aligned)
                return
        texts = self._free("text")
        for words in sorted(texts, key=lambda c: -c.mean_length):
            aligned = [c for c in texts if c is not words and _looks_tagged(c) and _aligned(words, c)]
            if aligned:
                self._tag_tasks(words, aligned)
                return
        if not any(text_rank(c.name) is not None for c in texts):
            given = next((c for c in lists if c.kind == "strings" and c.name.casefold() in WORD_NAMES), None)
            if given is not None and not given.coded:
                self.inputs = {"tokens": given.name}
                self.used.add(given.name)

    def _tag_tasks(self, words: Column, aligned: Sequence[Column]) -> None:
        order = [column.name for column in self.table]
        for column in sorted(aligned, key=lambda c: order.index(c.name)):
            guess = _tag_task(words, column)
            if guess is not None:
                self.tasks.append(guess)
                self.used |= {words.name, column.name}
        text = self._best_text(sure=True) if self.tasks else None
        if self.tasks:
            # Labels of the whole text are read from the raw text where there is one: that is what prediction gets.
            self.inputs = {"text": text.name} if text else {"tokens": words.name}
            self.used |= {text.name} if text else set()

    def _answers(self) -> None:
        question, context = self._named("question"), self._named("context", "passage", "paragraph")
        answers = next((c for c in self._free("answers") if not c.coded), None)
        if question is None or context is None or answers is None:
            return
        roles: dict[str, str | list[str]] = {"question": question.name, "context": context.name, "answers": answers.name}
        self.used |= {question.name, context.name}
        self.inputs = {"text": question.name, "pair": context.name}
        self._add("question_answering", roles, answers)

    def _choices(self) -> None:
        listed_choices = next((c for c in self._free("strings") if set(name_parts(c.name)) & _CHOICES), None)
        parted = [c for c in self._free("text") if re.fullmatch(_CHOICE_COLUMN, c.name, re.IGNORECASE)]
        label = self._named("label", "answer", "answerkey", "answer_key", "gold", "correct")
        if label is None or (listed_choices is None and len(parted) < 2):
            return
        context = self._named("context", "article", "passage", "premise", "sent1", "startphrase", "ctx", "paragraph")
        question = self._named("question", "sent2", "query")
        first, second = (context, question) if context else (question, None)
        letters = tuple(sorted(label.counts))
        coded = label.kind == "int" or all(letter.isdigit() for letter in letters)
        if first is None or not (coded or all(re.fullmatch("[A-Z]", letter) for letter in letters)):
            return
        roles: dict[str, str | list[str]] = {"context": first.name} | ({"question": second.name} if second else {})
        if listed_choices is not None:
            roles["choices"] = listed_choices.name
            most = max(len(value) for _, value in listed_choices.filled)
        else:
            roles["choice_columns"] = [c.name for c in parted]
            most = len(parted)
        fixed = () if coded else tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: max(most, 2)])
        self.used |= {name for value in roles.values() for name in (value if isinstance(value, list) else [value])}
        self.inputs = {"text": first.name}
        self._add("multiple_choice", {**roles, "label": label.name}, label, fixed_labels=fixed, labels=label.counts)

    def _text(self) -> None:
        pair = self._pair()
        if pair is not None:
            self.inputs = {"text": pair[0].name, "pair": pair[1].name}
        else:
            text = self._best_text()
            if text is not None:
                self.inputs = {"text": text.name}
        self.used |= {str(name) for name in self.inputs.values()}

    def _pair(self) -> tuple[Column, Column] | None:
        texts = {column.name.casefold(): column for column in self._free("text")}
        for first, second in PAIRS:
            if first in texts and second in texts and not _few(texts[second]):
                return texts[first], texts[second]
        for name, column in texts.items():
            match = re.fullmatch(r"(.+?)([_ -]?)(1|a)", name)
            if match and match[1] in (*TEXT_NAMES, "s", "t", "q"):
                other = texts.get(f"{match[1]}{match[2]}{'2' if match[3] == '1' else 'b'}")
                if other is not None:
                    return column, other
        return None

    def _best_text(self, sure: bool = False) -> Column | None:
        """The column of text, by its name; where no name tells and need not be `sure`, the one of the longest texts."""
        texts = self._free("text")
        exact = [c for c in texts if exact_text_rank(c.name) is not None]
        if exact:
            return min(exact, key=lambda c: exact_text_rank(c.name) or 0)
        texts = [c for c in texts if name_role(c.name) in ("", "meta") and not _few(c)] or texts
        named = [c for c in texts if text_rank(c.name) is not None]
        if named or sure:
            first = min((text_rank(c.name) or 0 for c in named), default=0)
            return longest(c for c in named if text_rank(c.name) == first)
        return longest(c for c in texts if name_role(c.name) != "label")

    def _spans(self) -> None:
        tagged = any(task.head == "token_classification" for task in self.tasks)
        for column in self._free("spans"):
            if tagged or "text" not in self.inputs or "pair" in self.inputs:
                self.unused[column.name] = "spans; the tags of the words are learned instead" if tagged else "spans of no single text"
                self.used.add(column.name)
                continue
            counts = Counter(span_label(span) for _, value in column.filled for span in value)
            self._add("token_classification", {**self.inputs, "spans": column.name}, column, labels=counts, scheme="iob2")

    def _label_lists(self) -> None:
        for column in self._free("strings", "ints", "text"):
            several = column.kind != "text"
            counts = column.counts if several else _parts(column)
            if (several or any("|" in str(value) for _, value in column.filled)) and _few_of(counts, len(column.filled)):
                if name_role(column.name) == "identifier":
                    continue
                note = () if several else ("an empty field means not annotated, not `none of the labels`",)
                roles = {**self.inputs, "labels": column.name}
                self._add("multi_label_classification", roles, column, labels=counts, notes=note)

    def _labels(self) -> None:
        """Columns that are named like labels or scores; else texts of few values, else integers, else numbers."""
        sure = [c for c in self._free() if name_role(c.name) in ("label", "value")]
        found = [self._label_task(c, named=True) for c in _without_codes(sure)]
        if not any(found) and not self.tasks:
            unsure = [c for c in self._free() if name_role(c.name) == ""] or []
            unsure += [c for c in self._free("text") if name_role(c.name) == "meta"]
            coded = [c for c in self._free("int") if "label" in name_parts(c.name) or "class" in name_parts(c.name)]
            for kinds in (("text", "bool"), ("int",), ("float",)):
                group = [c for c in dict.fromkeys_by_name([*unsure, *coded]) if c.kind in kinds]
                if any([self._label_task(c, named=False) for c in group]):
                    break
