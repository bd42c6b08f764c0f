"""How long a text takes with every task answered: one pass of a shared model, against one of each separate model.

Measured with the models of the first seed on the same validation texts, one model after the other and that several times over, so
that whatever else the machine does hits all alike; the median counts.
"""

from __future__ import annotations

import logging
import statistics
import time
from pathlib import Path
from typing import Any

from ..comparison import SINGLE
from ..errors import UserError
from ..inference.predictor import Predictor
from ..training.predictions import FOLDER, read_predictions
from .comparison_folder import Place, has_weights
from .comparison_plan import Plan, Run

logger = logging.getLogger("mtl_nlp")

TEXTS, REPEATS = 128, 3


def inputs(plan: Plan, place: Place, texts: int = TEXTS) -> list[Any]:
    """Validation texts of every task, as a user would give them: raw text, or the fields that a task reads."""
    folder = place.run(plan.runs()[0]) / FOLDER
    share, found = max(1, texts // len(plan.tasks)), []
    for task in plan.task_names:
        for line in read_predictions(folder / f"validation-{task}.jsonl")[:share]:
            row = {
                key: value for key, value in line.items() if key in ("text", "pair", "question", "context", "choices")
            }
            if "words" in line:
                row["text"] = " ".join(line["words"])
            found.append(row["text"] if list(row) == ["text"] else row)
    return found


def measure_speed(
    plan: Plan, place: Place, *, texts: int = TEXTS, repeats: int = REPEATS
) -> dict[str, dict[str, float]]:
    """Variant → `seconds_per_text`.

    Variants whose weights are gone are left out; without the separate models nothing is measured.
    """
    rows, seed = inputs(plan, place, texts), plan.seeds[0]
    folders: dict[str, list[tuple[Path, str | None]]] = {}
    for variant in plan.variants:
        sides = plan.task_names if variant.kind == "single" else [None]
        found = [(place.run(Run(variant.name, side, seed)), side) for side in sides]
        if all(has_weights(folder) for folder, _ in found):
            folders[variant.name] = found
    if SINGLE not in folders:
        return {}
    loaded: dict[str, list[tuple[Predictor, str | None]]] = {}
    for name, found in folders.items():
        try:
            loaded[name] = [(Predictor.from_pretrained(folder), side) for folder, side in found]
        except UserError as error:  # a fusion that no single folder answers
            logger.warning("the speed of %s is not measured: %s", name, error)
    seconds: dict[str, list[float]] = {name: [] for name in loaded}
    for number in range(repeats + 1):
        for name, models in loaded.items():
            start = time.perf_counter()
            for predictor, side in models:
                _answer(predictor, rows, side, plan)
            if number:  # the first round warms up
                seconds[name].append((time.perf_counter() - start) / len(rows))
    return {name: {"seconds_per_text": statistics.median(found), "texts": len(rows)} for name, found in seconds.items()}


def _answer(predictor: Predictor, rows: list[Any], side: str | None, plan: Plan) -> None:
    """Every task that a text can feed."""
    wanted = [side] if side is not None else None
    try:
        predictor(rows, tasks=wanted)
    except UserError:  # some rows do not feed this task
        for row in rows:
            try:
                predictor([row], tasks=wanted)
            except UserError:
                continue
