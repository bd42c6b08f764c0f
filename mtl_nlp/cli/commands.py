"""All commands, in the order in which `--help` lists them."""

from __future__ import annotations

from . import (  # noqa: F401
    check,
    compare,
    demo,
    explain,
    export,
    fuse,
    init,
    inspect,
    interference,
    living,
    predict,
    push,
    report,
    tasks,
    train,
)
