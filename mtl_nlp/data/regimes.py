"""What rules each block of the mixture: its rates, and which tasks are retired.

In: a strategy, the sizes, and the `Regime`s that a run has decided on. Out: the rates of a block in grid units, and which texts of
a corpus are still drawn. `mixture` plans its blocks with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .sampling import UNIT, on_grid
from .strategies import SamplingState, SamplingStrategy, check_weights, strategy_weights
from .stream import Regime

Rates = dict[str, int]
Kept = NDArray[np.bool_]


class Regimes:
    """The regimes of a run, in the order of their first block.

    Args:
        strategy: gives the rates where a regime has none of its own.
        sizes: corpus → texts.
        tasks: corpus → its tasks.
        annotated: corpus → task → whether each text has its annotation, `[texts]`.
        blocks: of the run as planned, for what follows its progress.
    """

    def __init__(
        self,
        strategy: SamplingStrategy,
        sizes: Mapping[str, int],
        tasks: Mapping[str, Sequence[str]],
        annotated: Mapping[str, Mapping[str, Kept]],
        blocks: int,
    ) -> None:
        self.strategy, self.sizes, self.tasks, self.annotated = strategy, sizes, tasks, annotated
        self.blocks = blocks
        self.all: list[Regime] = [Regime(0)]
        self._rates: dict[int, Rates] = {}
        self._kept: dict[tuple[str, frozenset[str]], Kept | None] = {}

    def replaced(self, rates: Mapping[str, float]) -> Regimes:
        """The same with other rates throughout."""
        other = Regimes(self.strategy, self.sizes, self.tasks, self.annotated, self.blocks)
        other.all = [Regime(0, {corpus: rates[corpus] for corpus in self.sizes})]
        return other

    def beginning(self) -> Regimes:
        """The same before anything was decided on the way."""
        return Regimes(self.strategy, self.sizes, self.tasks, self.annotated, self.blocks)

    def at(self, block: int) -> Regime:
        """The regime that rules a block."""
        return next(regime for regime in reversed(self.all) if regime.block <= block)

    def add(self, regime: Regime) -> None:
        """Let a regime rule from its block on, in place of what was to rule there.

        Raises:
            FaultyInput: weights that cannot be rates.
        """
        if regime.rates is not None:
            check_weights(regime.rates, self.sizes)
        self.all = [*(old for old in self.all if old.block < regime.block), regime]
        self._rates = {block: rates for block, rates in self._rates.items() if block < regime.block}

    def full_rates(self, block: int) -> Rates:
        """The rates of a block if no task were retired, in grid units.

        Raises:
            FaultyInput: the strategy's weights cannot be rates.
        """
        weights = self.at(block).rates
        if weights is None:
            state = SamplingState(min(1.0, block / max(1, self.blocks - 1)), self.tasks)
            weights = strategy_weights(self.strategy, self.sizes, state)
        return on_grid({corpus: weights[corpus] for corpus in self.sizes})

    def rates(self, block: int) -> Rates:
        """The rates of a block in grid units; they sum to `UNIT`."""
        if block not in self._rates:
            full, retired = self.full_rates(block), self.at(block).retired
            kept = {corpus: rate * self._share(corpus, retired) for corpus, rate in full.items()}
            # A loader may plan beyond the end of a run whose tasks are all retired.
            self._rates[block] = on_grid(kept) if any(kept.values()) else full
        return self._rates[block]

    def kept(self, block: int) -> float:
        """How much of what a block would draw is still drawn: 1 while no task is retired, 0 when all are."""
        retired = self.at(block).retired
        full = self.full_rates(block)
        return float(sum(rate * self._share(corpus, retired) for corpus, rate in full.items()) / UNIT)

    def _share(self, corpus: str, retired: frozenset[str]) -> Fraction:
        """The share of a corpus' texts that a task still learns from."""
        if all(task in retired for task in self.tasks[corpus]):
            return Fraction(0)
        kept = self.texts(corpus, retired)
        return Fraction(1) if kept is None else Fraction(int(kept.sum()), self.sizes[corpus])

    def texts(self, corpus: str, retired: frozenset[str]) -> Kept | None:
        """Which texts of a corpus are drawn, `[texts]`; None for all."""
        key = (corpus, retired)
        if key not in self._kept:
            self._kept[key] = self._texts(corpus, retired)
        return self._kept[key]

    def _texts(self, corpus: str, retired: frozenset[str]) -> Kept | None:
        active = [task for task in self.tasks[corpus] if task not in retired]
        known = self.annotated.get(corpus, {})
        if not active or len(active) == len(self.tasks[corpus]) or any(task not in known for task in active):
            return None
        kept = np.logical_or.reduce([known[task] for task in active])
        return None if kept.all() or not kept.any() else kept
