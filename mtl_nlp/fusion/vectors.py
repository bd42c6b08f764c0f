"""Merging of weights: parents that were fine-tuned from one ancestor → one set of weights. Tensors in, tensors out.

With θ₀ the ancestor, θᵢ a parent and τᵢ = θᵢ − θ₀ its task vector:

| method | result |
|---|---|
| `average` | Σ cᵢ θᵢ / Σ cᵢ (Wortsman et al. 2022, arXiv:2203.05482) |
| `task_arithmetic` | θ₀ + Σ cᵢ τᵢ (Ilharco et al. 2023, arXiv:2212.04089) |
| `ties` | θ₀ + the mean of those cᵢ τ̂ᵢ that have the elected sign (Yadav et al. 2023, arXiv:2306.01708) |
| `dare` | θ₀ + Σ cᵢ τ̃ᵢ (Yu et al. 2024, arXiv:2311.03099) |

τ̂ᵢ keeps the share `density` of all entries of τᵢ that are largest in magnitude, counted over the whole model; a sign is elected
entry by entry by the sum of what was kept (+ where it is 0). τ̃ᵢ keeps each entry with probability `density` and divides it by
`density`, so that its expectation is τᵢ.

Sums are formed in float64: the average of equal models is that model, and θ₀ + 1 · τᵢ is θᵢ, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

State = Mapping[str, Tensor]
METHODS = ("average", "task_arithmetic", "ties", "dare")
WITH_DENSITY = ("ties", "dare")
DENSITY = 0.2


def merge_states(
    method: str,
    ancestor: State | None,
    parents: Sequence[State],
    coefficients: Sequence[float],
    *,
    density: float = DENSITY,
    seed: int = 13,
) -> dict[str, Tensor]:
    """The merged weights: names and dtypes of the first parent.

    Args:
        method: one of `METHODS`.
        ancestor: θ₀; needed by all but `average`. Where one of its tensors has fewer rows (a vocabulary that was enlarged), the
            rows that it lacks are averaged.
        parents: of equal names and shapes.
        coefficients: one a parent.
        density: of `ties` and `dare`, in (0, 1].
        seed: of `dare`; an entry's fate depends on it, the parent's number and the tensor's name.
    """
    if method == "average":
        return {name: average([p[name] for p in parents], coefficients) for name in parents[0]}
    assert ancestor is not None
    thresholds = [trim_threshold(ancestor, p, density) if method == "ties" else 0.0 for p in parents]
    merged = {}
    for name, first in parents[0].items():
        base = _widened(ancestor[name], [p[name] for p in parents], coefficients)
        vectors = [p[name].double() - base for p in parents]
        if method == "ties":
            vectors = [trimmed(v, least) for v, least in zip(vectors, thresholds, strict=True)]
            change = elected_mean([c * v for c, v in zip(coefficients, vectors, strict=True)])
        else:
            if method == "dare":
                vectors = [dropped(v, density, _generator(seed, i, name)) for i, v in enumerate(vectors)]
            change = torch.stack([c * v for c, v in zip(coefficients, vectors, strict=True)]).sum(0)
        merged[name] = (base + change).to(first.dtype)
    return merged


def average(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean, in the dtype of the first."""
    total = float(sum(weights))
    summed = sum((w / total * t.double() for w, t in zip(weights, tensors, strict=True)), torch.zeros(()))
    return summed.to(tensors[0].dtype)


def _widened(ancestor: Tensor, parents: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """The ancestor's tensor in float64, with as many rows as the parents' (theirs averaged where it has none; more are cut)."""
    base = ancestor.double()
    if base.shape == parents[0].shape:
        return base
    rows = len(base)
    even = coefficients if sum(coefficients) > 0 else [1.0] * len(parents)
    extra = average([p[rows:].double() for p in parents], even)
    return torch.cat([base[: len(parents[0])], extra])


def trim_threshold(ancestor: State, parent: State, density: float) -> float:
    """The magnitude that the share `density` of all entries of τ reaches; rows that the ancestor lacks are not counted."""
    parts = []
    for name, value in parent.items():
        rows = min(len(value), len(ancestor[name])) if value.dim() else 0
        here, there = (value[:rows], ancestor[name][:rows]) if value.dim() else (value, ancestor[name])
        parts.append((here.double() - there.double()).float().abs().flatten())
    entries = torch.cat(parts)
    keep = max(1, round(density * entries.numel()))
    return float(entries.kthvalue(entries.numel() - keep + 1).values)


def trimmed(vector: Tensor, threshold: float) -> Tensor:
    """The entries that reach the threshold in magnitude; 0 for the others."""
    return torch.where(vector.float().abs() >= threshold, vector, 0.0)


def elected_mean(vectors: Sequence[Tensor]) -> Tensor:
    """Entry by entry the mean of those values that are not 0 and have the sign of the sum (+ where it is 0)."""
    stacked = torch.stack(list(vectors))
    positive = stacked.sum(0) >= 0
    agrees = torch.where(positive, stacked > 0, stacked < 0)
    return torch.where(agrees, stacked, 0.0).sum(0) / agrees.sum(0).clamp_min(1)


def dropped(vector: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Each entry with probability `density`, divided by it; 0 otherwise."""
    kept = torch.rand(vector.shape, generator=generator, dtype=torch.float64) < density
    return torch.where(kept, vector / density, 0.0)


def _generator(seed: int, parent: int, name: str) -> torch.Generator:
    key = np.random.SeedSequence([seed, parent, crc32(name.encode())]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(key) >> 1)


def relative_distance(state: State, other: State, among: Callable[[str], bool] = lambda name: True) -> float:
    """‖state − other‖ / ‖other‖ over the tensors of equal shape: far below 1 for a model and its fine-tuned descendants, about √2
    for two that were initialised apart."""
    apart = norm = 0.0
    for name, value in state.items():
        if among(name) and name in other and other[name].shape == value.shape:
            apart += float((value.double() - other[name].double()).square().sum())
            norm += float(other[name].double().square().sum())
    return (apart / norm) ** 0.5 if norm else 0.0
