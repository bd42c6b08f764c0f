"""Token-budget batches: a block of the mixture's stream, cut by length into global batches of up to so many real tokens.

A block takes as many texts as fit into its batches; the quotas of the corpora follow the rates exactly, whatever that number is, so
the shares of a block are those of plain batches. Its texts are put in order by length and cut where the next one would not fit, and
whole batches are shuffled. What it takes is a pure function of the state, so the stream resumes at any step and is the same for any
number of processes. (One cap in tokens, one in texts: as fairseq's `--max-tokens` beside `--batch-size`, arXiv:1904.01038.)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import fault
from .mixture import Mixture, _in_units
from .order import Indices, random_bits, shuffled, text_order
from .sampling import UNIT, block_quotas, limited_quotas
from .stream import Block, Draws, MixtureState, Regime

TRIALS = 12
LEFT_OPEN = 200
"""A block whose spare tokens would hold less than this part of its texts is full."""


@dataclass(frozen=True)
class _Layout:
    """A block's texts in their order, and where each batch ends."""

    quotas: dict[str, int]
    next: MixtureState
    corpus: Indices
    index: Indices
    passes: Indices
    tokens: Indices
    ends: list[int]

    def sums(self) -> list[int]:
        """Tokens of each batch."""
        return [int(part.sum()) for part in np.split(self.tokens, self.ends[:-1])]


@dataclass(frozen=True)
class _Advance:
    """What is kept of a block: its texts per corpus, its batches, the state after it, and what was found by trials."""

    quotas: dict[str, int]
    batches: int
    next: MixtureState
    fit: _Fit


class _Fit(NamedTuple):
    """How many texts fit into a block's batches, and whether no text is left after it."""

    texts: int
    last: bool


class BudgetMixture(Mixture):
    """A mixture whose global batches hold up to `max_tokens` real tokens.

    A block has `block_batches` global batches, as in a plain mixture, but as many texts as they can hold; only the last block that
    `max_passes` leaves may have fewer.

    Args:
        tokens: corpus → real tokens of each of its texts, over all its rows, `[texts]`.
        max_tokens: most of them in a global batch.
        batch: most texts in a global batch; no limit when None.
        settings: of `Mixture`. `bucket: False` cuts the texts in random order, or in strict turns where the strategy alternates.

    Raises:
        FaultyInput: as `Mixture`; homogeneous batches; a text that has more tokens than a batch may hold.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        tokens: Mapping[str, NDArray[Any]],
        max_tokens: int,
        batch: int | None = None,
        steps: int | None = None,
        **settings: Any,
    ) -> None:
        refuse_homogeneous(settings.get("batching", "mixed"))
        self.max_tokens = int(max_tokens)
        self.tokens = {corpus: np.maximum(np.asarray(tokens[corpus], dtype=np.int64), 1) for corpus in sizes}
        self._fits_one_by_one()
        self._means = {corpus: float(found.mean()) for corpus, found in self.tokens.items() if len(found)}
        self._advances: dict[Any, _Advance] = {}
        self._epochs: dict[float, int] = {}
        most = min(batch or self.max_tokens, self.max_tokens)
        # A schedule of rates needs the number of blocks before it can be counted.
        rough = math.ceil(sum(int(found.sum()) for found in self.tokens.values()) / self.max_tokens)
        super().__init__(sizes, batch=most, steps=steps or max(1, rough), **settings)
        if steps is None:
            self.planned = self.steps(1)

    def _fits_one_by_one(self) -> None:
        longest = {corpus: int(found.max()) for corpus, found in self.tokens.items() if len(found)}
        self.longest = max(longest.values(), default=1)
        if self.longest > self.max_tokens:
            corpus = max(longest, key=lambda name: longest[name])
            number = int(self.tokens[corpus].argmax()) + 1
            found = f"{self.max_tokens}, but training text {number} of {corpus} has {self.longest} tokens"
            cure = "or a smaller encoder.max_length"
            raise fault(found, key="mixture.max_tokens", allowed=f"{self.longest} or more", cure=cure)

    # The number of steps.

    def steps(self, epochs: float) -> int:
        """Global batches in so many epochs: counted batch by batch, with the rates that are known before the first step.

        Several epochs are never more than so many times one, so that the last one ends with the run.

        Raises:
            FaultyInput: epochs not finite or not positive (key `training.num_train_epochs`).
        """
        if not math.isfinite(epochs) or epochs <= 0:
            raise fault(str(epochs), key="training.num_train_epochs", allowed="a finite number > 0")
        if epochs not in self._epochs:
            found = self._beginning()._steps_for(math.ceil(Fraction(str(float(epochs))) * self.total))
            self._epochs[epochs] = found if epochs <= 1 else min(found, math.ceil(epochs * self.steps(1)))
        return self._epochs[epochs]

    def _steps_for(self, texts: int) -> int:
        step = 0
        while True:
            state = self.state_at(step)
            block = self._summary(state)
            drawn = sum(block.quotas.values())
            if drawn >= texts and block.batches:
                sizes = np.cumsum([len(batch) for batch in self.plan(state).batches])
                return step + int(np.searchsorted(sizes, texts)) + 1
            step, texts = step + block.batches, texts - drawn
            if block.batches < self.block_batches:
                return step

    def _beginning(self) -> BudgetMixture:
        """The mixture as it is before anything is learned on the way."""
        if self.regimes.all == [Regime(0)]:
            return self
        other = copy.copy(self)
        other.regimes = self.regimes.beginning()
        other._advances, other._states = {}, [self.initial_state()]
        return other

    def at_most(self, steps: int) -> int:
        """So many steps, or as many as `max_passes` leaves."""
        if self.max_passes is None:
            return steps
        first, found = self._beginning(), 0
        while found < steps:
            batches = first._summary(first.state_at(found)).batches
            found += batches
            if batches < self.block_batches:
                break
        return min(steps, found)

    def batches_in(self, block: int) -> int:
        """Global batches of a block: fewer than `block_batches` only where `max_passes` leaves no more."""
        return self._summary(self.state_at(block * self.block_batches)).batches

    @property
    def texts_a_step(self) -> float:
        """Texts in a global batch, on average over the first block."""
        block = self._summary(self.initial_state())
        return sum(block.quotas.values()) / max(1, block.batches)

    def take_over(self, other: BudgetMixture) -> None:
        """Spare counting again what another mixture of the same corpora has counted, if its blocks are the same."""
        same = other.block_batches == self.block_batches and "progress" not in self.strategy.reads
        if same and self.regimes.all == other.regimes.all:
            self._advances, self._states, self._epochs = other._advances, other._states, other._epochs

    # Blocks.

    def set_regime(self, regime: Regime) -> None:
        """Let a regime rule from its block on."""
        super().set_regime(regime)
        self._advances = {key: kept for key, kept in self._advances.items() if key[0] < regime.block}

    def with_rates(self, rates: Mapping[str, float]) -> BudgetMixture:
        """The same mixture at other rates."""
        other = super().with_rates(rates)
        assert isinstance(other, BudgetMixture)
        other._advances, other._epochs = {}, {}
        return other

    def plan(self, state: MixtureState) -> Block:
        """All global batches of the block in which `state` stands, and the state after it. Pure."""
        found = self._laid_out(state, self._summary(state).fit)
        drawn = Draws(list(self.sizes), found.corpus, found.index, found.passes)
        batches = [drawn[start:end] for start, end in zip([0, *found.ends], found.ends, strict=False)]
        order = shuffled(random_bits(self.seed, state.block, 0, 2), len(batches)).tolist()
        return Block(found.quotas, [batches[place] for place in order], found.next)

    def _advance(self, state: MixtureState) -> tuple[dict[str, int], MixtureState]:
        found = self._summary(state)
        return found.quotas, found.next

    def _summary(self, state: MixtureState) -> _Advance:
        self._check_state(state)
        key = (state.block, tuple(state.cursors.values()), tuple(state.owed.values()))
        if key not in self._advances:
            fit = self._fit(state)
            found = self._laid_out(state, fit)
            self._advances[key] = _Advance(found.quotas, len(found.ends), found.next, fit)
        return self._advances[key]

    def _laid_out(self, state: MixtureState, fit: _Fit) -> _Layout:
        """The block's texts, and the cuts between them."""
        return self._evened(self._trial(state, fit.texts, *self._bounds(state)), last=fit.last, first=state.block == 0)

    def _bounds(self, state: MixtureState) -> tuple[Mapping[str, int], Mapping[str, int] | None]:
        """The block's rates, and the texts that `max_passes` leaves of each corpus."""
        rates = self.regimes.rates(state.block)
        if self.max_passes is None:
            return rates, None
        return rates, {corpus: self._left(corpus, state) if rate else 0 for corpus, rate in rates.items()}

    def _fit(self, state: MixtureState) -> _Fit:
        """As many texts as the block's batches hold, found by trials."""
        rates, limits = self._bounds(state)
        most = self.block_batches * self.batch
        left = None if limits is None else sum(limits.values())
        most = most if left is None else min(most, left)
        mean = sum(rate * self._means[corpus] for corpus, rate in rates.items()) / UNIT
        low, high, room = 0, most + 1, self.block_batches * self.max_tokens
        count = min(most, max(self.block_batches, int(0.985 * room / mean)))
        for _ in range(TRIALS):
            trial = self._trial(state, count, rates, limits)
            if len(trial.ends) <= self.block_batches:
                low = count
                spare = (room - int(trial.tokens.sum()) - self._lost(trial)) / mean
                if count == most or spare < max(1, count // LEFT_OPEN):
                    break
                wanted = count + int(spare)
            else:
                high = count
                over = int(trial.tokens[trial.ends[self.block_batches - 1] :].sum())
                wanted = count - max(1, math.ceil(over / mean))
            if low + 1 > high - 1:
                break
            count = min(max(wanted, low + 1), high - 1)
        return _Fit(low or min(most, self.block_batches), left is not None and (low == left or not left))

    def _lost(self, trial: _Layout) -> int:
        """Tokens that no further text would fill: what is open at the end of every batch but the last."""
        return sum(self.max_tokens - tokens for tokens in trial.sums()[:-1])

    def _trial(
        self, state: MixtureState, count: int, rates: Mapping[str, int], limits: Mapping[str, int] | None
    ) -> _Layout:
        """So many texts, in order and cut."""
        before = _in_units(state.owed)
        if limits is None:
            quotas, owed = block_quotas(before, rates, count)
        else:
            quotas, owed = limited_quotas(before, rates, count, limits)
        corpus, index, passes = self._texts(state, quotas)
        tokens = np.concatenate([found[index[corpus == i]] for i, found in enumerate(self.tokens.values())])
        turns = self._turns(state, quotas) if self.strategy.alternating else None
        lengths = None if self._lengths is None else self._lengths_of(corpus, index)
        order = text_order(corpus, turns, lengths, random_bits(self.seed, state.block, 0, 1))
        cursors = {name: self._after(name, state, number) for name, number in quotas.items()}
        following = MixtureState(state.block + 1, cursors, {name: owe / UNIT for name, owe in owed.items()}, 0)
        ordered = tokens[order]
        ends = cut_at(ordered, self.max_tokens, self.batch)
        return _Layout(quotas, following, corpus[order], index[order], passes[order], ordered, ends)

    def _evened(self, found: _Layout, *, last: bool, first: bool) -> _Layout:
        """The cuts with a fair last batch, and as many batches as a block has.

        Args:
            last: no text is left after this block, which then may have fewer batches. A rest that would be a small batch of its own
                is left, as plain batches leave it.
        """
        ends = list(found.ends)
        if last and len(ends) == 1 and not first and 2 * int(found.tokens.sum()) < self.max_tokens:
            return replace(found, ends=[], quotas=dict.fromkeys(found.quotas, 0))
        totals = np.concatenate([[0], np.cumsum(found.tokens)])

        def even(start: int, end: int) -> int:
            """The middle of some texts: by their number if both halves fit, else by tokens."""
            middle = (start + end) // 2
            halves = max(totals[middle] - totals[start], totals[end] - totals[middle])
            if halves <= self.max_tokens:
                return middle
            return int(np.searchsorted(totals, (totals[start] + totals[end]) / 2))

        if len(ends) > 1:
            start, middle, end = ([0, *ends])[-3:]
            if 2 * (end - middle) < middle - start and 2 * (totals[end] - totals[middle]) < self.max_tokens:
                new = even(start, end)
                halves = (totals[new] - totals[start], totals[end] - totals[new])
                ends[-2] = new if max(halves) <= self.max_tokens and new - start <= self.batch else middle
        while len(ends) < self.block_batches and not last:
            parts = list(zip([0, *ends], ends, strict=False))
            place = max(range(len(parts)), key=lambda i: parts[i][1] - parts[i][0])
            ends.insert(place, even(*parts[place]))
        return replace(found, ends=ends)

    # Processes.

    def check_parts(self, processes: int, accumulation: int) -> None:
        """See that every batch holds enough texts for processes × accumulation parts.

        A batch has at least max_tokens/2 − 3/2 of the longest text's tokens, so this many texts of that length.

        Raises:
            FaultyInput: it may not; names the tokens, or the texts, that are enough.
        """
        parts = processes * accumulation
        needed, texts = (2 * parts + 3) * self.longest, 2 * parts
        told = f"{processes} processes × training.gradient_accumulation_steps {accumulation}"
        if parts > 1 and self.max_tokens < needed:
            found = f"{self.max_tokens}: too few for {told}, as a text has up to {self.longest} tokens and none is cut"
            cure = "fewer parts, or a smaller encoder.max_length"
            raise fault(found, key="mixture.max_tokens", allowed=f"{needed} or more", cure=cure)
        if parts > 1 and self.batch < texts:
            raise fault(f"{self.batch}: too few texts for {told}", key="mixture.batch", allowed=f"{texts} or more")

    def parts(self, batch: Draws, process: int, processes: int, accumulation: int) -> list[Draws]:
        """The micro-batches of one process: runs of the batch with about the same tokens, in (micro-batch, process) order."""
        if processes * accumulation == 1:
            return [batch]
        tokens = np.empty(len(batch), dtype=np.int64)
        for place, found in enumerate(self.tokens.values()):
            own = batch.corpora == place
            tokens[own] = found[batch.indices[own]]
        bounds = equal_runs(tokens, processes * accumulation)
        return [batch[start:end] for start, end in pairwise(bounds)][process::processes]


def refuse_homogeneous(batching: str) -> None:
    """A token budget needs mixed batches.

    Raises:
        FaultyInput: homogeneous ones.
    """
    if batching == "homogeneous":
        found = (
            "homogeneous beside mixture.max_tokens: a step of one corpus counts as much as any other, "
            "so corpora of short texts, with more of them in a step, would lose their share"
        )
        raise fault(found, key="mixture.batching", allowed="mixed", cure="or mixture.batch in place of max_tokens")


def cut_at(tokens: NDArray[np.int64], most: int, texts: int) -> list[int]:
    """Ends of runs of at most `most` tokens and `texts` texts, each as long as can be.

    >>> cut_at(np.array([3, 3, 4, 5, 6]), 10, 99)
    [3, 4, 5]
    """
    totals, ends, start = np.cumsum(tokens), [], 0
    while start < len(tokens):
        before = int(totals[start - 1]) if start else 0
        start = min(int(np.searchsorted(totals, before + most, side="right")), start + texts)
        ends.append(start)
    return ends


def equal_runs(tokens: NDArray[np.int64], parts: int) -> list[int]:
    """Bounds of so many runs with about the same tokens and at least one text each, `[parts + 1]`.

    >>> equal_runs(np.array([1, 1, 2, 4, 4]), 3)
    [0, 3, 4, 5]
    """
    if len(tokens) < parts:
        raise ValueError(f"{len(tokens)} texts for {parts} parts")
    totals = np.cumsum(tokens)
    middles = totals - tokens / 2
    bounds = [0]
    for part in range(1, parts):
        wanted = int(np.searchsorted(middles, totals[-1] * part / parts))
        bounds.append(min(max(wanted, bounds[-1] + 1), len(tokens) - (parts - part)))
    return [*bounds, len(tokens)]
