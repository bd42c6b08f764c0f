"""Where a checkpoint is: a folder, or `OWNER/NAME[@REVISION]` on the Hub. Whatever takes a checkpoint asks here.

`checkpoint_folder` gives the folder, `resumable` the `checkpoint-N` to go on from, `repository` the target of a push. A folder
of that name comes before the Hub.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from ..errors import fault
from ..model.files import STATE, check_links, read_json, write_json
from ..model.loading import check_folder, checkpoint_folder, newest_checkpoint
from ..model.snapshot import download, hub_name, told

__all__ = ["check_folder", "checkpoint_folder", "hub_name", "repository", "resumable"]

LAST = "last-checkpoint"
logger = logging.getLogger("mtl_nlp")


def repository(name: str) -> tuple[str, str | None]:
    """(repository, revision) that a push goes to.

    Raises:
        UserError: not of the form OWNER/NAME[@BRANCH].
    """
    found = hub_name(name)
    if found is None:
        raise fault(f'found "{name}"', key="repository", allowed="OWNER/NAME of the Hub")
    return found


def resumable(where: str | Path, run: Path) -> Path:
    """The checkpoint to go on from: of a folder its newest complete one, of `OWNER/NAME[@REVISION]` the last that was pushed.

    Args:
        run: the run's folder, into which a checkpoint of the Hub is copied as `checkpoint-N`.

    Raises:
        UserError: there is none.
    """
    path = Path(where)
    if path.is_dir():
        return newest_checkpoint(path) or path
    found = hub_name(str(where))
    if found is None:
        raise fault("no such folder", where=str(where), key="--resume", allowed="a checkpoint-N, or OWNER/NAME")
    name = _pushed_checkpoint(*found)
    folder = download(*found, files=[f"{name}/*"], below=True) / name
    check_links(folder.parent)
    for entry in folder.iterdir():
        if entry.is_dir():
            raise fault("a folder inside", where=f"{where}/{name}", allowed="files only")
    return _copied(folder, run, str(where))


def _pushed_checkpoint(repo: str, revision: str | None) -> str:
    """`last-checkpoint`, or the highest `checkpoint-N` of a repository."""
    from huggingface_hub import HfApi

    with told(repo, revision):
        files = HfApi().list_repo_files(repo, revision=revision)
    folders = {file.split("/")[0] for file in files if file.endswith(f"/{STATE}") and file.count("/") == 1}
    if LAST in folders:
        return LAST
    numbered = [name for name in folders if name.removeprefix("checkpoint-").isdigit()]
    if not numbered:
        cure = "train with training.hub_strategy: checkpoint, which pushes it"
        raise fault("no checkpoint to resume from", where=repo, allowed=f"{LAST} or checkpoint-N", cure=cure)
    return max(numbered, key=lambda name: int(name.removeprefix("checkpoint-")))


def _copied(folder: Path, run: Path, name: str) -> Path:
    """The downloaded checkpoint as `checkpoint-N` of the run, so that the run goes on as from one of its own.

    Raises:
        UserError: its state cannot be read.
    """
    state: Any = read_json(folder / "trainer_state.json")
    step = state.get("global_step") if isinstance(state, dict) else None
    if not isinstance(step, int) or step < 0:
        raise fault(f"found {step!r}", where=f"{name}/trainer_state.json", key="global_step", allowed="a number")
    final = run / f"checkpoint-{step}"
    if final.exists():
        return final
    temporary = run / f"tmp-checkpoint-{step}"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(folder, temporary, symlinks=False)
    best = state.get("best_global_step")
    if best == step:
        state["best_model_checkpoint"] = str(final)
    elif best is not None and not (run / f"checkpoint-{best}").is_dir():
        logger.warning("the best model so far (step %s) is not on the Hub; the best is sought from here on", best)
        state |= {"best_model_checkpoint": None, "best_metric": None, "best_global_step": None}
    write_json(temporary / "trainer_state.json", state)
    temporary.rename(final)
    return final
