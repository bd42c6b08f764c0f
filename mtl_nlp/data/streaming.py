"""The first rows of a source that is not read whole.

`data.rows` takes so many rows of each split, in the source's order. With `data.streaming` no more than these are downloaded; they
are kept in an Arrow file like any other split, so that texts are shuffled, shared, checked and resumed as always.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import FaultyInput, fault

BATCH, SAMPLE = 1000, 1000


def first_rows(data: Any, rows: int | None, where: str) -> Any:
    """A dataset, or a stream of rows, as a dataset of its first `rows`; all of them when None.

    Raises:
        FaultyInput: the stream breaks off, or a column holds several types.
    """
    from datasets import Dataset

    from .rows import spool

    if isinstance(data, Dataset):
        return data if rows is None or rows >= len(data) else data.select(range(rows))
    try:
        # Files without a schema are judged by more rows than the first batch, whose column may be empty.
        features = data.features or Dataset.from_list(list(data.take(min(rows or SAMPLE, SAMPLE)))).features
        return spool(_batches(data if rows is None else data.take(rows), list(features)), features)
    except FaultyInput:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise fault(f"the stream cannot be read: {lines[0][:300]}", where=where, key="data.streaming") from error


def _batches(stream: Any, columns: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    for batch in stream.iter(batch_size=BATCH):
        size = len(next(iter(batch.values())))
        yield {column: batch.get(column, [None] * size) for column in columns}


def stream_files(loader: str, paths: Sequence[Path], options: dict[str, Any]) -> Any:
    """Local files as a stream of rows."""
    from datasets import load_dataset

    return load_dataset(loader, data_files=[str(path) for path in paths], split="train", streaming=True, **options)
