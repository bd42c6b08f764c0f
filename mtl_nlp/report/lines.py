"""Files of predictions: where they stand, and reading them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import fault

PREDICTIONS = "predictions"


def prediction_file(folder: Path, split: str, task: str) -> Path:
    """One task's answers on a split, in a run's folder."""
    return folder / PREDICTIONS / f"{split}-{task}.jsonl"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of predictions.

    Raises:
        UserError: a line is not an object with `gold` and `predicted`; its number is told.
    """
    found = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                one = json.loads(line)
            except ValueError as error:
                raise fault(
                    f"not JSON: {error}", where=f"{path}:{number}", cure="remove the file: it is made again"
                ) from error
            if not isinstance(one, dict) or not {"gold", "predicted"} <= one.keys():
                allowed = "an object with gold and predicted"
                raise fault(
                    "no prediction", where=f"{path}:{number}", allowed=allowed, cure="remove the file: it is made again"
                )
            found.append(one)
    return found
