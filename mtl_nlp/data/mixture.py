"""The task-sampling scheduler: which corpus the next texts come from, as a pure, seeded, resumable stream.

In: the sizes of the corpora and a recipe's `mixture:`. Out: global batches of draws, planned block by block.
A block's quota per corpus follows the rates exactly, remainders carried on (`sampling.block_quotas`); which
texts is a seeded permutation per corpus and pass; their order is seeded by (seed, block) (`order`). So the
state of the stream is a block number, a cursor and a remainder per corpus, and the batch within the block:
any step is resumed at once, and the stream is the same for any number of processes.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import chain
from typing import Any, Literal, TypeVar, get_args
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..errors import Faults, FaultyInput, UserError, fault, listed
from .order import Indices, homogeneous_order, mixed_order, random_bits, shuffled
from .sampling import (
    UNIT,
    SamplingSettings,
    block_quotas,
    check_settings,
    check_weights,
    find_strategy,
    on_grid,
    sampling_rates,
    turns,
)

Batching = Literal["mixed", "homogeneous"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draw:
    """One text drawn: its corpus, its index in that corpus' training split, and the pass (from 0)."""

    corpus: str
    index: int
    pass_: int


@dataclass(frozen=True)
class MixtureState:
    """Where the stream stands; `to_dict` and `from_dict` are an exact JSON round trip.

    Attributes:
        block: number of the current block, from 0.
        cursors: corpus → texts drawn before this block.
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
class Block:
    """One planned block.

    Attributes:
        quotas: corpus → texts in this block.
        batches: all its global batches, in order.
        next: the state at the start of the next block.
    """

    quotas: Mapping[str, int]
    batches: list[list[Draw]]
    next: MixtureState


@dataclass(frozen=True)
class CorpusDraws:
    """What a run makes of one corpus: texts held, rate, texts drawn in the run, passes = draws / texts."""

    corpus: str
    texts: int
    rate: float
    draws: int
    passes: float


class Mixture:
    """The stream of global batches over several corpora.

    Args:
        sizes: corpus → texts in its training split. The order breaks ties; the *name* keys the permutations,
            so that a new corpus does not reshuffle the others.
        strategy: a name in `sampling.STRATEGIES`.
        temperature: T ≥ 1 of the strategy `temperature`.
        rates: corpus → weight, of the strategy `fixed` only.
        batching: `mixed` (a batch holds texts of several corpora) or `homogeneous` (of one; quotas are in
            whole batches).
        batch: texts in a global batch.
        block_batches: global batches in a block.
        seed: 0 ≤ seed < 2³².
        lengths: corpus → length of each of its texts, `[texts]`, in any unit; needed by `bucket`.
        bucket: length bucketing: inside a block texts are sorted by length, cut into global batches, and the
            batches shuffled. Homogeneous batches are sorted within each corpus, and so are alternating rows,
            which keep their turns within a batch.

    Raises:
        FaultyInput: all faults of the arguments at once, under the recipe's keys (`mixture.temperature`, …).
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        strategy: str = "proportional",
        temperature: float = 2.0,
        rates: Mapping[str, float] | None = None,
        batching: Batching = "mixed",
        batch: int = 32,
        block_batches: int = 32,
        seed: int = 13,
        lengths: Mapping[str, NDArray[Any]] | None = None,
        bucket: bool = False,
    ) -> None:
        settings = SamplingSettings(temperature, rates)
        faults = check_settings(sizes, settings, strategy=strategy, batch=batch, block_batches=block_batches, seed=seed)
        if batching not in get_args(Batching):
            faults.add(f'"{batching}"', key="mixture.batching", allowed=listed(get_args(Batching)))
        if bucket:
            _check_lengths(faults, sizes, lengths)
        try:
            chosen = find_strategy(strategy)
            if not faults:
                self._rates = sampling_rates(strategy, sizes, settings)
        except FaultyInput as error:
            faults.extend(error)
        faults.check()

        self.sizes = {corpus: int(size) for corpus, size in sizes.items()}
        self.batch = int(batch)
        self.block_batches = int(block_batches)
        self.seed = int(seed)
        self.homogeneous = batching == "homogeneous"
        self._alternating = bool(getattr(chosen, "alternating", False))
        self._lengths = {corpus: np.asarray((lengths or {})[corpus]) for corpus in sizes} if bucket else None
        self._permutations: dict[str, tuple[int, Indices]] = {}

    @property
    def rates(self) -> dict[str, float]:
        """Corpus → share of the draws, exact to 1e-12; they sum to 1."""
        return {corpus: units / UNIT for corpus, units in self._rates.items()}

    @property
    def total(self) -> int:
        """Texts in all corpora: the draws of one epoch."""
        return sum(self.sizes.values())

    def steps(self, epochs: float) -> int:
        """Global batches in so many epochs: ⌈epochs · total / batch⌉, with `epochs` read as a decimal number.

        Raises:
            FaultyInput: epochs not finite or not positive (key `training.num_train_epochs`).
        """
        if not math.isfinite(epochs) or epochs <= 0:
            raise fault(str(epochs), key="training.num_train_epochs", allowed="a finite number > 0")
        return math.ceil(Fraction(str(float(epochs))) * self.total / self.batch)

    def with_rates(self, rates: Mapping[str, float]) -> Mixture:
        """The same mixture at other rates (normalised; 0 retires a corpus), to plan the next blocks with.

        States go from one to the other. Whoever changes rates between blocks saves them beside the state,
        because `state_at` knows only the rates of its own mixture.

        Raises:
            FaultyInput: weights that cannot be rates.
        """
        check_weights(rates, self.sizes)
        other = copy.copy(self)
        other._rates = on_grid({corpus: rates[corpus] for corpus in self.sizes})
        return other

    def initial_state(self) -> MixtureState:
        """The state before the first batch."""
        return MixtureState(0, dict.fromkeys(self.sizes, 0), dict.fromkeys(self.sizes, 0.0), 0)

    def state_at(self, step: int) -> MixtureState:
        """The state after `step` global batches, from the blocks' quotas alone: microseconds a block."""
        if step < 0:
            raise ValueError(f"a step is at least 0, not {step}")
        blocks, batch = divmod(step, self.block_batches)
        state = self.initial_state()
        for _ in range(blocks):
            state = self._advance(state)[1]
        return replace(state, batch=batch)

    def plan(self, state: MixtureState) -> Block:
        """All global batches of the block in which `state` stands, and the state after it. Pure.

        The whole block is shuffled, so at the border of two passes a text of the second may come before one
        of the first.

        Raises:
            UserError: the state belongs to other corpora.
        """
        quotas, following = self._advance(state)
        corpus, index, passes = self._texts(state.cursors, quotas)
        lengths = None if self._lengths is None else self._lengths_of(corpus, index)
        arrange = homogeneous_order if self.homogeneous else mixed_order
        order = arrange(
            corpus,
            self._turns(state, quotas) if self._alternating else None,
            lengths,
            self.batch,
            # The fourth word keeps the bits of blocks apart from those of permutations, which have three.
            random_bits(self.seed, state.block, 0, 1),
        )
        names = list(self.sizes)
        drawn = (
            Draw(names[place], text, pass_)
            for place, text, pass_ in zip(
                corpus[order].tolist(), index[order].tolist(), passes[order].tolist(), strict=True
            )
        )
        return Block(quotas, list(_cut(list(drawn), self.block_batches)), following)

    def batches(self, start_step: int = 0) -> Iterator[list[Draw]]:
        """The endless stream of global batches, from any step."""
        return self.batches_from(self.state_at(start_step))

    def batches_from(self, state: MixtureState) -> Iterator[list[Draw]]:
        """The endless stream of global batches that follows a state."""
        while True:
            block = self.plan(state)
            yield from block.batches[state.batch :]
            state = block.next

    def micro_batches(
        self, start_step: int = 0, *, process: int = 0, processes: int = 1, accumulation: int = 1
    ) -> Iterator[list[list[Draw]]]:
        """Per step, the micro-batches of one process (`slice_for`), endless.

        Raises:
            FaultyInput: the batch does not divide; raised here, not at the first step.
        """
        check_division(self.batch, processes, accumulation)
        return (slice_for(batch, process, processes, accumulation) for batch in self.batches(start_step))

    def describe(self, epochs: float | None = None, *, steps: int | None = None) -> list[CorpusDraws]:
        """Per corpus what a run of so many epochs, or of so many steps, draws: exact, in corpus order."""
        if (epochs is None) == (steps is None):
            raise ValueError("give epochs or steps")
        state = self.state_at(steps if steps is not None else self.steps(epochs or 0.0))
        draws = Counter(state.cursors)
        if state.batch:
            draws.update(draw.corpus for draw in chain(*self.plan(state).batches[: state.batch]))
        return [
            CorpusDraws(corpus, size, self._rates[corpus] / UNIT, draws[corpus], draws[corpus] / size)
            for corpus, size in self.sizes.items()
        ]

    def _advance(self, state: MixtureState) -> tuple[dict[str, int], MixtureState]:
        """The block's texts per corpus and the state at the start of the next block."""
        if state.cursors.keys() != self.sizes.keys() or state.owed.keys() != self.sizes.keys():
            raise UserError(
                f"the saved mixture state is of the corpora {listed(state.cursors)}; "
                f"this mixture has {listed(self.sizes)}"
            )
        if not 0 <= state.batch <= self.block_batches:
            raise UserError(f"the saved mixture state stands at batch {state.batch} of a block of {self.block_batches}")
        texts = self.batch if self.homogeneous else 1
        units = self.block_batches * self.batch // texts
        rows, owed = block_quotas(_in_units(state.owed), self._rates, units)
        quotas = {corpus: count * texts for corpus, count in rows.items()}
        cursors = {corpus: state.cursors[corpus] + count for corpus, count in quotas.items()}
        carried = {corpus: amount / UNIT for corpus, amount in owed.items()}
        return quotas, MixtureState(state.block + 1, cursors, carried, 0)

    def _texts(self, cursors: Mapping[str, int], quotas: Mapping[str, int]) -> tuple[Indices, Indices, Indices]:
        """The block's texts, corpus by corpus: place of the corpus, index and pass, each `[texts]`."""
        counts = list(quotas.values())
        numbers = np.concatenate([np.arange(count) + cursors[corpus] for corpus, count in quotas.items()])
        passes, offsets = np.divmod(numbers, np.repeat(list(self.sizes.values()), counts))
        index = np.empty_like(numbers)
        end = 0
        for corpus, count in quotas.items():
            end, at = end + count, end
            while at < end:
                stop = min(end, at + self.sizes[corpus] - int(offsets[at]))
                index[at:stop] = self._permutation(corpus, int(passes[at]))[offsets[at:stop]]
                at = stop
        return np.repeat(np.arange(len(counts)), counts), index, passes

    def _permutation(self, corpus: str, pass_: int) -> Indices:
        """The order of a corpus' texts in a pass; only the latest of each corpus is kept."""
        kept = self._permutations.get(corpus)
        if kept is None or kept[0] != pass_:
            bits = random_bits(self.seed, crc32(corpus.encode()), pass_)
            kept = self._permutations[corpus] = (pass_, shuffled(bits, self.sizes[corpus]))
        return kept[1]

    def _lengths_of(self, corpus: Indices, index: Indices) -> NDArray[Any]:
        """The lengths of the block's texts, `[texts]`."""
        lengths = (self._lengths or {}).values()
        return np.concatenate([of_corpus[index[corpus == i]] for i, of_corpus in enumerate(lengths)])

    def _turns(self, state: MixtureState, quotas: Mapping[str, int]) -> Indices:
        """The corpus (its place) of each row or homogeneous batch of the block, in strict turns, `[rows]`."""
        texts = self.batch if self.homogeneous else 1
        units = {corpus: count // texts for corpus, count in quotas.items()}
        place = {corpus: i for i, corpus in enumerate(self.sizes)}
        return np.array([place[corpus] for corpus in turns(units, _in_units(state.owed), self._rates)])


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


def slice_for(global_batch: Sequence[T], process: int, processes: int, accumulation: int) -> list[list[T]]:
    """The micro-batches of one process: `accumulation` lists of equal length.

    The global batch is cut into equal runs in (micro-batch, process) order, so that micro-batch k of all
    processes together is a run of it. One process without accumulation has it whole.

    Raises:
        FaultyInput: the batch does not divide (key `mixture.batch`).
    """
    check_division(len(global_batch), processes, accumulation)
    if not 0 <= process < processes:
        raise ValueError(f"process {process} is none of {processes}")
    parts = list(_cut(global_batch, processes * accumulation))
    return parts[process::processes]


def _cut(rows: Sequence[T], parts: int) -> Iterator[list[T]]:
    """Equal runs, in order."""
    size = len(rows) // parts
    return (list(rows[start : start + size]) for start in range(0, len(rows), size))


def _in_units(owed: Mapping[str, float]) -> dict[str, int]:
    return {corpus: round(amount * UNIT) for corpus, amount in owed.items()}


def _check_lengths(faults: Faults, sizes: Mapping[str, int], lengths: Mapping[str, NDArray[Any]] | None) -> None:
    for corpus, size in sizes.items():
        found = len(lengths[corpus]) if lengths is not None and corpus in lengths else 0
        if found != size:
            faults.add(f'{found} lengths for corpus "{corpus}"', key="mixture.bucket", allowed=f"{size}, one a text")
