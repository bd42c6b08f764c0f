"""Changing a finished checkpoint: all of the change is on the disk, or none of it."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import UserError
from ..recipe import RESOLVED
from ..schema import read_yaml
from ..task import Task
from .card import model_card
from .checkpoint import sync_folder

AT_FDCWD, EXCHANGE = -100, 2


def rewrite_folder(folder: Path, change: Callable[[Path], None]) -> None:
    """Let `change` work on a copy beside `folder`, then put the copy in its place.

    Files of the copy are hard links where the disk has them, so weights take no room and no time; `change` therefore replaces files
    (`write_json`, `replace_text`) and never writes into one.

    Raises:
        UserError: it cannot be written; the folder is as it was.
    """
    folder = folder.resolve()
    copy = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.copytree(folder, copy, copy_function=_link, symlinks=True)
        change(copy)
        sync_folder(copy)
        _exchange(copy, folder)
        sync_folder(folder.parent, deep=False)
    except OSError as error:
        raise UserError(f"{folder} cannot be rewritten: {error.strerror or error}; it is as it was") from error
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def replace_text(path: Path, text: str) -> None:
    """Write a file by way of a temporary one, so that a hard link's other name keeps the old text."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_card(folder: Path, tasks: Sequence[Task], scores: Mapping[str, Mapping[str, float]]) -> None:
    """`README.md` anew, for other tasks or scores."""
    name = "a pretrained encoder"
    if (folder / RESOLVED).is_file():
        encoder = read_yaml(folder / RESOLVED, "resolved recipe")[0].get("encoder") or {}
        name = encoder if isinstance(encoder, str) else encoder.get("name", name)
    replace_text(folder / "README.md", model_card(name, tasks, scores))


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders: at once on Linux (renameat2), elsewhere by way of a third name, put back if the second step fails."""
    if os.name == "posix":
        libc = ctypes.CDLL(None, use_errno=True)
        rename = getattr(libc, "renameat2", None)
        if rename is not None and rename(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(old), EXCHANGE) == 0:
            return
    aside = old.with_name(f".{old.name}.{os.getpid()}.old")
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except OSError:
        os.rename(aside, old)
        raise
    os.rename(aside, new)
