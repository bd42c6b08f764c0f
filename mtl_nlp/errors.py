"""What a user did wrong, said once and whole.

Every fault that a user can cause ends as a `UserError`; the command line prints it and exits with code 2. A `Fault` says
where (file and line), which key, what was found, what is allowed and what to do; `Faults` gathers them so that one run names
them all. Nothing here imports the rest of the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches


class UserError(Exception):
    """The input is at fault and the run cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Fault:
    """One fault: `where: key: found → allowed (cure)`.

    Attributes:
        found: what stands there, or what is wrong.
        where: a file, with its line where there is one (`recipe.yaml:7`).
        key: the dotted key (`training.learning_rate`), where there is one.
        allowed: what may stand there.
        cure: what to do next.
    """

    found: str
    where: str = ""
    key: str = ""
    allowed: str = ""
    cure: str = ""

    def __str__(self) -> str:
        head = "".join(f"{part}: " for part in (self.where, self.key) if part)
        allowed = f" → {self.allowed}" if self.allowed else ""
        cure = f" ({self.cure})" if self.cure else ""
        return f"{head}{self.found}{allowed}{cure}"


class FaultyInput(UserError):
    """One or more faults, found in one run."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def fault(found: str, *, where: str = "", key: str = "", allowed: str = "", cure: str = "") -> FaultyInput:
    """A single fault, ready to raise."""
    return FaultyInput([Fault(found, where=where, key=key, allowed=allowed, cure=cure)])


class Faults:
    """A collector: `add` what is wrong, then `check()` raises them all at once."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, found: str, *, where: str = "", key: str = "", allowed: str = "", cure: str = "") -> None:
        """Note one fault and go on."""
        self._faults.append(Fault(found, where=where, key=key, allowed=allowed, cure=cure))

    def extend(self, error: FaultyInput) -> None:
        """Note the faults of another reader."""
        self._faults.extend(error.faults)

    def check(self) -> None:
        """Raise `FaultyInput` if there is any."""
        if self._faults:
            raise FaultyInput(dict.fromkeys(self._faults))

    def __len__(self) -> int:
        return len(self._faults)

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._faults)


def listed(names: Iterable[object], most: int = 12) -> str:
    """Names for a message: `a, b, c, … (40 in all)`."""
    shown = [str(name) for name in names]
    if len(shown) <= most:
        return ", ".join(shown) or "none"
    return ", ".join(shown[:most]) + f", … ({len(shown)} in all)"


def closest(name: str, known: Iterable[str]) -> str:
    """` Did you mean "accuracy"?`, or nothing when no known name is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""
