"""On how many threads an int8 graph answers short inputs: tried on the inputs themselves, again from time to time.

Products of few tokens are so short that threads may cost more by waiting for each other than they save: where two virtual cores
share a physical one, or where other work takes one of them. That changes within minutes: on two virtual cores a text took 3.9 to
7.5 ms on two threads while it took 4.8 to 5.9 ms on one.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

logger = logging.getLogger("mtl_nlp")

# Inputs of a turn, and turns of each session; half of a turn does not count, while the threads of the other session are still
# about. Virtual cores take some tenths of a second of work to run at their full rate, so the first turns are longer.
FIRST, LATER = (128, 2), (64, 1)
AGAIN = 1024  # inputs from one trial to the next
MARGIN = 1.05  # a session that is less quicker than this is not changed for
# What an input takes beside its tokens, in tokens; so that times of different ones can be compared.
BASE_TOKENS = 20


class QuickerSession:
    """Answers by several threads or by one, whichever is quicker at the time.

    Args:
        several: a session with its threads.
        one: opens the same with one thread, when it is needed.
        keep: hold both, to try again; otherwise the first verdict stands and the slower one is let go.
    """

    def __init__(self, several: Any, one: Callable[[], Any], *, keep: bool = True) -> None:
        self.sessions, self._open, self.keep = [several], one, keep
        self.best = 0
        self._turn, self._runs, self._turns = threading.Lock(), *FIRST
        self._seconds: list[float] | None = []
        self._since = 0

    def run(self, names: Sequence[str], fed: dict[str, Any], tokens: int) -> list[Any]:
        """The outputs of these names as arrays."""
        if not self._turn.acquire(blocking=False):  # another thread is here, which counts or tries
            return list(self.sessions[self.best].run(list(names), fed))
        try:
            if self._seconds is None:
                self._since += 1
                if self.keep and self._since >= AGAIN:
                    self._seconds, self._since, (self._runs, self._turns) = [], 0, LATER
                return list(self.sessions[self.best].run(list(names), fed))
            return self._tried(list(names), fed, tokens)
        finally:
            self._turn.release()

    def _tried(self, names: list[str], fed: dict[str, Any], tokens: int) -> list[Any]:
        """Answered by the session whose turn it is, and timed; after the last turn the quicker one goes on."""
        assert self._seconds is not None
        if len(self.sessions) == 1:
            self.sessions.append(self._open())
        place = len(self._seconds) // self._runs % 2
        start = time.perf_counter()
        found = list(self.sessions[place].run(names, fed))
        self._seconds.append((time.perf_counter() - start) / (tokens + BASE_TOKENS))
        if len(self._seconds) == 2 * self._turns * self._runs:
            self._decide(self._seconds)
        return found

    def _decide(self, seconds: Sequence[float]) -> None:
        half, first = self._runs // 2, self._runs == FIRST[0]
        turns = [seconds[begin + half : begin + self._runs] for begin in range(0, len(seconds), self._runs)]
        taken = [statistics.median(chain.from_iterable(turns[place::2])) for place in (0, 1)]
        before, other = self.best, 1 - self.best
        if taken[other] * (1.0 if first else MARGIN) < taken[before]:
            self.best = other
        count = self.sessions[0].get_session_options().intra_op_num_threads
        if first or self.best != before:
            told = "int8: short inputs on %d of %d threads (%.3f ms a token on %d, %.3f on one)"
            logger.info(told, (count, 1)[self.best], count, 1e3 * taken[0], count, 1e3 * taken[1])
        self._seconds = None
        if not self.keep:
            self.sessions, self.best = [self.sessions[self.best]], 0
