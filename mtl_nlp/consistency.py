"""`consistent_with`: the slots of a text have to go with its intent. What is checked before data is read.

Which types occur with which label is counted in `mtl_nlp.data.consistency`; `mtl_nlp.joint` decodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .errors import Faults, closest, listed
from .task import Consistency, Task

JOINT_METRICS = ("sentence_accuracy", "consistency", "sentence_accuracy_alone", "consistency_alone")


def consistency_of(task: Task) -> Consistency | None:
    """The task's `consistent_with` in full, whichever way it was written."""
    given = task.consistent_with
    return Consistency(task=given) if isinstance(given, str) else given


def check_consistency(tasks: Sequence[Task], faults: Faults) -> None:
    """Note every `consistent_with` that names no task with one label a text, or stands on a task without typed tags."""
    known = {task.name: task for task in tasks}
    for task in tasks:
        wanted = consistency_of(task)
        if wanted is None:
            continue
        where, key = task.place_of("consistent_with"), f"{task.name}.consistent_with"
        if wanted.task not in known:
            fitting = [other.name for other in tasks if other.kind.annotation == "label"]
            found = f'no task "{wanted.task}".{closest(wanted.task, fitting)}'
            faults.add(found, where=where, key=key, allowed=listed(fitting) or "a task with one label a text")
        else:
            for problem in consistency_faults(task, known[wanted.task]):
                faults.add(problem, where=where, key=key)


def consistency_faults(task: Task, other: Task) -> Iterable[str]:
    """Why the tags of `task` cannot depend on the label of `other`; names that either does not have."""
    if task.kind.annotation != "tags" or task.tag_scheme == "none":
        yield f"needs tags of types, with a scheme; {task.name} has head {task.head}: put the key on the token task"
        return
    if other.kind.annotation != "label":
        yield f"{other.name} has head {other.head} → a task with one label a text"
        return
    types = (consistency_of(task) or Consistency(task=other.name)).types or {}
    for what, names, owner in (
        ("label", types, other),
        ("type", dict.fromkeys(name for allowed in types.values() for name in allowed), task),
    ):
        absent = [name for name in names if owner.labels is not None and name not in owner.labels]
        if absent:
            yield f"types has the {what} {listed(absent)}, which {owner.name} does not have: {listed(owner.labels or (), 40)}"
