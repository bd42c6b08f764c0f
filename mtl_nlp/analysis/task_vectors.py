"""The tasks' learned conditions as vectors: which tasks lie close.

A task's vector is all that its condition adds: v (`vector`, `token`), all γ and β (`film`), all (alpha / r) · B A (`lora`). Only
their inner products are ever needed, and those of low-rank matrices come from the factors: ⟨B₁A₁, B₂A₂⟩ = ⟨B₁ᵀB₂, A₁A₂ᵀ⟩.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..hub.checkpoint import check_folder
from ..model.files import CONFIG, read_json, weight_files

PREFIX = "conditioning.tasks."
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class TaskVectors:
    """The conditions of a checkpoint.

    Attributes:
        kind: `vector`, `token`, `film` or `lora`.
        names: tasks, in the checkpoint's order.
        norms: length of each task's vector; 0 for one that has learned nothing.
        cosines: [M][M]; 0 beside a vector of length 0 (1 on the diagonal).
        plane: [M][2]: the first two principal components of the vectors, their mean at the origin.
        explained: the share of the vectors' variance that each of the two has.
    """

    kind: str
    names: list[str]
    norms: list[float]
    cosines: list[list[float]]
    plane: list[list[float]]
    explained: list[float]

    def as_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    def closest(self) -> list[tuple[str, str, float]]:
        """All pairs of tasks, the closest first."""
        size = len(self.names)
        pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
        return sorted(((self.names[i], self.names[j], self.cosines[i][j]) for i, j in pairs), key=lambda pair: -pair[2])


def task_vectors(checkpoint: str | Path) -> TaskVectors | None:
    """The learned conditions of a checkpoint, None where its encoder is not conditioned.

    Raises:
        UserError: no checkpoint, or a damaged one.
    """
    folder = check_folder(checkpoint)
    config = read_json(folder / CONFIG)
    record = config.get("conditioning")
    if not isinstance(record, dict):
        return None
    kind, names = str(record.get("kind")), [str(task["name"]) for task in config["tasks"]]
    scale = float(record.get("alpha", 1.0)) / float(record.get("r", 1.0)) if kind == "lora" else 1.0
    stored = _stored(folder)
    parts = [
        {
            key.removeprefix(f"{PREFIX}{name}."): value
            for key, value in stored.items()
            if key.startswith(f"{PREFIX}{name}.")
        }
        for name in names
    ]
    return vectors_of(kind, names, scale**2 * gramian(parts))


def vectors_of(kind: str, names: list[str], products: Matrix) -> TaskVectors:
    """What inner products [M, M] of the tasks' vectors say of them."""
    norms = np.sqrt(np.clip(products.diagonal(), 0, None))
    scale = np.outer(norms, norms)
    cosines = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0).clip(-1, 1)
    np.fill_diagonal(cosines, 1.0)
    plane, explained = projected(products)
    return TaskVectors(kind, names, norms.tolist(), cosines.tolist(), plane.tolist(), explained)


def gramian(parts: Sequence[Mapping[str, Matrix]]) -> Matrix:
    """[M, M] inner products of the tasks' conditions, each given by name: arrays, or pairs of factors `SITE.a`, `SITE.b`."""
    size = len(parts)
    products = np.zeros((size, size))
    for i in range(size):
        for j in range(i, size):
            products[i, j] = products[j, i] = _inner(parts[i], parts[j])
    return products


def _inner(one: Mapping[str, Matrix], other: Mapping[str, Matrix]) -> float:
    total = 0.0
    for name, value in one.items():
        site = name.removesuffix(".a")
        if name.endswith(".a") and f"{site}.b" in one:
            total += float(((one[f"{site}.b"].T @ other[f"{site}.b"]) * (value @ other[name].T)).sum())
        elif not (name.endswith(".b") and f"{name.removesuffix('.b')}.a" in one):
            total += float((value * other[name]).sum())
    return total


def projected(products: Matrix) -> tuple[Matrix, list[float]]:
    """Principal components from inner products (classical scaling): [M, 2], and the share of the variance of each.

    A component's sign is such that its largest entry is positive, so that the same vectors give the same picture.
    """
    size = len(products)
    centre = np.eye(size) - 1 / max(size, 1)
    values, vectors = np.linalg.eigh(centre @ products @ centre)
    order = np.argsort(values)[::-1][:2]
    total = max(float(np.clip(values, 0, None).sum()), 1e-300)
    plane, explained = np.zeros((size, 2)), [0.0, 0.0]
    for column, place in enumerate(order):
        value = max(float(values[place]), 0.0)
        axis = vectors[:, place] * np.sqrt(value)
        plane[:, column] = axis * (1 if axis[np.abs(axis).argmax()] >= 0 else -1)
        explained[column] = value / total
    return plane, explained


def _stored(folder: Path) -> dict[str, Matrix]:
    """The conditions' tensors, in float64."""
    from safetensors import safe_open

    found: dict[str, Matrix] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:  # numpy knows no bfloat16
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                if key.startswith(PREFIX):
                    found[key] = file.get_tensor(key).double().numpy()
    return found
