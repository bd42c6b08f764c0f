"""What can be said of the data before the first step: sizes, labels, texts that stand twice, lengths.

In: the corpora of a recipe and their encoded rows. Out: a `DataReport`, with everything worth a look as a list of `Finding`s.
Labels are counted in `label_balance`, texts compared in `leakage`; every count is made batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import listed
from .features import EncodedSplit
from .label_balance import Drift, SplitLabels, TaskBalance, task_balance
from .leakage import Leak, SplitTexts, find_leaks, read_texts

if TYPE_CHECKING:
    from .sources import Corpus, CorpusSplit

SHOWN = 3


@dataclass(frozen=True)
class Lengths:
    """Rows of a split in tokens, special ones included.

    Attributes:
        rows: sequences that the texts became; `windowed` texts were cut into several.
        mean, p95, longest: tokens a row: mean, 95th percentile (linear between neighbours), most.
        truncated: texts of which something is in no row that its tasks read.
    """

    rows: int
    mean: float
    p95: float
    longest: int
    windowed: int
    truncated: int


@dataclass(frozen=True)
class SkippedValues:
    """Values of a Hub dataset that could not be taken, and so count as not annotated: how many, and the first few."""

    count: int
    examples: list[str]


@dataclass(frozen=True)
class SplitReport:
    """One split of a corpus.

    Attributes:
        texts: kept texts; the rows `filtered` and those `unannotated` (for any task) were left out.
        carved: validation was taken from the training split. What was met while reading (`filtered`, `unannotated`, `skipped`,
            `repaired`, `blank_lines_kept`) is then told of both together, under train.
        missing: task → kept texts without its annotation.
        skipped: task → values that could not be taken.
        repaired: task → (tag sequences, tags) that were invalid in their scheme.
        blank_lines_kept: CoNLL lines of white space only, which end no sentence.
        empty: texts of which a part is empty, and where the first stands; `repeats` the texts that stand earlier in the split.
    """

    split: str
    texts: int
    filtered: int
    unannotated: int
    carved: bool
    missing: dict[str, int]
    skipped: dict[str, SkippedValues]
    repaired: dict[str, tuple[int, int]]
    blank_lines_kept: int
    empty: int
    first_empty: str
    repeats: int
    first_repeat: tuple[str, str] | None
    lengths: Lengths
    misaligned_spans: int
    dropped_spans: int
    words_without_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        repaired = {task: {"sequences": s, "tags": t} for task, (s, t) in self.repaired.items()}
        repeat = None if self.first_repeat is None else {"where": self.first_repeat[0], "earlier": self.first_repeat[1]}
        data = asdict(self) | {"repaired": repaired, "first_repeat": repeat, "first_empty": self.first_empty or None}
        return {key: value for key, value in data.items() if key != "split"}


@dataclass(frozen=True)
class CorpusReport:
    """One corpus: its tasks, what it reads (`tokens`, `text`, `question`, `choices`), notes made while reading, its splits."""

    name: str
    tasks: list[str]
    reads: str
    notes: list[str]
    splits: dict[str, SplitReport]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "tasks": self.tasks,
            "reads": self.reads,
            "notes": self.notes,
            "splits": {name: split.to_dict() for name, split in self.splits.items()},
        }


@dataclass(frozen=True)
class Finding:
    """One thing to look at; `wanting` if `check` should end with exit code 1 for it."""

    kind: str
    message: str
    wanting: bool = False


@dataclass(frozen=True)
class DataReport:
    """Everything that was found in the data, in the recipe's order."""

    corpora: list[CorpusReport]
    tasks: list[TaskBalance]
    leaks: list[Leak]
    findings: list[Finding] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "corpora": [corpus.to_dict() for corpus in self.corpora],
            "tasks": [task.to_dict() for task in self.tasks],
            "leaks": [leak.to_dict() for leak in self.leaks],
            "warnings": [asdict(finding) for finding in self.findings],
        }


def check_data(corpora: Sequence[Corpus], encoded: Mapping[str, Mapping[str, EncodedSplit]]) -> DataReport:
    """Look through the data of a run.

    Args:
        encoded: split → corpus → its rows, as `mtl_nlp.training.prepare` gives them.
    """
    texts = {(c.name, name): read_texts(part, c.reads) for c in corpora for name, part in c.splits.items()}
    reports = [
        CorpusReport(
            corpus.name,
            corpus.task_names,
            corpus.reads,
            list(corpus.notes),
            {name: _split_report(corpus, name, encoded[name][corpus.name], texts[corpus.name, name]) for name in corpus.splits},
        )
        for corpus in corpora
    ]
    balances = [task_balance(corpus, task) for corpus in corpora for task in corpus.tasks]
    leaks = find_leaks(corpora, texts)
    found = [*_leak_findings(leaks), *_label_findings(balances), *_corpus_findings(reports)]
    return DataReport(reports, balances, leaks, sorted(found, key=lambda finding: not finding.wanting))


def _split_report(corpus: Corpus, name: str, encoded: EncodedSplit, texts: SplitTexts) -> SplitReport:
    part = corpus.splits[name]
    carved = corpus.carved and name == "validation"
    counts = {} if carved else part.counts
    valid = {task.name: part.data.data.column(f"@{task.name}") for task in corpus.tasks if task.kind.annotation != "none"}
    repeat = texts.first_repeat
    return SplitReport(
        split=name,
        texts=len(part),
        filtered=part.filtered,
        unannotated=part.unannotated,
        carved=carved,
        missing={task: _missing(part, task) for task in valid},
        skipped={task: _skipped(part, task) for task, count in counts.items() if count.skipped},
        repaired={
            task: (count.invalid_sequences, count.repaired_tags) for task, count in counts.items() if count.invalid_sequences
        },
        blank_lines_kept=0 if carved else part.origin.skipped_lines,
        empty=texts.empty,
        first_empty="" if texts.first_empty is None else part.where(texts.first_empty),
        repeats=texts.repeats,
        first_repeat=None if repeat is None else (part.where(repeat[0]), part.where(repeat[1])),
        lengths=_lengths(encoded, corpus.reads),
        misaligned_spans=encoded.misaligned_spans,
        dropped_spans=encoded.dropped_spans,
        words_without_tokens=encoded.words_without_tokens,
    )
