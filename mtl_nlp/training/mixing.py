"""`mixture:` and `stopping:` of a recipe → the mixture of a run, its planned steps, and what can be said of it beforehand.

The number of steps is fixed here, before the first one: from the texts or `max_steps`, cut by `max_passes` and by a budget in
steps or tokens. What a run decides on the way is `schedule`'s.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.budget import BudgetMixture, refuse_homogeneous
from ..data.features import EncodedSplit
from ..data.mixture import Mixture
from ..data.strategies import SamplingSettings, SchedulePoint, check_options, find_strategy, weight_faults
from ..errors import Faults, FaultyInput, closest, fault, listed
from ..recipe import Recipe, Stopping
from .arguments import DEFAULTS
from .conditioning import encoded_times
from .placing import place, placed

logger = logging.getLogger("mtl_nlp")

MANY_BLOCKS = 64
"""So many whole blocks and a part of one keep the rates to within a hundredth or two, whatever the part."""

if TYPE_CHECKING:
    from .prepare import Prepared


def check_mixture(recipe: Recipe) -> None:
    """Strategy and settings, as far as they can be judged without data.

    Raises:
        FaultyInput: every fault, with its line.
    """
    faults, tasks = Faults(), [task.name for task in recipe.definitions]
    settings = sampling_settings(recipe)
    found = list(check_options(recipe.mixture.strategy, settings))
    weights = [("mixture.rates", settings.rates)]
    weights += [(f"mixture.schedule.{i}.rates", point.rates) for i, point in enumerate(settings.schedule)]
    for key, given in weights:
        found += weight_faults(given, key).faults if given is not None else []
        for name in given or {}:
            if name not in tasks:
                here, cure = f"{key}.{name}", closest(name, tasks).strip()
                faults.add("unknown task", where=place(recipe, here), key=here, allowed=listed(tasks), cure=cure)
    _check_reference(recipe, faults)
    if recipe.mixture.max_tokens is not None:
        try:
            refuse_homogeneous(recipe.mixture.batching)
        except FaultyInput as error:
            found += error.faults
    for one in found:
        faults.extend(FaultyInput([replace(one, where=place(recipe, one.key))]))
    faults.check()
    if find_strategy(recipe.mixture.strategy).reads & {"scores"}:
        _need_evaluation(recipe, "mixture.strategy", f'"{recipe.mixture.strategy}" learns from evaluations')


def _check_reference(recipe: Recipe, faults: Faults) -> None:
    scored = [task.name for task in recipe.definitions if task.counts_in_mean]
    for name in recipe.mixture.reference or {}:
        if name not in scored:
            key = f"mixture.reference.{name}"
            cure = closest(name, scored).strip()
            faults.add("no task with a metric", where=place(recipe, key), key=key, allowed=listed(scored), cure=cure)


def check_stopping(recipe: Recipe) -> None:
    """Early stopping and budget fit the rest of the recipe.

    Raises:
        FaultyInput: every fault, with its line.
    """
    faults, stopping = Faults(), recipe.stopping
    if stopping.per_task and stopping.patience is None:
        where, cure = place(recipe, "stopping.per_task"), "stopping.patience: 3"
        faults.add("needs a patience", where=where, key="stopping.per_task", cure=cure)
    if stopping.tolerance and stopping.patience is None:
        where, cure = place(recipe, "stopping.tolerance"), "stopping.patience: 3"
        faults.add("needs a patience", where=where, key="stopping.tolerance", cure=cure)
    if stopping.freed == "redistribute" and not stopping.per_task:
        where = place(recipe, "stopping.freed")
        faults.add(
            "nothing is freed without per_task", where=where, key="stopping.freed", cure="stopping.per_task: true"
        )
    if stopping.cooldown != Stopping().cooldown and not stopping.per_task:  # a resolved recipe has the default
        where, cure = place(recipe, "stopping.cooldown"), "stopping.per_task: true"
        faults.add("no task is retired without per_task", where=where, key="stopping.cooldown", cure=cure)
    if stopping.per_task and not any(task.counts_in_mean for task in recipe.definitions):
        where = place(recipe, "stopping.per_task")
        faults.add("no task is scored", where=where, key="stopping.per_task", allowed="at least one with a metric")
    if stopping.patience is not None:
        try:
            _need_evaluation(recipe, "stopping.patience", "needs evaluation")
        except FaultyInput as error:
            faults.extend(error)
    faults.check()


def _need_evaluation(recipe: Recipe, key: str, found: str) -> None:
    if str(recipe.training.get("eval_strategy", DEFAULTS["eval_strategy"])) == "no":
        raise fault(found, where=place(recipe, key), key=key, cure="training.eval_strategy: epoch or steps")


def sampling_settings(recipe: Recipe, owner: Mapping[str, str] | None = None) -> SamplingSettings:
    """What a strategy may read, with rates by task, or by corpus where `owner` gives each task's.

    Raises:
        FaultyInput: two tasks of one corpus have rates.
    """
    spec = recipe.mixture
    named = partial(_by_corpus, owner or {})
    points = tuple(
        SchedulePoint(p.at, p.temperature, named(p.rates, f"mixture.schedule.{i}.rates"))
        for i, p in enumerate(spec.schedule or ())
    )
    rates = named(spec.rates, "mixture.rates")
    return SamplingSettings(spec.temperature, rates, spec.cap, points, spec.reference, spec.adapt)


def _by_corpus(owner: Mapping[str, str], rates: Mapping[str, float] | None, key: str) -> dict[str, float] | None:
    if rates is None:
        return None
    found: dict[str, float] = {}
    for name, rate in rates.items():
        corpus = owner.get(name, name)
        if corpus in found:
            cure = f"tasks on one corpus are drawn together: give one rate, by any one of {corpus.replace('+', ', ')}"
            raise fault(f'a second rate for corpus "{corpus}"', key=f"{key}.{name}", cure=cure)
        found[corpus] = rate
    return found


def build_mixture(prepared: Prepared) -> Mixture:
    """The mixture over the training splits, for the run's planned steps (`Mixture.planned`).

    Raises:
        FaultyInput: the settings do not fit the corpora.
    """
    with placed(prepared.recipe):
        mixture = _mixture(prepared)
        if mixture.max_passes is not None and not mixture.strategy.learns:
            mixture.state_at(mixture.planned)  # so that a plan which cannot be carried out is refused now
        return mixture


def _mixture(prepared: Prepared) -> Mixture:
    recipe, train = prepared.recipe, prepared.encoded["train"]
    # Tasks that are only kept are not drawn.
    spec, owners = recipe.mixture, {corpus: names for corpus, names in prepared.owners.items() if corpus in train}
    owner = {task: corpus for corpus, names in owners.items() for task in names}
    settings = sampling_settings(recipe, owner)
    rehearsed = rehearsal_rates(recipe, {corpus: len(train[corpus]) for corpus in owners}, owners)
    make: Callable[..., Mixture] = Mixture
    if spec.max_tokens is not None:
        tokens = {name: split.tokens for name, split in train.items()}
        make = partial(BudgetMixture, tokens=tokens, max_tokens=spec.max_tokens)
    make = partial(
        make,
        {corpus: len(train[corpus]) for corpus in owners},
        strategy=spec.strategy if rehearsed is None else "fixed",
        temperature=settings.temperature,
        rates=settings.rates if rehearsed is None else rehearsed,
        cap=settings.cap,
        schedule=settings.schedule,
        reference=settings.reference,
        adapt=settings.adapt,
        max_passes=spec.max_passes,
        batching=spec.batching,
        batch=spec.most_texts,
        seed=recipe.seed,
        lengths={name: split.lengths for name, split in train.items()},
        bucket=spec.bucketing and not find_strategy(spec.strategy).alternating,
        tasks=owners,
        annotated=_annotated(prepared) if recipe.stopping.per_task else None,
    )
    first = make()
    steps = first.at_most(total_steps(recipe, first))
    if steps < 1:
        found = f"{spec.max_passes}: not one batch of {size_of(first)}"
        raise fault(
            found, where=place(recipe, "mixture.max_passes"), key="mixture.max_passes", cure="a smaller mixture.batch"
        )
    steps = min(steps, recipe.stopping.budget.steps or steps)
    most = block_of(steps, learns=first.strategy.learns or recipe.stopping.per_task)
    # To count the batches of a long run again would take seconds.
    long = isinstance(first, BudgetMixture) and steps > MANY_BLOCKS * most
    mixture = make(steps=steps, block_batches=most if long else even_block(steps, most))
    if isinstance(mixture, BudgetMixture):
        assert isinstance(first, BudgetMixture)
        mixture.take_over(first)
        # Blocks of another size hold a little more or less.
        mixture.planned = steps = min(
            mixture.at_most(total_steps(recipe, mixture)), recipe.stopping.budget.steps or steps
        )
    limit = recipe.stopping.budget.tokens
    times = encoded_times(prepared) if limit is not None else {}
    if limit is not None and expected_tokens(mixture, train, times) > limit:
        steps = max(1, int(steps * limit / expected_tokens(mixture, train, times)))
        mixture = make(steps=steps, block_batches=even_block(steps, most))
    return mixture


def size_of(mixture: Mixture) -> str:
    """What a global batch holds, in words."""
    if not isinstance(mixture, BudgetMixture):
        return f"{mixture.batch} texts"
    texts = f" and {mixture.batch} texts" if mixture.batch < mixture.max_tokens else ""
    return f"up to {mixture.max_tokens} tokens{texts}"


def total_steps(recipe: Recipe, mixture: Mixture) -> int:
    """Optimizer steps that are asked for: `max_steps`, or what `num_train_epochs` makes of the mixture."""
    wanted = recipe.training.get("max_steps", -1)
    if isinstance(wanted, int) and wanted > 0:
        return wanted
    steps = mixture.steps(recipe.training.get("num_train_epochs", DEFAULTS["num_train_epochs"]))
    if recipe.retain is not None and recipe.retain.rate is not None:
        # An epoch is a pass over the new tasks' texts, and what is rehearsed beside it.
        new = [name for name in mixture.sizes if not set(name.split("+")) <= set(recipe.inherited)]
        passes = sum(mixture.sizes[name] for name in new) / (1 - recipe.retain.rate)
        return steps if len(new) == len(mixture.sizes) else max(1, math.ceil(steps * passes / mixture.total))
    return steps


def rehearsal_rates(
    recipe: Recipe, sizes: Mapping[str, int], owners: Mapping[str, list[str]]
) -> dict[str, float] | None:
    """`retain.rate` as the rates of the strategy `fixed`: so much for the inherited tasks' corpora, by their sizes."""
    if recipe.retain is None or recipe.retain.rate is None:
        return None
    old = [name for name in sizes if set(owners[name]) <= set(recipe.inherited)]
    total = sum(sizes[name] for name in old)
    shares = {True: (recipe.retain.rate, total), False: (1 - recipe.retain.rate, sum(sizes.values()) - total)}
    if not all(texts for _, texts in shares.values()):
        logger.warning(
            "retain.rate: every corpus serves old tasks and new ones alike, so there is nothing to share out"
        )
        return None
    part = {name: shares[name in old] for name in sizes}
    return {name: share * sizes[name] / texts for name, (share, texts) in part.items()}


def even_block(steps: int, most: int = 32) -> int:
    """Batches a block: at most `most`, and such that the run ends near the end of one (a part of a block misses the rates)."""
    return max(1, math.ceil(steps / math.ceil(steps / most)))


def block_of(steps: int, *, learns: bool) -> int:
    """Most batches a block: 32, and where a run learns at the borders of blocks so many that there are some thirty (8 at least)."""
    return max(8, min(32, steps // 32)) if learns else 32


def expected_tokens(
    mixture: Mixture, train: Mapping[str, EncodedSplit], times: Mapping[str, float] | None = None
) -> float:
    """Real tokens through the encoder in the planned steps, from each corpus' mean and how many `times` a text is encoded."""
    rows, times = mixture.describe(steps=mixture.planned), times or {}
    return sum(row.draws * mean_tokens(train[row.corpus]) * times.get(row.corpus, 1.0) for row in rows)


def mean_tokens(split: EncodedSplit) -> float:
    """Real tokens a text, over all its rows."""
    import pyarrow.compute as pc

    return float(pc.sum(pc.list_value_length(split.rows.data.column("input_ids"))).as_py()) / len(split)


def _annotated(prepared: Prepared) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Corpus → task → whether each training text has its annotation; only where tasks share a corpus."""
    import pyarrow.compute as pc

    found: dict[str, dict[str, NDArray[np.bool_]]] = {}
    train = prepared.encoded["train"]
    for corpus, names in ((corpus, names) for corpus, names in prepared.owners.items() if corpus in train):
        split = train[corpus]
        for name in names if len(names) > 1 else ():
            column: Any = f"@{name}"
            if column in split.rows.column_names:
                rows = pc.is_valid(split.rows.data.column(column)).to_numpy()
                texts = np.logical_or.reduceat(rows, split.offsets[:-1])
            else:
                texts = np.ones(len(split), dtype=np.bool_)
            found.setdefault(corpus, {})[name] = texts
    return found


def foretold(recipe: Recipe, mixture: Mixture) -> list[str]:
    """What has to be said beside the table of draws: what it leaves open, and what may end the run early."""
    notes, strategy, stopping = [], mixture.strategy, recipe.stopping
    if isinstance(mixture, BudgetMixture):
        draws = sum(row.draws for row in mixture.describe(steps=mixture.planned))
        known = "an estimate, as rates change on the way" if strategy.learns or stopping.per_task else "exact"
        notes.append(
            f"max_tokens {mixture.max_tokens}: {draws / mixture.planned:.1f} texts a step; "
            f"the steps are fixed, draws and passes {known}"
        )
    blocks = f"{mixture.blocks} blocks of up to {mixture.block_batches} batches"
    if strategy.learns:
        source = "losses" if "losses" in strategy.reads else "scores"
        notes.append(
            f"{recipe.mixture.strategy}: known beforehand are the rates of the first two of {blocks}; the table goes on with them. "
            f"Later rates follow the {source} of the tasks: those of a block rule the next but one"
        )
    elif "progress" in strategy.reads:
        notes.append(f"{recipe.mixture.strategy}: the rates move over {blocks}; draws and passes are exact")
    if (strategy.learns or stopping.per_task) and mixture.blocks < 3:
        notes.append(f"the run has {blocks}: too short for anything that is learned on the way to take effect")
    wanted = total_steps(recipe, mixture)
    if mixture.max_passes is not None and mixture.at_most(wanted) < wanted:
        notes.append(f"max_passes {mixture.max_passes}: the texts last for {mixture.at_most(wanted)} of {wanted} steps")
    elif mixture.planned < wanted:
        notes.append(f"budget: {mixture.planned} of {wanted} steps")
    if stopping.per_task:
        what = "the run gets shorter" if stopping.freed == "save" else "the others are drawn more"
        notes.append(f"a task without a gain in {stopping.patience} evaluations is retired: {what}")
        if stopping.cooldown:
            share = f"{100 * stopping.cooldown:g} % of the steps"
            notes.append(
                f"where a task was retired, all learn once more at the end, over {share} (two blocks at least)"
            )
    if stopping.budget.minutes is not None:
        notes.append(f"the run ends after {stopping.budget.minutes:g} minutes, if it is not done before")
    return notes


def plan_lines(recipe: Recipe, mixture: Mixture) -> list[str]:
    """For the log: texts, rates, draws and passes of each corpus, and the notes."""
    lines = [f"mixture {recipe.mixture.strategy}: {mixture.planned} steps of {size_of(mixture)}"]
    for row in mixture.describe(steps=mixture.planned):
        rate = f"{row.rate:.4f}" + (f" → {row.last_rate:.4f}" if row.last_rate is not None else "")
        lines.append(f"  {row.corpus}: {row.texts} texts, rate {rate}, {row.draws} draws, {row.passes:.2f} passes")
    return lines + [f"  {note}" for note in foretold(recipe, mixture)]
