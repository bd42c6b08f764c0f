"""How much of the machine's work goes to real tokens: padding waste and real tokens per second, for log and progress bar."""

from __future__ import annotations

import time


class Throughput:
    """Tokens, token positions and seconds of the steps since the last line of the log.

    Seconds are those of the steps alone, from the fetching of a step's batches to its end; evaluation and saving do not count.
    Padding is the share of a batch's token positions, rows times the longest of them, that hold no token. (Where the encoder
    works without padding, its token-wise layers leave these out, and only attention may meet them.)
    """

    def __init__(self) -> None:
        self.tokens = self.positions = 0
        self.seconds = 0.0
        self._begun: float | None = None

    def begin(self) -> None:
        """A step's batches are about to be fetched."""
        self._begun = time.perf_counter()

    def note(self, tokens: int, positions: int) -> None:
        """What a step's batches hold, over all processes."""
        self.tokens += tokens
        self.positions += positions

    def end(self) -> None:
        """The step is done."""
        if self._begun is not None:
            self.seconds += time.perf_counter() - self._begun
            self._begun = None

    def lines(self) -> dict[str, float]:
        """`tokens_per_second` and `padding` since the last call, for the log."""
        found = {}
        if self.seconds > 0:
            found["tokens_per_second"] = round(self.tokens / self.seconds, 1)
        if self.positions:
            found["padding"] = round(1 - self.tokens / self.positions, 4)
        self.tokens = self.positions = 0
        self.seconds = 0.0
        return found
