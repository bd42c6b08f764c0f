"""Changing a finished checkpoint: all of the change is on the disk, or none of it."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..durable import sync_folder
from ..errors import UserError
from .checkpoint import write_checksums

AT_FDCWD, EXCHANGE = -100, 2


def rewrite_folder(folder: Path, change: Callable[[Path], None]) -> None:
    """Let `change` work on a copy beside `folder`, then put the copy in its place.

    Files of the copy are hard links where the disk has them, so weights take no room and no time; `change` therefore replaces files
    (`write_json`, `write_card`) and never writes into one.

    Raises:
        UserError: it cannot be written; the folder is as it was.
    """
    folder = folder.resolve()
    copy = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.copytree(folder, copy, copy_function=_link, symlinks=True)
        change(copy)
        write_checksums(copy)
        sync_folder(copy)
        _exchange(copy, folder)
        sync_folder(folder.parent, deep=False)
    except OSError as error:
        raise UserError(f"{folder} cannot be rewritten: {error.strerror or error}; it is as it was") from error
    finally:
        shutil.rmtree(copy, ignore_errors=True)


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
