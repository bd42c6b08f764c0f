"""Finished models that something new is made of (parents of a merge, members of an ensemble, teachers), opened alike.

A parent is written `[TASK=]PLACE[@REVISION][#TASK]`: a checkpoint of ours, of which `#TASK` picks one task and `TASK=`
renames it, or a plain fine-tuned model of transformers, which `TASK=` gives a name (else the last part of PLACE). A plain
model becomes a `MultiTaskModel` with one task: its head as it is, its labels mapped by name to those of the recipe's task
where there is one.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoConfig

from ..errors import FaultyInput, fault, listed
from ..hub.checkpoint import CONFIG, check_folder, load_model, load_tokenizer
from ..model.config import MultiTaskConfig, task_record
from ..model.encoder import load_tokenizer as encoder_tokenizer
from ..model.files import CHECKSUMS, sha256
from ..model.multitask import MultiTaskModel
from ..recipe import RESOLVED, EncoderSpec
from ..schema import read_yaml
from ..task import Columns, Data, Task
from .transfer import NoMatch, fitting_labels, head_source, map_types, take_heads

NAMED = re.compile(r"^([A-Za-z][A-Za-z0-9_-]*)=(.+)$")
# The end of a plain model's class → head, and the columns that its task reads where no recipe says.
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "ForSequenceClassification": ("sequence_classification", {"text": "text", "label": "label"}),
    "ForTokenClassification": ("token_classification", {"tokens": "tokens", "labels": "labels"}),
    "ForQuestionAnswering": (
        "question_answering",
        {"question": "question", "context": "context", "answers": "answers"},
    ),
}
PROBLEMS = {"regression": "regression", "multi_label_classification": "multi_label_classification"}


@dataclass
class Parent:
    """One finished model.

    Attributes:
        name: as it was written.
        model: in evaluation mode, float32, on the CPU; only the tasks that were asked for.
        encoder: what the resolved recipe says of it (`name`, `from`, `max_length`, `stride`); empty for a plain model.
        recipe: the resolved recipe; empty where there is none.
        fingerprint: of the weights' checksums, None for a plain model.
        renamed: its own name of a task → ours, where they differ.
    """

    name: str
    model: MultiTaskModel
    tokenizer: Any
    encoder: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None
    renamed: dict[str, str] = field(default_factory=dict)

    @property
    def tasks(self) -> list[Task]:
        """Its tasks, in order."""
        return list(self.model.tasks)

    @property
    def plain(self) -> bool:
        """Whether it is a model of transformers rather than a checkpoint of ours."""
        return self.fingerprint is None

    def facts(self) -> dict[str, Any]:
        """Its provenance, as JSON; a path of this machine is told by its last part."""
        place = NAMED.sub(r"\2", self.name)
        shown = Path(place.partition("#")[0]).name if Path(place.partition("#")[0]).is_dir() else place
        return {"name": shown, "tasks": [task.name for task in self.tasks], "fingerprint": self.fingerprint}

    def entry(self, task: str) -> dict[str, Any]:
        """The task as an entry of a resolved recipe: with its data where the parent's recipe says."""
        own = next((mine for mine, ours in self.renamed.items() if ours == task), task)
        for entry in self.recipe.get("tasks") or []:
            if entry.get("name") == own:
                return {**entry, "name": task}
        found = next(one for one in self.tasks if one.name == task)
        return task_record(found)


def split_name(text: str) -> tuple[str | None, str, str]:
    """(new name, place, wanted task) of `[TASK=]PLACE[#TASK]`."""
    found = None if Path(text).exists() else NAMED.match(text)
    name, rest = (found.group(1), found.group(2)) if found else (None, text)
    place, _, wanted = rest.partition("#")
    return name, place, wanted


def open_parent(text: str | Path, known: Mapping[str, Task] | None = None) -> Parent:
    """A finished model, loaded strictly.

    Args:
        known: the recipe's tasks by name: what a plain model's head is and how its labels are called.

    Raises:
        UserError: it cannot be read, has no such task, or its labels do not fit.
    """
    name, place, wanted = split_name(str(text))
    if _is_ours(place):
        return _own(str(text), check_folder(place), name, wanted)
    if wanted:
        raise fault(f'a plain model has no task "{wanted}"', where=str(text), allowed=f"TASK={place}")
    return _plain(str(text), place, name, known or {})


def _is_ours(place: str) -> bool:
    """Whether a place is to be read as a checkpoint of ours; also where its reader can best say what is wrong."""
    path = Path(place)
    if path.is_dir():
        if not (path / CONFIG).is_file():
            return True
        try:
            return AutoConfig.from_pretrained(path).model_type == MultiTaskConfig.model_type
        except (OSError, ValueError, KeyError):
            return True
    config = _hub_config(place)
    return config is None or config.model_type == MultiTaskConfig.model_type


def _hub_config(place: str) -> Any:
    name, _, revision = place.partition("@")
    try:
        return AutoConfig.from_pretrained(name, revision=revision or None)
    except (OSError, ValueError, KeyError):
        return None


def _own(text: str, folder: Path, name: str | None, wanted: str) -> Parent:
    model = load_model(folder)
    recipe = read_yaml(folder / RESOLVED, "resolved recipe")[0] if (folder / RESOLVED).is_file() else {}
    encoder = recipe.get("encoder") if isinstance(recipe.get("encoder"), dict) else {}
    parent = Parent(
        text, model, load_tokenizer(folder), dict(encoder or {}), dict(recipe), sha256(folder / CHECKSUMS)[:12]
    )
    if not name and not wanted:
        return parent
    names = [task.name for task in model.tasks]
    if not wanted:
        wanted = str(name) if name in names else (names[0] if len(names) == 1 else "")
    if wanted not in names:
        cure = "name one: CHECKPOINT#TASK"
        raise fault(f'no task "{wanted or name}"', where=text, allowed=listed(names, 40), cure=cure)
    own = next(task for task in model.tasks if task.name == wanted)
    ours = name or wanted
    # Alone it shares no head and has to agree with no other task.
    task = own.model_copy(update={"name": ours, "share_head_with": None, "consistent_with": None})
    parent.model = assemble(model.encoder, model.config, [(task, dict(model.heads[wanted].state_dict()))])
    parent.renamed = {wanted: ours}
    return parent


def assemble(encoder: Any, config: MultiTaskConfig, heads: Sequence[tuple[Task, dict[str, Tensor]]]) -> MultiTaskModel:
    """A model of an encoder (taken as it is) and heads with these weights.

    Args:
        config: of a model with this encoder.
    """
    for module in encoder.modules():
        module._is_hf_initialized = True
    made = MultiTaskConfig(copy.deepcopy(config.encoder_config), [task_record(task) for task, _ in heads])
    made._attn_implementation = config._attn_implementation
    model = MultiTaskModel(made, encoder)
    for task, state in heads:
        model.heads[task.name].load_state_dict(state)
    return model.eval()


def _plain(text: str, place: str, name: str | None, known: Mapping[str, Task]) -> Parent:
    config = _config_of(text, place)
    title = name or re.sub(r"[^A-Za-z0-9_]+", "_", Path(place.partition("@")[0]).name).strip("_")
    try:
        task = _plain_task(text, place, title, config, known.get(title))
    except FaultyInput as error:
        raise fault(str(error), where=text) from error
    source, _, revision = place.partition("@") if not Path(place).is_dir() else (place, "", "")
    spec = EncoderSpec.model_validate({"from": source, "revision": revision or None})
    given = task.kind.annotation == "tags" and task.word_splitter == "given"
    tokenizer = encoder_tokenizer(spec, given_words=given)
    model = MultiTaskModel.from_encoder(spec, [task], pad_token_id=tokenizer.pad_token_id)
    take_heads(model, [task])
    return Parent(text, model.eval(), tokenizer)


def _config_of(text: str, place: str) -> Any:
    source, _, revision = place.partition("@") if not Path(place).is_dir() else (place, "", "")
    try:
        return AutoConfig.from_pretrained(source, revision=revision or None)
    except (OSError, ValueError, KeyError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise fault(f"cannot be read: {line}", where=text, allowed="a folder, or a name on the Hub") from error


def _plain_task(text: str, place: str, name: str, config: Any, known: Task | None) -> Task:
    """The task of a plain model: the recipe's, else what the configuration tells; labels in the head's order.

    Raises:
        FaultyInput: no head that we have, or labels that do not fit.
    """
    if known is not None:
        task = known.model_copy(
            update={"from_": place, "share_head_with": None, "consistent_with": None, "calibration": None}
        ).placed(known._source, known.base)
        fitting = fitting_labels(task, head_source(task), given=task.labels is not None)
        return task.model_copy(update={"labels": fitting}).placed(known._source, known.base)
    architecture = next(iter(config.architectures or ()), "")
    end = next((end for end in PLAIN if architecture.endswith(end)), None)
    if end is None:
        found = f"a {architecture or config.model_type} has no head that we know"
        raise fault(found, allowed=listed(f"…{one}" for one in PLAIN), cure="its encoder: a recipe's encoder.from")
    head, columns = PLAIN[end]
    if head == "sequence_classification":
        problem = config.problem_type or ("regression" if config.num_labels == 1 else None)
        head = PROBLEMS.get(str(problem), head)
        columns = {"text": "text", "labels": "labels"} if head.startswith("multi_label") else columns
    labels: list[str] | None = [str(config.id2label[i]) for i in range(config.num_labels)]
    update: dict[str, Any] = {}
    if head == "token_classification":
        try:
            labels = map_types([], labels or [], given=False)
        except NoMatch:
            update["scheme"] = "none"  # other tags than O, B-x, I-x are labels by themselves
    if head in ("regression", "question_answering"):
        labels = None
    return Task.model_validate(
        {"name": name, "head": head, "labels": labels, "from": place, **update}
        | {"data": Data(columns=Columns(**columns)).model_dump(exclude_defaults=True, exclude_none=True)}
    )
