"""Runs a page's blocks in order, in one folder and one Python namespace, as a reader would.

`mtl-nlp` lines call the program's own entry point in this process (starting Python and importing torch would take most of the
time); other lines go to bash. Three things are done to save time, and nothing else: the encoder is a tiny one,
`mtl-nlp train` (and `add-task`) stops
after two steps, and `mtl-nlp check` does not probe. For Python the tiny encoder stands in the working folder under the default
encoder's name, where a folder comes before the Hub; the command line is told with `--set`.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from mtl_nlp.cli import main
from mtl_nlp.recipe import DEFAULT_ENCODER, RecipeFile, make_recipe
from mtl_nlp.schema import known_keys, parse_yaml
from mtl_nlp.task import Task, make_task
from mtl_nlp.training.prepare import check_recipe

from .pages import ROOT, Block, blocks

SHORTER = {
    "train": ["--set", "training.max_steps=2"],
    "add-task": ["--set", "training.max_steps=2"],
    "check": ["--no-probe"],
    "fuse distil": ["--set", "training.max_steps=2"],
    "compare": ["--set", "training.max_steps=2"],
}
SKIPPED = ("make", "pip", "python", "git", "torchrun")
NUMBER = re.compile(r"\d+(\.\d+)?")


def commands(text: str) -> list[str]:
    """The command lines of a block, `\\` at a line's end joined, comments left out."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def transcript(text: str) -> tuple[list[str], list[str]]:
    """The commands (`$ …`) of a console block, and the lines that are shown as their output."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line[2:] for line in lines if line.startswith("$ ")], [line for line in lines if not line.startswith("$ ")]


def is_skipped(command: str) -> bool:
    """Whether a command is for the reader alone: it installs something or starts what takes minutes."""
    return command.split()[0] in SKIPPED


def normal(line: str) -> str:
    """A line without what differs from run to run: numbers, and the width of tables."""
    return " ".join(NUMBER.sub("#", re.sub("[━─]+", "─", line)).split())


def agrees(shown: str, actual: str) -> bool:
    """Whether a line of output is the one that the page shows; `…` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in normal(shown).split("…"))
    return re.fullmatch(pattern, normal(actual)) is not None


def shape(value: Any) -> Any:
    """The form of JSON data: keys, and of the values their types; entries of lists are not looked at."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return "number" if isinstance(value, int | float) else type(value).__name__


class Runner:
    """One page's folder, namespace and latest output."""

    def __init__(self, folder: Path, encoder: Path) -> None:
        self.folder, self.encoder = folder, encoder
        (folder / DEFAULT_ENCODER).parent.mkdir()
        (folder / DEFAULT_ENCODER).symlink_to(encoder)
        self.namespace: dict[str, Any] = {"__name__": "page"}
        self.output = self.errors = ""

    def run(self, block: Block) -> None:
        """Run one block, or write it where its mark says so."""
        if block.mark == "like":
            self.python(next(b for b in blocks(ROOT / block.argument) if b.language == "python"))
        elif block.mark == "file":
            path = self.folder / block.argument
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        if block.language == "yaml":
            self.yaml(block)
        elif block.language == "json" and block.mark == "answer":
            self.answer(block)
        elif block.mark not in ("file", "like"):
            step = {"python": self.python, "bash": self.bash, "console": self.console}.get(block.language)
            if step is not None:
                step(block)

    def python(self, block: Block) -> None:
        """Run Python; a block with prompts is compared with its outputs."""
        if not block.text.startswith(">>>"):
            code = compile("\n" * block.line + block.text, str(ROOT / block.page), "exec")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, self.namespace)
            return
        test = doctest.DocTestParser().get_doctest(block.text, {}, block.place, block.page, block.line)
        test.globs = self.namespace
        report = io.StringIO()
        failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.write, clear_globs=False)
        assert not failed, report.getvalue()

    def bash(self, block: Block) -> None:
        """Run the commands; all but the last must succeed, the last must leave with the code of the mark."""
        self.all_of(commands(block.text), block)

    def console(self, block: Block) -> None:
        """Run the commands; every line shown must be in their output."""
        wanted, shown = transcript(block.text)
        actual = self.all_of(wanted, block)
        for line in shown:
            assert any(agrees(line, found) for found in actual), (
                f"{block.place}: not in the output: {line}\n" + "\n".join(actual)
            )

    def all_of(self, lines: list[str], block: Block) -> list[str]:
        """The output of some commands, stdout before stderr."""
        output: list[str] = []
        for number, command in enumerate(lines, 1):
            if is_skipped(command):
                continue
            wanted = int(block.argument) if block.mark == "exit" and number == len(lines) else 0
            code = self.command(command)
            assert code == wanted, f"{block.place}: {command}: exit code {code}\n{self.output}\n{self.errors}"
            output += re.split(r"[\r\n]+", self.output + self.errors)
        return output

    def command(self, command: str) -> int:
        """Run one command; its exit code."""
        if not command.startswith("mtl-nlp"):
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
            self.output, self.errors = done.stdout, done.stderr
            return done.returncode
        words = shlex.split(command)
        name = " ".join(words[1:3]) if words[1] == "fuse" else words[1]
        if name in SHORTER:
            words += ["--set", f"encoder.name={self.encoder}", *SHORTER[name]]
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        before, sys.argv = sys.argv, words
        code = 0
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        finally:
            sys.argv = before
            self.output, self.errors = (self._read(stream) for stream in (out, err))
        return code

    def _read(self, stream: io.TextIOWrapper) -> str:
        stream.flush()
        return stream.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]

    def yaml(self, block: Block) -> None:
        """Load a recipe, a task, or some keys of one of them."""
        data, source = parse_yaml(block.text, block.place)
        base = (self.folder / block.argument).parent if block.mark == "file" else self.folder
        if "head" in data or not data.keys() <= RecipeFile.model_fields.keys():
            assert data.keys() <= set(known_keys(Task, ())), f"{block.place}: neither a recipe's keys nor a task's"
            make_task({"name": "page", "head": "sequence_classification", **data}, source, base)
        else:
            check_recipe(make_recipe({"tasks": ["demo_intent"], **data}, source, base))

    def answer(self, block: Block) -> None:
        """Compare a JSON block with the JSON that the command before it wrote."""
        text = self.output.strip()
        found = json.loads(text if text.startswith("{\n") else text.splitlines()[-1])
        assert shape(json.loads(block.text)) == shape(found), block.place
