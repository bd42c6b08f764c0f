"""Two thousand damaged checkpoints: each loads as it was or is refused with a message; none crashes, hangs or loads wrong.

Half of them carry checksums that fit the damage, as somebody with bad intent would write them: those may load (a changed label
name is then simply another checkpoint), but only as what their own files say, and never with a traceback.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from mtl_nlp.errors import UserError
from mtl_nlp.hub.checkpoint import load_model, load_tokenizer
from mtl_nlp.model.files import write_checksums
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.task import Task
from tests.damage import damage

ROOT = Path(__file__).resolve().parents[2]
IDS = torch.tensor([[2, 70, 71, 72, 3], [2, 73, 74, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
CASES = 2100
FILES = ("config.json", "model.safetensors", "checksums.json", "tokenizer.json", "tokenizer_config.json")
SECONDS = 20  # for one checkpoint; a hang is a failure


@pytest.fixture(scope="module")
def good(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two tasks, once whole and once in shards."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("good")
    tasks = [
        Task(name="mood", head="sequence_classification", labels=["bad", "good"]),
        Task(name="ner", head="token_classification", labels=["LOC", "PER"]),
    ]
    torch.manual_seed(0)
    model = MultiTaskModel.from_encoder(str(tiny_encoder), tasks)
    for name, size in (("whole", "1GB"), ("shards", "40KB")):
        model.save_pretrained(folder / name, max_shard_size=size)
        AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(folder / name)
        write_checksums(folder / name)
    assert len(list((folder / "shards").glob("*.safetensors"))) > 1
    return folder


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise where this takes longer."""

    def late(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def logits(model: MultiTaskModel) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return dict(model(IDS, MASK).logits)


def outcome(folder: Path, expected: dict[str, torch.Tensor] | None) -> str:
    """`refused` or `loaded`; anything else is the test's failure."""
    try:
        with limited(SECONDS):
            model = load_model(folder)
            tokenizer = load_tokenizer(folder)
            found = logits(model)
    except UserError as error:
        return "refused" if str(error).strip() else "refused without a word"
    assert len(tokenizer) > 0
    if expected is not None:
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[task], expected[task]) for task in expected)
        assert [task.labels for task in model.tasks] == [["bad", "good"], ["LOC", "PER"]]
    return "loaded"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_two_thousand_damaged_checkpoints(part: int, good: Path, tmp_path: Path) -> None:
    """Four parts of 525; odd parts are sharded, and the later two have checksums that were made to fit."""
    kind, fitting = ("shards" if part % 2 else "whole"), part >= 2
    source, folder = good / kind, tmp_path / "damaged"
    shutil.copytree(source, folder)
    contents = {path.name: path.read_bytes() for path in source.iterdir() if path.is_file()}
    names = sorted(name for name in contents if not (fitting and name == "checksums.json"))
    expected = logits(load_model(source))
    seen: Counter[str] = Counter()
    generator = random.Random(part)
    for case in range(CASES // 4):
        name = names[case % len(names)]
        what = damage(folder / name, contents[name], generator)
        if fitting:
            write_checksums(folder)
        try:
            seen[outcome(folder, None if fitting else expected)] += 1
        except Exception as error:
            raise AssertionError(f"case {case}: {what}") from error
        for file in {name, "checksums.json"}:
            (folder / file).write_bytes(contents[file])
    assert seen["refused"] + seen["loaded"] == CASES // 4, seen
    assert seen["refused"] > 0
    if not fitting:
        # Without fitting checksums only a damage that changes nothing (white space in the checksums) may load.
        assert seen["loaded"] < CASES // 40, seen


def test_damaged_checkpoints_in_the_default_suite(good: Path, tmp_path: Path) -> None:
    """A sample of the above."""
    folder = tmp_path / "damaged"
    shutil.copytree(good / "whole", folder)
    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    expected, generator = logits(load_model(folder)), random.Random(7)
    for case in range(60):
        name = FILES[case % len(FILES)]
        what = damage(folder / name, contents[name], generator)
        fitting = case % 2 == 0 and name != "checksums.json"
        if fitting:
            write_checksums(folder)
        try:
            outcome(folder, None if fitting else expected)
        except Exception as error:
            raise AssertionError(f"case {case}: {what}") from error
        for file in {name, "checksums.json"}:
            (folder / file).write_bytes(contents[file])


@pytest.mark.slow
def test_a_handful_through_the_command_line(good: Path, tmp_path: Path) -> None:
    generator = random.Random(11)
    for name in FILES[:4]:
        folder = tmp_path / name
        shutil.copytree(good / "whole", folder)
        (folder / name).write_bytes((folder / name).read_bytes()[: generator.randrange(200)])
        done = subprocess.run(
            [sys.executable, "-m", "mtl_nlp", "predict", str(folder), "--text", "anna"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
