"""The ordered label set of a task: label name ↔ id."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

_SHOWN = 10


@dataclass(frozen=True)
class LabelSet:
    """Label names in a fixed order; the id of a label is its place in `names`.

    Raises ValueError for an empty set, a duplicate, an empty name, or a name that is not a string.
    """

    names: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the names and build the inverse mapping."""
        if isinstance(self.names, str):
            raise ValueError(f"labels: found the single text {self.names!r} → write a list: [{self.names}]")
        names = tuple(self.names)
        if not names:
            raise ValueError("labels: found an empty list → write at least one label, or leave the key out")
        ids: dict[str, int] = {}
        for place, name in enumerate(names):
            _check_name(name, f"label {place + 1}")
            if name in ids:
                raise ValueError(f"labels: {name!r} is label {ids[name] + 1} and {place + 1} → write it once")
            ids[name] = place
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def from_values(
        cls,
        given: Sequence[str] | None = None,
        class_label_names: Sequence[str] | None = None,
        values: Iterable[str] = (),
    ) -> LabelSet:
        """Return the labels in the order of the contract.

        As `given` in the task file; else as the source's ClassLabel has them (`class_label_names`); else the
        distinct `values` of the training split by code point. Missing annotations must have been removed from
        `values`, which is only read if it is needed.

        Raises ValueError as the class does, and when none of the three holds a label.
        """
        if given is not None:
            return cls(given if isinstance(given, str) else tuple(given))  # type: ignore[arg-type]
        if class_label_names:
            return cls(tuple(class_label_names))
        seen: set[str] = set()
        for place, value in enumerate(values):
            _check_name(value, f"the label of text {place + 1}", in_data=True)
            seen.add(value)
        if not seen:
            raise ValueError("labels: the training split holds no label → write labels: [first, second]")
        return cls(tuple(sorted(seen)))

    def index(self, name: str) -> int:
        """Return the id of `name`. Raises ValueError, naming the nearest label or the allowed ones."""
        place = self._ids.get(name) if isinstance(name, str) else None
        if place is None:
            near = difflib.get_close_matches(name, self.names, n=1) if isinstance(name, str) else []
            shown = ", ".join(self.names[:_SHOWN]) + (", …" if len(self.names) > _SHOWN else "")
            hint = f"did you mean {near[0]!r}?" if near else f"allowed: {shown}"
            raise ValueError(f"label: found {name!r} → {hint}")
        return place

    def name(self, i: int) -> str:
        """Return the label with id `i`.

        Raises IndexError outside 0 … len − 1: a negative id is a mark for a missing annotation, not a place.
        """
        place = operator.index(i)
        if not 0 <= place < len(self.names):
            raise IndexError(f"label id: found {place} → allowed: 0 to {len(self.names) - 1}")
        return self.names[place]

    def __len__(self) -> int:
        """Return how many labels there are."""
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in order."""
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        """Return whether `name` is one of the labels."""
        return isinstance(name, str) and name in self._ids


def _check_name(name: object, where: str, in_data: bool = False) -> None:
    """Raise ValueError, saying what to write, unless `name` is a string that is not empty."""
    if isinstance(name, str):
        if name:
            return
        raise ValueError(f"labels: {where} is an empty text → write a name, or see data.missing")
    written = {True: "true", False: "false"}.get(name, str(name)) if isinstance(name, bool) else str(name)
    kind = type(name).__name__
    if in_data and (name is None or name != name):
        raise ValueError(f"labels: {where} is missing ({name!r}) → leave such texts out (data.missing)")
    if in_data:
        raise ValueError(f'labels: {where} is {name!r} ({kind}) → make the column text: "{written}"')
    raise ValueError(f'labels: {where} is {name!r} ({kind}), not a text → write it in quotes: "{written}"')


def choice_names(labels: Sequence[str] | None, count: int) -> list[str]:
    """What the first, second … of `count` choices are called: by the task's `labels`, else by their numbers from 0.

    >>> choice_names(["A", "B", "C"], 2), choice_names(None, 2)
    (['A', 'B'], ['0', '1'])
    """
    # More choices than names: a mixture of both could call two choices alike.
    return list(labels[:count]) if labels is not None and count <= len(labels) else [str(i) for i in range(count)]
