"""The coefficients of a merge, searched on validation; every trial is written down, so that an interrupted search goes on.

First one number for all parents, over the grid that the method's paper uses (of a mean: equal weights); then one parent's at
a time up and down a step while the mean of the primary metrics grows, in two rounds at most.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..errors import fault
from ..model.multitask import MultiTaskModel

logger = logging.getLogger("mtl_nlp")
FILE = "search.jsonl"
ROUNDS = 2
# Ilharco et al. try 0.05 … 1 for task arithmetic, Yadav et al. 0.8 … 1.8 for TIES beside its recommended 1.
GRIDS = {
    "task_arithmetic": [round(0.1 * i, 1) for i in range(1, 11)],
    "dare": [round(0.1 * i, 1) for i in range(1, 11)],
    "ties": [round(0.2 * i, 1) for i in range(1, 10)],
}
STEPS = {"average": 0.1, "task_arithmetic": 0.1, "dare": 0.1, "ties": 0.2}


class Scored(Protocol):
    """What scores a model: `fusion.common.Validation`."""

    def score(self, model: MultiTaskModel) -> tuple[dict[str, dict[str, float]], float | None]:
        """(scores, mean)."""
        ...


class Search:
    """One search.

    Args:
        folder: where its trials are kept, in `search.jsonl`.
        facts: what is merged and how; trials of something else are refused.
        build: coefficients → model.
        validation: model → scores.

    Raises:
        UserError: the folder has the trials of another merge.
    """

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, Any],
        build: Callable[[list[float]], MultiTaskModel],
        validation: Scored,
    ) -> None:
        self.file, self.build, self.validation = folder / FILE, build, validation
        self.trials: list[dict[str, Any]] = []
        head = json.loads(json.dumps(facts))
        if self.file.is_file():
            lines = _whole_lines(self.file)
            if not lines or lines[0] != head:
                cure = "resume with the same checkpoints and settings, or give another folder"
                raise fault("the search that was begun is another", where=str(self.file), key="--resume", cure=cure)
            self.trials = lines[1:]
        else:
            self.file.write_text(json.dumps(head) + "\n", encoding="utf-8")
        self._known = {tuple(trial["coefficients"]): trial["mean"] for trial in self.trials}

    def mean(self, coefficients: list[float]) -> float:
        """The mean of the primary metrics with these coefficients.

        Raises:
            UserError: no task has a metric that counts.
        """
        key = tuple(round(c, 6) for c in coefficients)
        if key in self._known:
            return self._known[key]
        scores, mean = self.validation.score(self.build(list(key)))
        if mean is None:
            raise fault("no task has a metric to search by", key="--coefficients", cure="give the numbers")
        first = {task: next(iter(found.values())) for task, found in scores.items() if found}
        trial = {"coefficients": list(key), "mean": mean, "scores": first}
        with self.file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(trial) + "\n")
        self.trials.append(trial)
        self._known[key] = mean
        logger.info("trial %d: %s → %.4f", len(self.trials), ", ".join(f"{c:.3g}" for c in key), mean)
        return mean

    def best(self, method: str, parents: int) -> list[float]:
        """The best coefficients found; of equal ones the first that was tried."""
        even = [[round(1.0 / parents, 6)] * parents]
        starts = even if method == "average" else [[value] * parents for value in GRIDS[method]]
        chosen = max(starts, key=self.mean)
        if parents == 1:
            return chosen
        for _ in range(ROUNDS):
            before = chosen
            for i in range(parents):
                for sign in (1, -1):
                    other = moved(chosen, i, sign * STEPS[method], mean=method == "average")
                    if other is not None and self.mean(other) > self.mean(chosen):
                        chosen = other
                        break
            if chosen == before:
                break
        return chosen


def moved(coefficients: list[float], place: int, step: float, *, mean: bool) -> list[float] | None:
    """One coefficient a step higher or lower; None below 0. Weights of a mean still sum to 1: the others share the change."""
    new = round(coefficients[place] + step, 6)
    if new < 0 or (mean and new > 1):
        return None
    found = list(coefficients)
    rest = sum(c for i, c in enumerate(coefficients) if i != place)
    if mean and rest > 0:
        found = [round(c * (1 - new) / rest, 6) for c in coefficients]
    found[place] = new
    return found


def _whole_lines(file: Path) -> list[dict[str, Any]]:
    """The records that were written whole; a line that was cut short is taken off the file."""
    kept, text = [], file.read_text(encoding="utf-8")
    for line in text.splitlines(keepends=True):
        try:
            found = json.loads(line) if line.endswith("\n") else None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            break
        kept.append((line, found))
    if (whole := "".join(line for line, _ in kept)) != text:
        file.write_text(whole, encoding="utf-8")
    return [found for _, found in kept]
