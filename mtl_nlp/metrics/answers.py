"""Answers to questions, scored as SQuAD's own script scores them, but in [0, 1].

Rajpurkar et al. 2016 (arXiv:1606.05250) and, for questions that have no answer, 2018 (arXiv:1806.03822).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(answer: str) -> str:
    """Lower case, without ASCII punctuation, without English articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact(prediction: str, right: Sequence[str]) -> float:
    """1.0 if the answer equals one of the right ones after normalising, else 0.0."""
    found = normalise(prediction)
    return float(any(found == gold for gold in _gold(right)))


def overlap_f1(prediction: str, right: Sequence[str]) -> float:
    """F1 of the words shared with a right answer, the best over all right answers, in [0, 1]."""
    found = normalise(prediction).split()
    return max(_f1(found, gold.split()) for gold in _gold(right))


def _gold(right: Sequence[str]) -> list[str]:
    """The right answers, normalised; without any but empty ones the question has no answer: "" is right."""
    return [gold for gold in map(normalise, right) if gold] or [""]


def _f1(found: list[str], gold: list[str]) -> float:
    if not found or not gold:
        return float(found == gold)
    shared = sum((Counter(found) & Counter(gold)).values())
    return 2 * shared / (len(found) + len(gold))
