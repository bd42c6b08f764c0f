"""Rows of token ids → decoded annotations, a bounded number of rows a pass.

Texts are sorted by length and cut into passes of at most `size` rows, so that padding is little and memory bounded; a text of more
windows goes through in parts, and is decoded whole. What a text is answered does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.batching import Record
from ..data.unlabelled import InputCollator
from ..data.windows import Row, RowEncoder, TextRows
from ..decoding import Decoded, Decoder, TextInput, decode_all, run_batch, score_records
from ..errors import UserError
from ..model.multitask import MultiTaskModel
from ..task import Task
from .inputs import Piece

Scores = list[NDArray[np.float32]]
ON_TOKENS = ("tags", "answer")


@dataclass
class EncodedPiece:
    """A piece and its rows.

    Attributes:
        rows: how each word splitter marks them; their token ids are the same.
    """

    piece: Piece
    rows: dict[str, TextRows]

    @property
    def first(self) -> TextRows:
        """The rows under any splitter: for tasks that read no words."""
        return next(iter(self.rows.values()))

    def words(self, splitter: str) -> list[tuple[int, int]]:
        """Offsets of the words in the piece's text."""
        return self.piece.word_offsets if self.piece.form == "tokens" else self.rows[splitter].words

    def text_input(self, splitter: str | None) -> TextInput:
        """What decoding has to know; the records are this caller's own."""
        rows = self.first if splitter is None else self.rows[splitter]
        records = [_record(row, i) for i, row in enumerate(rows.rows)]
        return TextInput(records, len(rows.words), self.piece.text if self.piece.form == "question" else "")


def _record(row: Row, place: int) -> Record:
    record: Record = {"input_ids": row.input_ids, "words": row.words, "starts": row.starts, "ends": row.ends}
    if row.token_type_ids is not None:
        record["token_type_ids"] = row.token_type_ids
    return record | {"first": place == 0}


def encode_pieces(
    pieces: Sequence[Piece], tokenizer: Any, splitters: Sequence[str], *, row_tasks: bool, max_length: int, stride: int
) -> list[EncodedPiece]:
    """The rows of pieces of one group; `splitters` are those of its token tasks, none if there is no such task."""
    form = pieces[0].form
    columns = {name: [piece.fields[name] for piece in pieces] for name in pieces[0].fields}
    encoded: list[dict[str, TextRows]] = [{} for _ in pieces]
    for splitter in splitters or [""]:
        encoder = RowEncoder(
            tokenizer,
            form,
            max_length=max_length,
            stride=stride,
            splitter=splitter,
            with_words=bool(splitters),
            row_tasks=row_tasks,
        )
        for rows, text in zip(encoded, encoder.encode(columns), strict=True):
            rows[splitter] = text
    return [EncodedPiece(piece, rows) for piece, rows in zip(pieces, encoded, strict=True)]


def passes(pieces: Sequence[EncodedPiece], size: int) -> Iterator[list[EncodedPiece]]:
    """Pieces of similar length, the longest first, at most `size` rows together (or one piece)."""
    lengths = [max(len(row.input_ids) for row in piece.first.rows) for piece in pieces]
    held: list[EncodedPiece] = []
    rows = 0
    for place in sorted(range(len(pieces)), key=lambda i: -lengths[i]):
        count = len(pieces[place].first.rows)
        if held and rows + count > size:
            yield held
            held, rows = [], 0
        held.append(pieces[place])
        rows += count
    if held:
        yield held


def check_numbers(task: str, scores: NDArray[np.float32]) -> None:
    """Refuse scores that are no numbers.

    Raises:
        UserError: NaN.
    """
    if np.isnan(scores).any():
        cure = "the weights are damaged, or the number format is too narrow: try float32"
        raise UserError(f"{task}: the model gives no number (NaN); {cure}")


class _RowScores(Decoder):
    """Keeps a text's scores as they are, row by row, without padding, so that parts of a text can be put together."""

    joins = False

    def decode(self, scores: NDArray[np.float32], texts: Sequence[TextInput]) -> list[Decoded]:
        """One `Decoded` a text whose value is its rows' scores."""
        check_numbers(self.task.name, scores)
        kind = self.task.kind.annotation
        if kind in ("choice", "relevance"):
            return [Decoded([row]) for row in scores]
        found, row = [], 0
        for text in texts:
            rows: Scores = []
            for record in text.records:
                shift, length = record.get("shift", 0), len(record["input_ids"])
                rows.append(self._own(scores[row], shift, length) if kind in ON_TOKENS else scores[row])
                row += 1
            found.append(Decoded(rows))
        return found

    def _own(self, scores: NDArray[np.float32], shift: int, length: int) -> NDArray[np.float32]:
        """A row's scores without padding, what is packed before its tokens kept."""
        start = self.packed + shift
        return np.concatenate([scores[: self.packed], scores[start : start + length]])


class Passes:
    """The forward passes of one kind of pieces; may be used from several threads.

    Args:
        model: in evaluation mode, on `device`.
        tasks: those that read the group.
        splitters: token task → its word splitter.
        size: most rows a pass.
        context: entered around the forward pass (autocast).
    """

    def __init__(
        self,
        model: MultiTaskModel,
        tokenizer: Any,
        tasks: Sequence[Task],
        splitters: dict[str, str],
        *,
        size: int,
        device: torch.device,
        context: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.model, self.tasks, self.splitters = model, list(tasks), splitters
        self.size, self.device, self.context = size, device, context
        self.collator = InputCollator(tokenizer, tasks)
        self.row_scores = {task.name: _RowScores(task) for task in tasks}
        self.decoders = {task.name: Decoder(task) for task in tasks}

    def run(self, pieces: Sequence[EncodedPiece], model: Any = None) -> dict[str, list[Decoded]]:
        """Task → its answer for each piece.

        Args:
            model: in the place of the own one.
        """
        model = self.model if model is None else model
        if sum(len(piece.first.rows) for piece in pieces) > self.size:
            return self._run_in_parts(pieces, model)
        wanted = {name: self.splitters.get(name) for name in self.decoders}
        inputs = {splitter: [piece.text_input(splitter) for piece in pieces] for splitter in {*wanted.values()}}
        first = next(iter(inputs.values()))
        records = [record for text in first for record in text.records]
        scores = score_records(model, self.decoders, self.collator, records, device=self.device, context=self.context)
        for name, values in scores.items():
            check_numbers(name, values)
        if not self.collator.padding.right:
            shifts = [record["shift"] for record in records]
            for texts in inputs.values():
                others = (record for text in texts for record in text.records)
                for record, shift in zip(others, shifts, strict=True):
                    record["shift"] = shift
        return decode_all(self.decoders, scores, {name: inputs[wanted[name]] for name in scores})

    def _run_in_parts(self, pieces: Sequence[EncodedPiece], model: Any) -> dict[str, list[Decoded]]:
        """Pieces with more rows together than a pass takes: scores are gathered, and each piece is decoded whole."""
        scores: dict[str, list[Scores]] = {task.name: [] for task in self.tasks}
        for piece in pieces:
            self._run_long(piece, scores, model)
        stacked = {name: _stacked([row for of_piece in found for row in of_piece]) for name, found in scores.items()}
        texts = {name: [piece.text_input(self.splitters.get(name)) for piece in pieces] for name in scores}
        return decode_all(self.decoders, stacked, texts)

    def _run_long(self, piece: EncodedPiece, scores: dict[str, list[Scores]], model: Any) -> None:
        """One piece of more rows than a pass takes; choices are compared with each other and stay together."""
        whole = piece.text_input(None)
        size = len(whole.records) if piece.piece.form == "choices" else self.size
        parts: dict[str, list[Scores]] = {name: [] for name in scores}
        for start in range(0, len(whole.records), size):
            self._collect([TextInput(whole.records[start : start + size])], parts, model)
        for name, found in parts.items():
            scores[name].append([row for part in found for row in part])

    def _collect(self, inputs: Sequence[TextInput], scores: dict[str, list[Scores]], model: Any) -> None:
        found = run_batch(
            model, self.row_scores, self.collator, "input", inputs, device=self.device, context=self.context
        )
        for name, answers in found.items():
            scores[name].extend(answer.value for answer in answers)


def _stacked(rows: Scores) -> NDArray[np.float32]:
    """Rows of different lengths as one array; what is beyond a row's end is never read."""
    if np.ndim(rows[0]) < 2 or len({len(row) for row in rows}) == 1:
        return np.stack(rows)
    table = np.zeros((len(rows), max(len(row) for row in rows), rows[0].shape[1]), dtype=np.float32)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table
