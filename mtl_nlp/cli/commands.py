"""All commands, in the order in which `--help` lists them."""

from __future__ import annotations

from . import check, demo, export, init, inspect, interference, living, predict, push, report, tasks, train  # noqa: F401
