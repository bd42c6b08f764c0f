"""Sampling strategies and quotas: how often each corpus is drawn.

In: the sizes of the corpora and the settings of a recipe's `mixture:`. Out: sampling rates that sum to one,
and from them the whole number of rows that each corpus has in a block.

Rates are held as whole multiples of 1 / `UNIT`. Sums, remainders and ties are then exact: a rate rounded to a
float lets the remainders drift over a long run and breaks ties by noise, differently on another machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from ..errors import Faults, closest, fault, listed
from ..registry import Registry

UNIT = 1 << 40
"""The whole, in grid units. A rate is exact to 1e-12, and `owed / UNIT` is exact in a float."""

STRATEGIES = Registry(
    "sampling strategy",
    group="mtl_nlp.sampling_strategies",
    builtin={
        "proportional": "mtl_nlp.data.sampling:proportional",
        "uniform": "mtl_nlp.data.sampling:uniform",
        "temperature": "mtl_nlp.data.sampling:temperature",
        "round_robin": "mtl_nlp.data.sampling:round_robin",
        "fixed": "mtl_nlp.data.sampling:fixed",
    },
)
"""Names of `mixture.strategy`. An entry is called with (sizes, settings) and returns a weight per corpus, not
yet normalised; where it has a true attribute `alternating`, the rows of a block take turns instead of being
shuffled."""


@dataclass(frozen=True)
class SamplingSettings:
    """What a strategy may read of a recipe's `mixture:`.

    Attributes:
        temperature: T of the strategy `temperature`, at least 1.
        rates: corpus → weight, of the strategy `fixed`.
    """

    temperature: float = 2.0
    rates: Mapping[str, float] | None = None


Strategy = Callable[[Mapping[str, int], SamplingSettings], Mapping[str, float]]


def proportional(sizes: Mapping[str, int], settings: SamplingSettings) -> dict[str, float]:
    """p_i = n_i / Σ_j n_j: every text is equally likely, every corpus is passed over equally often."""
    return dict(sizes)


def uniform(sizes: Mapping[str, int], settings: SamplingSettings) -> dict[str, float]:
    """p_i = 1 / M for M corpora, whatever their sizes; the order inside a block is shuffled."""
    return dict.fromkeys(sizes, 1.0)


def temperature(sizes: Mapping[str, int], settings: SamplingSettings) -> dict[str, float]:
    """p_i ∝ n_i^(1/T): T = 1 is `proportional`, T → ∞ is `uniform`.

    Multilingual BERT (Devlin 2018: exponent 0.7, that is T = 1.43); Arivazhagan et al. 2019, arXiv:1907.05019
    (T = 5).
    """
    largest = max(sizes.values())
    return {corpus: (size / largest) ** (1.0 / settings.temperature) for corpus, size in sizes.items()}


class RoundRobin:
    """p_i = 1 / M, and the corpora take strict turns: a, b, c, a, b, c, … across the borders of blocks too.

    With batching `homogeneous` it is the batches that take turns.
    """

    alternating = True

    def __call__(self, sizes: Mapping[str, int], settings: SamplingSettings) -> dict[str, float]:
        """The same weight for every corpus."""
        return dict.fromkeys(sizes, 1.0)


round_robin = RoundRobin()


def fixed(sizes: Mapping[str, int], settings: SamplingSettings) -> dict[str, float]:
    """p_i = w_i / Σ_j w_j with the weights of `mixture.rates`; a weight of 0 means never drawn.

    Raises:
        FaultyInput: no rates, a corpus without a rate, a rate for an unknown one, a rate that is no weight.
    """
    if settings.rates is None:
        raise fault(
            "missing, and the strategy is fixed",
            key="mixture.rates",
            allowed=f"a weight for each of {listed(sizes)}",
        )
    check_weights(settings.rates, sizes)
    return {corpus: settings.rates[corpus] for corpus in sizes}


def check_settings(
    sizes: Mapping[str, int],
    settings: SamplingSettings,
    *,
    strategy: str,
    batch: int,
    block_batches: int,
    seed: int,
) -> Faults:
    """What is wrong with the numbers of a mixture, under the recipe's keys."""
    faults = Faults()
    if not sizes:
        faults.add("no corpus to draw from", key="tasks", allowed="at least one task with training texts")
    for corpus, size in sizes.items():
        if size < 1:
            faults.add(f'corpus "{corpus}" has {size} training texts', key="tasks", allowed="at least 1")
    if batch < 1:
        faults.add(str(batch), key="mixture.batch", allowed="a whole number ≥ 1")
    if block_batches < 1:
        faults.add(str(block_batches), key="mixture.block_batches", allowed="a whole number ≥ 1")
    if not 0 <= seed < 2**32:
        faults.add(str(seed), key="seed", allowed="a whole number from 0 to 4294967295")
    if not math.isfinite(settings.temperature) or settings.temperature < 1:
        faults.add(str(settings.temperature), key="mixture.temperature", allowed="a finite number ≥ 1")
    if settings.rates is not None and strategy != "fixed":
        faults.add(f'given with strategy "{strategy}"', key="mixture.rates", allowed="only with strategy: fixed")
    return faults


def check_weights(weights: Mapping[str, float], sizes: Mapping[str, int]) -> None:
    """See that there is one finite weight ≥ 0 for every corpus and no other, and that not all of them are 0.

    Raises:
        FaultyInput: all that is wrong, under the keys `mixture.rates` and `mixture.rates.CORPUS`.
    """
    faults = Faults()
    for corpus in sizes:
        if corpus not in weights:
            faults.add(f'no rate for corpus "{corpus}"', key="mixture.rates", allowed="a weight for every corpus")
    for corpus, weight in weights.items():
        key = f"mixture.rates.{corpus}"
        if corpus not in sizes:
            faults.add("unknown corpus", key=key, allowed=listed(sizes), cure=closest(corpus, sizes).strip())
        elif isinstance(weight, bool) or not math.isfinite(weight) or weight < 0:
            faults.add(str(weight), key=key, allowed="a finite number ≥ 0")
    faults.check()
    if not any(weights.values()):
        raise fault("every weight is 0", key="mixture.rates", allowed="at least one weight > 0")


def on_grid(weights: Mapping[str, float]) -> dict[str, int]:
    """Weights → rates in grid units that sum to `UNIT`: rounded down, the rest to the largest remainders."""
    total = sum(Fraction(weight) for weight in weights.values())
    exact = {corpus: Fraction(weight) * UNIT / total for corpus, weight in weights.items()}
    units = {corpus: int(share) for corpus, share in exact.items()}
    by_remainder = sorted(exact, key=lambda corpus: units[corpus] - exact[corpus])
    for corpus in by_remainder[: UNIT - sum(units.values())]:
        units[corpus] += 1
    return units


def find_strategy(name: str) -> Strategy:
    """The strategy behind a name.

    Raises:
        FaultyInput: no such strategy (key `mixture.strategy`).
    """
    if name not in STRATEGIES:
        known = STRATEGIES.names()
        raise fault(f'"{name}"', key="mixture.strategy", allowed=listed(known), cure=closest(name, known).strip())
    strategy: Strategy = STRATEGIES.get(name)
    return strategy


def sampling_rates(strategy: str, sizes: Mapping[str, int], settings: SamplingSettings) -> dict[str, int]:
    """The rates of a strategy in grid units, in the order of `sizes`; they sum to `UNIT`.

    Raises:
        FaultyInput: unknown strategy, or weights that cannot be rates.
    """
    weights = find_strategy(strategy)(sizes, settings)
    check_weights(weights, sizes)
    return on_grid({corpus: weights[corpus] for corpus in sizes})


def block_quotas(owed: Mapping[str, int], rates: Mapping[str, int], size: int) -> tuple[dict[str, int], dict[str, int]]:
    """Whole rows per corpus for the next block, and what is owed after it.

    What is due to corpus i is d_i = owed_i + rate_i · size. It receives ⌊d_i⌋ rows (0 if it is ahead); the
    rows that are left go one each to the corpora whose next row falls due first, (1 − remainder_i) / rate_i
    rows ahead, ties by corpus order. This is earliest-deadline-first for the chairman assignment problem
    (Tijdeman 1980, Discrete Mathematics 32): at constant rates every corpus is less than one row from its
    share after *every* block. The largest remainder in place of the earliest deadline has no such bound: at
    weights 50, 300, 1, 300, 1 and blocks of 7 it comes to a block in which more rows are due than there are.

    Args:
        owed: grid units carried over per corpus (positive: rows still to come); they sum to 0.
        rates: grid units per corpus; they sum to `UNIT`.
        size: rows (or whole batches) of the block.

    Returns:
        Rows per corpus, summing to `size` (none at rate 0), and owed per corpus, summing to 0.
    """
    owed = _settle(owed, rates)
    due = {corpus: owed[corpus] + rate * size for corpus, rate in rates.items()}
    rows = {corpus: max(0, amount // UNIT) for corpus, amount in due.items()}
    rest = size - sum(rows.values())
    by_deadline = sorted(
        (corpus for corpus, rate in rates.items() if rate),
        key=lambda corpus: ((rows[corpus] + 1) * UNIT - due[corpus]) / rates[corpus],
    )
    for corpus in [corpus for corpus in by_deadline if due[corpus] > rows[corpus] * UNIT][: max(0, rest)]:
        rows[corpus] += 1
    while sum(rows.values()) > size:
        # More can be due than the block holds only after rates were replaced; who has most time left waits.
        latest = next(corpus for corpus in reversed(by_deadline) if rows[corpus])
        rows[latest] -= 1
        by_deadline.remove(latest)
        by_deadline.insert(0, latest)
    return rows, {corpus: due[corpus] - rows[corpus] * UNIT for corpus in rates}


def _settle(owed: Mapping[str, int], rates: Mapping[str, int]) -> dict[str, int]:
    """Move what corpora at rate 0 are owed to the corpus with the highest rate, where a row matters least."""
    settled = {corpus: owed[corpus] if rate else 0 for corpus, rate in rates.items()}
    settled[max(rates, key=lambda corpus: rates[corpus])] -= sum(settled.values())
    return settled


def turns(rows: Mapping[str, int], owed: Mapping[str, int], rates: Mapping[str, int]) -> list[str]:
    """The corpora of a block's rows, in the order in which these fall due.

    Row j (from 1) of corpus i falls due (j − owed_i) / rate_i rows after the block's start, ties by corpus
    order. At equal rates these are strict turns, and a block goes on where the one before it stopped; at
    others the rows of each corpus are evenly spread.
    """
    order = [
        ((row * UNIT - owed[corpus]) / rates[corpus], place, corpus)
        for place, (corpus, count) in enumerate(rows.items())
        for row in range(1, count + 1)
    ]
    return [corpus for _, _, corpus in sorted(order)]
