"""What stands between a stream of rows and the passes: settings of a call, windows of rows, devices and formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..errors import UserError, fault, listed
from ..recipe import RESOLVED, EncoderSpec
from ..schema import read_yaml
from ..task import Task
from .inputs import Item, Piece, as_item, pieces_of, rows_of

T = TypeVar("T")
DTYPES = {
    "float32": None,
    "fp32": None,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}


SPLITTERS = ("given", "whitespace", "pretokenizer")


@dataclass
class Tally:
    """What a stream has done so far: rows answered, and those of which a task read the beginning only."""

    rows: int = 0
    truncated: int = 0


@dataclass(frozen=True)
class Settings:
    """Of one call."""

    tasks: tuple[Task, ...]
    named: bool
    size: int
    top: int | None
    words: str | None
    decoded: bool = False

    def splitter_of(self, task: Task) -> str:
        """How raw text is cut into words for a token task."""
        return self.words or task.word_splitter


Fed = tuple[Item, list[Piece]]


def fed_rows(rows: Iterable[Any], settings: Settings, lookahead: int) -> Iterator[Fed]:
    """Rows with their pieces, numbered within windows of `lookahead`."""
    for number, row in enumerate(rows_of(rows)):
        item = as_item(row, f"row {number + 1}")
        yield item, pieces_of(item, number % lookahead, settings.tasks, named=settings.named)


def windows(fed: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` rows; what stands before a fault comes before it."""
    held: list[T] = []
    try:
        for one in fed:
            held.append(one)
            if len(held) == size:
                yield held
                held = []
    except UserError:
        # What stands before the fault is still answered.
        if held:
            yield held
        raise
    if held:
        yield held


def size_of(piece: Piece) -> int:
    """About how long a piece is, in characters."""
    return sum(len(value) if isinstance(value, str) else sum(map(len, value)) for value in piece.fields.values())


def parts_of(group: Sequence[Piece], size: int) -> list[list[Piece]]:
    """A group in parts of at most `size` pieces of similar length, the longest first; as it is if it is no larger."""
    if len(group) <= size:
        return [list(group)]
    order = sorted(group, key=size_of, reverse=True)
    return [order[start : start + size] for start in range(0, len(order), size)]


def row_settings(path: Path) -> tuple[int | None, int]:
    """(max_length, stride) of the training; the defaults where the folder does not say."""
    if not (path / RESOLVED).is_file():
        return None, EncoderSpec().stride
    data, source = read_yaml(path / RESOLVED, "resolved recipe")
    encoder = data.get("encoder")
    encoder = encoder if isinstance(encoder, dict) else {}
    found = encoder.get("max_length"), encoder.get("stride", EncoderSpec().stride)
    if not isinstance(found[0], int | None) or not isinstance(found[1], int):
        where = source.where(("encoder",))
        raise fault(
            f"found {found[0]!r} and {found[1]!r}",
            where=where,
            key="encoder.max_length, encoder.stride",
            allowed="numbers",
        )
    return found


def device_of(wanted: str | torch.device | None) -> torch.device:
    """The device of that name, if it can be used; CUDA where there is one if None.

    Raises:
        UserError: it cannot.
    """
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise fault(f'"{wanted}" cannot be used: {reason}', key="device", allowed="cpu, cuda, cuda:1 …") from None
    return device


def autocast(device: torch.device, dtype: str | torch.dtype | None) -> Callable[[], AbstractContextManager[Any]]:
    """What is entered around a pass in that format.

    Raises:
        UserError: an unknown format.
    """
    name = str(dtype).removeprefix("torch.")
    if dtype is not None and name not in DTYPES:
        raise fault(f'found "{name}"', key="dtype", allowed=listed(DTYPES))
    kind = DTYPES.get(name)
    return nullcontext if kind is None else lambda: torch.autocast(device.type, kind)


def checked_splitter(words: str | None) -> str | None:
    """The splitter, if there is one of that name.

    Raises:
        UserError: there is none.
    """
    if words is not None and words not in SPLITTERS:
        raise fault(f'found "{words}"', key="words", allowed=listed(SPLITTERS))
    return words
