"""Spans in sequences of IOB2 tags, and how many of the predicted ones are right.

seqeval reads the spans, in one of two modes. *Lenient* is seqeval's default and conlleval's reading: an `I-x`
that continues nothing opens a span, so `I-PER I-PER` is right where `B-PER I-PER` is wanted. Most papers report
it. *Strict* is seqeval's strict IOB2: such an `I-x` belongs to no span. A predicted span is right if its type,
first word and last word are all those of a reference span.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import UserError

_IOB2 = re.compile(r"O|[BI]-.+", re.DOTALL)


@dataclass(frozen=True)
class SpanCounts:
    """Numbers of spans: right ones, predicted ones and reference ones."""

    right: int
    predicted: int
    wanted: int

    @property
    def precision(self) -> float:
        """Share of the predicted spans that are right, 0 without any; NaN where there are no spans at all."""
        return self._ratio(self.right, self.predicted)

    @property
    def recall(self) -> float:
        """Share of the reference spans that are found, 0 without any; NaN where there are no spans at all."""
        return self._ratio(self.right, self.wanted)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN where there are no spans at all."""
        return self._ratio(2 * self.right, self.predicted + self.wanted)

    def _ratio(self, part: int, whole: int) -> float:
        if not self.predicted and not self.wanted:
            return float("nan")
        return part / whole if whole else 0.0


def count_spans(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]], *, strict: bool
) -> dict[str, SpanCounts]:
    """Span counts by type, types by code point; a type that occurs nowhere is not in it.

    Raises:
        UserError: a tag is not `O`, `B-x` or `I-x`.
    """
    found, wanted = spans_of(predictions, strict=strict), spans_of(references, strict=strict)
    right, predicted, reference = (Counter(span[-1] for span in spans) for spans in (found & wanted, found, wanted))
    return {kind: SpanCounts(right[kind], predicted[kind], reference[kind]) for kind in sorted(predicted | reference)}


def spans_of(rows: Sequence[Sequence[str]], *, strict: bool) -> set[tuple[int, int, int, str]]:
    """The spans (text, first word, a place that tells their end, type) of N texts' tags.

    Raises:
        UserError: a tag is not `O`, `B-x` or `I-x`.
    """
    return _strict_spans(rows) if strict else _lenient_spans(rows)


def pooled(counts: Iterable[SpanCounts]) -> SpanCounts:
    """The counts of all types together (micro average)."""
    every = list(counts)
    return SpanCounts(
        sum(count.right for count in every),
        sum(count.predicted for count in every),
        sum(count.wanted for count in every),
    )


def _lenient_spans(rows: Sequence[Sequence[str]]) -> set[tuple[int, int, int, str]]:
    """Spans (text, first word, last word, type) of N texts."""
    from seqeval.metrics.sequence_labeling import get_entities

    return {
        (text, start, end, kind) for text, row in enumerate(_checked(rows)) for kind, start, end in get_entities(row)
    }


def _strict_spans(rows: Sequence[Sequence[str]]) -> set[tuple[int, int, int, str]]:
    """Spans (text, first word, last word + 1, type) of N texts."""
    from seqeval.scheme import IOB2, Entities

    texts = Entities(_checked(rows), IOB2).entities
    return {(span.sent_id, span.start, span.end, span.tag) for spans in texts for span in spans}


def _checked(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The rows as the lists of strings that seqeval insists on; it would read `NOUN` by its first letter."""
    for tag in {tag for row in rows for tag in row}:
        if not isinstance(tag, str) or not _IOB2.fullmatch(tag):
            raise UserError(f"tag {tag!r} → O, B-x or I-x; tags that mark no spans (scheme: none) have token_accuracy")
    return [list(row) for row in rows]
