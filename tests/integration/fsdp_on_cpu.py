"""The command line with FSDP on CPUs, which torch can do and accelerate does not offer: it takes the plugin for GPUs only.

Nothing else is changed: `python -m torch.distributed.run --nproc_per_node 2 tests/integration/fsdp_on_cpu.py train …`.
"""

from __future__ import annotations

from typing import Any

import accelerate.state
from accelerate.utils import DistributedType

from mtl_nlp.cli import main
from mtl_nlp.training import sharding

plain_init = accelerate.state.AcceleratorState.__init__


def init_with_fsdp(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    """As for several GPUs: the plugin makes the type FSDP."""
    plain_init(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        accelerate.state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


if __name__ == "__main__":
    accelerate.state.AcceleratorState.__init__ = init_with_fsdp
    sharding.has_accelerator = lambda training: True  # type: ignore[assignment]
    main()
