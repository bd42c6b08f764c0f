"""`from` of a task: its head taken from another checkpoint, a fine-tuned model of transformers or one of ours.

The head keeps its own order of labels, and the task's labels are mapped to it by name; what does not fit is refused with both
lists. Tags are the one exception to the order: ours stand as `O, B-x, I-x, …`, so the rows of the last layer are put in it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from ..data.sources import Corpus
from ..errors import Faults, FaultyInput, UserError, fault, listed
from ..hub.calibration import last_layer
from ..hub.checkpoint import load_model
from ..labels import tag_names
from ..model.config import MultiTaskConfig
from ..model.heads import VanillaHead, make_head
from ..model.multitask import MultiTaskModel
from ..task import Task

logger = logging.getLogger("mtl_nlp")
UNNAMED = re.compile(r"LABEL_\d+")


class NoMatch(Exception):
    """The labels of a task and of a head cannot be mapped by name; the text says why."""


@dataclass(frozen=True)
class HeadSource:
    """Where a head comes from.

    Attributes:
        place: a folder or a Hub name; `revision` of the latter.
        config: its configuration.
        task: of a checkpoint of ours, the task whose head it is.
        labels: of the K outputs, in the head's order: labels, or tags.
    """

    place: str
    revision: str | None
    config: Any
    task: str | None
    labels: tuple[str, ...]


def head_source(task: Task) -> HeadSource:
    """What `task.from` names: its configuration and labels, without the weights.

    Raises:
        UserError: not found, or a model whose head is of another kind.
    """
    assert task.from_ is not None
    place, _, wanted = task.from_.partition("#")
    revision = None
    if not Path(place).is_dir() and "@" in place:
        place, _, revision = place.partition("@")
    try:
        config = AutoConfig.from_pretrained(place, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _fault(task, f'"{place}" cannot be read: {line}', "a folder, or a Hub name") from error
    if isinstance(config, MultiTaskConfig):
        other = _task_of(config, task, wanted)
        labels = tuple(_outputs(other))
        return HeadSource(place, revision, config, other.name, labels)
    if wanted:
        raise _fault(task, f'"{place}" is a plain {config.model_type} model: it has no task "{wanted}"', place)
    _check_kind(task, config, place)
    names = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    return HeadSource(place, revision, config, None, names)


def _fault(task: Task, found: str, allowed: str = "", cure: str = "") -> FaultyInput:
    return fault(found, where=task.place_of("from"), key=f"{task.name}.from", allowed=allowed, cure=cure)


def _outputs(task: Task) -> list[str]:
    head = make_head(task)
    return head.label_names if isinstance(head, VanillaHead) else list(task.labels or ())


def _task_of(config: MultiTaskConfig, task: Task, wanted: str) -> Task:
    """The task of a checkpoint of ours that is meant: the one after `#`, else of the same name, else the only one of the kind."""
    alike = [one for one in config.task_definitions() if one.head == task.head]
    if wanted:
        alike = [one for one in alike if one.name == wanted]
    same = [one for one in alike if one.name == task.name] or alike
    if len(same) != 1:
        known = listed(f"{one.name} ({one.head})" for one in config.task_definitions())
        found = f"it has {len(same)} heads {task.head}" if not wanted else f'no task "{wanted}" with head {task.head}'
        raise _fault(task, found, known, "name one: from: CHECKPOINT#TASK")
    return same[0]


def _check_kind(task: Task, config: Any, place: str) -> None:
    head = make_head(task)
    if not isinstance(head, VanillaHead):
        raise _fault(task, f"transformers has no head {task.head}", "a checkpoint of mtl-nlp")
    expected = head.vanilla_class(config).__name__
    if config.architectures and expected not in config.architectures:
        raise _fault(task, f'"{place}" is a {listed(config.architectures)}', expected)
    ours, theirs = head.config(config).problem_type, config.problem_type
    if theirs is not None and ours is not None and theirs != ours:
        raise _fault(task, f'"{place}" was trained for {theirs}', ours)


def map_labels(own: Sequence[str], head: Sequence[str], *, given: bool) -> list[str]:
    """The names of a head's K outputs as the task calls them, in the head's order.

    A name fits when it is the same, or the same but for case where that is unambiguous. Where the task's labels are from its data,
    the head may know more. A head whose outputs have no names (LABEL_0, …) fits a task that lists as many.

    Args:
        own: the task's labels.
        head: the head's.
        given: whether the task file lists them.

    Raises:
        NoMatch: a label of the task is not among the head's, or the other way round where they are listed.
    """
    if len(head) > 0 and all(UNNAMED.fullmatch(name) for name in head) and not set(own) & set(head):
        if given and len(own) == len(head):
            return list(own)
        raise NoMatch("the head's outputs have no names; list as many `labels` as it has outputs, in its order")
    folded: dict[str, list[str]] = {}
    for name in own:
        folded.setdefault(name.casefold(), []).append(name)
    result, taken = [], set()
    for name in head:
        near = folded.get(name.casefold(), [])
        mine = name if name in own else (near[0] if len(near) == 1 else None)
        if mine is not None and mine not in taken:
            taken.add(mine)
            result.append(mine)
        else:
            result.append(name)
    if set(own) - taken:
        raise NoMatch("labels of the task that the head does not know")
    if given and len(head) != len(own):
        raise NoMatch("labels of the head that the task does not list")
    return result


def map_types(own: Sequence[str], head: Sequence[str], *, given: bool) -> list[str]:
    """The entity types of a head with the tags `O, B-x, I-x` in any order, as the task calls them, in the order of their first tag.

    Raises:
        NoMatch: as `map_labels`; or other tags than those.
    """
    if all(UNNAMED.fullmatch(name) for name in head):
        if given and len(head) == 2 * len(own) + 1:
            return list(own)
        raise NoMatch("the head's outputs have no names; list as many types as it has, in its order (O, B-x, I-x, …)")
    types = list(dict.fromkeys(tag[2:] for tag in head if tag[:2] in ("B-", "I-")))
    if sorted(head) != sorted(tag_names(types, "iob2")):
        raise NoMatch("a head needs O and both B-x and I-x of every type")
    return map_labels(own, types, given=given)


def adopt_labels(corpora: Sequence[Corpus], given: Collection[str]) -> None:
    """Put the labels of every task with `from` into the order of its head.

    Args:
        given: the tasks whose definition lists the labels.

    Raises:
        FaultyInput: whatever does not fit, with both lists of labels.
    """
    faults = Faults()
    for corpus in corpora:
        for i, task in enumerate(corpus.tasks):
            if task.from_ is None:
                continue
            try:
                labels = fitting_labels(task, head_source(task), given=task.name in given)
            except FaultyInput as error:
                faults.extend(error)
                continue
            final = task.model_copy(update={"labels": labels})
            corpus.tasks[i] = final.placed(task._source, task.base)
    faults.check()


def fitting_labels(task: Task, source: HeadSource, *, given: bool) -> list[str] | None:
    """The task's labels in the order of its head; `given` where its definition lists them.

    Raises:
        FaultyInput: they do not fit.
    """
    annotation = task.kind.annotation
    if annotation not in ("label", "labels", "tags"):
        width = {"value": 1, "choice": None, "answer": 2}.get(annotation)
        if width is not None and source.task is None and len(source.labels) != width:
            raise _fault(task, f"the head has {len(source.labels)} outputs", f"{width} for {task.head}")
        return task.labels
    fit = map_types if annotation == "tags" and task.tag_scheme != "none" else map_labels
    try:
        return fit(task.labels or [], source.labels, given=given)
    except NoMatch as error:
        found = f"{error}: the task has {listed(task.labels or (), 40)}"
        raise _fault(task, found, f"the head's, {listed(source.labels, 80)}") from None


def take_heads(model: MultiTaskModel, tasks: Sequence[Task]) -> None:
    """Load the head of every task with `from` into the model.

    Raises:
        FaultyInput: weights are missing, or of other shapes: the encoders' architectures or sizes differ.
    """
    for task in tasks:
        if task.from_ is not None:
            source = head_source(task)
            state = _own_state(task, source) if source.task else _vanilla_state(model, task, source)
            _load(model, task, state, source)
            logger.info("%s: head from %s", task.name, task.from_)


def _own_state(task: Task, source: HeadSource) -> dict[str, Tensor]:
    assert source.task is not None
    if Path(source.place).is_dir():
        other = load_model(source.place)
    else:
        load: Any = MultiTaskModel.from_pretrained
        other, info = load(
            source.place,
            revision=source.revision,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
        if info["missing_keys"]:
            raise _fault(task, f"no weights for {listed(sorted(info['missing_keys']), 4)}", "a whole checkpoint")
    return dict(other.heads[source.task].state_dict())


def _vanilla_state(model: MultiTaskModel, task: Task, source: HeadSource) -> dict[str, Tensor]:
    head = model.kinds[task.name]
    assert isinstance(head, VanillaHead)
    cls: Any = head.vanilla_class(source.config)
    try:
        plain, info = cls.from_pretrained(
            source.place,
            revision=source.revision,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _fault(task, f'"{source.place}" cannot be loaded: {line}', "safetensors weights") from error
    if info["missing_keys"]:
        raise _fault(task, f'"{source.place}" has no weights for {listed(sorted(info["missing_keys"]), 4)}', "a head")
    order = _order(task, source)
    if order is not None:
        _reorder(plain, order)
    return dict(plain.state_dict())


def _order(task: Task, source: HeadSource) -> list[int] | None:
    """Which row of the head's last layer stands for each of our tags; None where the order is the same."""
    if task.kind.annotation != "tags" or task.tag_scheme == "none":
        return None
    theirs = list(source.labels)
    if all(UNNAMED.fullmatch(name) for name in theirs):
        return None
    types = dict.fromkeys(tag[2:] for tag in theirs if tag != "O")
    order = [theirs.index(tag) for tag in tag_names(list(types), "iob2")]
    return None if order == list(range(len(order))) else order


def _reorder(plain: nn.Module, order: Sequence[int]) -> None:
    config: Any = plain.config
    batch = torch.full((1, 4), min(5, config.vocab_size - 1))

    def run() -> None:
        with torch.no_grad():
            plain.eval()(input_ids=batch, attention_mask=torch.ones_like(batch))

    layer = last_layer(plain, len(order), run)
    if layer is None:
        raise UserError(f"{type(plain).__name__}: its last layer is not linear, so its tags cannot be put in order")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(parameter[list(order)].clone())


def _load(model: MultiTaskModel, task: Task, state: dict[str, Tensor], source: HeadSource) -> None:
    module = model.heads[task.name]
    own = module.state_dict()
    tied = {key.removeprefix(f"heads.{task.name}.") for key in getattr(model, "all_tied_weights_keys", None) or {}}
    wanted = [key for key in own if key not in tied]
    missing = [key for key in wanted if key not in state]
    other = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or other:
        ours = model.config.encoder_config.model_type
        theirs = source.config.encoder_config.model_type if source.task else source.config.model_type
        found = listed([*missing, *other], 4)
        raise _fault(task, f"the head of that {theirs} does not fit: {found}", f"a head for this {ours} encoder")
    module.load_state_dict({key: state[key] for key in wanted}, strict=False)
