"""Memory: the peak of a process is its own, not that of the one that started it; what an ended run held is given back."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import Any

import torch
from torch import nn

from mtl_nlp.training.embedding_gradient import RowGradient
from mtl_nlp.training.memory import peak_memory, release_memory

CHILD = "from mtl_nlp.training.memory import peak_memory; print(peak_memory())"


def test_a_child_has_a_peak_of_its_own() -> None:
    before = peak_memory()
    held = bytearray(b"1") * (1 << 30)
    mine = peak_memory()
    child = int(subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True).stdout)
    assert before is not None
    assert mine is not None
    assert mine >= len(held)
    assert 0 < child < mine / 1.5


def test_a_row_gradient_goes_with_its_table() -> None:
    table = nn.Embedding(50, 8)
    kept: list[Any] = [RowGradient(table)]
    table(torch.tensor([1, 2])).sum().backward()
    assert table.weight.grad is kept[0].buffer
    gone = [weakref.ref(kept[0].buffer), weakref.ref(table.weight)]
    kept.clear()
    del table
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_objects_that_refer_to_each_other_go_when_memory_is_released() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    one.other, other.one = [other], [one]  # type: ignore[assignment]
    gone = weakref.ref(one)
    gc.disable()
    try:
        del one, other
        assert gone() is not None
        release_memory()
    finally:
        gc.enable()
    assert gone() is None
