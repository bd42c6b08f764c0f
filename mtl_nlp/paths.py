"""Paths in recipes and task files: which are local, and where they stand."""

from __future__ import annotations

from pathlib import Path

FILE_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".conll", ".conllu", ".bio", ".iob", ".txt")


def absolute(path: str, base: Path) -> Path:
    """A path of a file as seen from anywhere."""
    return (Path(path).expanduser() if Path(path).expanduser().is_absolute() else base / path).resolve()


def is_local(source: str, base: Path) -> bool:
    """Whether a source is a file, folder or glob, rather than the name of a Hub dataset or split."""
    path = Path(source).expanduser()
    if path.is_absolute() or source.startswith(("./", "../")) or any(c in source for c in "*?["):
        return True
    return (base / path).exists() or path.suffix in FILE_ENDINGS
