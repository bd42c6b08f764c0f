"""The peak of a process' memory is its own, not that of the one that started it."""

from __future__ import annotations

import subprocess
import sys

from mtl_nlp.training.memory import peak_memory

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
