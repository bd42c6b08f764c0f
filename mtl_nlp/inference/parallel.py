"""One stream of rows answered by several processes, in the order of the input and in bounded memory.

* `in_processes` starts workers of its own: windows of rows go out, at most two for each worker at a time, and come back in order.
* `in_ranks` is for processes that `torchrun` or `accelerate launch` has started: every one reads the whole input and answers its
  share of the windows; the first gathers and yields.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError, fault
from ..processes import leave_at_exit
from .flow import Tally, windows
from .inputs import Item, as_item, rows_of


@dataclass(frozen=True)
class Job:
    """What every process does.

    Attributes:
        checkpoint: a folder, or a name on the Hub.
        device: for all of them; if None each takes the next GPU, or the CPU where there is none.
        options: further arguments of `Predictor.from_pretrained`.
        call: arguments of `Predictor.stream`.
        window: rows that are answered together.
    """

    checkpoint: str
    device: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    window: int = 2048


@dataclass
class Answered:
    """One window's answers; `fault` is what ended it early."""

    rows: list[dict[str, Any]]
    truncated: int
    fault: str | None = None


def in_processes(job: Job, rows: Iterable[Any], processes: int, tally: Tally | None = None) -> Iterator[dict[str, Any]]:
    """As `Predictor.stream`, by so many processes.

    Raises:
        UserError: as `stream`; the rows before a faulty one are answered first. A worker that cannot start or dies.
    """
    if processes < 1:
        raise fault(f"found {processes}", key="processes", allowed="at least 1")
    tally = tally or Tally()
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(processes):
        numbers.put(number)
    pending: deque[Future[Answered]] = deque()
    stopped: UserError | None = None
    with ProcessPoolExecutor(processes, context, _start, (job, numbers, processes)) as pool:
        coming = _windows(rows, job.window)
        try:
            while stopped is None or pending:
                while stopped is None and len(pending) < 2 * processes:
                    try:
                        pending.append(pool.submit(_work, next(coming)))
                    except StopIteration:
                        stopped = _Done()
                    except UserError as error:
                        stopped = error
                if pending:
                    yield from _taken(pending.popleft().result(), tally)
        except BrokenProcessPool as error:
            raise UserError(
                "a process died or could not load the checkpoint; with one process its reason is told"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if stopped is not None and not isinstance(stopped, _Done):
        raise stopped


class _Done(UserError):
    """The input has ended."""

    def __init__(self) -> None:
        super().__init__("")


def in_ranks(predictor: Any, job: Job, rows: Iterable[Any], tally: Tally | None = None) -> Iterator[dict[str, Any]]:
    """As `Predictor.stream` in processes that a launcher has started; yields in the first of them alone.

    Raises:
        UserError: as `stream`, in all of them.
    """
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group("gloo")  # only answers are exchanged, no tensors of a device
        leave_at_exit()
    tally = tally or Tally()
    rank, world = distributed.get_rank(), distributed.get_world_size()
    coming = _windows(rows, job.window)
    stopped: UserError | None = None
    while stopped is None:
        own: Answered | None = None
        for place in range(world):
            try:
                window = next(coming)
            except StopIteration:
                stopped = _Done()
                break
            except UserError as error:
                stopped = error
                break
            if place == rank:
                own = answered(predictor, window, job.call)
        every: list[Answered | None] = [None] * world
        distributed.all_gather_object(every, own)
        for one in every:
            if one is not None:
                for row in _taken(one, tally):
                    if rank == 0:
                        yield row
    if stopped is not None and not isinstance(stopped, _Done):
        raise stopped


def answered(predictor: Any, window: list[Item], call: dict[str, Any]) -> Answered:
    """The answers of a window, up to its first fault."""
    tally = Tally()
    found: list[dict[str, Any]] = []
    try:
        found.extend(predictor.stream(window, tally=tally, **call))
    except UserError as error:
        return Answered(found[: tally.rows], tally.truncated, str(error))
    return Answered(found, tally.truncated)


def _taken(one: Answered, tally: Tally) -> Iterator[dict[str, Any]]:
    tally.truncated += one.truncated
    for row in one.rows:
        tally.rows += 1
        yield row
    if one.fault is not None:
        raise UserError(one.fault)


def _windows(rows: Iterable[Any], size: int) -> Iterator[list[Item]]:
    return windows((as_item(row, f"row {number}") for number, row in enumerate(rows_of(rows), 1)), size)


_WORKER: dict[str, Any] = {}


def _start(job: Job, numbers: Any, processes: int) -> None:
    """In a worker: the model, on a device of its own where there are several."""
    import torch

    from .predictor import Predictor

    number, device = numbers.get(), job.device
    if device is None and torch.cuda.is_available():
        device = f"cuda:{number % torch.cuda.device_count()}"
    torch.set_num_threads(max(1, (int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1) // processes))
    _WORKER["predictor"] = Predictor.from_pretrained(job.checkpoint, device, **job.options)
    _WORKER["call"] = job.call


def _work(window: list[Item]) -> Answered:
    return answered(_WORKER["predictor"], window, _WORKER["call"])
