"""On what a run was made: versions and machine, without anything that names the machine or its user."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "tokenizers",
    "safetensors",
    "numpy",
    "scikit-learn",
    "peft",
)


def environment() -> dict[str, Any]:
    """Python, packages, system, processors and devices, as JSON data."""
    import torch

    from ..version import VERSION

    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "mtl_nlp": VERSION,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": gpus or ["cpu"],
        **{name.replace("-", "_"): found for name in PACKAGES if (found := _version(name)) is not None},
    }


def history(log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `history.json` holds: the lines of a run's log (numbers that JSON has not left out), and its environment."""
    lines = [{key: value for key, value in line.items() if _is_json(value)} for line in log]
    return {"format_version": 1, "environment": environment(), "log": lines}


def _is_json(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
