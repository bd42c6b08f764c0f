"""Which groups of test examples changed: by label, by length, by what the texts have in common with other tasks' training texts.

A group's difference has to be more than its examples (approximate randomisation) and more than the seeds explain (t test; variances
moderated over the groups, in units of 1 / examples). The larger p-value counts, corrected (Holm) over all groups of the task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.sources import Corpus
from ..metrics.spans import spans_of
from ..task import Task
from .outcomes import Lines, Outcomes
from .statistics import LEVEL, approximate_randomisation, holm, moderated, pooled_variance, two_sided

LENGTHS = (8, 16, 32, 64)  # words, the upper ends
LEAST, MOST = 5, 40  # examples in a group; groups by label
ROUNDS, SLOW_ROUNDS = 2000, 100
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class TrainingTexts:
    """What a task's own corpus and those of other tasks hold to learn from: texts and words, in lower case."""

    own_words: frozenset[str]
    other_words: frozenset[str]
    other_texts: frozenset[tuple[str, ...]]


def words_of(line: Mapping[str, Any]) -> list[str]:
    """The words of an example's input."""
    if "words" in line:
        return [str(word).lower() for word in line["words"]]
    fields = [line.get(name) for name in ("text", "pair", "question", "context", "choices")]
    texts = [text for field in fields for text in (field if isinstance(field, list) else [field]) if text]
    return " ".join(texts).lower().split()


def training_texts(corpora: Sequence[Corpus]) -> dict[str, TrainingTexts]:
    """Task → what it and the others learn from; tasks of one corpus are no others to each other."""
    texts = {corpus.name: _texts(corpus) for corpus in corpora}
    words = {name: {word for text in found for word in text} for name, found in texts.items()}
    found: dict[str, TrainingTexts] = {}
    for corpus in corpora:
        others = [name for name in texts if name != corpus.name]
        made = TrainingTexts(
            frozenset(words[corpus.name]),
            frozenset(word for name in others for word in words[name]),
            frozenset(text for name in others for text in texts[name]),
        )
        found |= {task.name: made for task in corpus.tasks}
    return found


def _texts(corpus: Corpus) -> set[tuple[str, ...]]:
    data = corpus.splits["train"].data
    columns = {name: data[name] for name in data.column_names if not name.startswith("@")}
    if "tokens" in columns:
        return {tuple(word.lower() for word in words) for words in columns["tokens"]}
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return {tuple(words_of(row)) for row in rows}


def masks(task: Task, lines: Lines, training: TrainingTexts | None) -> list[tuple[str, str, Mask]]:
    """(by, value, which examples), groups that are large enough; those that hold all examples are left out."""
    words = [words_of(line) for line in lines]
    found = [*_by_label(task, lines), *_by_length([len(one) for one in words])]
    if training is not None:
        met = [any(word in training.other_words and word not in training.own_words for word in one) for one in words]
        found += _split("words known from other tasks only", met)
        found += _split("text in another task's training data", [tuple(one) in training.other_texts for one in words])
    return [group for group in found if LEAST <= group[2].sum() < len(lines)]


def _split(by: str, holds: Sequence[bool]) -> list[tuple[str, str, Mask]]:
    mask = np.asarray(holds, dtype=bool)
    return [(by, "yes", mask), (by, "no", ~mask)] if mask.any() else []


def _by_length(lengths: Sequence[int]) -> list[tuple[str, str, Mask]]:
    counts, start, found = np.asarray(lengths), 0, []
    for end in LENGTHS:
        found.append(("length in words", f"{start + 1}–{end}", (counts > start) & (counts <= end)))
        start = end
    return [*found, ("length in words", f"over {start}", counts > start)]


def _by_label(task: Task, lines: Lines) -> list[tuple[str, str, Mask]]:
    kind = task.kind.annotation
    if kind not in ("label", "labels", "tags"):
        return []
    if kind == "tags" and task.scheme != "none":
        spans = spans_of([line["gold"] for line in lines], strict=False)
        held: list[set[str]] = [set() for _ in lines]
        for span in spans:
            held[span[0]].add(span[-1])
        by, nothing = "entity type", [not one for one in held]
    else:
        held = [set(line["gold"]) if isinstance(line["gold"], list) else {line["gold"]} for line in lines]
        by, nothing = "tag" if kind == "tags" else "label", [not one for one in held]
    names = list(dict.fromkeys([*(task.labels or ()), *sorted(set().union(*held))]))
    found = [(by, name, np.array([name in one for one in held])) for name in names]
    if len(found) > MOST:
        found = sorted(found, key=lambda group: -int(group[2].sum()))[:MOST]
    return [*found, (by, "(none)", np.asarray(nothing, dtype=bool))]


def compare_groups(
    groups: Sequence[tuple[str, str, Mask]], single: Outcomes, variant: Outcomes, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """The entries of `groups` in `comparison.json`."""
    if not groups:
        return []
    rounds = SLOW_ROUNDS if single.slow else ROUNDS
    sizes = np.array([mask.sum() for _, _, mask in groups])
    scores = [(single.on(mask), variant.on(mask)) for _, _, mask in groups]
    pooled = [pooled_variance(a.tolist(), b.tolist()) for a, b in scores]
    variances, dfs = moderated([v * n for (v, _), n in zip(pooled, sizes, strict=True)], [df for _, df in pooled])
    rows, values = [], []
    for number, ((by, value, mask), (a, b)) in enumerate(zip(groups, scores, strict=True)):
        gap, size = float(b.mean() - a.mean()), int(sizes[number])
        error = float(np.sqrt(variances[number] / size * (1 / len(a) + 1 / len(b))))
        p = approximate_randomisation(gap, partial(single.exchanged, variant, rows=mask), size, rounds, rng)
        values.append(max(p, two_sided(gap, error, float(dfs[number]))))
        found = {"single": float(a.mean()), "variant": float(b.mean()), "difference": gap}
        rows.append({"by": by, "value": value, "rows": size, **found})
    return [row | {"p_holm": p, "changed": p <= LEVEL} for row, p in zip(rows, holm(values), strict=True)]
