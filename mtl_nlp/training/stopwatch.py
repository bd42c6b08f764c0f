"""Where the wall time of a training step goes: a stopwatch with sections, put around the parts of a trainer and taken off again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..model.pooled_heads import PooledHeads
    from .trainer import MultiTaskTrainer

OTHER = "other"
DATA, COUNTING, WEIGHTS, ENCODER, ROWS = (
    "data",
    "counting",
    "weights and shares",
    "forward: encoder",
    "forward: rows of heads",
)
LOSSES, BACKWARD = "losses", "backward"
CLIPPING, OPTIMIZER, BALANCING = "gradient norm", "optimizer", "balancing"
CALLBACKS, LOGGING = "callbacks", "logging"
APART = ("evaluation", "saving")  # between steps, no part of one
HEAD = "forward: head "
MODEL = (ENCODER, ROWS, LOSSES, BACKWARD, CLIPPING, OPTIMIZER, BALANCING)
"""What a bare loop around the same model does too; heads' forward passes as well."""


def is_model(section: str) -> bool:
    """Whether a section is the model's forward or backward pass or the optimizer, rather than the toolkit's own work."""
    return section in MODEL or section.startswith(HEAD)


class Stopwatch:
    """Self time of nested sections, in seconds; what is in none of them is `other`.

    Args:
        synchronise: called before a clock is read; on a GPU work is only queued, so it has to be waited for.
    """

    def __init__(self, synchronise: Callable[[], Any] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.running = False
        self._synchronise = synchronise
        self._open = [OTHER]
        self._mark = 0.0
        self._undo: list[tuple[Any, str, Any]] = []

    def start(self) -> None:
        """Begin or go on."""
        self._mark, self._open, self.running = self._now(), [OTHER], True

    def stop(self) -> None:
        """Hold on."""
        if self.running:
            self._credit()
            self.running = False

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Time inside belongs to `name`, but for the sections inside it."""
        self._credit()
        self._open.append(name)
        try:
            yield
        finally:
            self._credit()
            if len(self._open) > 1:  # not stopped and started meanwhile
                self._open.pop()

    def _now(self) -> float:
        if self._synchronise is not None:
            self._synchronise()
        return time.perf_counter()

    def _credit(self) -> None:
        now = self._now()
        name = self._open[-1]
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._mark
        self._mark = now

    def around(self, owner: Any, method: str, name: str | Callable[..., str]) -> None:
        """Put a section around a method of one object; `name` may depend on the method's arguments."""
        original = getattr(owner, method)
        self._undo.append((owner, method, vars(owner).get(method)))

        @wraps(original)  # with its attributes: torch marks an optimizer's step
        def timed(*args: Any, **kwargs: Any) -> Any:
            if not self.running:
                return original(*args, **kwargs)
            with self.section(name if isinstance(name, str) else name(*args, **kwargs)):
                return original(*args, **kwargs)

        setattr(owner, method, timed)

    def take_off(self) -> None:
        """Put every method back."""
        while self._undo:
            owner, method, before = self._undo.pop()
            delattr(owner, method)
            if before is not None:
                setattr(owner, method, before)


def stopwatch_on(trainer: MultiTaskTrainer) -> Stopwatch:
    """A stopwatch around the parts of a trainer's step; not running yet. The trainer's optimizer has to be made."""
    cuda = trainer.args.device.type == "cuda"
    watch = Stopwatch(torch.cuda.synchronize if cuda else None)
    model: Any = trainer.multi
    watch.around(trainer, "get_batch_samples", DATA)
    watch.around(trainer, "_prepare_inputs", DATA)
    watch.around(trainer, "_count", COUNTING)
    watch.around(model, "_encode", ENCODER)
    watch.around(model, "_head_logits", lambda name, *args, **kwargs: HEAD + name)
    watch.around(model, "_pooled_logits", lambda hidden, tasks: _side_by_side(model.pooled_heads, tasks))
    watch.around(model, "_states", ROWS)
    watch.around(model, "task_losses", LOSSES)
    watch.around(trainer, "compute_loss", WEIGHTS)
    watch.around(trainer.accelerator, "backward", BACKWARD)
    watch.around(trainer.balancer, "training_step", OTHER if trainer.balancer.plain else BALANCING)
    watch.around(trainer.balancer, "after_update", BALANCING)
    watch.around(trainer, "_clip_grad_norm", CLIPPING)
    watch.around(trainer, "_get_grad_norm", CLIPPING)
    # Not around the scheduler's: a checkpoint pickles all that hangs on it.
    for owner, method in ((trainer.optimizer, "step"), (trainer.model, "zero_grad")):
        watch.around(owner, method, OPTIMIZER)
    watch.around(trainer.callback_handler, "call_event", CALLBACKS)
    watch.around(trainer, "log", LOGGING)
    for method, name in zip(("evaluate", "_save_checkpoint"), APART, strict=True):
        watch.around(trainer, method, name)
    return watch


def _side_by_side(pooled: PooledHeads | None, tasks: Iterable[str]) -> str:
    names = [name for name in tasks if pooled is not None and name in pooled.chains]
    return HEAD + names[0] if len(names) == 1 else f"{HEAD}(all on the first token)"
