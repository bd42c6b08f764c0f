"""A group of processes is left before the interpreter ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
from tests.integration.threads_at_exit import gloo_threads
from mtl_nlp.processes import leave_at_exit
import torch.distributed.nn.functional  # as transformers' Trainer does; later, its defaults would keep the group
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

leave_at_exit()
distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
cycle = {"model": DistributedDataParallel(torch.nn.Linear(2, 2))}
cycle["itself"] = cycle
print(gloo_threads())
del cycle
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the names of threads as Linux gives them")
def test_no_thread_of_the_group_is_left_although_a_wrapped_model_in_a_cycle_held_it() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "pt_gloo_runloop" in done.stdout
    assert "at exit: []" in done.stderr
