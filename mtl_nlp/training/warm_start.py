"""`encoder.from`: a run that begins at one of our checkpoints.

It takes the encoder, the tokenizer, how long rows are, and the heads of the recipe's tasks that the checkpoint has (the *inherited*
tasks), outputs matched by label name in the checkpoint's order. The recipe's other tasks get fresh heads. What keeps the inherited
tasks while others are learned is `retain` (`training.distil`, `training.forgetting`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import Faults, fault, listed
from ..hub.checkpoint import CONFIG, check_folder, load_model, load_tokenizer
from ..labels import tag_names
from ..model.config import MultiTaskConfig, task_record
from ..model.encoder import freeze
from ..model.heads import PassThroughBase, make_head
from ..model.multitask import MultiTaskModel
from ..recipe import RESOLVED, EncoderSpec, Recipe
from ..schema import read_yaml
from ..task import Task
from .conditioning import inherit_conditioning

logger = logging.getLogger("mtl_nlp")


@dataclass(frozen=True)
class Start:
    """The checkpoint that a run begins at.

    Attributes:
        folder: the checkpoint.
        tasks: all its tasks, in order.
        encoder_config: the encoder's configuration.
        encoder: the recipe's `encoder` that it was trained with, as plain data.
        conditioning: what its configuration says of the encoder's conditions; None if there are none.
    """

    folder: Path
    tasks: list[Task]
    encoder_config: Any
    encoder: dict[str, Any]
    conditioning: Any = None

    def model(self) -> MultiTaskModel:
        """The checkpoint's model, loaded anew."""
        return load_model(self.folder)

    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        return load_tokenizer(self.folder)


def starting_point(recipe: Recipe) -> Start | None:
    """The checkpoint of `encoder.from`, None where the recipe has none.

    Raises:
        UserError: it is no checkpoint, or a damaged one.
    """
    wanted = recipe.encoder_spec.from_
    if wanted is None:
        return None
    folder = recipe.base / wanted if (recipe.base / wanted).is_dir() else Path(wanted)
    if not folder.exists() or _is_plain(folder):
        return None  # a Hub name, or a plain model: `model.encoder` takes its encoder, and says what is wrong with it
    folder = check_folder(folder)
    config = MultiTaskConfig.from_pretrained(folder)
    tasks = config.task_definitions()
    trained: dict[str, Any] = {}
    if (folder / RESOLVED).is_file():
        data, _ = read_yaml(folder / RESOLVED, "resolved recipe")
        found = data.get("encoder")
        trained = found if isinstance(found, dict) else {"name": found} if isinstance(found, str) else {}
    return Start(folder, tasks, config.encoder_config, trained, config.conditioning)


def _is_plain(folder: Path) -> bool:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") not in (None, MultiTaskConfig.model_type)


def inherit(recipe: Recipe, start: Start) -> None:
    """Settle what the recipe takes from the checkpoint: the encoder's name and row lengths, and the inherited tasks' labels.

    Raises:
        FaultyInput: another encoder, another kind of head, labels that a task which is only kept cannot lose or gain, or nothing
            that is left to learn.
    """
    faults = Faults()
    _inherit_encoder(recipe, start, faults)
    # A task that says itself where its head is from does not inherit one.
    own = {task.name for task in recipe.definitions if task.from_ is not None}
    known = {task.name: task for task in start.tasks if task.name not in own}
    recipe._inherited = [task.name for task in recipe.definitions if task.name in known]
    recipe._tasks = [
        _inherit_task(task, known[task.name], faults, kept=task.name in recipe.untrained)
        if task.name in known
        else task
        for task in recipe.definitions
    ]
    for task in recipe._tasks:
        if task.name not in known and task.data.source is None and not task.data.columns.roles():
            faults.add("missing", where=task.where, key=f"{task.name}.data", allowed="where its texts are")
    _check_retained(recipe, start, faults)
    inherit_conditioning(recipe, start.conditioning, faults)
    faults.check()
    uncalibrated = [
        task.name
        for task in recipe._tasks
        if task.name in known and known[task.name].calibration and not task.calibration
    ]
    if uncalibrated:
        told = "%s: the calibration is of the weights before this run, so it is left out; run `mtl-nlp calibrate` again"
        logger.warning(told, listed(uncalibrated))
    names = {task.name for task in recipe.definitions}
    left = [task.name for task in start.tasks if task.name not in names]
    if left:
        logger.warning("%s: not in the recipe, so not in the new checkpoint: %s", start.folder, listed(left))


def _inherit_encoder(recipe: Recipe, start: Start, faults: Faults) -> None:
    spec = recipe.encoder_spec
    own = start.encoder.get("name")
    here = recipe.base / spec.name
    given = {spec.name, str(here.resolve())} if here.is_dir() else {spec.name}
    if "name" in spec.model_fields_set and own is not None and own not in given:
        cure = "leave name out: the encoder is the checkpoint's"
        where = recipe.place_of("encoder", "name")
        faults.add(f'found "{spec.name}" beside from', where=where, key="encoder.name", allowed=f'"{own}"', cure=cure)
    update: dict[str, Any] = {} if own is None else {"name": own}
    for key in ("max_length", "stride"):
        if key not in spec.model_fields_set and isinstance(start.encoder.get(key), int):
            update[key] = start.encoder[key]
    recipe.encoder = spec.model_copy(update=update)


def _inherit_task(task: Task, own: Task, faults: Faults, *, kept: bool) -> Task:
    if task.head != own.head:
        cure = "give the new task another name"
        faults.add(f'found "{task.head}"', where=task.where, key=f"{task.name}.head", allowed=own.head, cure=cure)
        return task
    update: dict[str, Any] = {"labels": _inherited_labels(task, own, faults, kept=kept)}
    if task.kind.annotation == "tags":
        update |= {"scheme": task.scheme or own.scheme, "words": task.words or own.words}
        if kept and update["scheme"] != own.scheme:
            faults.add(f'found "{task.scheme}"', where=task.where, key=f"{task.name}.scheme", allowed=str(own.scheme))
    if kept:
        update["calibration"] = own.calibration
    return task.model_copy(update=update).placed(task._source, task.base)


def _inherited_labels(task: Task, own: Task, faults: Faults, *, kept: bool) -> list[str] | None:
    """The checkpoint's labels in its order, then those that only the recipe has."""
    if task.labels is None or own.labels is None:
        return own.labels
    gained = [label for label in task.labels if label not in own.labels]
    lost = [label for label in own.labels if label not in task.labels]
    if kept and (gained or lost):
        cure = "a task that is only kept has the checkpoint's labels: leave labels out"
        where, key = task.place_of("labels"), f"{task.name}.labels"
        faults.add(f"found {listed(task.labels)}", where=where, key=key, allowed=listed(own.labels), cure=cure)
    if gained or lost:
        logger.warning("%s: new labels %s; labels left out %s", task.name, listed(gained), listed(lost))
    return [label for label in own.labels if label in task.labels] + gained


def _check_retained(recipe: Recipe, start: Start, faults: Faults) -> None:
    if recipe.retain is None:
        return
    where = recipe.place_of("retain")
    if not recipe._inherited:
        cure = "list those that are to be kept"
        known = listed(task.name for task in start.tasks)
        faults.add("no task of the recipe is in the checkpoint", where=where, key="retain", allowed=known, cure=cure)
    elif len(recipe._inherited) == len(recipe.definitions) and recipe.retain.method != "rehearsal":
        cure = "add a task that is learned, or leave retain out"
        faults.add("every task of the recipe is kept", where=where, key="retain", cure=cure)
    elif recipe.retain.method == "keep" and not _learned(recipe):
        new = listed(task.name for task in recipe._tasks if task.name not in recipe._inherited)
        found = f"{new}: the head is one that is kept, so nothing is left to learn"
        cure = "leave share_head_with out, or let the old tasks be rehearsed"
        faults.add(found, where=where, key="retain", cure=cure)
    elif len(recipe._inherited) == len(recipe.definitions) and recipe.retain.rate is not None:
        cure = "leave it out: no task is new"
        faults.add(f"found {recipe.retain.rate}", where=where, key="retain.rate", cure=cure)


def _learned(recipe: Recipe) -> list[str]:
    """The tasks with a head that the checkpoint does not have."""
    partners = {task.name: task.share_head_with for task in recipe._tasks}
    found = []
    for name in partners:
        owner, seen = name, {name}
        while (partner := partners.get(owner)) is not None and partner not in seen:
            owner = partner
            seen.add(owner)
        if owner not in recipe._inherited:
            found.append(name)
    return found


def warm_model(start: Start, tasks: Sequence[Task], spec: EncoderSpec, untrained: Sequence[str] = ()) -> MultiTaskModel:
    """A model on the checkpoint's encoder: inherited heads as they were, the others fresh.

    A fresh head's pooler begins as that of the checkpoint's first head that has one. Heads in `untrained` get no gradient.
    """
    old = start.model()
    encoder: Any = old.encoder
    if spec.attention != "auto":
        encoder.set_attn_implementation(spec.attention)
    for module in encoder.modules():
        module._is_hf_initialized = True
    config = MultiTaskConfig(
        encoder.config, [task_record(task) for task in tasks], conditioning=old.config.conditioning
    )
    config._attn_implementation = encoder.config._attn_implementation
    model = MultiTaskModel(config, encoder)
    model._start_poolers(_pooler_of(old))
    for task in tasks:
        if task.name in old.kinds:
            copy_head(model, old, task.name)
            copy_condition(model, old, task.name)
    for name in untrained:
        for parameter in model.own_parameters(name):
            parameter.requires_grad_(False)
    freeze(model.encoder, spec.freeze)
    return model


def _pooler_of(model: MultiTaskModel) -> nn.Module | None:
    for head in model.heads.values():
        base = getattr(head, getattr(head, "base_model_prefix", ""), None)
        if isinstance(base, PassThroughBase) and isinstance(getattr(base, "pooler", None), nn.Module):
            return base.pooler
    return None


def output_names(task: Task) -> list[str]:
    """What the outputs of a task's head are called: tags, or labels."""
    labels = list(task.labels or ())
    return tag_names(labels, task.tag_scheme) if task.kind.annotation == "tags" else labels


def copy_condition(model: MultiTaskModel, old: MultiTaskModel, name: str) -> None:
    """Give the task the condition that it has in `old`, where that is conditioned."""
    if model.conditioning is not None and old.conditioning is not None:
        model.conditioning.tasks[name].load_state_dict(old.conditioning.tasks[name].state_dict())


def copy_head(model: MultiTaskModel, old: MultiTaskModel, name: str) -> None:
    """Give the head `name` the weights that it has in `old`; outputs are matched by name, new ones stay as they are.

    Which dimensions run over the outputs is found by building the head with one label more.

    Raises:
        UserError: the heads do not fit each other.
    """
    source, target = old.heads[name].state_dict(), model.heads[name].state_dict()
    task = model.kinds[name].task
    before, now = output_names(old.kinds[name].task), output_names(task)
    if source.keys() != target.keys():
        odd = listed(sorted(source.keys() ^ target.keys()), 6)
        raise fault(f"the heads differ in {odd}", where=task.where, key=f"tasks.{name}", cure="train it anew")
    if before == now:
        model.heads[name].load_state_dict(source)
        return
    wider = _wider_head(model, task)
    places = {label: place for place, label in enumerate(before)}
    rows = [place for place, label in enumerate(now) if label in places]
    from_rows = [places[label] for label in now if label in places]
    with torch.no_grad():
        for key, value in target.items():
            over = [d for d, size in enumerate(value.shape) if wider[key].shape[d] != size]
            _copy_outputs(value, source[key], over, rows, from_rows)


def _wider_head(model: MultiTaskModel, task: Task) -> dict[str, Tensor]:
    extra = task.model_copy(update={"labels": [*(task.labels or ()), "one label more"]})
    with torch.device("meta"):
        return make_head(extra).build(model.config.encoder_config).state_dict()


def _copy_outputs(
    target: Tensor, source: Tensor, over: Sequence[int], rows: Sequence[int], from_rows: Sequence[int]
) -> None:
    if not over:
        target.copy_(source)
        return
    index: list[Any] = [slice(None)] * target.dim()
    origin: list[Any] = [slice(None)] * target.dim()
    for number, dim in enumerate(over):
        shape = [-1 if i == number else 1 for i in range(len(over))]
        index[dim], origin[dim] = torch.tensor(rows).view(shape), torch.tensor(from_rows).view(shape)
    target[tuple(index)] = source[tuple(origin)]
