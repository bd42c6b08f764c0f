"""`conditioning:` of a recipe in a run: checked, put into the model, and what it costs.

A row of a conditioned encoder is a (text, task) pair: a training text goes through it once for each task that it has an annotation
of, a text that is predicted once for each task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..conditioning import OF_LORA, Conditioning, ConditioningRecord, kind_of
from ..errors import Faults
from ..model.conditioning import condition
from ..model.multitask import MultiTaskModel
from ..recipe import Recipe
from ..schema import Source, validate
from .placing import placed

if TYPE_CHECKING:
    from ..data.mixture import Mixture
    from .prepare import Prepared


def check_conditioning(recipe: Recipe) -> None:
    """Settings that another kind does not read.

    Raises:
        FaultyInput: each, with its line.
    """
    spec, faults = recipe.conditioning, Faults()
    if spec is None:
        return
    given = spec.model_fields_set
    unread = [*OF_LORA, "learning_rate"] if spec.kind == "none" else OF_LORA if spec.kind != "lora" else []
    for name in (name for name in unread if name in given and getattr(spec, name) != _default(name)):
        key, where = f"conditioning.{name}", recipe.place_of("conditioning", name)
        faults.add(f"found it with {spec.kind}", where=where, key=key, cure="it is for kind: lora; leave it out")
    faults.check()


def _default(name: str) -> Any:
    return Conditioning.model_fields[name].default


def inherit_conditioning(recipe: Recipe, record: Any, faults: Faults) -> None:
    """A conditioned checkpoint's conditions go on; the recipe need not say so, and cannot say otherwise.

    Args:
        record: what the checkpoint's configuration says, None where it is not conditioned.
    """
    if record is None:
        return
    own = validate(ConditioningRecord, record, Source("config.json"), ("conditioning",))
    names = ("kind", "r", "alpha") if own.kind == "lora" else ("kind",)
    spec = recipe.conditioning
    if spec is None:
        recipe.conditioning = Conditioning(kind=own.kind, **{name: getattr(own, name) for name in names[1:]})
        return
    for name in names:
        found, allowed = getattr(spec, name), getattr(own, name)
        if found != allowed and name in spec.model_fields_set:
            key, where = f"conditioning.{name}", recipe.place_of("conditioning", name)
            cure = "the conditions are the checkpoint's: leave it out"
            faults.add(f"found {found} beside encoder.from", where=where, key=key, allowed=str(allowed), cure=cure)


def condition_model(model: MultiTaskModel, recipe: Recipe) -> None:
    """Fresh conditions where the recipe asks for them and the model, from a checkpoint, has none.

    Raises:
        UserError: the encoder cannot be conditioned in this way.
    """
    spec = recipe.conditioning
    if spec is None or spec.kind == "none" or model.conditioning is not None:
        return
    with placed(recipe):
        condition(model, spec)


@dataclass(frozen=True)
class RowCost:
    """How many rows of the encoder a text costs.

    Attributes:
        kind: of the conditioning.
        training: mean over the run's draws: the tasks that a text is annotated for.
        prediction: the tasks that are answered.
    """

    kind: str
    training: float
    prediction: int

    def line(self) -> str:
        """In words."""
        return (
            f"conditioning {self.kind}: a text is encoded once a task, {self.training:.2f} times in training and "
            f"{self.prediction} times where all tasks are predicted"
        )


def row_cost(prepared: Prepared, mixture: Mixture) -> RowCost | None:
    """The cost of the recipe's conditioning, None without one."""
    kind = kind_of(prepared.recipe.conditioning)
    if kind == "none":
        return None
    factors = tasks_a_text(prepared)
    rows = mixture.describe(steps=mixture.planned)
    draws = sum(row.draws for row in rows)
    training = sum(row.draws * factors.get(row.corpus, 1.0) for row in rows) / max(draws, 1)
    return RowCost(kind, training, sum(task.kind.annotation != "none" for task in prepared.tasks))


def encoded_times(prepared: Prepared) -> dict[str, float]:
    """Corpus → how often a training text goes through the encoder; empty for once."""
    return tasks_a_text(prepared) if kind_of(prepared.recipe.conditioning) != "none" else {}


def tasks_a_text(prepared: Prepared) -> dict[str, float]:
    """Corpus → the mean number of tasks that a training text is annotated for."""
    import pyarrow.compute as pc

    found = {}
    for corpus, split in prepared.encoded["train"].items():
        names = [name for name in prepared.owners[corpus] if name not in prepared.recipe.untrained]
        columns = [f"@{name}" for name in names]
        rows, known = split.rows.data, set(split.rows.column_names)
        valid = [int(pc.sum(pc.is_valid(rows.column(c))).as_py() or 0) if c in known else len(rows) for c in columns]
        found[corpus] = sum(valid) / max(len(rows), 1)
    return found
