"""Gradient aggregators: exact values by hand, and the properties that each claims."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mtl_nlp.balancing import AGGREGATORS, GradientAggregator, make_aggregator
from mtl_nlp.balancing.gradient_aggregation import TORCHJD_NAMES, TORCHJD_REFUSED
from mtl_nlp.errors import FaultyInput

ROOT2 = math.sqrt(2)
# g_1 = (1, 0), g_2 = (−1, 1): they point against each other.
CONFLICT = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
GOLDEN = math.sqrt((3 - math.sqrt(5)) / 2) / math.sqrt(5)  # √λ_min of the Gramian over √5

VALUES = {
    # Each loses its part against the other: g_1 + ½ g_2 and g_2 + g_1.
    "pcgrad": (2.0, 1.5),
    # The same two projections, averaged, times 2.
    "upgrad": (2.0, 1.5),
    # 5α² − 6α + 2 is least at α = 0.6.
    "mgda": (1.2, 0.8),
    # The dual problem's best point is w = (1, 0): ½ + 0.4 · ½ and ½, times 2.
    "cagrad": (1.4, 1.0),
    # G⁻¹ (1, √2) = (2 + √2, 1 + √2), divided by its sum, times 2.
    "imtl_g": (2 * (2 + ROOT2) / (3 + 2 * ROOT2), 2 * (1 + ROOT2) / (3 + 2 * ROOT2)),
    # √λ_min · G^(−½) (½, ½), times 2, with G^(−½) = [[3, 1], [1, 2]] / √5.
    "aligned_mtl": (4 * GOLDEN, 3 * GOLDEN),
    # a² − ab = 2b² − ab = 1, so a = √2 b.
    "nash_mtl": (2 * ROOT2 / (1 + ROOT2), 2 / (1 + ROOT2)),
}
NAMES = list(VALUES)


def made(name: str, size: int = 2, **settings: Any) -> GradientAggregator:
    found = make_aggregator({"name": name, **settings}, tasks=[f"t{i}" for i in range(size)], seed=13)
    assert found is not None
    return found


def alpha(name: str, jacobian: Tensor, step: int = 0, **settings: Any) -> Tensor:
    rows = list(range(len(jacobian)))
    return made(name, len(jacobian), **settings).weights(jacobian @ jacobian.T, rows, step)


def jacobians() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    drawn = [torch.randn(m, 7, dtype=torch.float64, generator=generator) for m in (2, 3, 4) for _ in range(2)]
    return [CONFLICT, *drawn, drawn[3] * torch.tensor([[1.0], [0.05], [10.0]], dtype=torch.float64)]


def assert_sum_when_orthogonal_and_alike(name: str) -> None:
    for size in (2, 3, 5):
        ones = alpha(name, 0.3 * torch.eye(size, dtype=torch.float64))
        assert ones.tolist() == pytest.approx([1.0] * size, abs=1e-3)


def assert_untouched_when_orthogonal(name: str) -> None:
    lengths = torch.diag(torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64))
    assert alpha(name, lengths).tolist() == pytest.approx([1.0] * 3, abs=1e-3)


def assert_scale_invariant(name: str) -> None:
    """All gradients times one number: the same weights."""
    for jacobian in jacobians():
        assert alpha(name, 1e-3 * jacobian).tolist() == pytest.approx(
            alpha(name, jacobian).tolist(), rel=1e-3, abs=1e-4
        )


def assert_permutation_equivariant(name: str) -> None:
    for jacobian in jacobians():
        order = torch.randperm(len(jacobian), generator=torch.Generator().manual_seed(2))
        assert alpha(name, jacobian[order]).tolist() == pytest.approx(
            alpha(name, jacobian)[order].tolist(), rel=2e-2, abs=2e-2
        )


def assert_non_conflicting(name: str) -> None:
    """To first order no task gets worse."""
    for jacobian in jacobians():
        result = alpha(name, jacobian) @ jacobian
        floor = -0.02 * jacobian.norm(dim=1) * result.norm()
        assert bool((jacobian @ result >= floor).all()), (name, jacobian @ result)


def assert_convex(name: str) -> None:
    for jacobian in jacobians():
        weights = alpha(name, jacobian)
        assert float(weights.min()) >= 0
        assert float(weights.sum()) == pytest.approx(len(jacobian))


def assert_impartial(name: str) -> None:
    """Equal projections on all gradients' directions."""
    for jacobian in jacobians():
        result = alpha(name, jacobian) @ jacobian
        projections = jacobian @ result / jacobian.norm(dim=1)
        assert projections.tolist() == pytest.approx([float(projections[0])] * len(jacobian), rel=1e-5)


def assert_bargained(name: str) -> None:
    """G α ∝ 1 / α: each task's gain times its weight is the same."""
    for jacobian in jacobians():
        weights = alpha(name, jacobian)
        gains = (jacobian @ jacobian.T @ weights) * weights
        assert gains.tolist() == pytest.approx([float(gains[0])] * len(jacobian), rel=1e-4)


def assert_scale_free(name: str) -> None:
    """One gradient times a positive number: the same direction."""
    for jacobian in jacobians():
        scales = torch.tensor([3.0, 0.2, 1.5, 7.0], dtype=torch.float64)[: len(jacobian), None]
        one, other = alpha(name, jacobian) @ jacobian, alpha(name, scales * jacobian) @ (scales * jacobian)
        assert float(torch.cosine_similarity(one, other, dim=0)) == pytest.approx(1.0, abs=1e-6)


def assert_near_the_mean(name: str) -> None:
    """The result keeps c times the mean's length around the mean, times m."""
    for jacobian in jacobians():
        mean = jacobian.mean(0)
        result = alpha(name, jacobian) @ jacobian / len(jacobian)
        assert float((result - mean).norm() / mean.norm()) <= 0.4 + 1e-3


def assert_aligned(name: str) -> None:
    """The result is the mean of orthogonal gradients that are all as long as the shortest principal component."""
    for jacobian in jacobians():
        left, lengths, right = torch.linalg.svd(jacobian, full_matrices=False)
        balanced = lengths.min() * left @ right
        assert (alpha(name, jacobian) @ jacobian).tolist() == pytest.approx(balanced.sum(0).tolist(), abs=1e-6)


Check = Callable[[str], None]
ALL: list[Check] = [assert_scale_invariant]
CLAIMS: dict[str, list[Check]] = {
    "pcgrad": [*ALL, assert_sum_when_orthogonal_and_alike, assert_untouched_when_orthogonal],
    "upgrad": [
        *ALL,
        assert_sum_when_orthogonal_and_alike,
        assert_untouched_when_orthogonal,
        assert_non_conflicting,
        assert_permutation_equivariant,
    ],
    "mgda": [*ALL, assert_sum_when_orthogonal_and_alike, assert_non_conflicting, assert_convex],
    "cagrad": [*ALL, assert_near_the_mean, assert_permutation_equivariant],
    "imtl_g": [
        *ALL,
        assert_sum_when_orthogonal_and_alike,
        assert_impartial,
        assert_non_conflicting,
        assert_scale_free,
        assert_permutation_equivariant,
    ],
    "aligned_mtl": [*ALL, assert_sum_when_orthogonal_and_alike, assert_aligned, assert_permutation_equivariant],
    "nash_mtl": [
        *ALL,
        assert_sum_when_orthogonal_and_alike,
        assert_non_conflicting,
        assert_convex,
        assert_bargained,
        assert_scale_free,
        assert_permutation_equivariant,
    ],
}


@pytest.mark.parametrize("name", NAMES)
def test_values(name: str) -> None:
    assert alpha(name, CONFLICT).tolist() == pytest.approx(VALUES[name], rel=2e-3)


@pytest.mark.parametrize(
    ("name", "check"),
    [pytest.param(name, check, id=f"{name}-{check.__name__}") for name in NAMES for check in CLAIMS[name]],
)
def test_properties(name: str, check: Check) -> None:
    check(name)


def test_every_aggregator_that_ships_has_values_and_claims() -> None:
    shipped = {name for name in AGGREGATORS.names() if "test" not in name}
    assert shipped == set(VALUES) == set(CLAIMS)
    for name in NAMES:
        cls = AGGREGATORS.get(name)
        assert cls.scale_free == (assert_scale_free in CLAIMS[name])
        assert cls.only_conflict == (assert_untouched_when_orthogonal in CLAIMS[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_of_nothing_gives_finite_weights(name: str) -> None:
    for jacobian in (torch.zeros(2, 3, dtype=torch.float64), torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))):
        assert bool(alpha(name, jacobian).isfinite().all())


def test_pcgrad_draws_its_order_by_seed_and_step_and_leaves_the_global_generator_alone() -> None:
    jacobian = torch.tensor([[1.0, 0, 0.1], [-1, 0.2, 0], [-0.6, -1, 0.1]], dtype=torch.float64)
    before = torch.get_rng_state()
    draws = {tuple(alpha("pcgrad", jacobian, step=step).tolist()) for step in range(20)}
    assert torch.equal(before, torch.get_rng_state())
    assert len(draws) > 1
    assert torch.equal(alpha("pcgrad", jacobian, step=3), alpha("pcgrad", jacobian, step=3))


def test_nash_is_where_torchjds_own_solver_goes() -> None:
    import warnings

    from torchjd.aggregation import NashMTL

    compared = 0
    for jacobian in jacobians():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = NashMTL(len(jacobian), max_norm=0.0, optim_niter=100).weighting(jacobian)
        gains = (jacobian @ jacobian.T @ theirs) * theirs
        if float(gains.max() / gains.min()) < 1.01:  # it does not always arrive
            compared += 1
            theirs = theirs * len(jacobian) / theirs.sum()
            assert alpha("nash_mtl", jacobian).tolist() == pytest.approx(theirs.tolist(), rel=1e-2)
    assert compared >= 3


@pytest.mark.parametrize("name", TORCHJD_NAMES)
def test_others_of_torchjd_at_their_own_scale(name: str) -> None:
    import torchjd.aggregation

    settings = {"FairGrad": {"alpha": 1.0}, "CAGrad": {"c": 0.5}}.get(name, {})
    gramian = CONFLICT @ CONFLICT.T
    found = make_aggregator({"name": f"torchjd:{name}", **settings}, tasks=["a", "b"], seed=13)
    assert found is not None
    ours = found.weights(gramian, [0, 1], 0)
    if name != "Random":
        theirs = getattr(torchjd.aggregation, f"{name}Weighting")(**settings)(gramian / gramian.diagonal().mean())
        assert ours.tolist() == pytest.approx(theirs.tolist(), rel=1e-6)
    assert torch.equal(ours, found.weights(gramian, [0, 1], 0))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("pcgrads", r'balancing\.gradients: found "pcgrads" → none, .* or torchjd:NAME \(Did you mean "pcgrad"'),
        ("torchjd:UpGrad", r"found \"torchjd:UpGrad\" → torchjd:NAME of AlignedMTL, .*Did you mean \"UPGrad\""),
        ("torchjd:GradDrop", r"torchjd:GradDrop: it needs whole gradients"),
        ("torchjd:PCD", r"torchjd:PCD: it keeps a state"),
        ({"name": "torchjd:FairGrad", "beta": 2}, r"balancing\.gradients: .*beta"),
        ({"name": "cagrad", "c": -1}, r"balancing\.gradients\.c: found -1"),
        ({"name": "mgda", "c": 1}, r"balancing\.gradients\.c"),
        ({"name": "none", "c": 1}, r"balancing\.gradients\.c"),
    ],
)
def test_faults(written: Any, message: str) -> None:
    with pytest.raises(FaultyInput, match=message):
        make_aggregator(written, tasks=["a", "b"], seed=0)


def test_all_that_torchjd_has_is_taken_or_refused_with_a_reason() -> None:
    import torchjd.aggregation

    theirs = {
        name.removesuffix("Weighting")
        for name in torchjd.aggregation.__all__
        if name not in ("Weighting", "Aggregator")
    }
    theirs -= {"GramianWeightedAggregator", "WeightedAggregator"}
    assert theirs == set(TORCHJD_NAMES) | set(TORCHJD_REFUSED)


def test_without_torchjd_the_pip_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(FaultyInput, match=r'needs torchjd \(pip install "mtl-nlp\[balance\]"\)'):
        make_aggregator("upgrad", tasks=["a", "b"], seed=0)
    assert make_aggregator("nash_mtl", tasks=["a", "b"], seed=0) is not None
