"""What a column's name suggests: text, words, a label, a number, or nothing to learn from."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

Role = Literal["label", "value", "meta", "identifier", ""]


def _words(names: str) -> tuple[str, ...]:
    return tuple(names.split())


# Exact names come before names that only contain one of these words; the first in the list wins.
TEXT_NAMES = _words(
    "text sentence utterance review message content tweet comment question query body document article post "
    "transcript request prompt input headline passage description feedback complaint title subject summary "
    "abstract sent"
)
WORD_NAMES = ("tokens", "words", "token", "word", "text", "sentence", "utterance")
LABEL_NAMES = frozenset(
    _words(
        "label class category intent intention sentiment emotion topic polarity stance genre tag target gold act "
        "aspect mood y toxic toxicity obscene threat insult hate spam offensive offence irony ironic sarcasm "
        "sarcastic fraud relation duplicate entailment acceptability annotation"
    )
)
VALUE_NAMES = frozenset(
    _words("score rating similarity relatedness valence arousal dominance star grade intensity readability difficulty")
)
META_NAMES = frozenset(
    _words(
        "user username author lang language locale country source annotator worker device version channel "
        "confidence trust agreement weight length len count vote like retweet region platform"
    )
)
IDENTIFIER_NAMES = frozenset(
    _words(
        "id idx index uid uuid guid key hash date time timestamp datetime year url uri link file filename path "
        "split fold set partition subset unnamed email phone ip"
    )
)
SPLIT_VALUES = frozenset({"train", "training", "test", "dev", "val", "valid", "validation", "eval"})
# Of passages that are found for a query, in the order in which they are preferred.
QUERY = ("query", "question", "anchor")
POSITIVE = ("positive", "positives", "pos", "positive_passage")
NEGATIVE = ("negatives", "negative", "neg", "hard_negatives", "negative_passages")
CANDIDATE = ("candidates", "candidate", "passages", "passage", "documents", "document")
RELEVANCE = ("relevance", "relevances", "relevancy")
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


def name_parts(name: str) -> list[str]:
    """The words of a name, small letters, without accents, digits and plural s: `gold_labels2` → gold, label."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)
    words = [part.strip("0123456789") for part in re.split(r"[\W_]+", spaced.casefold())]
    return [_singular(word) for word in words if word]


def _singular(word: str) -> str:
    if len(word) <= 3 or not word.endswith("s") or word.endswith("ss"):
        return word
    return f"{word[:-3]}y" if word.endswith("ies") else word[:-1]


def name_role(name: str) -> Role:
    """What a name suggests; its last word decides where several do (`label_id` is an identifier)."""
    parts = name_parts(name)
    if not parts:
        return ""
    if parts[-1] in IDENTIFIER_NAMES:
        return "identifier"
    if parts[-1] in META_NAMES:
        return "meta"
    if parts[0] in ("is", "has") and len(parts) > 1:
        return "label"
    for part in reversed(parts):
        if part in LABEL_NAMES:
            return "label"
        if part in VALUE_NAMES:
            return "value"
    if parts[0] in IDENTIFIER_NAMES:
        return "identifier"
    return "meta" if any(part in META_NAMES for part in parts) else ""


def text_rank(name: str) -> int | None:
    """How early a name's best word stands among `TEXT_NAMES`; None if it has none of them."""
    ranks = [TEXT_NAMES.index(part) for part in name_parts(name) if part in TEXT_NAMES]
    return min(ranks, default=None)


def exact_text_rank(name: str) -> int | None:
    """As `text_rank`, for a name that is nothing but the word."""
    lower = name.casefold().strip()
    return TEXT_NAMES.index(lower) if lower in TEXT_NAMES else None


def numbered_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Names that are one of a pair, with the other's: sentence1 and sentence2, text_a and text_b."""
    found = [re.fullmatch(r"(.+?)([_ -]?)(1|a)", name) for name in names]
    stems = (*TEXT_NAMES, "s", "t", "q")
    return [(m[0], f"{m[1]}{m[2]}{'2' if m[3] == '1' else 'b'}") for m in found if m is not None and m[1] in stems]
