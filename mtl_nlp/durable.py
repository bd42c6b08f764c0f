"""Pushing what was written to the disk, before it takes the place of what stands there."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path, *, deep: bool = True) -> None:
    """Push a folder (and with `deep` its files) to the disk."""
    if deep:
        for path in folder.iterdir():
            if path.is_file():
                sync_file(path)
    if os.name == "posix":
        sync_file(folder)


def sync_file(path: Path) -> None:
    """Push a file, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
