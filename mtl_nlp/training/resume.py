"""Where a run stands on the disk: its folder, the checkpoint to go on from, and whether that is of the same run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..errors import Faults, fault
from ..hub.checkpoint import newest_checkpoint, read_state
from ..hub.location import resumable
from ..recipe import RESOLVED, Recipe
from ..schema import read_yaml
from .prepare import Prepared

logger = logging.getLogger("mtl_nlp")


def output_folder(recipe: Recipe, *, resume: bool) -> Path:
    """The run's folder.

    Raises:
        UserError: none given, not empty without `resume`, or not writable.
    """
    if recipe.output_dir is None:
        raise fault(
            "missing", where=recipe.place_of(), key="output_dir", allowed="a folder", cure="or give --output DIR"
        )
    folder = Path(recipe.output_dir)
    if folder.exists() and not folder.is_dir():
        raise fault("is a file", where=str(folder), key="output_dir", allowed="a folder")
    if folder.is_dir() and any(folder.iterdir()) and not resume:
        raise fault("is not empty", where=str(folder), key="output_dir", cure="--resume to go on, or another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise fault(f"cannot be written: {error.strerror}", where=str(folder), key="output_dir") from error
    return folder


def find_checkpoint(folder: Path, resume: bool | str | Path) -> Path | None:
    """The checkpoint to resume from, None to start afresh.

    Raises:
        UserError: the one that was named is not complete.
    """
    if resume is False:
        return None
    if resume is True:
        found = newest_checkpoint(folder)
        if found is None:
            logger.warning("nothing to resume in %s: starting from the beginning", folder)
        return found
    path = resumable(resume, folder)
    read_state(path)
    return path


def check_same_run(checkpoint: Path, prepared: Prepared) -> None:
    """Refuse to resume with another recipe or other data.

    Raises:
        FaultyInput: every key that differs, with both values.
    """
    old, _ = read_yaml(checkpoint / RESOLVED, "resolved recipe")
    faults = Faults()
    before, now = flat(old), flat(prepared.recipe.resolved())
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not key.startswith(("training.push_to_hub", "training.hub_")):
            found = f"{now.get(key, 'absent')!r}, but the run was started with {before.get(key, 'absent')!r}"
            faults.add(
                found,
                where=str(checkpoint),
                key=key,
                cure="resume with the same recipe, or start with another --output",
            )
    sizes = read_state(checkpoint)["sizes"]
    for corpus, split in prepared.encoded["train"].items():
        if sizes.get(corpus) != len(split):
            found = f"{len(split)} training texts, {sizes.get(corpus)} when the run was started"
            faults.add(found, where=str(checkpoint), key=f"data of {corpus}", cure="restore the data, or start afresh")
    faults.check()


def flat(data: Any, key: str = "") -> dict[str, Any]:
    """Nested data as dotted key → value."""
    if isinstance(data, dict) and data:
        return {
            k: v for name, inner in data.items() for k, v in flat(inner, f"{key}.{name}" if key else str(name)).items()
        }
    if isinstance(data, list) and any(isinstance(item, dict) for item in data):
        named = {str(item.get("name", i)) if isinstance(item, dict) else str(i): item for i, item in enumerate(data)}
        return flat(named, key)
    return {key: data}
