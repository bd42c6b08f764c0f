"""Which types of entity occur with which label, counted in the training split (`consistent_with`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..consistency import consistency_faults, consistency_of
from ..errors import Faults
from ..task import Task

if TYPE_CHECKING:
    from .sources import Corpus, CorpusSplit

BATCH = 1000


def settle_types(corpora: Sequence[Corpus]) -> None:
    """Write into each task with `consistent_with` the types that go with each label, unless they are given.

    Raises:
        FaultyInput: the two tasks are not on one corpus, or types were given under names that they do not have.
    """
    faults = Faults()
    for corpus in corpora:
        known = {task.name: task for task in corpus.tasks}
        corpus.tasks = [_settled(task, corpus, known, faults) for task in corpus.tasks]
    faults.check()


def _settled(task: Task, corpus: Corpus, known: Mapping[str, Task], faults: Faults) -> Task:
    wanted = consistency_of(task)
    if wanted is None:
        return task
    where, key = task.place_of("consistent_with"), f"{task.name}.consistent_with"
    if wanted.task not in known:
        cure = "give both the same source, config, revision, splits and filter"
        faults.add(f"{wanted.task} reads other texts than {task.name}", where=where, key=key, cure=cure)
        return task
    for problem in consistency_faults(task, known[wanted.task]):
        faults.add(problem, where=where, key=key)
    if wanted.types is None and "train" in corpus.splits:
        found = types_by_label(corpus.splits["train"], wanted.task, task)
        names = list(known[wanted.task].labels or ())
        types = {
            label: [name for name in task.labels or () if name in found[label]] for label in names if label in found
        }
        wanted = wanted.model_copy(update={"types": types})
        pairs = sum(len(allowed) for allowed in types.values())
        told = f"{pairs} of {len(names) * len(task.labels or ())} pairs of label and type occur in training"
        corpus.notes.append(f"{task.name} is decoded with {wanted.task}: {told}")
    return task.model_copy(update={"consistent_with": wanted}).placed(task._source, task.base)


def types_by_label(split: CorpusSplit, label_task: str, tag_task: Task) -> dict[str, set[str]]:
    """Label → the types in the texts that have it; texts that lack one of the two annotations are passed over."""
    columns = [f"@{label_task}", f"@{tag_task.name}"]
    found: dict[str, set[str]] = {}
    rows = split.data.select_columns(columns)
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        for label, tags in zip(batch[columns[0]], batch[columns[1]], strict=True):
            if label is not None and tags is not None:
                found.setdefault(label, set()).update(_types(tags))
    return found


def _types(annotation: Sequence[Any]) -> Iterable[str]:
    """The types of normal tags or spans."""
    for one in annotation:
        if isinstance(one, Mapping):
            yield one["label"]
        elif one.startswith("B-"):
            yield one[2:]
