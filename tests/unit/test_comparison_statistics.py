"""The statistics of comparisons: scipy's values, values worked by hand, and the rates of error that the verdicts promise."""

from __future__ import annotations

import importlib.util
import math
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mtl_nlp.analysis.statistics import (
    NOTHING,
    TaskNoise,
    approximate_randomisation,
    example_noise,
    holm,
    inverse_trigamma,
    judge,
    moderated,
    percentile_interval,
    pooled_variance,
    resampling_weights,
    shared_level,
)
from mtl_nlp.analysis.statistics import (
    Test as Difference,
)

ROOT = Path(__file__).resolve().parents[2]
A, B = [0.90, 0.91, 0.89, 0.92, 0.90], [0.93, 0.92, 0.94, 0.93, 0.91]


@pytest.fixture(scope="module")
def study() -> Any:
    spec = importlib.util.spec_from_file_location("rates", ROOT / "scripts" / "studies" / "comparison_rates.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rates"] = module
    spec.loader.exec_module(module)
    return module


def test_holm_by_hand() -> None:
    # Sorted 0.01 · 4, 0.02 · 3, 0.03 · 2 = 0.06 (not below the one before), 0.5.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_level_that_tasks_and_mean_share() -> None:
    # Holm: 0.02, 0.5. Alone 0.02 / 0.6 = 0.0333; through the mean max(0.02, 0.004 / 0.4 = 0.01).
    tasks, mean = shared_level([0.01, 0.5], 0.004)
    assert tasks == pytest.approx([0.02, 0.5])
    assert mean == pytest.approx(0.01)
    tasks, mean = shared_level([0.01, 0.02], 0.04)
    assert tasks == pytest.approx([0.02 / 0.6, 0.02 / 0.6])
    assert mean == pytest.approx(max(0.04, 0.02 / 0.6)), "both tasks are found, so the mean has the whole level"
    assert shared_level([0.03], 0.03) == ([0.03], 0.03)


def test_one_task_of_scores_alone_is_the_t_test() -> None:
    variance, df = pooled_variance(A, B)
    (judged,), mean = judge([np.mean(B) - np.mean(A)], [TaskNoise(variance, df, runs=(5, 5))])
    expected = stats.ttest_ind(B, A)
    assert judged.p == pytest.approx(expected.pvalue)
    assert judged.p_seeds == judged.p == judged.p_holm == mean.p_holm
    interval = expected.confidence_interval(0.95)
    assert (judged.low, judged.high) == pytest.approx((interval.low, interval.high))
    assert judged.verdict == "helps"
    (other,), _ = judge([np.mean(A) - np.mean(B)], [TaskNoise(variance, df, runs=(5, 5))])
    assert other.verdict == "harms"


def test_the_mean_over_tasks_is_welchs_test() -> None:
    # Two tasks alone: the variance of the mean's difference is the sum of the tasks' over 4.
    noises = [TaskNoise(4e-4, 8, runs=(5, 5)), TaskNoise(1e-4, 8, runs=(5, 5))]
    _, mean = judge([0.02, 0.01], noises)
    error = math.sqrt((4e-4 + 1e-4) * 2 / 5 / 4)
    df = (4e-4 + 1e-4) ** 2 / (4e-4**2 / 8 + 1e-4**2 / 8)
    assert mean.difference == pytest.approx(0.015)
    assert mean.p == pytest.approx(2 * stats.t.sf(0.015 / error, df))
    _, together = judge([0.02, 0.01], noises, [9e-4 + (4e-4 + 1e-4) / 4])
    wider = math.sqrt(error**2 + 9e-4 / 5)
    assert together.p == pytest.approx(2 * stats.t.sf(0.015 / wider, df)), "what tasks of one model share is added"


def test_moderated_variances() -> None:
    s2, df = moderated([1.0, 1.1, 0.9], [8, 8, 8])
    # Less spread than chance gives: all degrees of freedom, 16 of them at the common value of 1.
    assert s2.tolist() == pytest.approx([1.0, (16 + 8 * 1.1) / 24, (16 + 8 * 0.9) / 24])
    assert df.tolist() == [24, 24, 24]
    s2, df = moderated([100.0, 1.0, 0.01], [8, 8, 8])
    assert (df > 8).all()
    assert (df < 11).all(), "unlike variances lend each other little"
    assert s2[0] < 100 < 130 * s2[0]
    assert s2[2] > 0.01
    s2, df = moderated([4.0], [8])
    assert (s2.tolist(), df.tolist()) == ([4.0], [8])


def test_moderation_is_that_of_limma() -> None:
    # fitFDist of limma, written out for three variances.
    s2, d = np.array([2.0, 0.5, 8.0]), 4.0
    from scipy.special import digamma, polygamma

    e = np.log(s2) - digamma(d / 2) + math.log(d / 2)
    beyond = e.var(ddof=1) - float(polygamma(1, d / 2))
    d0 = 2 * inverse_trigamma(beyond)
    s0 = math.exp(e.mean() + digamma(d0 / 2) - math.log(d0 / 2))
    found, df = moderated(s2, [d] * 3)
    assert found.tolist() == pytest.approx(((d0 * s0 + d * s2) / (d0 + d)).tolist())
    assert df.tolist() == pytest.approx([min(d0 + d, 12)] * 3)


@pytest.mark.parametrize("x", [0.01, 0.5, 1.0, 3.0, 40.0])
def test_inverse_trigamma(x: float) -> None:
    from scipy.special import polygamma

    assert inverse_trigamma(float(polygamma(1, x))) == pytest.approx(x, rel=1e-6)


def test_approximate_randomisation_is_near_the_exact_test() -> None:
    gaps = np.array([1, 1, 1, -1, 1, 1, 0, 1, 1, 1], dtype=np.float32)
    exact = np.mean([abs(np.dot(signs, gaps)) >= abs(gaps.sum()) for signs in product([-1, 1], repeat=10)])
    p = approximate_randomisation(
        gaps.mean(), lambda swaps: (gaps * (1 - 2 * swaps)).mean(1), 10, 20000, np.random.default_rng(1)
    )
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact / 20000))
    none = approximate_randomisation(0.0, lambda swaps: np.zeros(len(swaps)), 10, 99, np.random.default_rng(1))
    assert none == 1.0


def test_the_bootstrap_has_the_variance_of_a_mean() -> None:
    rng = np.random.default_rng(2)
    right = (rng.random((2, 400)) < 0.8).astype(np.float32)
    weights = resampling_weights(400, 4000, rng)
    assert (weights.sum(1) == 400).all()
    single, variant = (weights @ side[:, None] / 400 for side in right)
    _, beyond = example_noise(single.astype(float), variant.astype(float))
    expected = (right[1] - right[0]).var() / 400
    assert beyond == pytest.approx(expected, rel=0.1)
    low, high = percentile_interval(variant[:, 0] - single[:, 0])
    gap = float(right[1].mean() - right[0].mean())
    assert (low, high) == pytest.approx((gap - 1.96 * math.sqrt(expected), gap + 1.96 * math.sqrt(expected)), abs=0.005)


def test_flips_and_differences_of_examples_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    weights = resampling_weights(2000, 1000, rng) / 2000
    hard = rng.random(2000)
    flip = [(rng.random((5, 2000)) < hard).astype(np.float32) for _ in range(2)]
    flips, beyond = example_noise(*((weights @ side.T).astype(float) for side in flip))
    expected = float((hard * (1 - hard)).mean()) / 2000
    assert flips == pytest.approx(expected, rel=0.1)
    assert beyond < 0.2 * expected, "one recipe: nothing beyond the flips"
    other = (rng.random((5, 2000)) < hard[::-1]).astype(np.float32)
    _, beyond = example_noise(*((weights @ side.T).astype(float) for side in (flip[0], other)))
    assert beyond == pytest.approx(float((hard - hard[::-1]).var()) / 2000, rel=0.2)


def test_examples_can_undo_what_the_seeds_say() -> None:
    sure = TaskNoise(1e-6, 8, 1e-6, 0.0, (5, 5))
    unsure = TaskNoise(1e-6, 8, 1e-6, 1e-4, (5, 5))
    assert judge([0.01], [sure])[0][0].verdict == "helps"
    judged = judge([0.01], [unsure])[0][0]
    assert judged.p_seeds < 1e-5
    assert judged.verdict == NOTHING


def test_no_noise_at_all() -> None:
    same, other = (judge([gap], [TaskNoise(0.0, 8, runs=(5, 5))])[0][0] for gap in (0.0, 0.1))
    assert same.detectable is None, "where nothing varies nothing is known of chance"
    assert (same.p, same.verdict) == (1.0, NOTHING)
    assert (other.p, other.verdict) == (0.0, "helps")


def test_what_would_be_found_is_found_so_often() -> None:
    rng = np.random.default_rng(4)
    noise = TaskNoise(1.0, 8, runs=(5, 5))
    least = judge([0.0], [noise])[0][0].detectable
    hits = 0
    for _ in range(2000):
        a, b = rng.normal(0, 1, 5), rng.normal(least, 1, 5)
        variance, df = pooled_variance(a.tolist(), b.tolist())
        hits += judge([b.mean() - a.mean()], [TaskNoise(variance, df, runs=(5, 5))])[0][0].p_holm <= 0.05
    assert 0.77 < hits / 2000 < 0.86


def test_one_recipe_is_seldom_claimed_to_differ(study: Any) -> None:
    """At most 5 % plus two standard errors of 200 pairs of sets of five seeds, over all tasks and their mean together."""
    rng, most = np.random.default_rng(5), 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)
    for world in study.WORLDS:
        found = study.rates(study.simulated(world, 0.0, True, 200, 5, rng))
        assert found.anything <= most, world.name
    answers = study.demo_answers()
    assert [len(task) for task in answers] == [40] * 4
    assert study.rates(study.resampled(answers, 0.0, 200, 5, rng)).anything <= most


def test_a_planted_difference_is_found(study: Any) -> None:
    """1.5 σ over seeds in every task: something is claimed in 80 % of the pairs. In one task alone no test could."""
    rng = np.random.default_rng(6)
    for world in study.WORLDS[:3]:
        assert study.rates(study.simulated(world, 1.5, True, 200, 5, rng)).anything >= 0.8, world.name
    assert study.rates(study.resampled(study.demo_answers(), 1.5, 200, 5, rng)).anything >= 0.8
    # 1.5 standard deviations of a difference of two runs: found in a single task, too.
    one = study.WORLDS[-1]
    assert study.rates(study.simulated(one, 1.5 * math.sqrt(2), True, 400, 5, rng)).anything >= 0.8
    assert study.best(1.5, 5) == pytest.approx(0.66, abs=0.01)


def test_welch_satterthwaite() -> None:
    test = Difference.of(1.0, seeds=0.04, examples=0.05, df=8)
    assert test.error == pytest.approx(0.3)
    assert test.df == pytest.approx(8 * (0.09 / 0.04) ** 2)
