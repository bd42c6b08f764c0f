"""Unequal tasks: sampling strategies where one corpus has 300 texts and the others 1 500.

    python scripts/studies/imbalance.py DATA_ROOT             run what is missing
    python scripts/studies/imbalance.py --table | --write     the table from the records

The Broad Twitter Corpus is cut to 300 sentences; SST-2 and SNIPS (intent and slots) have the study size. 2 epochs, 3 seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from common import ROOT, TASKS, Study, Variant, by_variant, main, markdown, primary, seeds_of, spread

SMALL = "broad_twitter_corpus"


def strategy(name: str, *sets: str, label: str = "") -> Variant:
    """A variant with one strategy."""
    return Variant(label or name, (f"mixture.strategy={name}", *sets))


VARIANTS = [
    strategy("proportional"),
    strategy("temperature", "mixture.temperature=2.0", label="temperature 2"),
    strategy("temperature", "mixture.temperature=5.0", label="temperature 5"),
    strategy("capped", "mixture.cap=600", label="capped 600"),
    strategy("uniform"),
    strategy("uniform", "mixture.max_passes=4", label="uniform, max_passes 4"),
    strategy("round_robin"),
    strategy("fixed", "mixture.rates={sst2: 1, broad_twitter_corpus: 2, snips_intent: 1}", label="fixed 1 : 2 : 1"),
    strategy("annealed"),
    strategy("adaptive_loss"),
    strategy("adaptive_metric"),
]


def table(found: Sequence[dict[str, Any]]) -> str:
    """Strategies × scores on the test split, and how often the small corpus was passed over."""
    rows, groups = [], by_variant(found)
    for name, group in groups.items():
        passes = statistics.mean(record["run"]["corpora"][SMALL]["passes"] for record in group)
        scores = [spread([primary(record, task) for record in group]) for task in TASKS]
        mean = spread([float(record["test_mean"]) for record in group])
        rows.append([name, f"{passes:.1f}", *scores, mean])
    if not groups:
        return "No run yet."
    head = ["strategy", f"passes over {SMALL}", *TASKS, "mean"]
    best = max(groups, key=lambda name: statistics.mean(r["test_mean"] for r in groups[name]))
    best_small = max(groups, key=lambda name: statistics.mean(primary(r, SMALL) for r in groups[name]))
    return (
        f"Study size: 1 500 texts of SST-2 and SNIPS, 300 of {SMALL}, 2 epochs, {seeds_of(found)}, test split, mean ± standard "
        f"deviation over seeds (`scripts/studies/imbalance.py`).\n\n{markdown(head, rows)}\n\n"
        f"The highest mean has {best}, the highest score of the small corpus {best_small}."
    )


STUDY = Study("imbalance", VARIANTS, table, ROOT / "docs" / "how-to" / "choose-a-mixture.md", cut={"btc": 300})

if __name__ == "__main__":
    main(STUDY, __doc__)
