"""`add_task`: a further task for a trained model, by one of four ways.

| way | what is trained | what keeps the old tasks |
|---|---|---|
| `frozen` | the new head | nothing of theirs changes |
| `lora` | the new head and adapters in the encoder, merged at the end | `retain` (rehearsal unless told otherwise) |
| `rehearsal` | everything | their own data, drawn beside the new |
| `distil` | everything | the old model's outputs on the new texts |

All of it is a recipe with `encoder.from`, `retain` and `lora`; what is written here is the recipe that suits a way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import fault, listed
from ..hub.checkpoint import check_folder
from ..recipe import OF_A_STRATEGY, RESOLVED, Recipe, make_recipe
from ..schema import Source, merged, read_yaml
from ..task import find_task, with_name
from .finetune import Result, finetune

Way = Literal["frozen", "lora", "rehearsal", "distil"]
# Half of what is drawn is old: an epoch then costs twice the new texts, however much old data there is.
REHEARSAL = {"method": "rehearsal", "rate": 0.5}
WAYS: dict[str, dict[str, Any]] = {
    "frozen": {
        "encoder": {"freeze": "all"},
        "retain": {"method": "keep"},
        "training": {"learning_rate": 1e-2, "head_learning_rate": 1e-2},
    },
    "lora": {"lora": {}, "retain": REHEARSAL, "training": {"learning_rate": 1e-3}},
    "rehearsal": {"retain": REHEARSAL},
    "distil": {"retain": {"method": "distil"}},
}
# What belonged to the old run alone.
OF_THE_RUN = ("encoder", "tasks", "lora", "retain", "distil", "compare", "output_dir")
OF_ITS_TRAINING = ("max_steps", "metric_for_best_model")


def add_task_recipe(
    checkpoint: str | Path,
    task: str | Mapping[str, Any],
    way: str = "rehearsal",
    *,
    retain: str | None = None,
    old_data: bool = True,
    sets: Sequence[str] = (),
    output: str | Path | None = None,
    memory: Sequence[str] = (),
) -> Recipe:
    """The recipe that adds `task` to a checkpoint: the checkpoint's own, with what the way asks for.

    Args:
        task: a name, a path, or a definition, as an entry of a recipe's `tasks`; paths start at the working folder.
        way: a key of `WAYS`.
        retain: `rehearsal`, `distil` or `keep`, in place of the way's own.
        old_data: whether the old tasks' data can still be read; without it they are neither rehearsed nor scored.
        sets: `KEY=VALUE` assignments on top.
        memory: tasks whose data is in memory.

    Raises:
        UserError: no checkpoint, an unknown way, a task that the checkpoint has already, or any fault of the recipe.
    """
    folder = check_folder(checkpoint)
    if way not in WAYS:
        raise fault(f'found "{way}"', key="--way", allowed=listed(WAYS))
    old, _ = read_yaml(folder / RESOLVED, "resolved recipe")
    data = {key: value for key, value in old.items() if key not in OF_THE_RUN}
    training = {k: v for k, v in (old.get("training") or {}).items() if k not in OF_ITS_TRAINING}
    # The rates of a fixed strategy know nothing of the new task, and `retain.rate` sets them itself.
    mixture = {key: value for key, value in (old.get("mixture") or {}).items() if key not in OF_A_STRATEGY}
    entries = [_old_entry(entry, old_data) for entry in old["tasks"]]
    entry = dict(task) if isinstance(task, Mapping) else task
    data |= {"encoder": {"from": str(folder.resolve())}, "tasks": [*entries, entry], "mixture": mixture}
    data = merged({**data, "training": training}, WAYS[way])
    if retain is not None:
        data["retain"] = REHEARSAL if retain == "rehearsal" else {"method": retain}
    if not old_data and data["retain"]["method"] == "rehearsal":
        cure = "choose --retain distil, or the way frozen or distil"
        raise fault("rehearsal needs the old tasks' data", key="--without-old-data", cure=cure)
    known = [one.get("name") for one in entries]
    name = _name_of(entry)
    if name in known:
        cure = "to train it further, write a recipe with encoder: {from: …}"
        raise fault(f"the checkpoint has {name} already", where=str(folder), key="task", cure=cure)
    target = None if output is None else str(output)
    return make_recipe(data, Source("recipe"), Path.cwd(), sets, output=target, memory=memory)


def _name_of(entry: str | Mapping[str, Any]) -> str | None:
    """What the new task is called, in its entry or in its file."""
    entry = {"use": entry} if isinstance(entry, str) else entry
    if "name" in entry or not isinstance(entry.get("use"), str):
        return entry.get("name")
    path = find_task(entry["use"], Path.cwd(), key="task")
    return with_name(read_yaml(path, "task file")[0], path).get("name")


def _old_entry(entry: Mapping[str, Any], old_data: bool) -> dict[str, Any]:
    """A task of the old recipe, whose head is now the checkpoint's; without its data only what the checkpoint has to know of it."""
    entry = {key: value for key, value in entry.items() if key != "from"}
    if old_data:
        return entry
    columns = (entry.get("data") or {}).get("columns")
    return {key: value for key, value in entry.items() if key != "data"} | (
        {"data": {"columns": columns}} if columns else {}
    )


def add_task(
    checkpoint: str | Path,
    task: str | Mapping[str, Any],
    way: Way = "rehearsal",
    *,
    output: str | Path,
    retain: str | None = None,
    old_data: bool = True,
    sets: Sequence[str] = (),
    datasets: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
    resume: bool | str | Path = False,
) -> Result:
    """Train a further task into a checkpoint and write the new one to `output`; arguments as in `add_task_recipe` and `finetune`.

    Returns:
        The result; its `forgetting` has each old task's validation scores before and after.

    Raises:
        UserError: anything at fault, before the first step.
    """
    recipe = add_task_recipe(
        checkpoint, task, way, retain=retain, old_data=old_data, sets=sets, output=output, memory=list(datasets or ())
    )
    return finetune(recipe, datasets=datasets, data_root=data_root, resume=resume)
