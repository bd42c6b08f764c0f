"""What was read and tokenised once, kept on the disk: entries under a fingerprint, written whole, verified when they are taken.

An entry is a folder of Arrow, NumPy and JSON files (no pickle) with a manifest of their sizes and checksums. It is written aside,
synced and renamed, so that an interrupted run leaves none; one that does not agree with its manifest is said to be damaged, removed
and built anew. Its name is the hash of everything that it was made from, so data, tokenizer or library that changed give another
entry, and the old one is removed when nobody has taken it for `KEPT_DAYS`. What is kept is decided in `cached`.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..durable import sync_file
from ..errors import fault

logger = logging.getLogger("mtl_nlp")

VARIABLE = "MTL_NLP_CACHE"
MANIFEST = "entry.json"
KEPT_DAYS = 60
CHUNK, WHOLE, SAMPLES = 1 << 20, 1 << 30, 64
LIBRARIES = ("datasets", "pyarrow", "tokenizers", "transformers")


def digest(path: Path) -> str:
    """A checksum of a file's contents; of files above 1 GiB of 64 parts, with size and time of the last change."""
    found, size = blake2b(digest_size=16), path.stat().st_size
    with path.open("rb") as handle:
        if size <= WHOLE:
            while part := handle.read(CHUNK):
                found.update(part)
        else:
            found.update(f"{size} {path.stat().st_mtime_ns}".encode())
            for sample in range(SAMPLES):
                handle.seek((size - CHUNK) * sample // (SAMPLES - 1))
                found.update(handle.read(CHUNK))
    return found.hexdigest()


def key_of(parts: Mapping[str, Any]) -> str:
    """The name of an entry: a hash of what it is made from, of the libraries' versions and of our own code that makes it."""
    known = {name: metadata.version(name) for name in LIBRARIES}
    text = json.dumps({**parts, "libraries": known, "code": _code()}, sort_keys=True, ensure_ascii=False)
    return blake2b(text.encode(), digest_size=16).hexdigest()


@cache
def _code() -> str:
    """A hash of the modules that read and cut texts."""
    package, found = Path(__file__).parents[1], blake2b(digest_size=16)
    files = [package / "kinds.py", package / "task.py"]
    for path in sorted([*files, *(package / "data").glob("*.py"), *(package / "labels").glob("*.py")]):
        found.update(path.read_bytes())
    return found.hexdigest()


class DataCache:
    """Entries in one folder.

    Args:
        folder: made when the first entry is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, setting: str, base: Path, where: str = "") -> DataCache | None:
        """A recipe's `cache`: `off`, a folder, or `auto`: what `MTL_NLP_CACHE` names, else a folder in the cache of `datasets`.

        Raises:
            FaultyInput: the folder is a file.
        """
        if setting == "off":
            return None
        given = os.environ.get(VARIABLE) if setting == "auto" else setting
        if given == "off":
            return None
        if given:
            folder = (base / Path(given).expanduser()).resolve()
        else:
            import datasets

            folder = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / "mtl_nlp"
        if folder.exists() and not folder.is_dir():
            raise fault("is a file", where=where or str(folder), key="cache", allowed="auto, off, or a folder")
        return cls(folder)

    def find(self, key: str, what: str) -> Path | None:
        """An entry's folder; None if there is none, or it was damaged and is removed.

        Args:
            what: named in the log.
        """
        entry = self.folder / key
        if not entry.is_dir():
            return None
        problem = _problem(entry)
        if problem:
            logger.warning("cache: the entry of %s is damaged (%s): removed, and built anew", what, problem)
            shutil.rmtree(entry, ignore_errors=True)
            return None
        with suppress(OSError):  # a cache that is only read
            os.utime(entry / MANIFEST)
        return entry

    def drop(self, key: str, what: str, problem: object) -> None:
        """Remove an entry that cannot be read after all."""
        logger.warning("cache: the entry of %s cannot be read (%s): removed, and built anew", what, problem)
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def store(self, key: str, what: str, write: Callable[[Path], None]) -> None:
        """Write an entry with `write(folder)`. Where that fails, for lack of space for example, the run goes on without it."""
        aside = self.folder / f"tmp-{key}-{uuid4().hex[:8]}"
        try:
            aside.mkdir(parents=True)
            write(aside)
            files = {path.name: [path.stat().st_size, digest(path)] for path in sorted(aside.iterdir())}
            (aside / MANIFEST).write_text(json.dumps({"what": what, "files": files}), encoding="utf-8")
            for path in aside.iterdir():
                sync_file(path)
            aside.rename(self.folder / key)
            self._prune()
        except OSError as error:
            if not (self.folder / key).is_dir():  # else another process was first
                logger.warning("cache: the entry of %s is not kept: %s", what, error)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _prune(self) -> None:
        """Remove entries that nobody has taken for a long time, and what interrupted runs have left."""
        limit = time.time() - KEPT_DAYS * 86400
        for entry in self.folder.iterdir():
            manifest = entry / MANIFEST
            try:
                old = (manifest if manifest.is_file() else entry).stat().st_mtime
            except OSError:
                continue
            if entry.is_dir() and old < (time.time() - 86400 if entry.name.startswith("tmp-") else limit):
                shutil.rmtree(entry, ignore_errors=True)


def _problem(entry: Path) -> str:
    """What is wrong with an entry; empty if nothing is."""
    try:
        files = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, (size, checksum) in files.items():
            if (entry / name).stat().st_size != size:
                return f"{name} has {(entry / name).stat().st_size} bytes, not {size}"
            # Larger files are compared by size alone, as their digest has the time in it.
            if size <= WHOLE and digest(entry / name) != checksum:
                return f"{name} has other contents"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
