"""Is a difference between two sets of runs more than noise? Pure arithmetic: it knows no model, task or file.

T tasks, n seeds, N examples, B resamples. Two kinds of chance stand behind a difference of mean scores: other seeds, and other
test examples. Both are estimated, and the verdict asks for a difference that neither explains.

*Seeds.* Runs of different models are independent whatever their seeds are called, so the seed variance is pooled within the two
sides, with 2 (n − 1) degrees of freedom; five seeds leave 8, too few to find much. So the variances of all tasks are moderated
towards each other (empirical Bayes, Smyth 2004, doi:10.2202/1544-6115.1027), each measured in units of what independent flips of
single examples would give it, which is known well from the predictions. That part is also the least that it can be.

*Examples.* The paired bootstrap (Efron & Tibshirani 1993) resamples test examples for all runs at once. What it finds of variance
in the difference contains the flips again, so only what goes beyond them is added: a difference between the recipes that is itself
spread over the examples.

*Tasks.* At most 5 % of comparisons claim anything where there is nothing, over all tasks and their mean together: 2 % is spent
on the mean over tasks, 3 % on the tasks by Holm (1979); what either rejects hands its share on to the other (Bretz et al. 2009,
doi:10.1002/sim.3495). A small gain in every task is found by the mean, a large one in a single task by Holm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVEL = 0.05
ON_MEAN = 0.4  # the share of the level that is spent on the mean over tasks
POWER = 0.8
NOTHING = "no difference at this size"
TINY = 1e-12


@dataclass(frozen=True)
class TaskNoise:
    """What chance does to one task's difference.

    Attributes:
        seed_variance: of one run's score over seeds, pooled within both sides, `df` degrees of freedom.
        flips: the part of it that comes from single examples, independently; 0 where it is not known.
        examples: variance of the difference by the choice of test examples, beyond those flips; 0 where it is not known.
        runs: of either side.
    """

    seed_variance: float
    df: float
    flips: float = 0.0
    examples: float = 0.0
    runs: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Judgement:
    """One task's difference and what chance says to it.

    Attributes:
        low, high: the 95 % interval over seeds and examples, not corrected for the number of tasks.
        p_seeds, p: two-sided; against the seeds alone, and against seeds and examples.
        p_holm: `p` corrected over the tasks.
        detectable: what would be found with a probability of 80 %, if it were the only difference; None where nothing varies, over
            seeds or over examples, so that nothing is known of chance.
    """

    difference: float
    low: float
    high: float
    p_seeds: float
    p: float
    p_holm: float
    detectable: float | None

    @property
    def verdict(self) -> str:
        """In words."""
        if self.p_holm > LEVEL:
            return NOTHING
        return "helps" if self.difference > 0 else "harms"


def holm(values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979): the i-th smallest times (T − i + 1), never falling, at most 1."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted, highest = [0.0] * len(values), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - place) * values[i]))
        adjusted[i] = highest
    return adjusted


def pooled_variance(*sides: Sequence[float]) -> tuple[float, float]:
    """The variance within the sides, and its degrees of freedom.

    Raises:
        ValueError: no side has two scores.
    """
    df = sum(len(side) - 1 for side in sides)
    if df < 1:
        raise ValueError("no side has two scores: nothing is known of the variance over seeds")
    within = sum(float(((np.asarray(side) - np.mean(side)) ** 2).sum()) for side in sides)
    return within / df, float(df)


def moderated(variances: Sequence[float] | Array, df: Sequence[float] | Array) -> tuple[Array, Array]:
    """Variances drawn towards their common value, and their degrees of freedom (Smyth 2004; `squeezeVar` of limma).

    The common value and how much it counts for (d₀ degrees of freedom) come from the spread of log s² beyond what chance gives
    it. Never more than all degrees of freedom together.
    """
    from scipy.special import digamma, polygamma

    s2, d = np.asarray(variances, dtype=float), np.asarray(df, dtype=float)
    if len(s2) < 2 or not (s2 > 0).any():
        return s2, d
    raised = np.maximum(s2, 1e-5 * np.median(s2[s2 > 0]))
    logs = np.log(raised) - digamma(d / 2) + np.log(d / 2)
    beyond = float(logs.var(ddof=1) - polygamma(1, d / 2).mean())
    if beyond <= 0:
        common, weight = float((d * s2).sum() / d.sum()), np.inf
    else:
        weight = 2 * inverse_trigamma(beyond)
        common = float(np.exp(logs.mean() + digamma(weight / 2) - np.log(weight / 2)))
    total = np.minimum(d + weight, d.sum())
    # With all the weight that there is, the common value itself counts for no more than the other tasks' degrees of freedom.
    prior = total - d
    return (prior * common + d * s2) / total, total


def inverse_trigamma(value: float) -> float:
    """x with ψ′(x) = value, by Newton's method as in limma's `trigammaInverse`."""
    from scipy.special import polygamma

    if value > 1e7:
        return float(1 / np.sqrt(value))
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        tri = float(polygamma(1, x))
        step = tri * (1 - tri / value) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return float(x)


@dataclass(frozen=True)
class Test:
    """A difference, its standard error by seeds alone and by seeds and examples, and the degrees of freedom of the latter."""

    difference: float
    seed_error: float
    error: float
    seed_df: float
    df: float

    @classmethod
    def of(cls, difference: float, seeds: float, examples: float, df: float) -> Test:
        """From variances of the difference; by Welch and Satterthwaite, as the examples' part is known well."""
        whole = seeds + examples
        df_all = df * (whole / seeds) ** 2 if seeds > TINY**2 else np.inf
        return cls(float(difference), float(np.sqrt(seeds)), float(np.sqrt(whole)), float(df), float(df_all))

    @property
    def p_seeds(self) -> float:
        """Against the seeds alone."""
        return two_sided(self.difference, self.seed_error, self.seed_df)

    @property
    def p(self) -> float:
        """Against seeds and examples."""
        return max(self.p_seeds, two_sided(self.difference, self.error, self.df))

    def judged(self, adjusted: float, level: float) -> Judgement:
        """With the corrected p; `level` is that of the first step of the correction."""
        from scipy import stats

        reach = float(stats.t.ppf(1 - LEVEL / 2, self.df)) * self.error
        least = float(stats.t.ppf(1 - level / 2, self.df) + stats.t.ppf(POWER, self.df)) * self.error
        low, high = self.difference - reach, self.difference + reach
        known = least if self.error > TINY else None
        return Judgement(self.difference, low, high, self.p_seeds, self.p, adjusted, known)


def judge(
    differences: Sequence[float], noises: Sequence[TaskNoise], mean_variances: Sequence[float] = ()
) -> tuple[list[Judgement], Judgement]:
    """Every task's judgement, and that of the mean over tasks.

    Args:
        differences: variant − single, of the mean scores.
        mean_variances: over seeds, of a run's mean over tasks, for the sides where one model has all tasks: their scores may
            go up and down together. The tasks' variances, taken as independent, are the least.
    """
    variances, dfs = seed_variances(noises)
    tests = []
    for difference, noise, variance, df in zip(differences, noises, variances, dfs, strict=True):
        tests.append(Test.of(difference, variance * sum(1 / n for n in noise.runs), noise.examples, df))
    mean = mean_test(tests, variances, noises, mean_variances)
    adjusted, mean_adjusted = shared_level([test.p for test in tests], mean.p)
    first = LEVEL if len(tests) == 1 else LEVEL * (1 - ON_MEAN) / len(tests)
    judged = [test.judged(p, first) for test, p in zip(tests, adjusted, strict=True)]
    return judged, mean.judged(mean_adjusted, LEVEL if len(tests) == 1 else LEVEL * ON_MEAN)


def mean_test(
    tests: Sequence[Test], variances: Array, noises: Sequence[TaskNoise], mean_variances: Sequence[float]
) -> Test:
    """The mean over tasks of the differences."""
    size = len(tests)
    alone = float(variances.sum()) / size**2
    runs = noises[0].runs
    seeds = sum(test.seed_error**2 for test in tests) / size**2
    # Each side's part is `alone` over its runs; where it is known to be more, that much more.
    seeds += sum(max(0.0, known - alone) / n for known, n in zip(mean_variances, runs[::-1], strict=False))
    examples = sum(noise.examples for noise in noises) / size**2
    weights = np.array([test.seed_error**4 / test.seed_df for test in tests])
    total = sum(test.seed_error**2 for test in tests)
    df = total**2 / float(weights.sum()) if weights.sum() > 0 else np.inf
    df = min(df, sum(noise.df for noise in noises))  # moderated variances are not independent
    return Test.of(float(np.mean([test.difference for test in tests])), seeds, examples, df)


def shared_level(tasks: Sequence[float], mean: float) -> tuple[list[float], float]:
    """Adjusted p-values of the tasks and of their mean, which share the level (see above)."""
    corrected = holm(tasks)
    if len(tasks) == 1:
        return corrected, corrected[0]
    direct, through = [p / (1 - ON_MEAN) for p in corrected], mean / ON_MEAN
    adjusted = [min(1.0, own, max(p, through)) for p, own in zip(corrected, direct, strict=True)]
    return adjusted, min(1.0, through, max(mean, *direct))


def seed_variances(noises: Sequence[TaskNoise]) -> tuple[Array, Array]:
    """Each task's variance over seeds, moderated, at least that of its flips; and the degrees of freedom.

    Variances are compared in units of the flips, because tasks differ in scale and in the size of the test split. Where those are
    not known (scores alone), nothing is known of the units, and each task keeps its own variance.
    """
    raw, flips = np.array([noise.seed_variance for noise in noises]), np.array([noise.flips for noise in noises])
    df = np.array([noise.df for noise in noises])
    if not (flips > TINY**2).all():
        return np.maximum(raw, flips), df
    variances, dfs = moderated(raw / flips, df)
    return np.maximum(variances * flips, flips), dfs


def two_sided(difference: float, error: float, df: float) -> float:
    """The p-value of a t statistic; with no error at all 1 for no difference, else 0."""
    from scipy import stats

    if error <= TINY:
        return 1.0 if abs(difference) <= TINY else 0.0
    return float(2 * stats.t.sf(abs(difference) / error, df))


def resampling_weights(examples: int, resamples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """How often each example is drawn: [B, N], rows sum to N."""
    even = np.full(examples, 1 / examples)
    return rng.multinomial(examples, even, size=resamples).astype(np.float32)


def example_noise(single: Array, variant: Array) -> tuple[float, float]:
    """(flips, examples) of `TaskNoise` from scores of the same resamples.

    Args:
        single, variant: [B, n], each run's score on each resample of the examples.
    """
    parts, flips = [], []
    for scores in (single, variant):
        n = scores.shape[1]
        centred = scores - scores.mean(1, keepdims=True)
        own = float(centred.var(0, ddof=1).mean()) * n / (n - 1) if n > 1 else 0.0
        flips.append(own)
        parts.append(own / n)
    whole = float((variant.mean(1) - single.mean(1)).var(ddof=1))
    return float(np.mean(flips)), max(0.0, whole - sum(parts))


def percentile_interval(values: Array, level: float = LEVEL) -> tuple[float, float]:
    """The bootstrap percentile interval (Efron & Tibshirani 1993, ch. 13)."""
    low, high = np.quantile(values, [level / 2, 1 - level / 2])
    return float(low), float(high)


def approximate_randomisation(
    difference: float, exchanged: Callable[[NDArray[np.float32]], Array], examples: int, rounds: int, rng: Any
) -> float:
    """p of a paired difference: how often exchanging the two sides' answers at random gives one as large (Noreen 1989).

    (r + 1) / (R + 1), so that it is never 0.

    Args:
        exchanged: [R, N] of 0 and 1 (1: this example's answers change sides) → [R] differences.
    """
    least, reached, done = abs(difference) - TINY, 0, 0
    while done < rounds:
        size = min(1000, rounds - done)
        swaps = rng.integers(0, 2, size=(size, examples)).astype(np.float32)
        reached += int((np.abs(exchanged(swaps)) >= least).sum())
        done += size
    return (reached + 1) / (rounds + 1)
