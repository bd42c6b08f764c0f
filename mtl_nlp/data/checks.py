"""What can be said of the data before the first step: sizes, labels, texts that stand twice, lengths.

In: the corpora of a recipe and their encoded rows. Out: a `DataReport`, with everything worth a look as a list of `Finding`s.
Labels are counted in `label_balance`, texts compared in `leakage`; every count is made batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import listed
from .annotations import AnnotationCounts
from .features import EncodedSplit
from .label_balance import Drift, TaskBalance, task_balance
from .leakage import Leak, SplitTexts, find_leaks, read_texts

if TYPE_CHECKING:
    from .sources import Corpus, CorpusSplit

BATCH = 1000
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
    first_empty: str | None
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
        data = asdict(self) | {"repaired": repaired, "first_repeat": repeat}
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
    balances = [task_balance(corpus, task) for corpus in corpora for task in corpus.tasks]
    reports = [_corpus_report(corpus, encoded, texts, balances) for corpus in corpora]
    leaks = find_leaks(corpora, texts)
    found = [*_leak_findings(leaks), *_task_findings(balances), *_corpus_findings(reports)]
    return DataReport(reports, balances, leaks, sorted(found, key=lambda finding: not finding.wanting))


def _corpus_report(
    corpus: Corpus,
    encoded: Mapping[str, Mapping[str, EncodedSplit]],
    texts: Mapping[tuple[str, str], SplitTexts],
    balances: Sequence[TaskBalance],
) -> CorpusReport:
    splits = {}
    for name in corpus.splits:
        missing = {b.task: b.splits[name].missing for b in balances if b.corpus == corpus.name}
        splits[name] = _split_report(corpus, name, encoded[name][corpus.name], texts[corpus.name, name], missing)
    return CorpusReport(corpus.name, corpus.task_names, corpus.reads, list(corpus.notes), splits)


def _split_report(
    corpus: Corpus, name: str, encoded: EncodedSplit, texts: SplitTexts, missing: dict[str, int]
) -> SplitReport:
    part = corpus.splits[name]
    carved = corpus.carved and name == "validation"
    counts = {} if carved else part.counts
    repeat = texts.first_repeat
    return SplitReport(
        split=name,
        texts=len(part),
        filtered=part.filtered,
        unannotated=part.unannotated,
        carved=carved,
        missing=missing,
        skipped={task: _skipped(part, count) for task, count in counts.items() if count.skipped},
        repaired={task: (c.invalid_sequences, c.repaired_tags) for task, c in counts.items() if c.invalid_sequences},
        blank_lines_kept=0 if carved else part.origin.skipped_lines,
        empty=texts.empty,
        first_empty=None if texts.first_empty is None else part.where(texts.first_empty),
        repeats=texts.repeats,
        first_repeat=None if repeat is None else (part.where(repeat[0]), part.where(repeat[1])),
        lengths=row_lengths(encoded, windows=corpus.reads != "choices"),
        misaligned_spans=encoded.misaligned_spans,
        dropped_spans=encoded.dropped_spans,
        words_without_tokens=encoded.words_without_tokens,
    )


def _skipped(part: CorpusSplit, counts: AnnotationCounts) -> SkippedValues:
    shown = [f"{part.origin.where(p.row, p.word)}: {p.found}" for p in counts.skipped[:SHOWN]]
    return SkippedValues(len(counts.skipped), shown)


def row_lengths(encoded: EncodedSplit, *, windows: bool) -> Lengths:
    """The lengths of a split's rows; `windows`: several rows of a text are windows of it, not choices."""
    column = encoded.rows.select_columns(["input_ids"])
    found = [len(ids) for start in range(0, len(column), BATCH) for ids in column[start : start + BATCH]["input_ids"]]
    tokens = np.asarray(found)
    windowed = int((np.diff(encoded.offsets) > 1).sum()) if windows else 0
    p95 = float(np.percentile(tokens, 95))
    return Lengths(len(tokens), float(tokens.mean()), p95, int(tokens.max()), windowed, encoded.truncated)


def percent(share: float) -> str:
    """`3.6 %`; two digits after the point below one per cent."""
    return f"{100 * share:.1f} %" if share >= 0.01 or not share else f"{100 * share:.2f} %"


def some(count: int, noun: str, many: str = "") -> str:
    """`1 text`, `2 texts`."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"


def _leak_findings(leaks: Sequence[Leak]) -> Iterator[Finding]:
    for leak in leaks:
        owner = f"the training split of {leak.train_corpus}" if leak.across else "its own training split"
        first = leak.examples[0]
        yield Finding(
            "leakage_across_tasks" if leak.across else "leakage",
            f"{leak.corpus}: {some(leak.texts, f'{leak.split} text')} ({percent(leak.share)}) also in {owner}; "
            f"first {first.where} = {first.train_where}",
            wanting=True,
        )


def _task_findings(balances: Sequence[TaskBalance]) -> Iterator[Finding]:
    for task in balances:
        if task.absent:
            found = f"{task.task}: {some(len(task.absent), 'label')} without a training text: {listed(task.absent)}"
            yield Finding("label_absent_from_training", found, wanting=True)
        for split, labels in task.splits.items():
            for unknown in labels.unknown:
                times = some(unknown.count, labels.unit[:-1])
                found = f'{task.task}: unknown label "{unknown.label}" in {split} ({times}, counted as wrong)'
                yield Finding("unknown_label", f"{found}; first {unknown.where}", wanting=True)
        for drift in task.drift.values():
            if drift.flagged:
                yield Finding("drift", _drift_message(task.task, drift))


def _drift_message(task: str, drift: Drift) -> str:
    moved = listed(f"{label} {percent(before)} → {percent(here)}" for label, before, here in drift.moved)
    told = f"; moved most: {moved}" if drift.moved else ""
    small = f"; the split is small: chance alone gives about {drift.chance:.2f}" if drift.small else ""
    return f"{task}: {drift.split} differs from train ({drift.measure} {drift.distance:.3f}){told}{small}"


def _corpus_findings(reports: Sequence[CorpusReport]) -> Iterator[Finding]:
    for corpus in reports:
        for note in corpus.notes:
            yield Finding("note", f"{corpus.name}: {note}")
        for split in corpus.splits.values():
            yield from _reading_findings(f"{corpus.name} ({split.split})", split)
            yield from _encoding_findings(f"{corpus.name} ({split.split})", split)


def _reading_findings(name: str, split: SplitReport) -> Iterator[Finding]:
    if split.empty:
        yield Finding(
            "empty_text", f"{name}: {some(split.empty, 'empty text')}; first {split.first_empty}", wanting=True
        )
    for task, (sequences, tags) in split.repaired.items():
        found = f"{name}: {task} has {some(sequences, 'invalid tag sequence')}, {some(tags, 'transition')} repaired"
        yield Finding("repaired_tags", found, wanting=True)
    for task, skipped in split.skipped.items():
        found = (
            f"{name}: {some(skipped.count, 'value')} of {task} not readable, taken as missing; {skipped.examples[0]}"
        )
        yield Finding("skipped_values", found)
    if split.first_repeat is not None:
        first, earlier = split.first_repeat
        share = percent(split.repeats / split.texts)
        found = f"{name}: {some(split.repeats, 'text')} ({share}) also earlier in the split; first {first} = {earlier}"
        yield Finding("duplicate_texts", found)


def _encoding_findings(name: str, split: SplitReport) -> Iterator[Finding]:
    if split.lengths.truncated:
        share = percent(split.lengths.truncated / split.texts)
        yield Finding("truncated", f"{name}: {some(split.lengths.truncated, 'text')} ({share}) longer than a row, cut")
    if split.dropped_spans:
        yield Finding(
            "dropped_spans", f"{name}: {some(split.dropped_spans, 'span')} left out, covering no word or overlapping"
        )
    if split.misaligned_spans:
        yield Finding(
            "misaligned_spans", f"{name}: {some(split.misaligned_spans, 'span')} cutting words, moved to their borders"
        )
    if split.words_without_tokens:
        yield Finding(
            "words_without_tokens", f"{name}: {some(split.words_without_tokens, 'word')} without a token, predicted O"
        )
