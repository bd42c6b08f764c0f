"""`distil:` of a recipe: teachers beside the labels (`training.teaching`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from .errors import Faults, closest, listed
from .schema import Source, Strict
from .task import Task

TAUGHT = ("label", "labels", "value", "tags")


class Distil(Strict):
    """Teachers of a run: a task's loss is λ · labels + (1 − λ) · teacher (Clark et al. 2019, BAM; `training.teaching`).

    `teachers`: task → a checkpoint, `PLACE[@REVISION][#TASK]`, of ours (an ensemble too) or a plain fine-tuned model. With
    `annealing` λ grows from 0 to 1 over the run; without it λ is `gold` throughout.
    """

    teachers: dict[str, str] = Field(min_length=1)
    annealing: bool = True
    gold: float = Field(default=0.5, ge=0.0, lt=1.0)
    temperature: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)

    def resolved(self, base: Path) -> dict[str, Any]:
        """As plain data, folders absolute."""
        return self.model_dump() | {"teachers": {name: absolute(place, base) for name, place in self.teachers.items()}}


def absolute(place: str, base: Path) -> str:
    """A teacher's place as seen from anywhere; names on the Hub as they are."""
    path, mark, task = place.partition("#")
    folder = base / Path(path).expanduser()
    return f"{folder.resolve()}{mark}{task}" if path and folder.is_dir() else place


def check_distil(
    spec: Distil | None, tasks: Sequence[Task], retained: str | None, source: Source, faults: Faults
) -> None:
    """Note every teacher of a task that is not there or cannot be taught, and settings that contradict each other.

    Args:
        retained: the recipe's `retain.method`, if it has one.
    """
    if spec is None:
        return
    known = {task.name: task for task in tasks}
    for name in spec.teachers:
        where, key = source.where(("distil", "teachers", name)), f"distil.teachers.{name}"
        if name not in known:
            faults.add(f'no task "{name}".{closest(name, known)}', where=where, key=key, allowed=listed(known))
        elif known[name].kind.chain:
            cure = "use head: token_classification; a CRF can be the teacher"
            found = f"{known[name].head} cannot be taught: the marginals of its tags would be needed in every step"
            faults.add(found, where=where, key=key, cure=cure)
        elif known[name].kind.annotation not in TAUGHT:
            allowed = "one label, several labels, a number, tags"
            faults.add(f"{known[name].head} cannot be taught", where=where, key=key, allowed=allowed)
    # The resolved recipe of a run has every default written out.
    if spec.annealing and spec.gold != Distil.model_fields["gold"].default:
        cure = "with annealing the labels' share grows from 0 to 1: add annealing: false, or leave gold out"
        faults.add(f"found {spec.gold}", where=source.where(("distil", "gold")), key="distil.gold", cure=cure)
    if retained not in (None, "rehearsal"):
        cure = "retain.method: rehearsal, or no teachers"
        where = source.where(("distil",))
        faults.add(f"found it beside retain.method: {retained}", where=where, key="distil", cure=cure)
