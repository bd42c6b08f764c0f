"""The task-sampling scheduler: which corpus the next texts come from, as a pure, seeded, resumable stream.

In: the sizes of the corpora and a recipe's `mixture:`. Out: global batches of draws, planned block by block.
A block's quota per corpus follows the rates exactly, remainders carried on (`sampling.block_quotas`); which
texts is a seeded permutation per corpus and pass; their order is seeded by (seed, block) (`order`). So the
state of the stream is a block number, a cursor and a remainder per corpus, and the batch within the block:
any step is resumed at once, and the stream is the same for any number of processes. What a run learns on
the way enters as a `Regime`, which rules from some block on; the list of them is saved with a run.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal, cast, get_args
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..errors import Faults, FaultyInput, UserError, fault, listed
from .order import Indices, homogeneous_order, mixed_order, random_bits, shuffled
from .regimes import Regimes
from .sampling import UNIT, block_quotas, check_settings, limited_quotas, turns
from .strategies import SamplingSettings, SchedulePoint, check_options, check_weights, find_strategy
from .stream import Block, CorpusDraws, Draw, Draws, MixtureState, Regime, check_division, cut, slice_for

__all__ = ["Block", "CorpusDraws", "Draw", "Draws", "Mixture", "MixtureState", "Regime", "check_division", "slice_for"]

Batching = Literal["mixed", "homogeneous"]


class Mixture:
    """The stream of global batches over several corpora.

    Args:
        sizes: corpus → texts in its training split. The order breaks ties; the *name* keys the permutations,
            so that a new corpus does not reshuffle the others.
        strategy: a name in `strategies.STRATEGIES`.
        temperature, rates, cap, schedule, reference, adapt: see `strategies.SamplingSettings`.
        max_passes: how often a text may be seen; a corpus that has been passed over so often is not drawn again.
        steps: global batches of the run as planned, for what follows its progress; one epoch when None.
        batching: `mixed` (a batch holds texts of several corpora) or `homogeneous` (of one; quotas are in
            whole batches).
        batch: texts in a global batch.
        block_batches: global batches in a block.
        seed: 0 ≤ seed < 2³².
        lengths: corpus → length of each of its texts, `[texts]`, in any unit; needed by `bucket`.
        bucket: length bucketing: inside a block texts are sorted by length, cut into global batches, and the
            batches shuffled. Homogeneous batches are sorted within each corpus, and so are alternating rows,
            which keep their turns within a batch.
        tasks: corpus → its tasks; itself when None.
        annotated: corpus → task → whether each text has its annotation, `[texts]`. Where tasks are retired, only texts that
            another task still learns from are drawn; all of them where this does not say.

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
        cap: int | None = None,
        schedule: Sequence[SchedulePoint] = (),
        reference: Mapping[str, float] | None = None,
        adapt: float = 0.5,
        max_passes: int | None = None,
        steps: int | None = None,
        batching: Batching = "mixed",
        batch: int = 32,
        block_batches: int = 32,
        seed: int = 13,
        lengths: Mapping[str, NDArray[Any]] | None = None,
        bucket: bool = False,
        tasks: Mapping[str, Sequence[str]] | None = None,
        annotated: Mapping[str, Mapping[str, NDArray[np.bool_]]] | None = None,
    ) -> None:
        settings = SamplingSettings(temperature, rates, cap, tuple(schedule), reference, adapt)
        faults = check_settings(sizes, batch=batch, block_batches=block_batches, seed=seed, max_passes=max_passes)
        if batching not in get_args(Batching):
            faults.add(f'"{batching}"', key="mixture.batching", allowed=listed(get_args(Batching)))
        if bucket:
            _check_lengths(faults, sizes, lengths)
        faults.extend(FaultyInput(check_options(strategy, settings)))
        _check_all_weights(sizes, settings, faults)
        faults.check()

        self.strategy = find_strategy(strategy)(settings)
        self.sizes = {corpus: int(size) for corpus, size in sizes.items()}
        self.batch = int(batch)
        self.block_batches = int(block_batches)
        self.max_passes = max_passes
        self.seed = int(seed)
        self.homogeneous = batching == "homogeneous"
        self.planned = self.steps(1) if steps is None else int(steps)
        names = {corpus: list((tasks or {}).get(corpus, [corpus])) for corpus in sizes}
        self.regimes = Regimes(self.strategy, self.sizes, names, annotated or {}, self.blocks)
        self.settled: int | None = None
        self._lengths = {corpus: np.asarray((lengths or {})[corpus]) for corpus in sizes} if bucket else None
        self._permutations: dict[tuple[str, int], Indices] = {}
        self._states: list[MixtureState] = [self.initial_state()]
        self.regimes.rates(0)  # so that weights which cannot be rates are told now

    @property
    def rates(self) -> dict[str, float]:
        """Corpus → share of the draws in the first block, exact to 1e-12; they sum to 1."""
        return {corpus: units / UNIT for corpus, units in self.regimes.rates(0).items()}

    @property
    def total(self) -> int:
        """Texts in all corpora: the draws of one epoch."""
        return sum(self.sizes.values())

    @property
    def blocks(self) -> int:
        """Blocks of the run as planned."""
        return max(1, math.ceil(self.planned / self.block_batches))

    def steps(self, epochs: float) -> int:
        """Global batches in so many epochs: ⌈epochs · total / batch⌉, with `epochs` read as a decimal number.

        Never more than `max_passes` leaves.

        Raises:
            FaultyInput: epochs not finite or not positive (key `training.num_train_epochs`).
        """
        if not math.isfinite(epochs) or epochs <= 0:
            raise fault(str(epochs), key="training.num_train_epochs", allowed="a finite number > 0")
        return self.at_most(math.ceil(Fraction(str(float(epochs))) * self.total / self.batch))

    def at_most(self, steps: int) -> int:
        """So many steps, or as many as `max_passes` leaves."""
        if self.max_passes is None:
            return steps
        texts = [self.max_passes * size for corpus, size in self.sizes.items() if self._ever_drawn(corpus)]
        whole = sum(count // self.batch for count in texts) if self.homogeneous else sum(texts) // self.batch
        return min(steps, whole)

    def _ever_drawn(self, corpus: str) -> bool:
        rates = self.strategy.settings.rates
        return rates is None or corpus not in rates or rates[corpus] > 0

    def set_regime(self, regime: Regime) -> None:
        """Let a regime rule from its block on.

        Raises:
            FaultyInput: weights that cannot be rates.
        """
        self.regimes.add(regime)
        del self._states[regime.block + 1 :]

    def with_rates(self, rates: Mapping[str, float]) -> Mixture:
        """The same mixture at other rates (normalised; 0 leaves a corpus out); states go from one to the other.

        Raises:
            FaultyInput: weights that cannot be rates.
        """
        check_weights(rates, self.sizes)
        other = copy.copy(self)
        other.regimes = self.regimes.replaced(rates)
        other._permutations, other._states = {}, [self.initial_state()]
        return other

    def initial_state(self) -> MixtureState:
        """The state before the first batch."""
        return MixtureState(0, dict.fromkeys(self.sizes, 0), dict.fromkeys(self.sizes, 0.0), 0)

    def state_at(self, step: int) -> MixtureState:
        """The state after `step` global batches, from the blocks' quotas alone: microseconds a block."""
        if step < 0:
            raise ValueError(f"a step is at least 0, not {step}")
        blocks, batch = divmod(step, self.block_batches)
        while len(self._states) <= blocks:
            self._states.append(self._advance(self._states[-1])[1])
        return replace(self._states[blocks], batch=batch)

    def batches_in(self, block: int) -> int:
        """Global batches of a block: fewer than `block_batches` only where `max_passes` leaves no more."""
        return sum(self._advance(self.state_at(block * self.block_batches))[0].values()) // self.batch

    def plan(self, state: MixtureState) -> Block:
        """All global batches of the block in which `state` stands, and the state after it. Pure.

        The whole block is shuffled, so at the border of two passes a text of the second may come before one
        of the first.

        Raises:
            UserError: the state belongs to other corpora.
        """
        quotas, following = self._advance(state)
        corpus, index, passes = self._texts(state, quotas)
        lengths = None if self._lengths is None else self._lengths_of(corpus, index)
        arrange = homogeneous_order if self.homogeneous else mixed_order
        order = arrange(
            corpus,
            self._turns(state, quotas) if self.strategy.alternating else None,
            lengths,
            self.batch,
            # The fourth word keeps the bits of blocks apart from those of permutations, which have three.
            random_bits(self.seed, state.block, 0, 1),
        )
        drawn = Draws(list(self.sizes), corpus[order], index[order], passes[order])
        return Block(quotas, cast(list[Draws], list(cut(drawn, len(drawn) // self.batch))), following)

    def batches(self, start_step: int = 0) -> Iterator[Draws]:
        """The stream of global batches, from any step; endless but for `max_passes`."""
        return self.batches_from(self.state_at(start_step))

    def batches_from(self, state: MixtureState) -> Iterator[Draws]:
        """The stream of global batches that follows a state; endless but for `max_passes`."""
        while True:
            # A loader that ran further would draw at rates that are not decided yet.
            assert self.settled is None or state.block < self.settled, f"block {state.block} is not settled yet"
            block = self.plan(state)
            if not block.batches:
                return
            yield from block.batches[state.batch :]
            state = block.next

    def micro_batches(
        self, start_step: int = 0, *, process: int = 0, processes: int = 1, accumulation: int = 1
    ) -> Iterator[list[Draws]]:
        """Per step, the micro-batches of one process (`slice_for`).

        Raises:
            FaultyInput: the batch does not divide; raised here, not at the first step.
        """
        self.check_parts(processes, accumulation)
        return (self.parts(batch, process, processes, accumulation) for batch in self.batches(start_step))

    def check_parts(self, processes: int, accumulation: int) -> None:
        """See that a global batch can be cut for so many processes and micro-batches.

        Raises:
            FaultyInput: it cannot.
        """
        check_division(self.batch, processes, accumulation)

    def parts(self, batch: Draws, process: int, processes: int, accumulation: int) -> list[Draws]:
        """The micro-batches of one process (`slice_for`)."""
        return cast(list[Draws], slice_for(batch, process, processes, accumulation))

    def describe(self, epochs: float | None = None, *, steps: int | None = None) -> list[CorpusDraws]:
        """Per corpus what a run of so many epochs, or of so many steps, draws: exact, in corpus order.

        For a strategy that learns, and for tasks that may retire, it is what is known: the regimes so far, the last one going on.
        """
        if (epochs is None) == (steps is None):
            raise ValueError("give epochs or steps")
        wanted = steps if steps is not None else self.steps(epochs or 0.0)
        draws: Counter[str] = Counter()
        for start in range(0, wanted, self.block_batches):
            state = self.state_at(start)
            if wanted - start >= self.block_batches:
                draws.update(self._advance(state)[0])
            else:
                for batch in self.plan(state).batches[: wanted - start]:
                    draws.update(batch.texts())
        first, last = self.regimes.rates(0), self.regimes.rates(max(0, wanted - 1) // self.block_batches)
        return [
            CorpusDraws(
                corpus,
                size,
                first[corpus] / UNIT,
                draws[corpus],
                draws[corpus] / size,
                last[corpus] / UNIT if last[corpus] != first[corpus] else None,
            )
            for corpus, size in self.sizes.items()
        ]

    def _advance(self, state: MixtureState) -> tuple[dict[str, int], MixtureState]:
        """The block's texts per corpus and the state at the start of the next block."""
        self._check_state(state)
        texts = self.batch if self.homogeneous else 1
        units, rates = self.block_batches * self.batch // texts, self.regimes.rates(state.block)
        if self.max_passes is None:
            rows, owed = block_quotas(_in_units(state.owed), rates, units)
        else:
            limits = {c: self._left(c, state) // texts if rate else 0 for c, rate in rates.items()}
            a_batch = self.batch // texts
            left = sum(limits.values()) // a_batch * a_batch
            if left < units:
                self._check_waiting(state)
            units = min(units, left)
            rows, owed = limited_quotas(_in_units(state.owed), rates, units, limits)
        quotas = {corpus: count * texts for corpus, count in rows.items()}
        cursors = {corpus: self._after(corpus, state, count) for corpus, count in quotas.items()}
        carried = {corpus: amount / UNIT for corpus, amount in owed.items()}
        return quotas, MixtureState(state.block + 1, cursors, carried, 0)

    def _check_waiting(self, state: MixtureState) -> None:
        """Refuse a block that is short while a corpus whose turn comes later has texts left: the run would end there."""
        full = self.regimes.full_rates(state.block)
        waiting = [c for c, rate in full.items() if not rate and self._ever_drawn(c) and self._left(c, state)]
        if waiting and state.block < self.blocks:
            found = f"it leaves nothing to draw from step {state.block * self.block_batches} on"
            cure = f"the rate of {listed(waiting)} is 0 there: give a small one, or leave max_passes out"
            raise fault(found, key="mixture.max_passes", cure=cure)

    def _check_state(self, state: MixtureState) -> None:
        if state.cursors.keys() != self.sizes.keys() or state.owed.keys() != self.sizes.keys():
            raise UserError(
                f"the saved mixture state is of the corpora {listed(state.cursors)}; "
                f"this mixture has {listed(self.sizes)}"
            )
        if not 0 <= state.batch <= self.block_batches:
            raise UserError(f"the saved mixture state stands at batch {state.batch} of a block of {self.block_batches}")

    def _after(self, corpus: str, state: MixtureState, count: int) -> int:
        """The cursor after `count` texts of a corpus."""
        if self.regimes.texts(corpus, self.regimes.at(state.block).retired) is None:
            return state.cursors[corpus] + count
        return self._take(corpus, state, count)[2]

    def _left(self, corpus: str, state: MixtureState) -> int:
        """Texts of a corpus that `max_passes` still lets be drawn."""
        assert self.max_passes is not None
        size, cursor = self.sizes[corpus], state.cursors[corpus]
        kept = self.regimes.texts(corpus, self.regimes.at(state.block).retired)
        if kept is None or cursor >= self.max_passes * size:
            return max(0, self.max_passes * size - cursor)
        pass_, offset = divmod(cursor, size)
        rest = int(kept[self._permutation(corpus, pass_)[offset:]].sum())
        return rest + (self.max_passes - pass_ - 1) * int(kept.sum())

    def _take(self, corpus: str, state: MixtureState, count: int) -> tuple[Indices, Indices, int]:
        """The next texts of a corpus: index and pass, each `[count]`, and the cursor after them.

        A cursor counts the places of the permutations, one pass after another; places whose text nobody learns from are passed by.
        """
        size, cursor = self.sizes[corpus], state.cursors[corpus]
        kept = self.regimes.texts(corpus, self.regimes.at(state.block).retired)
        index, passes = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        filled = 0
        while filled < count:
            pass_, offset = divmod(cursor, size)
            order = self._permutation(corpus, pass_)[offset:]
            wanted = count - filled
            places = np.arange(min(len(order), wanted)) if kept is None else np.flatnonzero(kept[order])[:wanted]
            index[filled : filled + len(places)], passes[filled : filled + len(places)] = order[places], pass_
            filled += len(places)
            cursor = cursor + int(places[-1]) + 1 if filled == count else (pass_ + 1) * size
        return index, passes, cursor

    def _texts(self, state: MixtureState, quotas: Mapping[str, int]) -> tuple[Indices, Indices, Indices]:
        """The block's texts, corpus by corpus: place of the corpus, index and pass, each `[texts]`."""
        taken = [self._take(corpus, state, count) for corpus, count in quotas.items()]
        places = np.repeat(np.arange(len(quotas)), list(quotas.values()))
        return places, np.concatenate([one[0] for one in taken]), np.concatenate([one[1] for one in taken])

    def _permutation(self, corpus: str, pass_: int) -> Indices:
        """The order of a corpus' texts in a pass; the two latest of each corpus are kept."""
        key = (corpus, pass_)
        if key not in self._permutations:
            old = sorted(number for name, number in self._permutations if name == corpus)
            for number in old[:-1]:
                del self._permutations[(corpus, number)]
            bits = random_bits(self.seed, crc32(corpus.encode()), pass_)
            self._permutations[key] = shuffled(bits, self.sizes[corpus])
        return self._permutations[key]

    def _lengths_of(self, corpus: Indices, index: Indices) -> NDArray[Any]:
        """The lengths of the block's texts, `[texts]`."""
        lengths = (self._lengths or {}).values()
        return np.concatenate([of_corpus[index[corpus == i]] for i, of_corpus in enumerate(lengths)])

    def _turns(self, state: MixtureState, quotas: Mapping[str, int]) -> Indices:
        """The corpus (its place) of each row or homogeneous batch of the block, in strict turns, `[rows]`."""
        texts = self.batch if self.homogeneous else 1
        units = {corpus: count // texts for corpus, count in quotas.items()}
        place = {corpus: i for i, corpus in enumerate(self.sizes)}
        order = turns(units, _in_units(state.owed), self.regimes.rates(state.block))
        return np.array([place[corpus] for corpus in order], dtype=np.int64)


def _in_units(owed: Mapping[str, float]) -> dict[str, int]:
    return {corpus: round(amount * UNIT) for corpus, amount in owed.items()}


def _check_lengths(faults: Faults, sizes: Mapping[str, int], lengths: Mapping[str, NDArray[Any]] | None) -> None:
    for corpus, size in sizes.items():
        found = len(lengths[corpus]) if lengths is not None and corpus in lengths else 0
        if found != size:
            faults.add(f'{found} lengths for corpus "{corpus}"', key="mixture.bucket", allowed=f"{size}, one a text")


def _check_all_weights(sizes: Mapping[str, int], settings: SamplingSettings, faults: Faults) -> None:
    """Every weight that is given, for each corpus."""
    given = [("mixture.rates", settings.rates)]
    given += [(f"mixture.schedule.{i}.rates", point.rates) for i, point in enumerate(settings.schedule)]
    for key, weights in given:
        try:
            if weights is not None:
                check_weights(weights, sizes, key)
        except FaultyInput as error:
            faults.extend(error)
