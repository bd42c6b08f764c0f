"""Sampling strategies: how often each corpus is drawn, as weights from sizes and from what a run has learned so far.

In: the settings of a recipe's `mixture:`, the sizes of the corpora, and a `SamplingState`. Out: a weight per corpus, not yet
normalised. A strategy is one small class under a name; the quotas of a block that follow from its rates are `sampling`'s.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

from ..errors import Faults, FaultyInput, closest, fault, listed
from ..registry import Registry

STRATEGIES = Registry(
    "sampling strategy",
    group="mtl_nlp.sampling_strategies",
    builtin={
        "proportional": "mtl_nlp.data.strategies:Proportional",
        "uniform": "mtl_nlp.data.strategies:Uniform",
        "temperature": "mtl_nlp.data.strategies:Temperature",
        "capped": "mtl_nlp.data.strategies:Capped",
        "round_robin": "mtl_nlp.data.strategies:RoundRobin",
        "fixed": "mtl_nlp.data.strategies:Fixed",
        "annealed": "mtl_nlp.data.strategies:Annealed",
        "adaptive_loss": "mtl_nlp.data.strategies:AdaptiveLoss",
        "adaptive_metric": "mtl_nlp.data.strategies:AdaptiveMetric",
    },
)
"""Names of `mixture.strategy`: each a subclass of `SamplingStrategy`. `register_strategy(NAME)` enters one's own."""

register_strategy = STRATEGIES.register

Reading = Literal["progress", "losses", "scores"]


@dataclass(frozen=True)
class SchedulePoint:
    """One point of `mixture.schedule`: what holds when the share `at` of the run is done. One of the two is given."""

    at: float
    temperature: float | None = None
    rates: Mapping[str, float] | None = None


@dataclass(frozen=True)
class SamplingSettings:
    """What a strategy may read of a recipe's `mixture:`.

    Attributes:
        temperature: T of rates ∝ size^(1/T), at least 1.
        rates: corpus → weight, of `fixed`.
        cap: texts that a corpus counts for at most, of `capped` (needed) and wherever a temperature is used.
        schedule: of `annealed`, in the order of `at`; () for its default.
        reference: task → the score that it is measured against, of `adaptive_metric`.
        adapt: how far an adaptive strategy leaves its base rates, from 0 to 1.
    """

    temperature: float = 2.0
    rates: Mapping[str, float] | None = None
    cap: int | None = None
    schedule: Sequence[SchedulePoint] = ()
    reference: Mapping[str, float] | None = None
    adapt: float = 0.5


DEFAULT = SamplingSettings()


@dataclass(frozen=True)
class SamplingState:
    """What a run knows when it sets the rates of a block.

    Attributes:
        progress: 0 for the first block of the run as it was planned, 1 for the last.
        tasks: corpus → its tasks that are still trained.
        start_loss: task → its mean loss over the steps of the first block that had it.
        loss: task → the same of the latest block that had it.
        score: task → its primary metric in the latest evaluation; `best` the highest so far.
    """

    progress: float = 0.0
    tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    start_loss: Mapping[str, float] = field(default_factory=dict)
    loss: Mapping[str, float] = field(default_factory=dict)
    score: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)


class SamplingStrategy(ABC):
    """Sizes and state → weights. Pure: the same state gives the same weights, so that a resumed run goes on as it was.

    Attributes:
        alternating: the rows of a block take turns instead of being shuffled.
        reads: what changes its weights during a run; nothing for a constant one.
        takes: the optional keys of `mixture:` that it reads (`temperature`, `rates`, `cap`, `schedule`, `reference`, `adapt`).
        needs: those it cannot do without.
    """

    alternating: ClassVar[bool] = False
    reads: ClassVar[frozenset[Reading]] = frozenset()
    takes: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: SamplingSettings) -> None:
        self.settings = settings

    @abstractmethod
    def weights(self, sizes: Mapping[str, int], state: SamplingState) -> Mapping[str, float]:
        """A finite weight ≥ 0 for every corpus, not all 0.

        Args:
            sizes: corpus → texts in its training split.
            state: what the run knows; the default state before the first step.
        """

    @property
    def learns(self) -> bool:
        """Whether its rates depend on what the run brings, so that they cannot be told beforehand."""
        return bool(self.reads & {"losses", "scores"})


class Proportional(SamplingStrategy):
    """p_i = n_i / Σ_j n_j: every text is equally likely, every corpus is passed over equally often."""

    def weights(self, sizes: Mapping[str, int], state: SamplingState) -> Mapping[str, float]:
        """The sizes."""
        return sizes


class Uniform(SamplingStrategy):
    """p_i = 1 / M for M corpora, whatever their sizes; the order inside a block is shuffled."""

    def weights(self, sizes: Mapping[str, int], state: SamplingState) -> Mapping[str, float]:
        """The same for all."""
        return dict.fromkeys(sizes, 1.0)


class Temperature(SamplingStrategy):
    """p_i ∝ min(n_i, cap)^(1/T): T = 1 is `proportional`, T → ∞ is `uniform`.

    Multilingual BERT (Devlin 2018: exponent 0.7, that is T = 1.43); Arivazhagan et al. 2019, arXiv:1907.05019
    (T = 5); with a cap, Raffel et al. 2020, arXiv:1910.10683, section 3.5.2.
    """

    takes = ("temperature", "cap")

    def weights(self, sizes: Mapping[str, int], state: SamplingState) -> Mapping[str, float]:
        """The tempered sizes."""
        return tempered(sizes, 1.0 / self.settings.temperature, self.settings.cap)


class Capped(SamplingStrategy):
    """p_i = min(n_i, cap) / Σ_j min(n_j, cap): examples-proportional mixing with an artificial limit.

    Raffel et al. 2020 (T5), arXiv:1910.10683, section 3.5.2.
    """

    takes = needs = ("cap",)

    def weights(self, sizes: Mapping[str, int], state: SamplingState) -> Mapping[str, float]:
        """The sizes, cut."""
        cap = self.settings.cap or max(sizes.values())
        return {corpus: min(size, cap) for corpus, size in sizes.items()}


class RoundRobin(Uniform):
    """p_i = 1 / M, and the corpora take strict turns: a, b, c, a, b, c, … across the borders of blocks too.

    With batching `homogeneous` it is the batches that take turns.
    """

    alternating = True


class Fixed(SamplingStrategy):
    """p_i = w_i / Σ_j w_j with the weights of `mixture.rates`; a weight of 0 means never drawn."""

    takes = needs = ("rates",)

    def weights(self, sizes: Mapping[str, int], state: SamplingState) -> Mapping[str, float]:
        """The weights as given."""
        return dict(self.settings.rates or {})


class Annealed(SamplingStrategy):
    """A temperature or rates that move over the run, by straight lines between the points of `mixture.schedule`.

    Between two temperatures it is the exponent 1/T that moves evenly, as in Stickland and Murray 2019, arXiv:1902.02671:
    p_i ∝ n_i^α with α = 1 − 0.8 (e − 1) / (E − 1) in epoch e of E. That, over blocks, is the default (T from 1 to 5).
    """

    reads = frozenset({"progress"})
    takes = ("schedule", "cap")
    default = (SchedulePoint(0.0, temperature=1.0), SchedulePoint(1.0, temperature=5.0))

    def weights(self, sizes: Mapping[str, int], state: SamplingState) -> Mapping[str, float]:
        """The weights at `state.progress`."""
        points = self.settings.schedule or self.default
        left = max((p for p in points if p.at <= state.progress), key=lambda p: p.at, default=points[0])
        right = min((p for p in points if p.at >= state.progress), key=lambda p: p.at, default=points[-1])
        width = right.at - left.at
        share = (state.progress - left.at) / width if width > 0 else 0.0
        if left.rates is not None and right.rates is not None:
            first, last = _normalised(left.rates), _normalised(right.rates)
            return {corpus: first[corpus] + share * (last[corpus] - first[corpus]) for corpus in sizes}
        start, end = 1.0 / (left.temperature or 1.0), 1.0 / (right.temperature or 1.0)
        return tempered(sizes, start + share * (end - start), self.settings.cap)


class AdaptiveLoss(SamplingStrategy):
    """More of what has come less far: p = (1 − a) · base + a · q with q_i ∝ base_i · ρ_i.

    ρ_i is the mean over the corpus' tasks of L_t / L_t(start), the loss of the latest block over that of the task's own first
    block: GradNorm's inverse training rate (Chen et al. 2018, arXiv:1711.02257) turned on the sampler; `base` are the rates
    of `temperature`, `a` is `mixture.adapt`.
    """

    reads = frozenset({"losses"})
    takes = ("temperature", "cap", "adapt")

    def weights(self, sizes: Mapping[str, int], state: SamplingState) -> Mapping[str, float]:
        """The rates, summing to 1."""
        base = _normalised(tempered(sizes, 1.0 / self.settings.temperature, self.settings.cap))
        ratios = {t: state.loss[t] / state.start_loss[t] for t in state.loss if state.start_loss.get(t, 0.0) > 0.0}
        signal = _by_corpus(state.tasks, ratios)
        return _blended(base, {corpus: base[corpus] * ratio for corpus, ratio in signal.items()}, self.settings.adapt)


class AdaptiveMetric(SamplingStrategy):
    """More of what is furthest from its goal: p = (1 − a) · base + a · q with q_i ∝ the mean gap of the corpus' tasks.

    A task's gap is max(0, reference − score), the reference from `mixture.reference` or else its own best score so far.
    Gottumukkala et al. 2020, "Dynamic Sampling Strategies for Multi-Task Reading Comprehension" (ACL), with the scores of
    single-task models as references and a = 1. `base` are the rates of `temperature`, `a` is `mixture.adapt`.
    """

    reads = frozenset({"scores"})
    takes = ("temperature", "reference", "cap", "adapt")

    def weights(self, sizes: Mapping[str, int], state: SamplingState) -> Mapping[str, float]:
        """The rates, summing to 1."""
        base = _normalised(tempered(sizes, 1.0 / self.settings.temperature, self.settings.cap))
        goal = {**state.best, **(self.settings.reference or {})}
        gaps = {task: max(0.0, goal[task] - score) for task, score in state.score.items() if task in goal}
        return _blended(base, _by_corpus(state.tasks, gaps), self.settings.adapt)


def tempered(sizes: Mapping[str, int], exponent: float, cap: int | None = None) -> dict[str, float]:
    """min(n_i, cap)^exponent, over its largest."""
    cut = {corpus: min(size, cap or size) for corpus, size in sizes.items()}
    largest = max(cut.values())
    return {corpus: (size / largest) ** exponent for corpus, size in cut.items()}


def _normalised(weights: Mapping[str, float]) -> dict[str, float]:
    total = math.fsum(weights.values())
    return {corpus: weight / total for corpus, weight in weights.items()}


def _by_corpus(tasks: Mapping[str, Sequence[str]], values: Mapping[str, float]) -> dict[str, float]:
    """The mean of a value over each corpus' tasks that have it; a corpus without any is left out."""
    found = {corpus: [values[task] for task in names if task in values] for corpus, names in tasks.items()}
    return {corpus: math.fsum(known) / len(known) for corpus, known in found.items() if known}


def _blended(base: Mapping[str, float], signal: Mapping[str, float], strength: float) -> dict[str, float]:
    """(1 − a) · base + a · q; q shares out the base mass of the corpora with a signal, the others keep their base."""
    total = math.fsum(signal.values())
    if not math.isfinite(total) or total <= 0.0:
        return dict(base)
    mass = math.fsum(base[corpus] for corpus in signal)
    pulled = {corpus: mass * value / total for corpus, value in signal.items()}
    # A trace of the base is always left: where `max_passes` ends a corpus, another has to be there to draw from.
    strength = min(strength, 1 - 1e-6)
    return {c: (1 - strength) * rate + strength * pulled.get(c, rate) for c, rate in base.items()}


def strategy_weights(strategy: SamplingStrategy, sizes: Mapping[str, int], state: SamplingState) -> dict[str, float]:
    """What a strategy gives, as plain numbers.

    Raises:
        FaultyInput: it gives no mapping, or weights that cannot be rates (key `mixture.strategy`).
    """
    given: Any = strategy.weights(sizes, state)
    key, who = "mixture.strategy", f"the weights of {type(strategy).__name__}"
    if not isinstance(given, Mapping):
        raise fault(f"{who} are a {type(given).__name__}", key=key, allowed="a mapping, corpus → weight")
    faults, weights = Faults(), {}
    for corpus, weight in given.items():
        try:
            weights[corpus] = math.nan if isinstance(weight, str) else float(weight)
        except (TypeError, ValueError):
            faults.add(f"{who}: {weight!r}"[:200], key=f"{key}.{corpus}", allowed="a number")
    faults.check()
    try:
        check_weights(weights, sizes, key)
    except FaultyInput as error:
        raise FaultyInput(replace(one, found=f"{who}: {one.found}") for one in error.faults) from None
    return weights


def find_strategy(name: str) -> type[SamplingStrategy]:
    """The strategy behind a name.

    Raises:
        FaultyInput: no such strategy, or what is registered is none (key `mixture.strategy`).
    """
    if name not in STRATEGIES:
        known = STRATEGIES.names()
        raise fault(f'"{name}"', key="mixture.strategy", allowed=listed(known), cure=closest(name, known).strip())
    found: Any = STRATEGIES.get(name)
    if not (isinstance(found, type) and issubclass(found, SamplingStrategy)):
        raise fault(
            f'"{name}" is a {type(found).__name__}', key="mixture.strategy", allowed="a subclass of SamplingStrategy"
        )
    unknown = sorted(set(found.reads) - set(get_args(Reading)))
    if unknown:
        told = f'"{name}" reads {listed(unknown)}'
        raise fault(told, key="mixture.strategy", allowed=listed(get_args(Reading)))
    return found


def check_options(strategy: str, settings: SamplingSettings) -> Faults:
    """What is wrong with strategy and settings whatever the corpora are, under the recipe's keys."""
    faults = Faults()
    if not math.isfinite(settings.temperature) or settings.temperature < 1:
        faults.add(str(settings.temperature), key="mixture.temperature", allowed="a finite number ≥ 1")
    if settings.cap is not None and settings.cap < 1:
        faults.add(str(settings.cap), key="mixture.cap", allowed="a whole number ≥ 1")
    if not 0 <= settings.adapt <= 1:
        faults.add(str(settings.adapt), key="mixture.adapt", allowed="a number from 0 to 1")
    for task, score in (settings.reference or {}).items():
        if not math.isfinite(score):
            faults.add(str(score), key=f"mixture.reference.{task}", allowed="a score")
    _check_schedule(settings.schedule, faults)
    try:
        _check_taken(strategy, find_strategy(strategy), settings, faults)
    except FaultyInput as error:
        faults.extend(error)
    return faults


def _check_taken(name: str, strategy: type[SamplingStrategy], settings: SamplingSettings, faults: Faults) -> None:
    """What the strategy needs is given, and nothing that it would not read."""
    allowed = {"rates": "a weight for each corpus", "cap": "a whole number ≥ 1"}
    for key in ("temperature", "rates", "cap", "schedule", "reference", "adapt"):
        given = getattr(settings, key) != getattr(DEFAULT, key)
        if given and key not in strategy.takes:
            who = [known for known in STRATEGIES.names() if key in find_strategy(known).takes]
            faults.add(
                f'given with strategy "{name}"', key=f"mixture.{key}", allowed=f"only with strategy: {listed(who)}"
            )
        elif not given and key in strategy.needs:
            faults.add(
                f"missing, and the strategy is {name}", key=f"mixture.{key}", allowed=allowed.get(key, "a value")
            )


def _check_schedule(points: Sequence[SchedulePoint], faults: Faults) -> None:
    for number, point in enumerate(points):
        key = f"mixture.schedule.{number}"
        if (point.temperature is None) == (point.rates is None):
            found = "neither temperature nor rates" if point.temperature is None else "temperature and rates"
            faults.add(found, key=key, allowed="one of them")
        elif point.temperature is not None and not (math.isfinite(point.temperature) and point.temperature >= 1):
            faults.add(str(point.temperature), key=f"{key}.temperature", allowed="a finite number ≥ 1")
        if not 0 <= point.at <= 1:
            faults.add(str(point.at), key=f"{key}.at", allowed="a number from 0 (the start of the run) to 1 (its end)")
        elif number and point.at <= points[number - 1].at:
            faults.add(
                f"{point.at} after {points[number - 1].at}", key=f"{key}.at", allowed="points in the order of `at`"
            )
    if len({point.rates is None for point in points}) > 1:
        faults.add("temperatures beside rates", key="mixture.schedule", allowed="all points of one kind")


def check_weights(weights: Mapping[str, float], sizes: Mapping[str, int], key: str = "mixture.rates") -> None:
    """See that there is one finite weight ≥ 0 for every corpus and no other, and that not all of them are 0.

    Raises:
        FaultyInput: all that is wrong, under the keys `KEY` and `KEY.CORPUS`.
    """
    faults = Faults()
    for corpus in sizes:
        if corpus not in weights:
            faults.add(f'no rate for corpus "{corpus}"', key=key, allowed="a weight for every corpus")
    for corpus in weights:
        if corpus not in sizes:
            cure = closest(corpus, sizes).strip()
            faults.add("unknown corpus", key=f"{key}.{corpus}", allowed=listed(sizes), cure=cure)
    faults.extend(weight_faults(weights, key))
    faults.check()


def weight_faults(weights: Mapping[str, float], key: str) -> FaultyInput:
    """What is wrong with weights whatever they are for: not a number, negative, all 0."""
    faults = Faults()
    for name, weight in weights.items():
        if isinstance(weight, bool) or not math.isfinite(weight) or weight < 0:
            faults.add(str(weight), key=f"{key}.{name}", allowed="a finite number ≥ 0")
    if not faults and not any(weights.values()):
        faults.add("every weight is 0", key=key, allowed="at least one weight > 0")
    return FaultyInput(faults)
