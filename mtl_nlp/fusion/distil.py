"""`fuse_distil`: single-task teachers → one multi-task student, by the recipe's `distil` (`training.teaching`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..recipe import Recipe, make_recipe
from ..schema import Source, read_yaml
from ..training.finetune import finetune


def distil_recipe(
    recipe: str | Path | Mapping[str, Any],
    teachers: Mapping[str, str | Path] | None = None,
    *,
    temperature: float | None = None,
    gold: float | None = None,
    sets: Sequence[str] = (),
    output: str | Path | None = None,
    memory: Sequence[str] = (),
) -> Recipe:
    """A recipe with teachers.

    Args:
        recipe: a file or plain data; what its `distil` says counts where nothing is given here.
        teachers: task → `PLACE[@REVISION][#TASK]`; folders are relative to the working folder.
        gold: a constant share of the labels; without it it grows from 0 to 1.

    Raises:
        UserError: any fault of the recipe.
    """
    if isinstance(recipe, Mapping):
        data, source, base = dict(recipe), Source("recipe"), Path.cwd()
    else:
        read, source = read_yaml(Path(recipe), "recipe")
        data, base = dict(read), Path(recipe).parent
    own = dict(data.get("distil") or {}) if isinstance(data.get("distil"), dict | None) else data["distil"]
    if isinstance(own, dict):
        if teachers:
            own["teachers"] = {**(own.get("teachers") or {}), **{name: _absolute(t) for name, t in teachers.items()}}
        if temperature is not None:
            own["temperature"] = temperature
        if gold is not None:
            own |= {"annealing": False, "gold": gold}
    data["distil"] = own
    target = None if output is None else str(output)
    return make_recipe(data, source, base, sets, output=target, memory=memory)


def _absolute(place: str | Path) -> str:
    path, mark, task = str(place).partition("#")
    return f"{Path(path).resolve()}{mark}{task}" if Path(path).is_dir() else str(place)


def fuse_distil(
    recipe: str | Path | Mapping[str, Any],
    teachers: Mapping[str, str | Path] | None = None,
    output: str | Path | None = None,
    *,
    temperature: float | None = None,
    gold: float | None = None,
    sets: Sequence[str] = (),
    data_root: str | Path | None = None,
    datasets: Mapping[str, Any] | None = None,
    resume: bool | str | Path = False,
) -> Path:
    """Train one model on the labels of all tasks and on what each task's teacher says of the same texts.

    With teacher annealing the share of the labels grows from 0 to 1 over the training (Clark et al. 2019, arXiv:1907.04829).

    Args:
        recipe, teachers, temperature, gold: as of `distil_recipe`.
        output: the run's folder; the recipe's `output_dir` if absent.
        data_root, datasets, resume: as of `finetune`.

    Returns:
        The output folder: an ordinary checkpoint.

    Raises:
        UserError: anything at fault, before the first step.
    """
    made = distil_recipe(
        recipe, teachers, temperature=temperature, gold=gold, sets=sets, output=output, memory=list(datasets or ())
    )
    return finetune(made, datasets=datasets, data_root=data_root, resume=resume).folder
