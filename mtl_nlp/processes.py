"""The group of processes that a launcher (`torchrun`, `accelerate launch`) has started."""

from __future__ import annotations

import atexit
import gc
from functools import cache


@cache
def leave_at_exit() -> None:
    """Leave torch's group of processes, where there is one, before the interpreter ends.

    Gloo's threads let go of the tensors of a finished exchange some time after it. One that does so while the interpreter is
    being torn down can no longer take its lock, and aborts the process (exit code -6) after all work is done.
    """
    atexit.register(_leave)


def _leave() -> None:
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
        gc.collect()  # a model that DDP has wrapped holds the group, and its threads with it
