"""`share_head_with`: two tasks with the same labels under one head.

The head belongs to the task that is named (the owner); what is checked before data is read is in `sharing_faults`, and labels that
come from the data are brought together by `joined_labels`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .errors import Faults, closest, listed
from .task import Task


def owner_of(task: Task) -> str:
    """Name of the task whose head the task uses: its own, unless it shares another's."""
    return task.share_head_with or task.name


def check_sharing(tasks: Sequence[Task], faults: Faults) -> None:
    """Note every task that cannot share the head that it names; give the others the owner's labels where these are given."""
    known = {task.name: task for task in tasks}
    for task in tasks:
        name = task.share_head_with
        if name is None:
            continue
        where, key = task.place_of("share_head_with"), f"{task.name}.share_head_with"
        if name not in known or name == task.name:
            others = [other for other in known if other != task.name]
            found = f'no other task "{name}".{closest(name, others)}'
            faults.add(found, where=where, key=key, allowed=listed(others) or "a task of this recipe")
            continue
        for problem, cure in _unlike(task, known[name]):
            faults.add(problem, where=where, key=key, cure=cure)
        if task.labels is None:
            task.labels = known[name].labels


def _unlike(task: Task, owner: Task) -> Iterable[tuple[str, str]]:
    if owner.share_head_with is not None:
        yield f"{owner.name} shares a head itself", f"name {owner.share_head_with}"
    if task.head != owner.head:
        yield f"head {task.head} is not {owner.name}'s {owner.head}", "give them the same head"
    elif task.kind.annotation == "tags" and task.tag_scheme != owner.tag_scheme and "none" in _schemes(task, owner):
        yield (
            f"scheme {task.tag_scheme} makes other tags than {owner.name}'s {owner.tag_scheme}",
            "give them one scheme",
        )
    if task.labels is not None and owner.labels is not None and task.labels != owner.labels:
        found = f"labels are not {owner.name}'s, which are {listed(owner.labels, 20)}"
        yield found, "list the same labels in the same order, or leave them out here"


def _schemes(*tasks: Task) -> set[str]:
    return {task.tag_scheme for task in tasks}


def joined_labels(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Task → the labels of its shared head: the owner's, then those of the others that it lacks, by code point."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(owner_of(task), []).append(task)
    found: dict[str, list[str]] = {}
    for owner, group in groups.items():
        if len(group) > 1 and any(task.labels for task in group):
            found |= _joined(owner, {task.name: task.labels or [] for task in group})
    return found


def _joined(owner: str, labels: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    first = list(labels.get(owner, ()))
    further = sorted({label for names in labels.values() for label in names} - set(first))
    return dict.fromkeys(labels, first + further)
