"""Heat maps of an interference measurement (matplotlib, the extra `plot`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import fault
from .interference import Interference

PIP = 'pip install "mtl-nlp[plot]"'


def matplotlib_figure() -> Any:
    """matplotlib's `Figure`, which needs no display.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise fault("pictures need matplotlib", key="interference", cure=f"{PIP}, or --no-pictures") from error
    return Figure


def draw(found: Interference, folder: Path) -> list[Path]:
    """Write `affinity.png`, `affinity_by_layer.png`, `cosines_by_layer.png` and `cosines_over_time.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = list(combinations(range(len(found.tasks)), 2))
    names = [f"{found.tasks[i]} · {found.tasks[j]}" for i, j in pairs]
    groups = found.groups
    layers = [[found.by_layer[g][i][j] + found.by_layer[g][j][i] for g in groups] for i, j in pairs]
    angles = [[found.cosines[g][i][j] for g in groups] for i, j in pairs]
    over_time = [[point.cosines["all"][i][j] for point in found.points] for i, j in pairs]
    steps = [str(point.step) for point in found.points]
    percent = 100 * np.array(found.affinity)
    return [
        heat_map(
            folder / "affinity.png",
            percent,
            (found.tasks, found.tasks),
            "A step on the row's task: how much the column's loss falls (%)",
            labels=("learned", "measured"),
        ),
        heat_map(
            folder / "affinity_by_layer.png",
            100 * np.array(layers) / 2,
            (names, groups),
            "Affinity by layer, mean of both directions (%)",
        ),
        heat_map(folder / "cosines_by_layer.png", angles, (names, groups), "Gradient cosine by layer", limit=1.0),
        heat_map(
            folder / "cosines_over_time.png",
            over_time,
            (names, steps),
            "Gradient cosine after so many steps",
            limit=1.0,
            labels=("", "step"),
        ),
    ]


def heat_map(
    path: Path,
    values: Any,
    names: tuple[Sequence[str], Sequence[str]],
    title: str,
    *,
    labels: tuple[str, str] = ("", ""),
    limit: float | None = None,
) -> Path:
    """One table as coloured cells with its numbers in them; blue helps, red harms, white is nothing.

    Args:
        names: of rows and columns.
        limit: the value of the full colour; the largest one if None.
    """
    table = np.asarray(values, dtype=float)
    rows, columns = names
    wide = max((len(name) for name in rows), default=0)
    size = (2.2 + 0.085 * wide + 0.82 * len(columns), 1.9 + 0.42 * len(rows) + 0.05 * max(map(len, columns)))
    figure = matplotlib_figure()(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    most = limit or float(np.nanmax(np.abs(table))) or 1.0
    image = axes.imshow(table, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylabel(labels[0])
    axes.set_xlabel(labels[1])
    axes.set_title(title, fontsize=10, loc="left", wrap=True)
    digits = 2 if most < 10 else 1
    for i, j in np.ndindex(table.shape):
        if not np.isnan(table[i, j]):
            dark = abs(table[i, j]) > 0.6 * most
            shown = f"{table[i, j]:+.{digits}f}"
            axes.text(j, i, shown, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    figure.colorbar(image, ax=axes, shrink=0.9)
    figure.savefig(path)
    return path
