"""Which columns are words and their tags, and in which scheme the tags are written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ..labels import TagError, to_iob2
from .guess_columns import Column, label_name

_TAG = re.compile(r"O|[BIESLU]-\S+")
FEWEST_TAGS = 20


def guess_scheme(sentences: Sequence[Sequence[str]]) -> str:
    """The scheme of tag sequences: `bioes`, `iob1`, `iob2`, or `none` for tags without prefixes.

    IOB1 and IOB2 have the same tags; the one that needs fewer repairs is taken, IOB2 on ties.
    """
    tags = {tag for sentence in sentences for tag in sentence}
    if any(tag[:2] in ("S-", "E-", "L-", "U-") for tag in tags):
        candidates = ["bioes"]
    elif any(tag[:2] in ("B-", "I-") for tag in tags):
        candidates = ["iob2", "iob1"]
    else:
        return "none"
    try:
        repairs = {scheme: sum(to_iob2(sentence, scheme)[1] for sentence in sentences) for scheme in candidates}
    except TagError:
        return "none"
    return min(candidates, key=lambda scheme: repairs[scheme])


def tag_sequences(column: Column) -> list[list[str]]:
    """A column's tags by name, a list a text; strings are split at white space."""
    split = column.kind == "text"
    return [[label_name(t, column.class_names) for t in (v.split() if split else v)] for _, v in column.filled]


def tag_counts(sequences: Sequence[Sequence[str]], scheme: str) -> Counter[str]:
    """The labels of a token task with their numbers: entity types with a scheme, else the tags."""
    if scheme == "none":
        return Counter(tag for tags in sequences for tag in tags)
    starts: Counter[str] = Counter()
    for tags in sequences:
        starts.update(tag[2:] for tag in to_iob2(tags, scheme)[0] if tag.startswith("B-"))
    return starts


def are_tags(sequences: Sequence[Sequence[str]]) -> bool:
    """Whether there are few enough different ones, and at least two."""
    counts = Counter(tag for tags in sequences for tag in tags)
    return 2 <= len(counts) <= max(FEWEST_TAGS, counts.total() // 4)


def looks_tagged(column: Column) -> bool:
    """Whether a column of strings holds nothing but `O`, `B-PER`, … between white space."""
    parts = [part for _, value in column.filled for part in value.split()]
    return bool(parts) and all(_TAG.fullmatch(part) for part in parts)


def aligned(words: Column, tags: Column) -> bool:
    """Whether two columns have equally many items in every row that has tags, and more than one in some."""
    sizes = {row: _size(value) for row, value in words.filled}
    pairs = [(sizes.get(row), _size(value)) for row, value in tags.filled]
    return bool(pairs) and all(mine == other for mine, other in pairs) and any(other > 1 for _, other in pairs)


def _size(value: str | list[object]) -> int:
    return len(value.split()) if isinstance(value, str) else len(value)


def same_text(words: Column, text: Column) -> bool:
    """Whether a column of raw text holds the words of a column of word lists, white space aside."""
    raw = dict(text.filled)
    return all("".join(raw.get(row, "").split()) == "".join("".join(value).split()) for row, value in words.filled)
