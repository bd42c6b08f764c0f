"""The same budget for all, as far as only the data can tell: the length of single models whose batches are cut by tokens, and what
the mixtures of the variants really draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..data.mixture import Mixture
from ..errors import Faults, FaultyInput, UserError
from ..recipe import Recipe
from ..training.conditioning import encoded_times
from ..training.mixing import build_mixture, expected_tokens
from ..training.prepare import Prepared, prepare
from .comparison_plan import Plan, Run, Variant, retell

TRIALS = 8
ALIKE = 0.02
"""Of two runs with token budgets: blocks of another size hold a little more or less."""


@dataclass
class TokenBudget:
    """How many steps a single model makes where `mixture.max_tokens` cuts the batches.

    Its batches hold as many tokens as the joint model's, so how many texts, and how long those last, is known from its own mixture
    alone. The data of its own recipe is read once a task and seed: another seed may carve another validation split.
    """

    plan: Plan
    data_root: Path | None = None
    memory: Mapping[str, Any] | None = None
    _steps: dict[tuple[str | None, int, int], int] = field(default_factory=dict)

    def steps(self, run: Run, draws: float) -> int:
        """The steps in which the model of a run draws about so many texts, 1 at least.

        Raises:
            UserError: data that cannot be read, or a text that has more tokens than a batch may hold.
        """
        key = (run.task, run.seed, round(draws))
        if key not in self._steps:
            own = {name: data for name, data in (self.memory or {}).items() if name == run.task}
            prepared = prepare(self.plan.single(run, 1), data_root=self.data_root, memory=own or None)
            self._steps[key] = self._found(prepared, run, draws)
        return self._steps[key]

    def _found(self, prepared: Prepared, run: Run, draws: float) -> int:
        """The number of steps whose mixture draws what comes nearest: how its blocks are cut depends a little on their number."""
        steps, drawn = 1, dict[int, int]()
        for _ in range(TRIALS):
            if steps in drawn:
                break
            mixture = build_mixture(replace(prepared, recipe=self.plan.single(run, steps)))
            drawn[steps] = texts_of(mixture)
            steps = max(1, round(steps * draws / drawn[steps]))
        return min(drawn, key=lambda count: (abs(drawn[count] - draws), count))


def texts_of(mixture: Mixture) -> int:
    """Texts that a mixture draws in its planned steps."""
    return sum(row.draws for row in mixture.describe(steps=mixture.planned))


def check_variants(
    plan: Plan, prepared: Prepared, joint: Mixture, data_root: Path | None, memory: Mapping[str, Any] | None
) -> None:
    """Every variant's mixture can be made and has the joint one's budget: as many steps, or texts, or tokens.

    Args:
        prepared: of the joint recipe; a variant with other tasks or another encoder reads its own data.

    Raises:
        FaultyInput: every fault, at the variant's line.
    """
    faults = Faults()
    for variant in (one for one in plan.variants if one.kind == "variant"):
        where, key = plan.recipe.place_of("compare", "variants", variant.name), f"compare.variants.{variant.name}"
        try:
            mine = _prepared(plan, variant, prepared, data_root, memory)
            mixture = build_mixture(mine)
        except FaultyInput as error:
            retell(error, where, key, faults)
            continue
        except UserError as error:
            faults.add(str(error), where=where, key=key)
            continue
        ours, theirs = _budget(mixture, mine), _budget(joint, prepared)
        # Plain batches are counted exactly; a run of a learned strategy is compared as it begins.
        near = ALIKE if plan.recipe.mixture.max_tokens is not None else 0.0
        if not any(abs(a - b) <= near * b for a, b in zip(ours, theirs, strict=True)):
            found = f"another budget: {ours[0]} steps with {ours[1]} texts; the joint model has {theirs[0]} with {theirs[1]}"
            cure = (
                "a variant has the budget of the joint model: set training.max_steps for both, or leave that change out"
            )
            faults.add(found, where=where, key=key, cure=cure)
    faults.check()


def _budget(mixture: Mixture, prepared: Prepared) -> tuple[int, int, float]:
    tokens = expected_tokens(mixture, prepared.encoded["train"], encoded_times(prepared))
    return mixture.planned, texts_of(mixture), tokens


def _prepared(
    plan: Plan, variant: Variant, joint: Prepared, data_root: Path | None, memory: Mapping[str, Any] | None
) -> Prepared:
    recipe: Recipe = plan.joint(variant)
    same = [task.name for task in recipe.definitions] == [task.name for task in plan.recipe.definitions]
    if same and recipe.encoder_spec == plan.recipe.encoder_spec:
        return replace(joint, recipe=recipe)
    own = {name: data for name, data in (memory or {}).items() if name in {task.name for task in recipe.definitions}}
    return prepare(recipe, data_root=data_root, memory=own or None)
