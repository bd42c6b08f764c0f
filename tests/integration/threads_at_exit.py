"""`mtl-nlp`, telling at its end on stderr which threads of gloo are left: `python threads_at_exit.py train …`, on Linux."""

from __future__ import annotations

import atexit
import sys
from pathlib import Path


def gloo_threads() -> list[str]:
    names = (file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm"))
    return sorted(name for name in names if "gloo" in name)


# Registered before any other, so called after them.
atexit.register(lambda: print(f"at exit: {gloo_threads()}", file=sys.stderr))

if __name__ == "__main__":
    from mtl_nlp.cli import main

    main()
