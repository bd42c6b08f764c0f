"""A process that uses the Hub: runs the steps on its stdin and prints what each gave, as JSON.

A step is `{"run": [argv…], "token": …}`, a command of the command line in this process, or `{"python": "…"}`, code that may leave
its answer in `result`. (The Hub's client reads its settings at import, so this cannot run inside pytest; and starting Python
for each command would take most of the time.)
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from typing import Any


def run(argv: list[str]) -> dict[str, Any]:
    """A command's exit code and streams."""
    from mtl_nlp.cli import main

    out, err, code = _stream(), _stream(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv = ["mtl-nlp", *argv]
        try:
            main()
        except SystemExit as left:
            code = int(left.code or 0)
        except Exception:
            code = -1
            traceback.print_exc()
    return {"code": code, "out": _text(out), "err": _text(err)}


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]


def python(code: str, names: dict[str, Any]) -> dict[str, Any]:
    """What code left in `result`, or its traceback."""
    err = io.StringIO()
    try:
        with contextlib.redirect_stderr(err):
            exec(compile(code, "<step>", "exec"), names)
    except Exception:
        return {"code": -1, "out": None, "err": traceback.format_exc()}
    return {"code": 0, "out": names.get("result"), "err": err.getvalue()}


def steps() -> None:
    """All steps, in order."""
    names: dict[str, Any] = {}
    told = []
    for step in json.load(sys.stdin):
        os.environ.pop("HF_TOKEN", None)
        if step.get("token", "hf_anna"):
            os.environ["HF_TOKEN"] = step.get("token", "hf_anna")
        told.append(run(step["run"]) if "run" in step else python(step["python"], names))
    print(json.dumps(told))


if __name__ == "__main__":
    steps()
