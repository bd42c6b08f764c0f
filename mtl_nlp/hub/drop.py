"""A checkpoint without some of its tasks; what stays is bit by bit what it was."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..consistency import consistency_of
from ..errors import fault, listed
from ..model.config import MultiTaskConfig, task_record
from ..model.multitask import MultiTaskModel
from ..recipe import OF_A_STRATEGY, RESOLVED
from ..schema import dump_yaml, read_yaml
from ..task import Task
from .card import write_card
from .checkpoint import CARD, METRICS, check_folder, load_model, load_tokenizer, write_json, write_model

logger = logging.getLogger("mtl_nlp")


def drop_task(checkpoint: str | Path, tasks: str | Sequence[str], *, output: str | Path) -> Path:
    """Write the checkpoint without `tasks` to the new or empty folder `output`.

    Raises:
        UserError: no checkpoint, a task that it does not have, none that would stay, or an output that is not empty.
    """
    folder, target = check_folder(checkpoint), Path(output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise fault("is not empty", where=str(target), key="--output", allowed="a new folder")
    model, dropped = load_model(folder), [tasks] if isinstance(tasks, str) else list(tasks)
    known = [task.name for task in model.tasks]
    odd = [name for name in dropped if name not in known]
    if odd:
        raise fault(f"no task {listed(odd)}", where=str(folder), key="task", allowed=listed(known, 40))
    kept = _rehomed([task for task in model.tasks if task.name not in dropped], dropped)
    if not kept:
        cure = "keep at least one; the encoder alone is an `AutoModel`"
        raise fault("no task would stay", where=str(folder), key="task", allowed=listed(known, 40), cure=cure)
    smaller = without_heads(model, kept)
    tokenizer = load_tokenizer(folder)

    def write(path: Path) -> None:
        smaller.save_pretrained(path)
        tokenizer.save_pretrained(path)
        recipe = _recipe_without(folder, kept, dropped)
        if recipe is not None:
            (path / RESOLVED).write_text(dump_yaml(recipe), encoding="utf-8")
        metrics = metrics_without(folder, kept, dropped)
        write_json(path / METRICS, metrics)
        earlier = folder / CARD
        write_card(path, previous=earlier.read_text(encoding="utf-8", errors="replace") if earlier.is_file() else None)

    target.mkdir(parents=True, exist_ok=True)
    write_model(target, write)
    return target


def _rehomed(kept: Sequence[Task], dropped: Sequence[str]) -> list[Task]:
    """The tasks that stay, none of which refers to one that goes: a shared head passes to the first task that is left of it."""
    heirs: dict[str, str] = {}
    found = []
    for task in kept:
        update: dict[str, Any] = {}
        partner = consistency_of(task)
        if partner is not None and partner.task in dropped:
            update["consistent_with"] = None
        if task.share_head_with in dropped:
            heir = heirs.setdefault(str(task.share_head_with), task.name)
            update["share_head_with"] = None if heir == task.name else heir
        found.append(task.model_copy(update=update) if update else task)
    return found


def without_heads(model: MultiTaskModel, kept: Sequence[Task]) -> MultiTaskModel:
    """A model on the same encoder with the heads of `kept` alone; parameters are shared with `model`."""
    module: Any
    for module in model.modules():
        module._is_hf_initialized = True
    records = [task_record(task) for task in kept]
    config = MultiTaskConfig(model.config.encoder_config, records, conditioning=model.config.conditioning)
    config._attn_implementation = model.config._attn_implementation
    smaller = MultiTaskModel(config, model.encoder)
    for task in kept:
        smaller.heads[task.name].load_state_dict(model.heads[task.name].state_dict())
        if smaller.conditioning is not None and model.conditioning is not None:
            smaller.conditioning.tasks[task.name].load_state_dict(model.conditioning.tasks[task.name].state_dict())
    return smaller.eval()


def _recipe_without(folder: Path, kept: Sequence[Task], dropped: Sequence[str]) -> dict[str, Any] | None:
    """The resolved recipe without the tasks and what names them."""
    if not (folder / RESOLVED).is_file():
        return None
    data, _ = read_yaml(folder / RESOLVED, "resolved recipe")
    changed = {task.name: task for task in kept}
    data["tasks"] = [entry for entry in data["tasks"] if entry.get("name") in changed]
    for entry in data["tasks"]:
        for key in ("consistent_with", "share_head_with"):
            if key in entry:
                value = changed[entry["name"]].model_dump(exclude_none=True).get(key)
                entry.update({key: value}) if value is not None else entry.pop(key)
    mixture = data.get("mixture") or {}
    points = [point.get("rates") for point in mixture.get("schedule") or []]
    named = [mixture.get("rates"), mixture.get("reference"), *points]
    if any(set(one or {}) & set(dropped) for one in named):
        logger.warning("mixture named a dropped task: the recipe's strategy is now proportional")
        data["mixture"] = {key: value for key, value in mixture.items() if key not in OF_A_STRATEGY}
    best = str((data.get("training") or {}).get("metric_for_best_model", "")).removeprefix("eval_")
    if any(best.startswith(f"{name}_") for name in dropped):
        data["training"].pop("metric_for_best_model")
    return data


def metrics_without(folder: Path, kept: Sequence[Task], dropped: Sequence[str]) -> dict[str, Any]:
    """`metrics.json` for the tasks that stay, their mean worked out again."""
    path = folder / METRICS
    data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    scores = {name: values for name, values in (data.get("validation") or {}).items() if name not in dropped}
    data |= {"validation": scores, "mean": mean_of_primary(kept, scores)}
    data["dropped"] = [*data.get("dropped", []), *dropped]
    lost = data.get("forgetting")
    if isinstance(lost, dict):
        lost["tasks"] = {name: found for name, found in lost["tasks"].items() if name not in dropped}
        changes = [next(iter(found.values()))["change"] for found in lost["tasks"].values() if found]
        lost["mean_change"] = sum(changes) / len(changes) if changes else None
    if isinstance(data.get("calibration"), dict):
        data["calibration"] = {name: found for name, found in data["calibration"].items() if name not in dropped}
    return data


def mean_of_primary(tasks: Sequence[Task], scores: dict[str, dict[str, float]]) -> float | None:
    """The mean of the tasks' primary metrics, None where none is scored."""
    found = [
        scores[task.name][task.metric_names[0]]
        for task in tasks
        if task.counts_in_mean and task.metric_names[0] in scores.get(task.name, {})
    ]
    return sum(found) / len(found) if found else None
