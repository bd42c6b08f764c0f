"""Rates and quotas: the whole number of rows that each corpus has in a block.

In: the weights of a strategy (`strategies`). Out: sampling rates that sum to one, and from them each block's quotas.

Rates are held as whole multiples of 1 / `UNIT`. Sums, remainders and ties are then exact: a rate rounded to a
float lets the remainders drift over a long run and breaks ties by noise, differently on another machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from ..errors import Faults

UNIT = 1 << 40
"""The whole, in grid units. A rate is exact to 1e-12, and `owed / UNIT` is exact in a float."""


def check_settings(
    sizes: Mapping[str, int], *, batch: int, block_batches: int, seed: int, max_passes: int | None
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
    if max_passes is not None and max_passes < 1:
        faults.add(str(max_passes), key="mixture.max_passes", allowed="a whole number ≥ 1")
    return faults


def on_grid(weights: Mapping[str, float] | Mapping[str, Fraction]) -> dict[str, int]:
    """Weights → rates in grid units that sum to `UNIT`: rounded down, the rest to the largest remainders."""
    total = sum(Fraction(weight) for weight in weights.values())
    exact = {corpus: Fraction(weight) * UNIT / total for corpus, weight in weights.items()}
    units = {corpus: int(share) for corpus, share in exact.items()}
    by_remainder = sorted(exact, key=lambda corpus: units[corpus] - exact[corpus])
    for corpus in by_remainder[: UNIT - sum(units.values())]:
        units[corpus] += 1
    return units


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


def limited_quotas(
    owed: Mapping[str, int], rates: Mapping[str, int], size: int, limits: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """`block_quotas` where no corpus may have more rows than its limit.

    A corpus that would have more has its limit and is done with: what it was owed is dropped, and the others share the rest of
    the block by their rates.

    Args:
        limits: rows that a corpus has left, at least `size` in all.
    """
    rows = dict.fromkeys(rates, 0)
    left = dict.fromkeys(rates, 0)
    open_ = {corpus: rate for corpus, rate in rates.items() if rate and limits[corpus]}
    while open_ and size:
        found, after = block_quotas({corpus: owed[corpus] for corpus in open_}, on_grid(open_), size)
        full = [corpus for corpus in open_ if found[corpus] > limits[corpus]]
        if not full:
            return rows | found, left | after
        for corpus in full:
            rows[corpus] = limits[corpus]
            size -= limits[corpus]
            del open_[corpus]
    return rows, left


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
