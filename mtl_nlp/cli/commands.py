"""All commands, in the order in which `--help` lists them."""

from __future__ import annotations

from . import demo, init, predict, tasks, train  # noqa: F401
