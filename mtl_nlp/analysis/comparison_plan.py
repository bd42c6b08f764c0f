"""A recipe → the runs of its comparison: joint, one model a task, variants; all at the same budget.

*Same budget*: a model of one task sees its own task's texts exactly as often as the joint run of the same seed does, in batches of
the same size (texts, or tokens: `comparison_budget`), over its own full schedule; intervals (evaluation, saving, warm-up in steps)
shrink with the schedule. What only means something among tasks (mixture strategy, balancing, loss weights, heads shared) is left
out of it. Variants share data, labels, heads and metrics: only then can they be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..comparison import JOINT, SINGLE, CompareSpec, assignments
from ..errors import Fault, Faults, FaultyInput, listed
from ..recipe import Recipe, make_recipe
from ..task import Task
from ..training.arguments import DEFAULTS
from ..training.prepare import check_recipe
from .comparison_fusion import FUSIONS, find_fusion

# Of a single model's recipe; everything else is about several tasks.
KEPT = ("encoder", "tasks", "stopping", "performance", "cache", "lora", "training", "seed")
KEPT_MIXTURE = ("batch", "max_tokens", "bucketing")
# Of a task, by which a score would be one of something else.
SHARED = (
    "head",
    "data",
    "scheme",
    "words",
    "labels",
    "metrics",
    "auxiliary",
    "mask_probability",
    "projection",
    "from_",
    "calibration",
)


@dataclass(frozen=True)
class Run:
    """One model to train. `task` is None unless the variant has one model a task; `rate` is None where the recipe's own is used."""

    variant: str
    task: str | None
    seed: int
    rate: float | None = None

    @property
    def side(self) -> str:
        """`joint`, `single-sst2`: what has a learning rate of its own."""
        return self.variant if self.task is None else f"{self.variant}-{self.task}"

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.side}-{self.seed}"


@dataclass(frozen=True)
class Variant:
    """One row of the comparison.

    Attributes:
        kind: `joint`, `single`, `variant` or `fusion`.
        sets: what it changes in the recipe.
        fuse: for a fusion, the `fuse:` of the recipe.
        tasks: what it answers.
    """

    name: str
    kind: str
    sets: tuple[str, ...] = ()
    fuse: Mapping[str, Any] | None = None
    tasks: tuple[str, ...] = ()


@dataclass
class Plan:
    """What a comparison trains.

    Attributes:
        recipe: the joint one.
        tasks: those that are scored, in order.
        memory: names of tasks whose data is in memory.
    """

    recipe: Recipe
    seeds: list[int]
    tasks: list[Task]
    variants: list[Variant]
    rates: list[float]
    memory: list[str] = field(default_factory=list)

    @property
    def task_names(self) -> list[str]:
        """Names of `tasks`."""
        return [task.name for task in self.tasks]

    def variant(self, name: str) -> Variant:
        """By name."""
        return next(one for one in self.variants if one.name == name)

    def sides(self) -> list[tuple[str, str | None]]:
        """(variant, task) of every model of one seed, in the order in which they are trained: the joint one first, fusions last."""
        found: list[tuple[str, str | None]] = []
        for variant in sorted(self.variants, key=lambda one: one.kind == "fusion"):
            found += [(variant.name, task) for task in (self.task_names if variant.kind == "single" else [None])]
        return found

    def runs(self) -> list[Run]:
        """Every model, seed by seed."""
        return [Run(variant, task, seed) for seed in self.seeds for variant, task in self.sides()]

    def trials(self) -> list[Run]:
        """The runs that choose a learning rate, with the first seed."""
        trained = [side for side in self.sides() if self.variant(side[0]).kind != "fusion"]
        return [Run(*side, self.seeds[0], rate) for side in trained for rate in self.rates]

    def learning_rate(self, run: Run) -> float:
        """That of the run's recipe, where none was chosen."""
        variant = self.variant(run.variant)
        recipe = self._made(run, [*variant.sets], Path())
        return float(recipe.training.get("learning_rate", DEFAULTS["learning_rate"]))

    def recipe_of(
        self,
        run: Run,
        folder: Path,
        joint: Mapping[str, Any],
        texts: Mapping[str, int],
        steps_of: Callable[[Run, float], int] | None = None,
    ) -> Recipe:
        """The recipe of a run.

        Args:
            joint: of a single run, the report of the joint run with its seed (`metrics.json`).
            texts: task → its annotated training texts.
            steps_of: (single run, texts to draw) → its steps, where batches are cut by tokens.
        """
        sets = [*self.variant(run.variant).sets, f"seed={run.seed}"]
        if run.rate is not None:
            sets.append(f"training.learning_rate={run.rate!r}")
        if run.task is None:
            return self._made(run, sets, folder)
        steps, whole = single_steps(run.task, joint, texts[run.task], self.recipe.mixture.batch)
        if steps_of is not None:
            steps = steps_of(run, single_draws(run.task, joint, texts[run.task]))
        made = self._made(run, [*sets, f"training.max_steps={steps}"], folder)
        made.training |= shrunk(made.training, steps / whole)
        return made

    def single(self, run: Run, steps: int) -> Recipe:
        """The recipe of a single run that makes so many steps, as far as its mixture goes."""
        return self._made(run, [f"seed={run.seed}", f"training.max_steps={steps}"], Path())

    def joint(self, variant: Variant) -> Recipe:
        """The recipe of a variant with one model for all tasks, with the recipe's seed."""
        return self._made(Run(variant.name, None, self.recipe.seed), [*variant.sets], Path())

    def _made(self, run: Run, sets: Sequence[str], folder: Path) -> Recipe:
        plain = plain_recipe(self.recipe)
        if run.task is not None:
            plain = single_recipe(plain, [task.name for task in self.recipe.definitions].index(run.task), self.recipe)
        memory = [name for name in self.memory if run.task in (None, name)]
        return make_recipe(
            plain,
            self.recipe._source,
            self.recipe.base,
            sets,
            output=str(folder) if folder != Path() else None,
            memory=memory,
        )


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """The keys of a recipe as they were given, without those of the comparison."""
    data = recipe.model_dump(exclude_unset=True, by_alias=True)
    return {key: value for key, value in data.items() if key not in ("compare", "output_dir")}


def single_recipe(plain: Mapping[str, Any], place: int, recipe: Recipe) -> dict[str, Any]:
    """The same for the task at this place of the recipe, alone."""
    data = {key: value for key, value in plain.items() if key in KEPT}
    entry = plain["tasks"][place]
    entry = {"use": entry} if isinstance(entry, str) else dict(entry)
    task = recipe.definitions[place]
    # Weights and ties to other tasks are nothing to a task alone.
    entry["loss"] = {**(entry.get("loss") or {}), "weight": 1.0}
    entry |= {key: None for key in ("share_head_with", "consistent_with") if getattr(task, key) is not None}
    data["tasks"] = [entry]
    data["mixture"] = {key: value for key, value in plain.get("mixture", {}).items() if key in KEPT_MIXTURE}
    stopping = {key: value for key, value in plain.get("stopping", {}).items() if key in ("patience", "tolerance")}
    data["stopping"] = stopping
    training = dict(plain.get("training", {}))
    best = str(training.get("metric_for_best_model", "eval_mean")).removeprefix("eval_")
    if best != "mean" and not any(best == f"{task.name}_{metric}" for metric in task.metric_names):
        del training["metric_for_best_model"]
    data["training"] = training
    return data


def single_steps(task: str, joint: Mapping[str, Any], texts: int, batch: int) -> tuple[int, int]:
    """Steps of the task's own model, and of the joint one, as planned.

    The joint run's passes over the task's corpus, times the texts that have its annotation, in batches of the same size. A run
    that early stopping ended is taken as long as it was planned: the single one may be ended too.
    """
    return max(1, round(single_draws(task, joint, texts) / batch)), planned_length(joint)


def single_draws(task: str, joint: Mapping[str, Any], texts: int) -> float:
    """Texts that the task's own model is to draw; see `single_steps`."""
    passes = next(one["passes"] for corpus, one in joint["corpora"].items() if task in corpus.split("+"))
    return float(passes * planned_length(joint) / joint["steps"] * texts)


def planned_length(joint: Mapping[str, Any]) -> int:
    """The steps of a joint run before anything ended it early."""
    return int(joint.get("planned_steps") or joint["steps"])


def shrunk(training: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Intervals that count steps, for a schedule of another length."""
    found: dict[str, Any] = {}
    counts = {key: value for key, value in training.items() if isinstance(value, int | float) and value >= 1}
    for key in ("eval_steps", "warmup_steps"):
        if key in counts:
            found[key] = max(1, round(counts[key] * share))
    if "save_steps" in counts:
        every = counts["save_steps"] / counts["eval_steps"] if "eval_steps" in counts else None
        found["save_steps"] = (
            found["eval_steps"] * max(1, round(every)) if every else max(1, round(counts["save_steps"] * share))
        )
    return found


def make_plan(
    recipe: Recipe,
    seeds: int | Sequence[int] | None = None,
    memory: Sequence[str] = (),
    only: Sequence[str] | None = None,
) -> Plan:
    """The plan of a recipe's comparison.

    Args:
        seeds: a number or a list, in place of `compare.seeds`.
        only: the tasks that are compared; all that have a metric by default.

    Raises:
        FaultyInput: every fault of the recipe, its variants and the comparison, before anything is read or trained.
    """
    faults, spec = Faults(), recipe.compare or CompareSpec()
    if seeds is not None:
        several = list(seeds) if not isinstance(seeds, int) else [recipe.seed + i for i in range(seeds)]
        if len(set(several)) < 2 or len(set(several)) < len(several) or min(several) < 0:
            cure = "one seed says nothing of the spread over seeds"
            faults.add(f"found {seeds}", key="--seeds", allowed="two seeds or more, each once", cure=cure)
    else:
        several = spec.seed_list(recipe.seed)
    tasks = [task for task in recipe.definitions if task.counts_in_mean and task.name not in recipe.untrained]
    if len(tasks) < 2:
        found = f"{len(tasks)} task with a metric"
        faults.add(found, where=recipe.place_of("tasks"), key="tasks", allowed="two or more, to share an encoder")
    _check_sides(recipe, faults)
    unknown = sorted(set(only or ()).difference(task.name for task in tasks))
    if unknown or (only is not None and not only):
        faults.add(f"found {listed(unknown)}", key="--tasks", allowed=listed(task.name for task in tasks))
    tasks = [task for task in tasks if only is None or task.name in only]
    names = tuple(task.name for task in tasks)
    variants = [Variant(JOINT, "joint", tasks=names), Variant(SINGLE, "single", tasks=names)]
    plan = Plan(recipe, several, tasks, variants, list(spec.learning_rates or []), list(memory))
    for name, given in spec.variants.items():
        _add_variant(plan, name, given, faults)
    for check in (lambda: check_recipe(recipe), *(_single_check(plan, task) for task in names)):
        try:
            check()
        except FaultyInput as error:
            faults.extend(error)
    faults.check()
    return plan


def _single_check(plan: Plan, task: str) -> Any:
    return lambda: check_recipe(plan._made(Run(SINGLE, task, 0), [], Path()))


def _check_sides(recipe: Recipe, faults: Faults) -> None:
    """What would give the sides another budget or another start."""
    if recipe.stopping.budget.minutes is not None:
        cure = "use stopping.budget.steps or tokens"
        where = recipe.place_of("stopping", "budget", "minutes")
        faults.add(
            "minutes are no budget that is the same for all", where=where, key="stopping.budget.minutes", cure=cure
        )
    if recipe.retain is not None:
        where = recipe.place_of("retain")
        faults.add("found it", where=where, key="retain", cure="a comparison begins at an encoder: leave retain out")
    if str(recipe.training.get("load_best_model_at_end")) == "True" and recipe.training.get("save_strategy") == "no":
        faults.add("needs saving", where=recipe.place_of("training"), key="training.load_best_model_at_end")


def _add_variant(plan: Plan, name: str, given: Any, faults: Faults) -> None:
    where, key = plan.recipe.place_of("compare", "variants", name), f"compare.variants.{name}"
    if isinstance(given, dict) and "fuse" in given:
        method = given["fuse"]["method"]
        if method not in FUSIONS:
            known = listed(FUSIONS.names())
            cure = "leave the variant out, or install what brings it (entry points mtl_nlp.comparison_fusions)"
            faults.add(f'no fusion "{method}"', where=where, key=f"{key}.fuse.method", allowed=known, cure=cure)
            return
        try:
            find_fusion(method).check(given["fuse"], plan.recipe)
        except FaultyInput as error:
            faults.extend(error)
        plan.variants.append(Variant(name, "fusion", fuse=given["fuse"], tasks=tuple(plan.task_names)))
        return
    variant = Variant(name, "variant", tuple(assignments(given)), tasks=tuple(plan.task_names))
    plan.variants.append(variant)
    try:
        made = plan._made(Run(name, None, 0), variant.sets, Path())
    except FaultyInput as error:
        retell(error, where, key, faults)
        return
    try:
        check_recipe(made)
    except FaultyInput as error:
        retell(error, where, key, faults, known=_faults_of(plan.recipe))
    missing = [task for task in plan.task_names if task not in [found.name for found in made.definitions]]
    if missing:
        faults.add(f"has no task {listed(missing)}", where=where, key=key, allowed="all tasks of the recipe")
    if batch_asked(plan.recipe) != batch_asked(made) or steps_asked(plan.recipe) != steps_asked(made):
        cure = "a variant has the budget of the joint model: leave batch, max_tokens, epochs and steps alone"
        faults.add("another budget", where=where, key=key, cure=cure)
    _check_shared(plan, made, where, key, faults)


def _check_shared(plan: Plan, made: Recipe, where: str, key: str, faults: Faults) -> None:
    """A variant is scored on the same answers of the same tasks as every other side."""
    changed = {task.name: task for task in made.definitions}
    for task in plan.recipe.definitions:
        for name in SHARED if task.name in changed else ():
            if getattr(task, name) != getattr(changed[task.name], name):
                cure = "all sides share data, labels, heads and metrics: change it in the recipe, or leave it out"
                here = f"{key}: tasks.{task.name}.{name.rstrip('_')}"  # `from_` is `from` in a recipe
                faults.add("is not the recipe's", where=where, key=here, allowed="tasks.*.loss may differ", cure=cure)


def retell(error: FaultyInput, where: str, key: str, faults: Faults, known: Sequence[Fault] = ()) -> None:
    """A variant's own faults, at its place; those of the recipe itself are told once."""
    told = {(one.key, one.found) for one in known}
    for one in error.faults:
        if (one.key, one.found) not in told:
            faults.add(one.found, where=where, key=f"{key}: {one.key}", allowed=one.allowed, cure=one.cure)


def _faults_of(recipe: Recipe) -> list[Fault]:
    try:
        check_recipe(recipe)
    except FaultyInput as error:
        return error.faults
    return []


def batch_asked(recipe: Recipe) -> tuple[int | None, int | None]:
    """What decides how much a step holds: most texts, most tokens."""
    return recipe.mixture.most_texts, recipe.mixture.max_tokens


def steps_asked(recipe: Recipe) -> tuple[Any, ...]:
    """What decides how long a run is."""
    asked = [recipe.training.get(key) for key in ("max_steps", "num_train_epochs")]
    budget = recipe.stopping.budget
    return (*asked, budget.steps, budget.tokens, budget.minutes)
