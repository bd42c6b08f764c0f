"""Where each split of a task stands: files, a Hub dataset, or memory.

A `Place` is hashable: tasks with equal places share one corpus. Nothing is read here, only looked up.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FaultyInput, fault, listed
from ..recipe import absolute, is_local
from ..task import SPLITS, Task
from .readers import FORMATS, HubSource

SPLIT_FILES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class Place:
    """Where a task's rows come from.

    Attributes:
        files: split → its files; empty for the others.
        hub: the Hub dataset, with the split's name for each of ours in `hub_splits`.
        memory: the identity of objects in memory, by split.
    """

    files: tuple[tuple[str, tuple[Path, ...]], ...] = ()
    hub: HubSource | None = None
    hub_splits: tuple[tuple[str, str], ...] = ()
    optional_splits: bool = False
    memory: tuple[tuple[str, int], ...] = ()

    @property
    def splits(self) -> list[str]:
        """The splits that it has, in the order train, validation, test."""
        named = [split for split, _ in (*self.files, *self.hub_splits, *self.memory)]
        return [split for split in SPLITS if split in named]


def place_of(task: Task, *, data_root: Path | None = None, memory: Mapping[str, Any] | None = None) -> Place:
    """Where the splits of `task` stand.

    `memory` is split → data for tasks whose data is in memory; `data_root` a folder of local copies.

    Raises:
        FaultyInput: a file, folder or glob that is not there.
    """
    if memory is not None:
        return Place(memory=tuple((split, id(memory[split])) for split in SPLITS if split in memory))
    data, source = task.data, task.data.source
    if data_root is not None:
        folder = _copy_in(task, data_root)
        if folder is not None:
            return _folder_place(folder, task)
        # Files of its own are taken where there is no copy.
        if not (data.splits.given() if source is None else is_local(source, task.base)):
            raise _no_copy(task, data_root)
    if source is not None and not is_local(source, task.base):
        return _hub_place(task)
    given = data.splits.given()
    if source is None:
        return _files_place({s: _expand(names, task.base, task, s) for s, names in given.items()}, task)
    path = absolute(source, task.base)
    if path.is_dir():
        if given:
            return _files_place({s: _expand(names, path, task, s) for s, names in given.items()}, task)
        return _folder_place(path, task)
    files = {"train": _expand([source], task.base, task, "train")}
    files |= {s: _expand(names, task.base, task, s) for s, names in given.items() if s != "train" or names != ["train"]}
    return _files_place(files, task)


def _files_place(files: Mapping[str, Sequence[Path]], task: Task) -> Place:
    return Place(files=tuple((split, tuple(files[split])) for split in SPLITS if files.get(split)))


def _expand(names: Sequence[str], base: Path, task: Task, split: str) -> list[Path]:
    found: list[Path] = []
    for name in names:
        path = absolute(name, base)
        if path.is_file():
            found.append(path)
            continue
        matches = _data_files(path.parent, path.name) if split == name and base.is_dir() else []
        matches += [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if Path(match).is_file()]
        if not matches and path.is_dir():
            matches = _data_files(path, path.name)
        if not matches:
            near = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
            cure = f"that folder has {listed(near)}" if near else f"the folder {path.parent} does not exist"
            place = task.place_of("data", "source")
            raise fault(f'"{name}" not found', where=place, key=f"data ({task.name}, {split})", cure=cure)
        found.extend(matches)
    return found


def _copy_in(task: Task, data_root: Path) -> Path | None:
    if not data_root.is_dir():
        raise fault("not a folder", where=str(data_root), key="--data-root", allowed="DIR/TASK_NAME/train.jsonl …")
    for name in _copy_names(task):
        if (data_root / name).is_dir():
            return (data_root / name).resolve()
    return None


def _copy_names(task: Task) -> list[str]:
    """Folders of a local copy to try: the task's name, the source's last part, the family (`snips` of `snips_intent`), and the one
    that its files lie in (a resolved recipe names files in place of the source)."""
    last = (task.data.source or "").rstrip("/").split("/")[-1]
    folders = [Path(name).parent.name for names in task.data.splits.given().values() for name in names]
    return [name for name in dict.fromkeys((task.name, last, task.name.split("_")[0], *folders)) if name]


def _no_copy(task: Task, data_root: Path) -> FaultyInput:
    looked = listed(str(data_root / name) for name in _copy_names(task))
    here = listed(sorted(path.name for path in data_root.iterdir() if path.is_dir()))
    return fault(f"no local copy of {task.name}: looked for {looked}", key="--data-root", cure=f"folders there: {here}")


def _data_files(folder: Path, stem: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"{stem}.*") if path.suffix.lower() in FORMATS)


def _folder_place(folder: Path, task: Task) -> Place:
    files: dict[str, list[Path]] = {}
    for split, stems in SPLIT_FILES.items():
        for stem in stems:
            found = _data_files(folder, stem)
            if len(found) > 1:
                raise fault(
                    f"several files for {split}: {listed(p.name for p in found)}", where=str(folder), cure="keep one"
                )
            if found:
                files[split] = found
                break
    if not files:
        here = listed(sorted(path.name for path in folder.iterdir()))
        allowed = f"train.*, validation.*, test.* with an ending of {listed(FORMATS)}"
        raise fault(
            f"no split in the folder (it has {here})", where=str(folder), key=f"data ({task.name})", allowed=allowed
        )
    return _files_place(files, task)


def _hub_place(task: Task) -> Place:
    data = task.data
    files = data.data_files or {}
    pairs = tuple((split, (value,) if isinstance(value, str) else tuple(value)) for split, value in files.items())
    hub = HubSource(str(data.source), data.config, data.revision, data.data_dir, pairs)
    given = data.splits.given()
    if given:
        names = tuple((split, "+".join(given[split])) for split in SPLITS if split in given)
        return Place(hub=hub, hub_splits=names)
    splits = [split for split in SPLITS if not files or split in files]
    return Place(hub=hub, hub_splits=tuple((split, split) for split in splits), optional_splits=not files)


def located(task: Task, place: Place) -> Task:
    """The task with the files that were found written out, so that a resolved recipe needs no `--data-root`."""
    if not place.files:
        return task
    data = task.data.model_dump(exclude_none=True, exclude_defaults=True)
    for key in ("source", "config", "revision", "data_dir", "data_files", "splits"):
        data.pop(key, None)
    if "missing" in task.data.model_fields_set:
        data["missing"] = list(task.data.missing)
    data["splits"] = {split: [str(path) for path in paths] for split, paths in place.files}
    if "validation" in data["splits"]:
        data.pop("validation", None)
    found = task.model_copy(update={"data": type(task.data).model_validate(data)})
    return found.placed(task._source, task.base)
