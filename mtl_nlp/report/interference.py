"""Gradient cosines that a run noted (`balancing.cosine_steps`), and what `mtl-nlp interference` measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import fault
from ..hub.facts import plain
from ..model.files import read_json
from .facts import Cosines, InterferenceReport, Points, Table

INTERFERENCE = "interference.json"
GRADIENT_COSINES = "gradient_cosines.json"
MOST_PAIRS = 15  # that are drawn by layer and over time; those with the largest cosines


def read_cosines(folder: Path) -> Cosines | None:
    """The notes of a run; None where it made none."""
    path = folder / GRADIENT_COSINES
    if not path.is_file():
        return None
    found = read_json(path)
    notes = [note for note in found.get("notes") or [] if isinstance(note, dict)]
    if not notes:
        return None
    tasks, groups = [plain(name) for name in found["tasks"]], [plain(name) for name in found["groups"]]
    sums, counts = np.zeros((len(tasks), len(tasks))), np.zeros((len(tasks), len(tasks)))
    layers = np.zeros((len(groups), len(tasks), len(tasks)))
    over_time: dict[tuple[int, int], Points] = {}
    for note in notes:
        places = [tasks.index(plain(name)) for name in note["tasks"]]
        at = np.ix_(places, places)
        sums[at] += np.asarray(note["all"])
        counts[at] += 1
        for number, group in enumerate(groups):
            layers[number][at] += np.asarray(note["groups"][group])
        for i, j in combinations(range(len(places)), 2):
            pair = (min(places[i], places[j]), max(places[i], places[j]))
            over_time.setdefault(pair, []).append((float(note["step"]), float(note["all"][i][j])))
    seen = counts > 0
    mean = np.where(seen, sums / np.maximum(counts, 1), np.nan)
    by_layer = layers / np.maximum(counts, 1)
    kept = largest_pairs(mean)
    names = {pair: f"{tasks[pair[0]]} · {tasks[pair[1]]}" for pair in kept}
    return Cosines(
        mean=Table(tasks, tasks, numbers(mean)),
        by_layer=Table(list(names.values()), groups, [numbers(by_layer[:, i, j]) for i, j in kept]),
        over_time={names[pair]: over_time[pair] for pair in kept},
        notes=len(notes),
    )


def largest_pairs(table: Any, most: int = MOST_PAIRS) -> list[tuple[int, int]]:
    """Pairs with the largest values, in order of the tasks."""
    pairs = [(i, j) for i, j in combinations(range(len(table)), 2) if table[i][j] == table[i][j]]
    return sorted(sorted(pairs, key=lambda pair: -abs(table[pair[0]][pair[1]]))[:most])


def numbers(table: Any) -> Any:
    """An array as (nested) lists, None where it is NaN."""
    if getattr(table, "ndim", 0) == 0:
        return None if np.isnan(table) else round(float(table), 6)
    return [numbers(row) for row in table]


def read_interference(folder: Path, name: str) -> InterferenceReport:
    """A measurement.

    Raises:
        UserError: its file is not what `mtl-nlp interference` writes.
    """
    path = folder / INTERFERENCE
    found = read_json(path)
    try:
        return _measurement(found, plain(name), plain(folder.name))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        allowed = "what `mtl-nlp interference` writes"
        raise fault(f"cannot be understood: {error!r}", where=str(path), allowed=allowed) from error


def _measurement(found: dict[str, Any], name: str, folder: str) -> InterferenceReport:
    tasks, groups = [plain(task) for task in found["tasks"]], [plain(group) for group in found["groups"]]
    layers = {group: _array(found["by_layer"][group]) for group in groups}
    affinity = 100 * _array(found["affinity"])
    both = sum(layers.values()) if layers else affinity
    kept = largest_pairs((both + both.T) / 2)
    names = [f"{tasks[i]} · {tasks[j]}" for i, j in kept]
    cosines = {group: _array(found["cosines"][group]) for group in ["all", *groups]}
    advice = found["advice"]
    return InterferenceReport(
        name=name,
        folder=folder,
        affinity=Table(tasks, tasks, numbers(affinity)),
        error=Table(tasks, tasks, numbers(100 * _array(found["error"]))),
        by_layer=Table(names, groups, _pairs([50 * (layers[g] + layers[g].T) for g in groups], kept)),
        cosines=Table(tasks, tasks, numbers(cosines["all"])),
        cosines_by_layer=Table(names, groups, _pairs([cosines[g] for g in groups], kept)),
        pairs=[{**pair, "tasks": [plain(task) for task in pair["tasks"]]} for pair in advice["pairs"]],
        groups=[[plain(task) for task in group] for group in advice["groups"]],
        share_until=plain(advice["share_until"]) or None,
        about=[
            ("Steps", str(found["steps"])),
            ("Measurements", str(len(found["points"]))),
            ("Time", f"{found['seconds']:.0f} s"),
        ],
    )


def _array(table: Any) -> Any:
    return np.array([[np.nan if value is None else value for value in row] for row in table], dtype=np.float64)


def _pairs(tables: Sequence[Any], kept: Sequence[tuple[int, int]]) -> list[list[float | None]]:
    return [[numbers(table[i][j]) for table in tables] for i, j in kept]
