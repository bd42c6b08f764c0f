"""Where a comparison stands on the disk: its folder, who works on what, and what a finished run says of itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import fault
from ..model.files import read_json, write_json
from ..training.resume import flat
from ..training.teachers import FOLDER as TEACHERS
from .comparison_plan import Plan, Run

RECORD, PLAN, LOCKS = "run.json", "plan.json", ".locks"
FORMAT = 1


@dataclass
class Place:
    """Where a comparison is, and what it reads.

    Attributes:
        texts: task → its annotated training texts.
        steps: (variant, task) → optimizer steps of one run, about; for the time that is left.
        planned: what the report of a joint run will say of its length, where nothing ends it early; None where something may, or
            where the seed has a say in it.
        steps_of: (single run, texts to draw) → its steps, where batches are cut by tokens.
    """

    folder: Path
    data_root: Path | None = None
    memory: Mapping[str, Any] | None = None
    texts: Mapping[str, int] = field(default_factory=dict)
    steps: Mapping[tuple[str, str | None], int] = field(default_factory=dict)
    planned: Mapping[str, Any] | None = None
    steps_of: Callable[[Run, float], int] | None = None

    def run(self, run: Run) -> Path:
        """The folder of a finished run."""
        return self.folder / "runs" / run.name

    def trial(self, run: Run) -> Path:
        """The folder of a run that only tries a learning rate."""
        return self.folder / "rates" / f"{run.side}-{run.rate!r}"

    def lock(self, name: str) -> Path:
        """The file by which a process claims a run, or other work that only one should do."""
        return self.folder / LOCKS / name


def record_of(folder: Path) -> dict[str, Any] | None:
    """What a finished run says of itself; None if it is not there."""
    if not (folder / RECORD).is_file():
        return None
    found: dict[str, Any] = read_json(folder / RECORD)
    return found


@contextmanager
def claimed(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """A piece of work for one process, marked by a lock on this file; False where another process has it.

    The system gives the lock back when a process ends, however it ends.

    Args:
        wait: until the other one is through.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        yield _lock(handle, wait)
    finally:
        os.close(handle)


def _lock(handle: int, wait: bool) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows, where one process works alone
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def open_folder(folder: Path, plan: Plan) -> None:
    """Make the folder of a comparison, or recognise it.

    Raises:
        UserError: a file, another folder that is not empty, or not writable.
    """
    if folder.exists() and not folder.is_dir():
        raise fault("is a file", where=str(folder), key="--output", allowed="a folder")
    # Another process may be about to write the plan.
    there = folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
    if there and not (folder / PLAN).is_file():
        raise fault("is not empty and holds no comparison", where=str(folder), key="--output", cure="another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / PLAN, plan_record(plan))
    except OSError as error:
        raise fault(f"cannot be written: {error.strerror}", where=str(folder), key="--output") from error


def plan_record(plan: Plan) -> dict[str, Any]:
    """`plan.json`."""
    runs = [
        {"variant": run.variant, "task": run.task, "seed": run.seed, "folder": f"runs/{run.name}"}
        for run in plan.runs()
    ]
    return {"format_version": FORMAT, "recipe": plan.recipe.resolved(), "seeds": plan.seeds, "runs": runs}


def write_whole(path: Path, data: Any) -> None:
    """JSON that is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write_json(temporary, data)
    os.replace(temporary, path)


def clear_leftovers(folder: Path) -> None:
    """Leave of a finished training what it has made: its checkpoints on the way and what teachers said are no part of that."""
    for left in [*folder.glob("checkpoint-*"), *folder.glob("tmp-*"), folder / TEACHERS]:
        shutil.rmtree(left, ignore_errors=True)


def has_weights(folder: Path) -> bool:
    """Whether a run's weights are still there."""
    return any(folder.rglob("*.safetensors"))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted key → (old, new) where two recipes differ."""
    before, now = flat(dict(old)), flat(dict(new))
    absent = "absent"
    found = {key: (before.get(key, absent), now.get(key, absent)) for key in sorted(before.keys() | now.keys())}
    return {key: pair for key, pair in found.items() if pair[0] != pair[1]}


def duration(seconds: float) -> str:
    """For people."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
