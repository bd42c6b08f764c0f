"""What the mixture's stream is made of: draws, states, blocks; and how a global batch is cut for several processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, overload

import numpy as np

from ..errors import UserError, fault, listed
from .order import Indices

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draw:
    """One text drawn: its corpus, its index in that corpus' training split, and the pass (from 0)."""

    corpus: str
    index: int
    pass_: int


class Draws(Sequence[Draw]):
    """Texts drawn, in order, held as numbers: a block has many more than is made of them in the process that plans it.

    Equal to any sequence of the same draws.

    Args:
        names: of the corpora.
        corpora: [n], each text's corpus, by its place among the names.
        indices: [n].
        passes: [n].
    """

    __slots__ = ("corpora", "indices", "names", "passes")

    def __init__(self, names: Sequence[str], corpora: Indices, indices: Indices, passes: Indices) -> None:
        self.names, self.corpora, self.indices, self.passes = names, corpora, indices, passes

    def __len__(self) -> int:
        return len(self.corpora)

    @overload
    def __getitem__(self, place: int) -> Draw: ...

    @overload
    def __getitem__(self, place: slice) -> Draws: ...

    def __getitem__(self, place: int | slice) -> Draw | Draws:
        if isinstance(place, slice):
            return Draws(self.names, self.corpora[place], self.indices[place], self.passes[place])
        return Draw(self.names[self.corpora[place]], int(self.indices[place]), int(self.passes[place]))

    def __iter__(self) -> Iterator[Draw]:
        numbers = (self.corpora.tolist(), self.indices.tolist(), self.passes.tolist())
        return (Draw(self.names[place], index, pass_) for place, index, pass_ in zip(*numbers, strict=True))

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Draws({list(self)!r})"

    def texts(self) -> dict[str, int]:
        """Corpus → how many of its texts."""
        counts = np.bincount(self.corpora, minlength=len(self.names)).tolist()
        return dict(zip(self.names, counts, strict=True))


@dataclass(frozen=True)
class MixtureState:
    """Where the stream stands; `to_dict` and `from_dict` are an exact JSON round trip.

    Attributes:
        block: number of the current block, from 0.
        cursors: corpus → places of its permutations, pass after pass, that lie before this block: texts drawn, as long as none
            is passed by.
        owed: corpus → rows (homogeneous: batches) that its rate gave it before this block and that it has not
            had; negative when it is ahead. Sums to 0.
        batch: global batches of this block already handed out.
    """

    block: int
    cursors: Mapping[str, int]
    owed: Mapping[str, float]
    batch: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and dicts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MixtureState:
        """The state that `to_dict` wrote.

        Raises:
            UserError: a field is missing or is none of a state's.
        """
        fields = ("block", "cursors", "owed", "batch")
        if set(data) != set(fields):
            raise UserError(f"the saved mixture state has the fields {listed(data)}; it must have {listed(fields)}")
        return cls(int(data["block"]), dict(data["cursors"]), dict(data["owed"]), int(data["batch"]))


@dataclass(frozen=True)
class Regime:
    """What rules the blocks from `block` on: weights that replace the strategy's own (or None), and the tasks that are retired."""

    block: int
    rates: Mapping[str, float] | None = None
    retired: frozenset[str] = frozenset()

    def to_dict(self) -> dict[str, Any]:
        """Plain data; floats survive JSON exactly."""
        rates = None if self.rates is None else dict(self.rates)
        return {"block": self.block, "rates": rates, "retired": sorted(self.retired)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Regime:
        """What `to_dict` wrote."""
        return cls(int(data["block"]), data["rates"], frozenset(data["retired"]))


@dataclass(frozen=True)
class Block:
    """One planned block.

    Attributes:
        quotas: corpus → texts in this block.
        batches: all its global batches, in order.
        next: the state at the start of the next block.
    """

    quotas: Mapping[str, int]
    batches: list[Draws]
    next: MixtureState


@dataclass(frozen=True)
class CorpusDraws:
    """What a run makes of one corpus: texts held, rate, texts drawn in the run, passes = draws / texts.

    `rate` is that of the first block; `last_rate` that of the last, where they differ.
    """

    corpus: str
    texts: int
    rate: float
    draws: int
    passes: float
    last_rate: float | None = None


def check_division(batch: int, processes: int, accumulation: int) -> None:
    """See that a global batch divides into processes × accumulation equal parts.

    Raises:
        FaultyInput: it does not; names the nearest batches that do.
    """
    parts = processes * accumulation
    if parts < 1:
        raise ValueError(f"processes {processes} and accumulation {accumulation} must be at least 1")
    if batch % parts:
        below = batch // parts * parts
        raise fault(
            f"{batch} texts do not divide by {processes} processes × "
            f"training.gradient_accumulation_steps {accumulation}",
            key="mixture.batch",
            allowed=f"{below} or {below + parts}" if below else str(parts),
        )


def slice_for(global_batch: Sequence[T], process: int, processes: int, accumulation: int) -> list[Sequence[T]]:
    """The micro-batches of one process: `accumulation` slices of equal length.

    The global batch is cut into equal runs in (micro-batch, process) order, so that micro-batch k of all
    processes together is a run of it. One process without accumulation has it whole.

    Raises:
        FaultyInput: the batch does not divide (key `mixture.batch`).
    """
    check_division(len(global_batch), processes, accumulation)
    if not 0 <= process < processes:
        raise ValueError(f"process {process} is none of {processes}")
    parts = list(cut(global_batch, processes * accumulation))
    return parts[process::processes]


def cut(rows: Sequence[T], parts: int) -> Iterator[Sequence[T]]:
    """Equal runs, in order; none of nothing."""
    size = max(1, len(rows) // max(1, parts))
    return (rows[start : start + size] for start in range(0, len(rows), size))
