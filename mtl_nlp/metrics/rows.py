"""The predictions and references of one task, checked and encoded once for all its metrics.

N texts, K labels. What is expensive is worked out when a metric first asks for it and then shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import Any

from ..errors import UserError, listed
from .spans import SpanCounts, count_spans

# The prediction of a task that abstains: right for no text, and no label that means run over.
ABSTAINED = ""
_KINDS_BY_FORM = {
    ("text", "text"): ("label",),
    ("list", "list"): ("labels", "tags"),
    ("scores", "scores"): ("relevance",),
    ("number", "number"): ("value",),
    ("index", "index"): ("value", "choice"),
    ("text", "list"): ("answer",),
}


@dataclass(frozen=True)
class Rows:
    """Decoded predictions and references, one entry a text.

    Attributes:
        predictions: N predictions, all of one kind.
        references: N references of the same kind.
        labels: the task's labels in its order, where they are known. Others that occur come after them, so
            that a reference that the task does not know is wrong, not dropped.
        scheme: `iob2`, or `none` for tags that mark no spans. Other schemes are converted before they come
            here.

    Raises:
        UserError: there are no texts, not as many predictions as references, or the scheme is another.
    """

    predictions: Sequence[Any]
    references: Sequence[Any]
    labels: Sequence[str] | None = None
    scheme: str = "iob2"

    def __post_init__(self) -> None:
        found, wanted = len(self.predictions), len(self.references)
        if found != wanted:
            raise UserError(f"{found} predictions for {wanted} references; each text has one of each")
        if not wanted:
            raise UserError("no texts to score; is the split empty, or are all its annotations missing?")
        if self.scheme not in ("iob2", "none"):
            raise UserError(f'scheme "{self.scheme}" → iob2 or none; convert the tags to IOB2 before they are scored')

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that the rows may be; lists may be labels or tags, whole numbers values or choices.

        Raises:
            UserError: the rows are of no kind, or of several.
        """
        forms = {(_form(p), _form(r)) for p, r in zip(self.predictions, self.references, strict=True)}
        if {form for pair in forms for form in pair} == {"index", "number"}:
            forms = {("number", "number")}  # whole numbers among others
        if len(forms) == 1 and (kinds := _KINDS_BY_FORM.get(next(iter(forms)))):
            return kinds
        found, allowed = (listed(f"({p}, {r})" for p, r in pairs) for pairs in (sorted(forms), _KINDS_BY_FORM))
        raise UserError(f"(prediction, reference) of the texts are {found} → all alike, one of {allowed}")

    @cached_property
    def seen(self) -> set[str]:
        """The labels that occur in predictions or references."""
        if "labels" in self.kinds:
            return {label for rows in (self.predictions, self.references) for row in rows for label in row}
        return {*self.predictions, *self.references} - {ABSTAINED}

    @cached_property
    def classes(self) -> list[str]:
        """The task's labels in order, then others that occur, by code point; last "no answer", where one was given."""
        known = list(dict.fromkeys(self.labels or ()))
        found = known + sorted(self.seen.difference(known))
        return [*found, ABSTAINED] if "label" in self.kinds and ABSTAINED in self.predictions else found

    @cached_property
    def seen_ids(self) -> list[int]:
        """Positions in `classes` of the labels that occur, ascending."""
        return [i for i, label in enumerate(self.classes) if label in self.seen]

    @cached_property
    def encoded(self) -> tuple[Any, Any]:
        """References and predictions for scikit-learn: label ids [N], or 0/1 matrices [N, max(K, 2)].

        scikit-learn would read a matrix of one column as one binary label, so that one gets a second, empty
        column.
        """
        import numpy as np

        index = {label: i for i, label in enumerate(self.classes)}
        references, predictions = (
            _matrix([[index[label] for label in row] for row in rows], max(len(index), 2))
            if "labels" in self.kinds
            else np.array([index[label] for label in rows])
            for rows in (self.references, self.predictions)
        )
        return references, predictions

    @cached_property
    def words(self) -> tuple[list[str], list[str]]:
        """All references' tags and all predictions' tags, each in one list, word by word.

        Raises:
            UserError: a text has more or fewer predicted tags than words.
        """
        self._check_aligned()
        wanted, found = ([tag for row in rows for tag in row] for rows in (self.references, self.predictions))
        return wanted, found

    @cached_property
    def lenient_spans(self) -> dict[str, SpanCounts]:
        """Counts of conlleval's spans by type; a `UserError` if the tags mark no spans."""
        return self._spans(strict=False)

    @cached_property
    def strict_spans(self) -> dict[str, SpanCounts]:
        """Counts of strict IOB2 spans by type; a `UserError` if the tags mark no spans."""
        return self._spans(strict=True)

    def _spans(self, strict: bool) -> dict[str, SpanCounts]:
        if self.scheme == "none":
            raise UserError("tags with scheme: none mark no spans; name token_accuracy, or give the task its scheme")
        self._check_aligned()
        return count_spans(self.predictions, self.references, strict=strict)

    def _check_aligned(self) -> None:
        for i, (found, wanted) in enumerate(zip(self.predictions, self.references, strict=True)):
            if len(found) != len(wanted):
                raise UserError(f"text {i} (from 0) has {len(wanted)} words but {len(found)} predicted tags")


def _matrix(rows: list[list[int]], width: int) -> Any:
    """The 0/1 matrix [N, width] with ones at each row's ids."""
    import numpy as np

    matrix = np.zeros((len(rows), width), dtype=np.int8)
    for i, ids in enumerate(rows):
        matrix[i, ids] = 1
    return matrix


def _form(item: object) -> str:
    """What one prediction or reference looks like."""
    if isinstance(item, str):
        return "text"
    if isinstance(item, Integral):
        return "index"
    if isinstance(item, Real):
        return "number"
    if item is None:
        return "nothing"
    if not hasattr(item, "__iter__"):
        return type(item).__name__
    return "scores" if isinstance(next(iter(item), None), Real) else "list"
