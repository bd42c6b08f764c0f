"""What a file's columns seem to be: which is read, which is learned, and by which head.

`guess_table` looks at a sample of rows (`read_sample`) and proposes one task an annotation column. Names are tried
first, the form of the values decides. Nothing is certain, so everything that was left out is named with its reason;
`mtl-nlp init` shows both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import listed
from ..kinds import head_kind
from . import guess_names as names_of
from .conll import is_numbered, is_word
from .guess_columns import Column, is_split_column, longest, profile, span_label
from .guess_labels import LONGEST_LABEL, codes, gaps, is_label, is_value, mean_length, parts, remarks, why_unused
from .guess_names import PAIRS, WORD_NAMES, exact_text_rank, name_parts, name_role, numbered_pairs, text_rank
from .guess_tags import aligned, are_tags, guess_scheme, looks_tagged, same_text, tag_counts, tag_sequences
from .readers import read_files

SAMPLE = 2000
LETTERS = "ABCDEFGHIJ"
CHOICE_NAMES = ("choices", "options", "endings", "candidates")
CHOICE_COLUMN = re.compile(r"(ending|choice|option|answer)[_ -]?([0-9]|[a-j])", re.IGNORECASE)

Roles = dict[str, str | list[str]]


@dataclass(frozen=True)
class TaskGuess:
    """One task that a file seems to hold.

    Attributes:
        columns: role → column, as `data.columns` of a task takes it.
        annotation: the column that is learned.
        annotated: rows of the sample that carry it.
        labels: labels (or entity types) seen, with their numbers.
        metrics: where they are not the head's own.
        missing: `data.missing`, where the default would take a label for a gap.
        fixed_labels: `labels`, where the head needs them (choices that are called A, B, …).
        notes: what the user should know about this guess.
    """

    head: str
    columns: Roles
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

    def annotated_in(self, values: Sequence[Any]) -> int:
        """How many of an annotation column's values it would take as annotated."""
        gap = self.missing is None and self.head != "regression"
        return sum(
            not (gap and isinstance(value, int | float) and value == -1) for _, value in profile("", values).filled
        )


@dataclass(frozen=True)
class TableGuess:
    """What a table seems to hold: its tasks, why each other column is unused, and the problem if there is no task.

    `notes` are what the user should know about the whole table.
    """

    tasks: list[TaskGuess]
    unused: dict[str, str]
    problem: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """Rows spread evenly over a file (files are often sorted by label), and the size of the whole.

    `format` is a value of `readers.FORMATS`; `class_names` name integer codes where the source knows them; `no_words` are the
    lines of CoNLL-U that are left out.
    """

    rows: int
    columns: dict[str, list[Any]]
    class_names: dict[str, tuple[str, ...]]
    format: str
    no_words: int = 0


def read_sample(paths: Sequence[Path], most: int = SAMPLE) -> Sample:
    """At most `most` rows of files of one format.

    Raises:
        FaultyInput: what `read_files` finds wrong, with file and line.
    """
    data, origin = read_files(paths)
    part = data.select(range(0, len(data), max(1, -(-len(data) // most))))
    names = {}
    for name, feature in data.features.items():
        names[name] = tuple(getattr(getattr(feature, "feature", feature), "names", None) or ())
    return Sample(
        len(data), {name: list(part[name]) for name in data.column_names}, names, origin.format, origin.no_words
    )


def guess_table(
    columns: Mapping[str, Sequence[Any]], class_names: Mapping[str, Sequence[str]] | None = None, *, format: str = ""
) -> TableGuess:
    """The tasks in a table of sampled rows.

    Args:
        columns: name → one value a row.
        class_names: names of integer codes, for columns whose source has them.
        format: a value of `readers.FORMATS`: in `conll` words come first and tags last, `csv` and `tsv` may lack the
            line of column names.
    """
    names = class_names or {}
    table = [profile(name, values, names.get(name, ())) for name, values in columns.items() if name.strip()]
    if format == "conll":
        return _guess_conll(table)
    if format in ("csv", "tsv") and not any(exact_text_rank(column.name) is not None for column in table):
        headless = next((column.name for column in table if column.counts[column.name]), None)
        if headless is not None:
            told = f'"{headless}" is the name of a column and a value in it'
            return TableGuess([], {}, f"line 1 seems to be data ({told}): write the columns' names there")
    return _Finder(table).result()


def _guess_conll(table: Sequence[Column]) -> TableGuess:
    """The first column holds the words, the last the tags; CoNLL-U numbers its words and has its tags in the fourth.

    In a file called `.conllu` what is no word is left out already; in others its form is seen here.
    """
    numbers = [item for _, value in table[0].filled for item in value]
    numbered = len(table) > 2 and all(is_numbered(item) for item in numbers)
    words = table[1] if numbered else table[0]
    tags = table[3] if numbered and len(table) == 10 else table[-1]
    if tags is words:
        return TableGuess([], {}, "one column only: no tags beside the words")
    guess = _tag_task(words, tags)
    if guess is None:
        seen = f"{tags.distinct} different values such as {listed(list(tags.counts)[:3])}"
        return TableGuess([], {}, f"the column {tags.name} holds no tags: {seen}")
    unused = {column.name: "another column of the file" for column in table if column not in (words, tags)}
    ranges = numbered and any(not is_word(item) for item in numbers)
    told = "it has multiword tokens (3-4), which are read as words: call it .conllu, and they are left out"
    return TableGuess([guess], unused, notes=(told,) if ranges else ())


def _tag_task(words: Column, tags: Column) -> TaskGuess | None:
    """A token task, or None if the column holds no tags."""
    sequences = tag_sequences(tags)
    if not are_tags(sequences):
        return None
    scheme = guess_scheme(sequences)
    counts = tag_counts(sequences, scheme)
    plain = scheme == "none" and "O" not in counts
    notes: tuple[str, ...] = ()
    if scheme == "none" and all(tag.isdigit() for tag in counts):
        notes = ("the tags are integer codes: data.names gives them names, in the order of the codes, O among them",)
    roles: Roles = {"tokens": words.name, "labels": tags.name}
    metrics = ("token_accuracy",) if plain else ()
    return TaskGuess("token_classification", roles, tags.name, len(tags.filled), counts, scheme, metrics, notes=notes)


class _Finder:
    """Assigns the columns of one table, the surest first.

    `inputs` are the roles that tasks on the whole text read; columns that have found their role are in `used`.
    """

    def __init__(self, table: Sequence[Column]) -> None:
        self.table = list(table)
        self.used: set[str] = set()
        self.tasks: list[TaskGuess] = []
        self.unused: dict[str, str] = {}
        self.inputs: Roles = {}

    def result(self) -> TableGuess:
        """All tasks of the table."""
        self._find_passages()
        self._find_tags()
        self._find_answers()
        self._find_choices()
        if not self.inputs:
            self._find_text()
        if self.inputs:
            self._find_spans()
            self._find_label_lists()
            self._find_labels()
        for column in self._free():
            self.unused.setdefault(column.name, why_unused(column))
        unused = {column.name: self.unused[column.name] for column in self.table if column.name in self.unused}
        return TableGuess(self.tasks, unused, "" if self.tasks else self._problem(), self._split_notes())

    def _split_notes(self) -> tuple[str, ...]:
        named = [column for column in self._free() if is_split_column(column) and column.distinct > 1]
        told = "names splits, but a recipe takes them from files: write one file a split, or test rows are trained on"
        return tuple(f'column "{column.name}" {told}' for column in named)

    def _problem(self) -> str:
        if not self.inputs:
            return f"no column of text (it has {listed(column.name for column in self.table)})"
        told = listed(f"{name}: {why}" for name, why in self.unused.items())
        read = " and ".join(str(name) for name in self.inputs.values())
        return f"no column to learn from beside {read}; others: {told}"

    def _free(self, *kinds: str) -> list[Column]:
        return [c for c in self.table if c.name not in self.used and (not kinds or c.kind in kinds)]

    def _named(self, *names: str) -> Column | None:
        """The first free column of one of these names, in their order."""
        free = {column.name.casefold(): column for column in reversed(self._free())}
        return next((free[name] for name in names if name in free), None)

    def _add(self, head: str, roles: Roles, column: Column, **more: Any) -> None:
        self.used.add(column.name)
        self.tasks.append(TaskGuess(head, dict(roles), column.name, more.pop("annotated", len(column.filled)), **more))

    def _find_tags(self) -> None:
        """Words and tags: two lists of equal length in every row, or two strings of equally many words."""
        lists = [column for column in self._free("strings", "ints") if not column.coded]
        lists.sort(key=lambda c: (c.name.casefold() not in WORD_NAMES, -c.distinct))
        texts = sorted(self._free("text"), key=lambda c: -c.mean_length)
        tagged = [column for column in texts if looks_tagged(column)]
        for words in [column for column in lists if column.kind == "strings"]:
            if self._tag_tasks(words, [c for c in lists if c is not words and aligned(words, c)]):
                same = self._best_text(sure=True)
                # Labels of the whole text are read from the raw text where there is one: that is what prediction gets.
                self._read(**({"text": same} if same is not None and same_text(words, same) else {"tokens": words}))
                return
        for words in [column for column in texts if column not in tagged]:
            if self._tag_tasks(words, [c for c in tagged if aligned(words, c)]):
                self._read(text=words)
                return
        given = next((c for c in lists if c.kind == "strings" and c.name.casefold() in WORD_NAMES), None)
        if given is not None and not any(text_rank(column.name) is not None for column in texts):
            self._read(tokens=given)

    def _read(self, **roles: Column) -> None:
        self.inputs = {role: column.name for role, column in roles.items()}
        self.used |= {column.name for column in roles.values()}

    def _tag_tasks(self, words: Column, tags: Iterable[Column]) -> bool:
        before = len(self.tasks)
        for column in sorted(tags, key=self.table.index):
            guess = _tag_task(words, column)
            if guess is not None:
                self.tasks.append(guess)
                self.used |= {words.name, column.name}
        return len(self.tasks) > before

    def _find_passages(self) -> None:
        """A query with the passage that answers it, or with candidates and how relevant each is."""
        query = self._named(*names_of.QUERY)
        if query is None or query.kind != "text":
            return
        positive, negatives = self._named(*names_of.POSITIVE), self._named(*names_of.NEGATIVE)
        if positive is not None and positive.kind == "text":
            roles: Roles = {"query": query.name, "positive": positive.name}
            if negatives is not None and negatives.kind in ("strings", "text"):
                roles["negatives"] = negatives.name
                self.used.add(negatives.name)
            self._read(text=query)
            self._add("retrieval", roles, positive)
            return
        candidates, relevance = self._named(*names_of.CANDIDATE), self._named(*names_of.RELEVANCE)
        if candidates is None or relevance is None:
            return
        listed_ones = candidates.kind == "strings" and all(isinstance(value, list) for _, value in relevance.filled)
        several = listed_ones and aligned(candidates, relevance)
        apart = candidates.kind == "text" and relevance.kind in ("int", "float", "bool")
        if several or (apart and query.distinct < len(query.filled)):
            role = "candidates" if several else "candidate"
            self._read(text=query)
            self.used.add(candidates.name)
            self._add("ranking", {"query": query.name, role: candidates.name, "relevance": relevance.name}, relevance)

    def _find_answers(self) -> None:
        question, context = self._named("question"), self._named("context", "passage", "paragraph")
        answers = next((column for column in self._free("answers")), None)
        if question is not None and context is not None and answers is not None:
            self._read(text=question, pair=context)
            roles: Roles = {"question": question.name, "context": context.name, "answers": answers.name}
            self._add("question_answering", roles, answers)

    def _find_choices(self) -> None:
        """One text and several choices of which a number or a letter names the right one."""
        inside = next((c for c in self._free("strings") if c.name.casefold() in CHOICE_NAMES), None)
        apart = [c for c in self._free("text") if CHOICE_COLUMN.fullmatch(c.name)]
        label = self._named("label", "answer", "answerkey", "answer_key", "gold", "correct")
        first = self._named("context", "article", "passage", "premise", "sent1", "startphrase", "ctx")
        second = self._named("question", "sent2", "query")
        first, second = (first, second) if first is not None else (second, None)
        if label is None or first is None or (inside is None and len(apart) < 2):
            return
        most = len(apart) if inside is None else max(len(value) for _, value in inside.filled)
        coded = set(label.counts) <= {str(number) for number in range(most)}
        if not coded and not set(label.counts) <= set(LETTERS[:most]):
            return
        roles: Roles = {"context": first.name}
        if second is not None:
            roles["question"] = second.name
        if inside is not None:
            roles["choices"], apart = inside.name, [inside]
        else:
            roles["choice_columns"] = [column.name for column in apart]
        self._read(text=first, **({"pair": second} if second else {}))
        self.used |= {column.name for column in apart}
        fixed = () if coded else tuple(LETTERS[:most])
        self._add("multiple_choice", {**roles, "label": label.name}, label, fixed_labels=fixed)

    def _find_text(self) -> None:
        texts = {column.name.casefold(): column for column in self._free("text")}
        pairs = [
            (texts[one], texts[two]) for one, two in (*PAIRS, *numbered_pairs(texts)) if one in texts and two in texts
        ]
        pair = next((pair for pair in pairs if not is_label(pair[1], named=False)), None)
        if pair is not None:
            self._read(text=pair[0], pair=pair[1])
            return
        text = self._best_text()
        if text is not None and text.distinct > 1:
            self._read(text=text)

    def _best_text(self, *, sure: bool = False) -> Column | None:
        """The column of text by its name; by the length of its texts where no name tells and it need not be `sure`."""
        texts = self._free("text")
        exact = [column for column in texts if exact_text_rank(column.name) is not None]
        if exact:
            return min(exact, key=lambda c: exact_text_rank(c.name) or 0)
        plain = [c for c in texts if name_role(c.name) in ("", "meta")]
        named = [c for c in plain if text_rank(c.name) is not None and not is_label(c, named=False)]
        if named or sure:
            first = min((text_rank(column.name) or 0 for column in named), default=0)
            return longest(column for column in named if text_rank(column.name) == first)
        return longest(plain or [column for column in texts if not is_label(column, named=False)])

    def _find_spans(self) -> None:
        tagged = any(task.head == "token_classification" for task in self.tasks)
        for column in self._free("spans"):
            if not tagged and set(self.inputs) == {"text"}:
                counts = Counter(span_label(span) for _, value in column.filled for span in value)
                self._add(
                    "token_classification", {**self.inputs, "spans": column.name}, column, labels=counts, scheme="iob2"
                )
            else:
                self.unused[column.name] = (
                    "spans; the words' tags are learned instead" if tagged else "spans of one of two texts"
                )

    def _find_label_lists(self) -> None:
        for column in self._free("strings", "ints", "text"):
            role, several = name_role(column.name), column.kind != "text"
            if role in ("identifier", "meta") or (column.kind == "ints" and role != "label"):
                continue
            counts = column.counts if several else parts(column, named=role == "label")
            if not 2 <= len(counts) <= max(20, len(column.filled) // 2) or mean_length(counts) > LONGEST_LABEL:
                continue
            note = () if several else ("an empty field means not annotated, not: none of the labels",)
            roles = {**self.inputs, "labels": column.name}
            self._add("multi_label_classification", roles, column, labels=counts, notes=note)

    def _find_labels(self) -> None:
        """Columns that are named like labels or scores; where there are none, by the form of their values."""
        sure = [column for column in self._free() if name_role(column.name) in ("label", "value")]
        for code, name in codes(sure):
            self.unused[code.name] = f"the codes of {name.name}"
            sure.remove(code)
        for column in sure:
            self._label_task(column, named=True)
        unnamed = [column for column in self._free() if name_role(column.name) == ""]
        coded = [
            column for column in self._free("int") if {"label", "class", "category"} & set(name_parts(column.name))
        ]
        weak = [column for column in self._free("text", "bool") if name_role(column.name) == "meta"]
        for kinds, group in (
            (("text", "bool"), unnamed),
            (("int",), [*unnamed, *coded]),
            (("float",), unnamed),
            ((), weak),
        ):
            if self.tasks:
                return
            for column in group:
                if not kinds or column.kind in kinds:
                    self._label_task(column, named=False)

    def _label_task(self, column: Column, *, named: bool) -> None:
        if is_value(column, named=named):
            self._add("regression", {**self.inputs, "label": column.name}, column)
        elif is_label(column, named=named):
            missing, notes = gaps(column)
            counts = Counter({name: n for name, n in column.counts.items() if missing is not None or name != "-1"})
            more: dict[str, Any] = {"labels": counts, "missing": missing, "annotated": counts.total()}
            notes += remarks(column)
            self._add("sequence_classification", {**self.inputs, "label": column.name}, column, notes=notes, **more)
