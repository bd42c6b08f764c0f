"""What the ways of fusing have in common: the output folder, the fused recipe, and scores on its validation data."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import Faults, FaultyInput, UserError, fault, listed
from ..model.multitask import MultiTaskModel
from ..recipe import Recipe, load_recipe, make_recipe
from ..schema import Source
from ..task import Task
from ..training.finetune import by_task, make_scorer
from ..training.parents import Parent, open_parent
from ..training.prepare import Prepared
from ..training.score import scoring_data

logger = logging.getLogger("mtl_nlp")
# What a fused checkpoint keeps of the first parent's recipe; the rest belonged to that run alone.
KEPT = ("training", "performance", "seed")
OF_THE_RUN = ("max_steps", "metric_for_best_model", "num_train_epochs")
FACTS = "fusion.json"


def new_folder(output: str | Path, *, resume: bool | None = None) -> Path:
    """The folder that is written to.

    Args:
        resume: whether it may hold what goes on; None where nothing can go on.

    Raises:
        UserError: a file, or not empty without `resume`.
    """
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise fault("is a file", where=str(folder), key="OUTPUT", allowed="a new folder")
    if folder.is_dir() and any(folder.iterdir()) and not resume:
        cure = "or --resume" if resume is not None else "another OUTPUT, or remove it"
        raise fault("is not empty", where=str(folder), key="OUTPUT", allowed="a new folder", cure=cure)
    return folder


def open_parents(
    names: Sequence[str | Path], recipe: Recipe | None = None, *, key: str = "checkpoints", least: int = 1
) -> list[Parent]:
    """All parents; the faults of all are raised together.

    Raises:
        FaultyInput: whatever cannot be read; too few.
    """
    known = {task.name: task for task in recipe.definitions} if recipe is not None else {}
    faults, found = Faults(), []
    if len(names) < least:
        faults.add(f"{len(names)} given", key=key, allowed=f"at least {least}")
    for name in names:
        try:
            found.append(open_parent(name, known))
        except FaultyInput as error:
            faults.extend(error)
        except UserError as error:
            faults.add(str(error), key=key)
    faults.check()
    return found


def optional_recipe(
    recipe: str | Path | Mapping[str, Any] | Recipe | None, sets: Sequence[str], memory: Mapping[str, Any] | None
) -> Recipe | None:
    """The recipe that says where the data is, if one was given.

    Raises:
        FaultyInput: every fault of it; assignments without one.
    """
    if recipe is None or isinstance(recipe, Recipe):
        if sets and recipe is None:
            raise fault("given without a recipe", key="--set", cure="name the recipe with --recipe")
        return recipe
    if isinstance(recipe, Mapping):
        return make_recipe(recipe, Source("recipe"), sets=sets, memory=list(memory or ()))
    return load_recipe(recipe, sets, memory=list(memory or ()))


def fused_recipe(
    parents: Sequence[Parent], owners: Mapping[str, Parent], encoder: Mapping[str, Any], recipe: Recipe | None = None
) -> dict[str, Any]:
    """The resolved recipe of what is made: the tasks with their data, settings of the first parent.

    Args:
        owners: task → the parent that it is from.
    """
    first = next((parent.recipe for parent in parents if parent.recipe), {})
    kept = {key: first[key] for key in KEPT if key in first}
    if "training" in kept:
        kept["training"] = {k: v for k, v in (kept["training"] or {}).items() if k not in OF_THE_RUN}
    given = {entry["name"]: entry for entry in recipe.resolved()["tasks"]} if recipe is not None else {}
    entries = []
    for name, parent in owners.items():
        entry = {key: value for key, value in (given.get(name) or parent.entry(name)).items() if key != "from"}
        if name not in given and not readable([entry], None):
            others = [other.entry(name) for other in parents if any(task.name == name for task in other.tasks)]
            told = next((other for other in others if readable([other], None)), {})
            entry |= {"data": told["data"]} if told else {}
        partners = {key: entry.get(key) for key in ("share_head_with", "consistent_with") if entry.get(key)}
        for key, partner in partners.items():
            if (partner.get("task") if isinstance(partner, dict) else partner) not in owners:
                entry.pop(key)
        entries.append(entry)
    return {"encoder": dict(encoder), "tasks": entries, **kept}


def readable(entries: Sequence[Mapping[str, Any]], memory: Mapping[str, Any] | None) -> bool:
    """Whether each of these tasks says where its data is."""
    return all(
        entry["name"] in (memory or {}) or (entry.get("data") or {}).get("source") or (entry.get("data") or {}).get("splits")
        for entry in entries
    )  # fmt: skip


class Validation:
    """The validation data of fused tasks: read and encoded once, scored as often as wanted.

    Args:
        model: of the tasks and labels that are scored.
        recipe: plain data, as `fused_recipe` makes it.

    Raises:
        UserError: no data, or faults of it.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        tokenizer: Any,
        recipe: Mapping[str, Any],
        *,
        data_root: str | Path | None = None,
        memory: Mapping[str, Any] | None = None,
        batch: int = 64,
    ) -> None:
        made = make_recipe(recipe, Source("the parents' recipes"), memory=list(memory or ()))
        root = Path(data_root) if data_root is not None else None
        self.prepared: Prepared = scoring_data(
            made, model, tokenizer, "the parents' recipes", data_root=root, memory=memory
        )
        self.batch = batch
        self.scorer = make_scorer(self.prepared, "validation")
        self.names = [task.name for task in self.prepared.tasks]

    def score(self, model: MultiTaskModel) -> tuple[dict[str, dict[str, float]], float | None]:
        """(task → metric → value, the mean of the primary metrics)."""
        found = self.scorer.score(model, device=model.device, batch=self.batch)
        return by_task(found, self.names), found.get("eval_mean")


def encoder_entry(parents: Sequence[Parent]) -> dict[str, Any]:
    """The recipe's `encoder` of what is made: the first known name, and the shortest row length."""
    known = [parent.encoder for parent in parents if parent.encoder]
    lengths = [int(one["max_length"]) for one in known if isinstance(one.get("max_length"), int)]
    names = [str(one["name"]) for one in known if one.get("name")]
    plain = [parent.name.partition("=")[2] or parent.name for parent in parents if parent.plain]
    entry: dict[str, Any] = {"name": next(iter(names or plain), None)}
    if lengths:
        entry["max_length"] = min(lengths)
    strides = [one["stride"] for one in known if isinstance(one.get("stride"), int)]
    return {key: value for key, value in {**entry, **({"stride": strides[0]} if strides else {})}.items() if value}


def owners_of(parents: Sequence[Parent]) -> dict[str, Parent]:
    """Task → the first parent that has it, in order."""
    owners: dict[str, Parent] = {}
    for parent in parents:
        for task in parent.tasks:
            owners.setdefault(task.name, parent)
    return owners


def alike(task: Task, other: Task) -> str:
    """Why two tasks of one name are not the same problem; empty where they are."""
    if task.head != other.head:
        return f"head {task.head}, not {other.head}"
    if task.labels != other.labels:
        return f"labels {listed(task.labels or ())}, not {listed(other.labels or ())}"
    if task.kind.annotation == "tags" and task.tag_scheme != other.tag_scheme:
        return f"scheme {task.tag_scheme}, not {other.tag_scheme}"
    return ""


def read_facts(folder: Path) -> dict[str, Any]:
    """What `fusion.json` of a fused checkpoint says; empty where there is none."""
    path = folder / FACTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
