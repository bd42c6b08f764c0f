"""What the pages show works: every block of Python, shell and YAML runs, a page's in order and in one folder."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtl_nlp.kinds import HEADS

from .pages import PAGES, blocks, name_of
from .runner import Runner, agrees, commands, is_skipped, transcript

RUN = ("python", "bash", "console", "yaml")
NOT_RUN = {
    "README.md": [
        "pip install torch --index-url https://download.pytorch.org/whl/cpu",
        'pip install ".[demo]"',
        "make demo",
        "make test",
    ],
    "docs/how-to/build-an-assistant.md": ["python -m mtl_nlp demo --assistant"],
    "docs/how-to/explain-a-decision.md": [
        "python scripts/studies/faithfulness.py CHECKPOINT DATA_ROOT --texts 8 --write"
    ],
    "docs/how-to/train-on-several-devices.md": ["torchrun --nproc_per_node 4 -m mtl_nlp train recipe.yaml"],
    "CONTRIBUTING.md": ["make test", "make check", "make slow", "make demo"],
}
WITH_BLOCKS = [page for page in PAGES if any(block.language in RUN for block in blocks(page))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; what a page leaves in this process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    log, environment, modules, heads = (
        logging.getLogger("mtl_nlp"),
        dict(os.environ),
        set(sys.modules),
        {**HEADS._entries},
    )
    state = (log.handlers, log.propagate, log.level)
    yield tmp_path
    log.handlers, log.propagate, log.level = state
    os.environ.clear()
    os.environ.update(environment)
    HEADS._entries = heads
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name_of)
def test_the_blocks_of_a_page_run(page: Path, folder: Path, tiny_encoder: Path) -> None:
    runner, ran = Runner(folder, tiny_encoder), 0
    for block in blocks(page):
        runner.run(block)
        ran += block.language in RUN
    assert ran


def test_only_what_installs_or_takes_minutes_is_not_run() -> None:
    found: dict[str, list[str]] = {}
    for page in PAGES:
        for block in blocks(page):
            lines = commands(block.text) if block.language == "bash" else transcript(block.text)[0]
            skipped = [line for line in lines if is_skipped(line)] if block.language in ("bash", "console") else []
            if skipped:
                found.setdefault(name_of(page), []).extend(skipped)
    assert found == NOT_RUN


def test_every_block_names_its_language_and_json_is_json() -> None:
    known = {*RUN, "json", "toml", "text", "mark"}
    for page in PAGES:
        for block in blocks(page):
            assert block.language in known, block.place
            if block.language == "json":
                assert json.loads(block.text), block.place


def test_lines_agree_but_for_numbers_and_widths() -> None:
    assert agrees("│ topics  │ 0.7600 │", "│ topics    │   0.5 │")
    assert agrees("checkpoint: …/runs/a", "checkpoint: /tmp/x/runs/a")
    assert not agrees("│ topics │ 0.7600 │", "│ topics │ accuracy │")
    assert not agrees("checkpoint: …/runs/a", "checkpoint: /tmp/x/runs/b")
