"""Whether the fast paths change scores: the padding-free encoder and its dropout against the padded one and torch's.

    python scripts/studies/fast_paths.py DATA_ROOT             run what is missing
    python scripts/studies/fast_paths.py --table | --write     the table from the records

SST-2, the Broad Twitter Corpus and SNIPS (intent and slots) at the study size, 2 epochs, 3 seeds, bf16. Both sides see the same
batches; they draw other dropout masks and round otherwise, so that single runs differ as two seeds do.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from common import ROOT, TASKS, Study, Variant, by_variant, main, markdown, primary, seeds_of, spread

SIDES = ("auto", "plain")


def table(found: Sequence[dict[str, Any]]) -> str:
    """Scores of both sides, and the difference with its standard error over seeds."""
    groups = by_variant(found)
    if set(groups) != set(SIDES):
        return "No run yet."
    scores = {
        side: {task: [primary(record, task) for record in groups[side]] for task in TASKS}
        | {"mean": [float(record["test_mean"]) for record in groups[side]]}
        for side in SIDES
    }
    rows = [[f"`performance: {side}`", *(spread(scores[side][name]) for name in [*TASKS, "mean"])] for side in SIDES]
    rows.append(
        ["difference, points", *(_gap(scores["auto"][name], scores["plain"][name]) for name in [*TASKS, "mean"])]
    )
    return (
        f"Study size: 1 500 texts a corpus, 2 epochs, bf16, {seeds_of(found)}, test split, mean ± standard deviation; the "
        f"difference with its standard error (`scripts/studies/fast_paths.py`).\n\n"
        f"{markdown(['', *TASKS, 'mean'], rows)}"
    )


def _gap(one: Sequence[float], other: Sequence[float]) -> str:
    """The difference of two means in points, and its standard error from the seeds of both."""
    gap = 100 * (statistics.mean(one) - statistics.mean(other))
    if min(len(one), len(other)) < 2:
        return f"{gap:+.2f}"
    error = 100 * math.sqrt(statistics.variance(one) / len(one) + statistics.variance(other) / len(other))
    return f"{gap:+.2f} ± {error:.2f}"


VARIANTS = [Variant(side, (f"performance={side}",)) for side in SIDES]
STUDY = Study("fast_paths", VARIANTS, table, ROOT / "docs" / "benchmarks.md")

if __name__ == "__main__":
    main(STUDY, __doc__)
