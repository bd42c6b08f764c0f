"""Character spans ↔ word tags, entity records, and bracketed annotation.

Offsets are in characters (Python string indices), half open: `text[start:end]`. Words are given by such
offsets, in order, without overlap; they may be empty.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, cast

from mtl_nlp.labels.schemes import OUTSIDE, chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD = re.compile(r"\S+")
_BRACKET = re.compile(r"[\[\]]")


@dataclass(frozen=True, order=True)
class Span:
    """A labelled piece of text, characters `start` … `end` − 1; `score`, a probability, is not compared."""

    start: int
    end: int
    label: str
    score: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class SpanProblem:
    """What became of a span that could not be taken as it was.

    `kind`: `misaligned` (kept, moved to the borders of the words that it overlaps), or, dropped: `overlap`
    (a longer span, or an earlier one as long, has the words), `empty`, `reversed`, `out_of_range`,
    `no_word` (it covers none), `no_label`.
    """

    kind: str
    span: Span
    detail: str

    @property
    def dropped(self) -> bool:
        """Whether the span left no tag."""
        return self.kind != "misaligned"


class Entity(TypedDict):
    """An entity as the token-classification pipeline of transformers writes it."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


def whitespace_words(text: str) -> list[tuple[int, int]]:
    """Return the offsets of the words that `text.split()` gives."""
    return [match.span() for match in _WORD.finditer(text)]


def text_words(text: str) -> list[tuple[int, int]]:
    """Return the offsets of words as annotators cut them: at white space, with the punctuation at a word's ends apart.

    `(Paris)!` gives `(`, `Paris`, `)`, `!`; what is punctuation throughout (`:-)`, `...`), inner punctuation (`don't`,
    a web address) and the last stop of an abbreviation (`U.S.`) stay together.
    """
    words: list[tuple[int, int]] = []
    for start, end in whitespace_words(text):
        if text[start:end].isalnum():
            words.append((start, end))
            continue
        inner = [i for i in range(start, end) if text[i].isalnum()]
        if not inner:
            words.append((start, end))
            continue
        first, last = inner[0], inner[-1] + 1
        if text[last:end] == "." and "." in text[first:last]:
            last = end
        words += [(i, i + 1) for i in range(start, first)]
        words.append((first, last))
        words += [(i, i + 1) for i in range(last, end)]
    return words


def spans_to_tags(
    spans: Sequence[Span], words: Sequence[tuple[int, int]], text: str | None = None
) -> tuple[list[str], list[SpanProblem]]:
    """Return one IOB2 tag a word and the problems, at most one a span, in the order of `spans`.

    A span takes every word that it overlaps; if it cuts a word it is reported as misaligned. Surrounding
    white space is not part of a span. Where spans want the same word, the longer (in characters) is kept,
    on ties the earlier. With `text` the range is its length and white space at the borders of a word is not
    part of the word (byte-level splitters put it there); without, the range ends with the last word and
    every character outside the words counts as white space.

    Raises ValueError if the words are out of order, overlap or leave the text.
    """
    words = _checked_words(words, text)
    starts = [start for start, _ in words]
    ends = [end for _, end in words]
    limit = len(text) if text is not None else (ends[-1] if ends else 0)
    problems: dict[int, SpanProblem] = {}
    wishes: list[tuple[int, int, int, int, int]] = []
    for number, span in enumerate(spans):
        fault = _fault(span, limit)
        first, stop = (0, 0) if fault else _overlapped(span, words, starts, ends)
        if fault or first == stop:
            kind, detail = fault or ("no_word", "it covers no word")
            problems[number] = SpanProblem(kind, span, detail)
            continue
        if text is None:
            start, end = max(span.start, starts[first]), min(span.end, ends[stop - 1])
        else:
            start, end = _stripped(text, span.start, span.end)
        wishes.append((start - end, start, number, first, stop))
        if (start, end) != (starts[first], ends[stop - 1]):
            detail = f"taken as the whole words {starts[first]}:{ends[stop - 1]}"
            problems[number] = SpanProblem("misaligned", span, detail)
    tags = [OUTSIDE] * len(words)
    owner: list[int | None] = [None] * len(words)
    for _, _, number, first, stop in sorted(wishes):
        span = spans[number]
        holder = next((kept for kept in owner[first:stop] if kept is not None), None)
        if holder is not None:
            kept = spans[holder]
            detail = f"dropped for {kept.label} {kept.start}:{kept.end}"
            problems[number] = SpanProblem("overlap", span, detail)
            continue
        owner[first:stop] = [number] * (stop - first)
        tags[first:stop] = [f"B-{span.label}", *[f"I-{span.label}"] * (stop - first - 1)]
    return tags, [problems[number] for number in sorted(problems)]


def _fault(span: Span, limit: int) -> tuple[str, str] | None:
    """Return (kind, detail) if the span has no place in a text of `limit` characters."""
    if not span.label or span.label != span.label.strip():
        return "no_label", f"its label is {span.label!r}"
    if span.start > span.end:
        return "reversed", "it ends before it starts"
    if span.start < 0 or span.end > limit:
        return "out_of_range", f"the text has characters 0:{limit}"
    if span.start == span.end:
        return "empty", "it holds no character"
    return None


def _overlapped(
    span: Span, words: Sequence[tuple[int, int]], starts: Sequence[int], ends: Sequence[int]
) -> tuple[int, int]:
    """Return (first, stop) of the words that share a character with the span, empty words within included."""
    first, stop = bisect_right(ends, span.start), bisect_left(starts, span.end)
    while first < stop and words[first][0] == words[first][1]:
        first += 1
    while first < stop and words[stop - 1][0] == words[stop - 1][1]:
        stop -= 1
    return first, max(first, stop)


def _checked_words(words: Sequence[tuple[int, int]], text: str | None) -> list[tuple[int, int]]:
    """Return the words, stripped if `text` is given. Raises ValueError if they are out of order."""
    last = 0
    for place, (start, end) in enumerate(words):
        if not last <= start <= end:
            raise ValueError(f"word {place + 1}: found {start}:{end} → start ≥ {last}, end ≥ start")
        last = end
    if text is None:
        return [(start, end) for start, end in words]
    if last > len(text):
        raise ValueError(f"word {len(words)}: ends at {last} → the text has {len(text)} characters")
    return [_stripped(text, start, end) for start, end in words]


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the offsets without the white space at the borders; (start, start) if nothing is left."""
    piece = text[start:end]
    kept = piece.strip()
    if not kept:
        return start, start
    if len(kept) == len(piece):
        return start, end
    start += len(piece) - len(piece.lstrip())
    return start, start + len(kept)


def tags_to_spans(
    tags: Sequence[str],
    words: Sequence[tuple[int, int]],
    scores: Sequence[float] | NDArray[Any] | None = None,
    scheme: str = "iob2",
) -> list[Span]:
    """Return the entities of one tag a word as character spans, in order.

    Malformed sequences are repaired (an I-x that continues nothing opens an entity); with scheme `none` an
    entity is a maximal run of equal tags other than O. Empty words at an entity's borders do not move its
    offsets; an entity of empty words alone is an empty span. With `scores`, one probability a word, a
    span's `score` is the mean over its words.

    Raises ValueError for sequences of different lengths, for words out of order and, with a scheme, for a
    malformed tag.
    """
    if len(tags) != len(words) or (scores is not None and len(scores) != len(words)):
        count = "no" if scores is None else len(scores)
        raise ValueError(f"found {len(tags)} tags, {len(words)} words, {count} scores → one of each a word")
    words = _checked_words(words, None)
    spans: list[Span] = []
    for first, stop, label in chunks(tags, scheme):
        full = [word for word in words[first:stop] if word[0] < word[1]] or [words[first]]
        score = None
        if scores is not None:
            score = math.fsum(float(value) for value in scores[first:stop]) / (stop - first)
        spans.append(Span(full[0][0], full[-1][1], label, score))
    return spans


def entities(
    text: str,
    tags: Sequence[str],
    words: Sequence[tuple[int, int]],
    scores: Sequence[float] | NDArray[Any],
    scheme: str = "iob2",
) -> list[Entity]:
    """Return the entities of `text` as records, in order; `word` is `text[start:end]`.

    `scores` holds one probability a word; an entity's is their mean. Offsets include no surrounding white
    space. Raises as `tags_to_spans`, and ValueError for words outside the text.
    """
    found: list[Entity] = []
    for span in tags_to_spans(tags, _checked_words(words, text), scores, scheme):
        score, word = cast(float, span.score), text[span.start : span.end]
        found.append(Entity(entity_group=span.label, score=score, word=word, start=span.start, end=span.end))
    return found


def parse_bracketed(text: str) -> tuple[str, list[Span]]:
    """Return the plain text and the spans of an annotation such as `wake me at [time : five am]`.

    The format is MASSIVE's `annot_utt` (FitzGerald et al., 2022). The label ends at the first colon; white
    space around label and value is dropped, white space outside brackets is kept. Offsets are those of the
    plain text, which need not equal a separate column of utterances character by character.

    Raises ValueError, with the character's position from 0, for a bracket that is not closed, not opened or
    nested, and for one without a label, a colon or a value.
    """
    plain: list[str] = []
    length = 0
    spans: list[Span] = []
    done = 0
    opened: int | None = None
    for match in _BRACKET.finditer(text):
        place = match.start()
        if match.group() == "[":
            if opened is not None:
                raise ValueError(f"'[' at character {place}: the bracket at character {opened} is still open")
            opened, piece = place, text[done:place]
        else:
            if opened is None:
                raise ValueError(f"']' at character {place}: no bracket is open")
            label, colon, piece = (part.strip() for part in text[done:place].partition(":"))
            if not (label and colon and piece):
                raise ValueError(f"'[' at character {opened}: {text[opened : place + 1]!r} → [label : words]")
            spans.append(Span(length, length + len(piece), label))
            opened = None
        plain.append(piece)
        length += len(piece)
        done = place + 1
    if opened is not None:
        raise ValueError(f"'[' at character {opened}: the bracket is never closed")
    return "".join([*plain, text[done:]]), spans
