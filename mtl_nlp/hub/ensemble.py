"""An ensemble on the disk: `ensemble.json` and a checkpoint folder a member, read with the distrust that checkpoints get.

`ensemble.json` holds `format_version`, `members` (folder, provenance), and a record a task: its definition, each member's
weight, and whether entities are voted on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Faults, fault, listed
from ..model.config import FORMAT_VERSION
from ..model.files import ENSEMBLE, check_checksums, check_links, forbid_code, is_plain_name, read_json
from ..schema import Source, validate
from ..task import Task

MOST = 64


@dataclass(frozen=True)
class Ensemble:
    """An ensemble.

    Attributes:
        folder: with `ensemble.json`.
        members: the folders of its members, in order.
        tasks: name → definition.
        weights: task → one weight a member, 0 for one that has not the task; they sum to 1.
        vote: task → whether entities are voted on.
        facts: the members' provenance.
    """

    folder: Path
    members: list[Path]
    tasks: dict[str, Task]
    weights: dict[str, list[float]]
    vote: dict[str, bool]
    facts: list[dict[str, Any]]

    def members_of(self, task: str) -> list[int]:
        """The members that answer a task."""
        return [i for i, weight in enumerate(self.weights[task]) if weight > 0]


def is_ensemble(folder: str | Path) -> bool:
    """Whether a folder is an ensemble."""
    return (Path(folder) / ENSEMBLE).is_file()


def read_ensemble(folder: str | Path) -> Ensemble:
    """The ensemble in a folder; its members are checked when they are loaded.

    Raises:
        UserError: damaged, of another version, or hostile; every fault of it.
    """
    folder = Path(folder)
    check_links(folder)
    path = folder / ENSEMBLE
    data = read_json(path)
    forbid_code(data, path)
    if not isinstance(data, dict) or data.get("format_version") != FORMAT_VERSION:
        version = data.get("format_version") if isinstance(data, dict) else None
        raise fault(f"found {version!r}"[:100], where=str(path), key="format_version", allowed=str(FORMAT_VERSION))
    check_checksums(folder, [ENSEMBLE])
    faults = Faults()
    facts = _members(data.get("members"), folder, faults)
    tasks, weights, vote = _tasks(data.get("tasks"), len(facts), path, faults)
    faults.check()
    members = [folder / fact["folder"] for fact in facts]
    return Ensemble(folder, members, tasks, weights, vote, facts)


def _members(found: Any, folder: Path, faults: Faults) -> list[dict[str, Any]]:
    where = str(folder / ENSEMBLE)
    if not isinstance(found, list) or not 0 < len(found) <= MOST or not all(isinstance(one, dict) for one in found):
        faults.add("not a list of members", where=where, key="members", allowed=f"1 to {MOST} members")
        return []
    for i, one in enumerate(found):
        name = one.get("folder")
        if not is_plain_name(name) or not (folder / name).is_dir():
            faults.add(f"found {name!r}"[:100], where=where, key=f"members.{i}.folder", allowed="a folder beside it")
    return found


def _tasks(
    found: Any, members: int, path: Path, faults: Faults
) -> tuple[dict[str, Task], dict[str, list[float]], dict[str, bool]]:
    tasks: dict[str, Task] = {}
    weights: dict[str, list[float]] = {}
    vote: dict[str, bool] = {}
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
        faults.add("not a list of tasks", where=str(path), key="tasks", allowed="a record a task")
        return tasks, weights, vote
    source = Source(str(path))
    for i, one in enumerate(found):
        record = one.get("task")
        task = validate(Task, record if isinstance(record, dict) else {}, source, ("tasks", i, "task"))
        if task.name in tasks:
            faults.add(f"{task.name} twice", where=str(path), key=f"tasks.{i}", allowed="each name once")
        own = one.get("weights")
        if not _are_weights(own, members):
            allowed = f"{members} numbers of 0 or more with sum 1"
            faults.add(f"found {own!r}"[:100], where=str(path), key=f"tasks.{i}.weights", allowed=allowed)
            own = []
        tasks[task.name], weights[task.name] = task, [float(w) for w in own]
        vote[task.name] = one.get("vote") is not False
    return tasks, weights, vote


def _are_weights(found: Any, members: int) -> bool:
    return (
        isinstance(found, list)
        and len(found) == members
        and all(type(w) in (int, float) and math.isfinite(w) and w >= 0 for w in found)
        and abs(sum(found) - 1) < 1e-6
    )


def check_members(ensemble: Ensemble, known: list[list[Task]]) -> None:
    """Compare the ensemble's tasks with those that its members have.

    Raises:
        FaultyInput: a member without a task that it has a weight for, or with other labels.
    """
    faults = Faults()
    for name, task in ensemble.tasks.items():
        for i in ensemble.members_of(name):
            own = next((one for one in known[i] if one.name == name), None)
            where = str(ensemble.members[i])
            if own is None:
                allowed = listed(one.name for one in known[i])
                faults.add(f"no task {name}", where=where, key="tasks", allowed=allowed)
            elif own.kind.annotation != task.kind.annotation or set(own.labels or ()) != set(task.labels or ()):
                faults.add(f"{name} has other labels", where=where, key=name, allowed=listed(task.labels or ()))
    faults.check()


__all__ = ["ENSEMBLE", "Ensemble", "check_members", "is_ensemble", "read_ensemble"]
