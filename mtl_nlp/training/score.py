"""Scoring a finished checkpoint on a split of its tasks' data."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..consistency import consistency_of
from ..errors import fault, listed
from ..hub.checkpoint import check_folder, load_model, load_tokenizer
from ..hub.ensemble import is_ensemble
from ..model.multitask import MultiTaskModel
from ..recipe import RESOLVED, Recipe, load_recipe
from ..task import Task
from .finetune import by_task, make_scorer
from .prepare import Prepared, prepare

logger = logging.getLogger("mtl_nlp")


def score_checkpoint(
    checkpoint: str | Path,
    recipe: str | Path | None = None,
    *,
    sets: Sequence[str] = (),
    split: str = "test",
    data_root: Path | None = None,
    batch: int = 64,
) -> tuple[dict[str, dict[str, float]], float | None]:
    """Task → metric → value on a split, and the mean of the primary metrics.

    Args:
        recipe: says where the data is; the checkpoint's own resolved recipe when None. Labels are always the checkpoint's.

    Raises:
        UserError: no checkpoint, a recipe with tasks that it does not have, or no such split.
    """
    if is_ensemble(checkpoint):
        from .ensemble_scores import score_ensemble

        return score_ensemble(checkpoint, recipe, sets=sets, split=split, data_root=data_root, batch=batch)
    model, prepared = open_checkpoint(checkpoint, recipe, sets=sets, split=split, data_root=data_root)
    without = [task.name for task in model.tasks if task.name not in {t.name for t in prepared.tasks}]
    if without:
        logger.warning("not scored, for want of a %s split: %s", split, listed(without))
    metrics = make_scorer(prepared, split).score(model, device=model.device, batch=batch)
    return by_task(metrics, [task.name for task in prepared.tasks]), metrics.get("eval_mean")


def open_checkpoint(
    checkpoint: str | Path,
    recipe: str | Path | None = None,
    *,
    sets: Sequence[str] = (),
    split: str = "validation",
    data_root: Path | None = None,
    memory: Mapping[str, Any] | None = None,
) -> tuple[MultiTaskModel, Prepared]:
    """A checkpoint's model (on the device that there is) and a split of its tasks' data, ready to be scored.

    Args:
        memory: task → data (or split → data) that is in memory.

    Raises:
        UserError: no checkpoint, a recipe with tasks that it does not have, or no such split.
    """
    if split not in ("train", "validation", "test"):
        raise fault(f'found "{split}"', key="--split", allowed="train, validation or test")
    folder = check_folder(checkpoint)
    made = load_recipe(recipe or folder / RESOLVED, sets, memory=memory or ())
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    where = str(recipe or folder)
    prepared = scoring_data(made, model, tokenizer, where, split=split, data_root=data_root, memory=memory)
    model.use_fast_paths()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return nn.Module.to(model, device), prepared


def scoring_data(
    made: Recipe,
    model: MultiTaskModel,
    tokenizer: Any,
    where: str,
    *,
    split: str = "validation",
    data_root: Path | None = None,
    memory: Mapping[str, Any] | None = None,
) -> Prepared:
    """A split of a recipe's data, encoded for a finished model; labels are the model's.

    Raises:
        UserError: a recipe with tasks that the model does not have, or faults of the data.
    """
    _take_labels(made, model.tasks, where)
    if made.encoder_spec.max_length is None:
        positions = getattr(model.config.encoder_config, "max_position_embeddings", None) or 512
        made.encoder = made.encoder_spec.model_copy(
            update={"max_length": min(positions, tokenizer.model_max_length, 512)}
        )
    return prepare(
        made,
        data_root=data_root,
        memory=memory,
        splits=("train", split) if split == "validation" else (split,),
        tokenizer=tokenizer,
        need_train=False,
    )


def _take_labels(recipe: Recipe, known: Sequence[Task], where: str) -> None:
    """Give the recipe's tasks the checkpoint's labels; leave out nothing silently."""
    labels = {task.name: task for task in known}
    unknown = [task.name for task in recipe.definitions if task.name not in labels]
    if unknown:
        cure = "remove them from the recipe"
        raise fault(f"the checkpoint has no task {listed(unknown)}", where=where, allowed=listed(labels), cure=cure)
    settled, scored = [], {task.name for task in recipe.definitions}
    for task in recipe.definitions:
        own = labels[task.name]
        update: dict[str, Any] = {
            "labels": own.labels,
            "words": own.words,
            "scheme": task.scheme or own.scheme,
            "calibration": own.calibration,
        }
        partner = consistency_of(own)
        update["consistent_with"] = partner if partner and partner.task in scored else None
        settled.append(task.model_copy(update=update).placed(task._source, task.base))
    recipe._tasks = settled
