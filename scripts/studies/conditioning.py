"""Conditionings of the shared encoder beside plain sharing.

    python scripts/studies/conditioning.py DATA_ROOT             run what is missing
    python scripts/studies/conditioning.py --table | --write     the table from the records

SST-2, the Broad Twitter Corpus and SNIPS (intent and slots) at the study size, 2 epochs, 3 seeds. The row to recommend is chosen on
validation; the test split is only reported.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from common import ROOT, TASKS, Study, Variant, by_variant, main, markdown, primary, seeds_of, spread

PLAIN = "plain joint"
KINDS = ("vector", "token", "film", "lora")
VARIANTS = [Variant(PLAIN), *(Variant(kind, (f"conditioning={kind}",)) for kind in KINDS)]


def table(found: Sequence[dict[str, Any]]) -> str:
    """Conditionings × scores on the test split, with what they cost."""
    groups = by_variant(found)
    if not groups:
        return "No run yet."
    rows = []
    for name, group in groups.items():
        factor = group[0]["run"].get("rows_per_text", {"training": 1.0, "prediction": 1})
        trained = group[0]["run"]["parameters"]["total"]
        cost = [f"{factor['training']:.2f} / {factor['prediction']}", f"{trained / 1e6:.2f} M"]
        seconds = spread([float(record["run"]["seconds"]) for record in group], 0)
        scores = [spread([primary(record, task) for record in group]) for task in TASKS]
        chosen = spread([float(record["mean"]) for record in group])
        rows.append([name, *cost, seconds, *scores, spread([float(r["test_mean"]) for r in group]), chosen])
    head = ["conditioning", "rows a text, training / prediction", "parameters", "seconds", *TASKS, "mean", "validation"]
    best = max(groups, key=lambda name: statistics.mean(record["mean"] for record in groups[name]))
    return (
        f"Study size: 1 500 texts a corpus, 2 epochs, {seeds_of(found)}, test split, mean ± standard deviation; conditions "
        f"learn at the heads' rate.\n\n{markdown(head, rows)}\n\nChosen on validation: {best}. {_said(groups, best)}"
    )


def _said(groups: dict[str, list[dict[str, Any]]], best: str) -> str:
    """Whether a conditioning reached plain sharing on the test split."""
    if PLAIN not in groups:
        return "Plain sharing was not run yet, so nothing follows."
    plain = statistics.mean(record["test_mean"] for record in groups[PLAIN])
    means = {name: statistics.mean(r["test_mean"] for r in group) for name, group in groups.items() if name != PLAIN}
    reached = [name for name, mean in means.items() if mean >= plain]
    mean = statistics.mean(record["test_mean"] for record in groups[best])
    told = f"Its mean on the test split is {mean:.4f}, plain sharing's {plain:.4f}. "
    return told + (f"At or above plain sharing: {', '.join(reached)}." if reached else "No conditioning reached it.")


STUDY = Study("conditioning", VARIANTS, table, ROOT / "docs" / "methods.md")

if __name__ == "__main__":
    main(STUDY, __doc__)
