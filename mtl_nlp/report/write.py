"""`write_report`: folders in, a page and a Markdown file out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import fault
from .facts import Report
from .gather import gather
from .markdown import markdown
from .page import html

PAGE, TEXT = "report.html", "report.md"


@dataclass(frozen=True)
class Written:
    """The two files, and what they tell."""

    page: Path
    text: Path
    report: Report


def write_report(
    folders: Sequence[Path],
    output: Path,
    *,
    split: str = "validation",
    predict: bool = True,
    data_root: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Written:
    """Write `report.html` and `report.md` into a folder.

    Args:
        folders: runs, comparisons, interference measurements.
        split: whose answers of a run are shown.
        predict: make predictions that are missing, with the run's model.
        data_root: as for `train`, for predictions that are made.
        say: is told what is being done.

    Raises:
        UserError: a folder is none of these, a file in one cannot be read, or the output cannot be written.
    """
    report = gather(folders, split=split, predict=predict, data_root=data_root, say=say)
    say("drawing")
    page, text = html(report), markdown(report)
    try:
        output.mkdir(parents=True, exist_ok=True)
        return Written(_write(output / PAGE, page), _write(output / TEXT, text), report)
    except OSError as error:
        raise fault(f"cannot be written: {error.strerror or error}", where=str(output), key="--output") from error


def _write(path: Path, content: str) -> Path:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(content, encoding="utf-8", newline="\n")
    os.replace(temporary, path)
    return path
