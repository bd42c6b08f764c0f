"""The command line: one module a group of commands; torch is imported only inside a command."""

from __future__ import annotations

from .app import main

__all__ = ["main"]
