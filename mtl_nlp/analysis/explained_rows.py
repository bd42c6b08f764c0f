"""A row of the batch as something to be explained: its embeddings, its baseline, its words with their places in the raw text.

Rows are cut by the same `RowEncoder` as in training and prediction; only the tokenizer's offsets are kept beside them.
A conditioned encoder is run under the condition of the task whose decision is explained, which is kept in the baseline too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..data.windows import Row, RowEncoder, TextRows
from ..errors import UserError, fault, listed
from ..inference.inputs import Piece
from ..labels import text_words
from ..model.conditioning.fit import run_padded
from ..model.multitask import MultiTaskModel

BASELINES = ("mask", "pad", "zero")
KEPT = -1
# Two ways through an encoder agree to about 1e-5; more means that it makes something else of given embeddings.
AGREE = 1e-3


@dataclass
class TracedRow(Row):
    """A row with the tokenizer's own record of it."""

    encoding: Any = None


class TracedEncoder(RowEncoder):
    """Cuts texts into rows that know where their tokens came from."""

    def _row(self, encoding: Any) -> Row:
        row = super()._row(encoding)
        return TracedRow(row.input_ids, row.token_type_ids, encoding=encoding)


@dataclass(frozen=True)
class Word:
    """A word of the input: `field` it stands in, characters `start` … `end` − 1 there."""

    field: str
    word: str
    start: int
    end: int


@dataclass(frozen=True)
class InputWords:
    """The words of a piece's one or two sequences.

    Attributes:
        words: of the first sequence, then of the second.
        firsts: where each sequence's words begin in `words`.
        given: per sequence, whether the tokenizer got words (its offsets then count inside a word).
    """

    words: list[Word]
    firsts: tuple[int, ...]
    given: bool

    def number(self, encoding: Any, token: int) -> int:
        """The word of a token; `KEPT` for special tokens and for white space."""
        part = encoding.sequence_ids[token]
        if part is None or encoding.special_tokens_mask[token]:
            return KEPT
        first = self.firsts[part]
        last = self.firsts[part + 1] if part + 1 < len(self.firsts) else len(self.words)
        if self.given:
            return first + int(encoding.word_ids[token])
        start, end = encoding.offsets[token]
        if start == end or first == last:
            return KEPT
        # A byte-level token may carry the space before its word, so its last character decides.
        starts = [word.start for word in self.words[first:last]]
        place = bisect_right(starts, end - 1) - 1
        return first + place if place >= 0 and end - 1 < self.words[first + place].end else KEPT


def input_words(piece: Piece, rows: TextRows, choice: int = 0) -> InputWords:
    """The words that a piece shows for a row.

    Args:
        rows: a token task's own words are taken, where it has cut them.
        choice: which of the choices or candidates the row reads.
    """
    if piece.form == "tokens":
        texts = [("tokens", piece.text, list(piece.word_offsets))]
        if "pair" in piece.fields:
            pair = piece.fields["pair"].split()
            joined = Piece(piece.row, "tokens", {"tokens": pair}, ())
            texts.append(("pair", joined.text, joined.word_offsets))
        return _words(texts, given=True)
    sequences = _sequences(piece, choice)
    found = [(name, text, text_words(text)) for name, text in sequences]
    if rows.words:
        found[0] = (*found[0][:2], list(rows.words))
    return _words(found, given=False)


def _sequences(piece: Piece, choice: int) -> list[tuple[str, str]]:
    """(field, text) of the sequences that the tokenizer reads as one row."""
    fields = piece.fields
    if piece.form == "question":
        return [("question", fields["question"]), ("context", fields["context"])]
    if piece.form == "choices":
        return [
            ("context", fields["context"]),
            ("choice", f"{fields.get('question', '')} {fields['choices'][choice]}".strip()),
        ]
    return [("text", fields["text"])] + ([("pair", fields["pair"])] if "pair" in fields else [])


def _words(texts: Sequence[tuple[str, str, list[tuple[int, int]]]], *, given: bool) -> InputWords:
    words: list[Word] = []
    firsts = []
    for name, text, offsets in texts:
        firsts.append(len(words))
        words += [Word(name, text[start:end], start, end) for start, end in offsets]
    return InputWords(words, tuple(firsts), given)


def baseline_token(tokenizer: Any, wanted: str | None) -> tuple[str, int | None]:
    """(name, token id) of the baseline: the mask token where there is one, else padding, else zeros (no token).

    Raises:
        UserError: an unknown baseline, or a tokenizer without that token.
    """
    tokens = {"mask": tokenizer.mask_token_id, "pad": tokenizer.pad_token_id}
    if wanted is None:
        wanted = next((name for name, token in tokens.items() if token is not None), "zero")
    if wanted not in BASELINES:
        raise fault(f'found "{wanted}"', key="--baseline", allowed=listed(BASELINES))
    if wanted != "zero" and tokens[wanted] is None:
        raise fault(f'the tokenizer has no "{wanted}" token', key="--baseline", cure="--baseline zero")
    return wanted, tokens.get(wanted)


@dataclass(frozen=True)
class EmbeddedRow:
    """One row, run from its word embeddings.

    Attributes:
        model: in evaluation mode.
        ids: [1, T]; `types` [1, T] for encoders that use them.
        words: [T], each token's word in `shown`; `KEPT` for special tokens.
        shown: the words.
        inputs: [1, T, H], the word embeddings (positions and types are added by the encoder, in the baseline too).
        baselines: [1, T, H], the baseline's in the place of every token but the kept ones.
    """

    model: MultiTaskModel
    ids: Tensor
    types: Tensor | None
    words: Tensor
    shown: InputWords
    inputs: Tensor
    baselines: Tensor

    def logits(self, task: str, embeddings: Tensor) -> Tensor:
        """A task's logits for embeddings [n, T, H]; each is a text (or a choice) of its own."""
        size, length = embeddings.shape[:2]
        mask = torch.ones(size, length, dtype=torch.long, device=embeddings.device)
        types = {} if self.types is None else {"token_type_ids": self.types.expand(size, -1)}
        if self.model.conditioning is None:
            hidden = self.model.encoder(inputs_embeds=embeddings, attention_mask=mask, **types).last_hidden_state
        else:
            hidden = self._conditioned(task, embeddings, mask)
        return self._head(task, hidden, mask)

    def _conditioned(self, task: str, embeddings: Tensor, mask: Tensor) -> Tensor:
        """The encoder's output under the task's condition, which acts on what the table of word embeddings gives out."""
        assert self.model.conditioning is not None
        size = len(embeddings)
        types = None if self.types is None else self.types.expand(size, -1)
        rows = {task: {"rows": torch.arange(size, device=embeddings.device)}}
        run = partial(run_padded, self.model.encoder)
        with in_place_of_looked_up(self.model.get_input_embeddings(), embeddings):
            return self.model.conditioning.encode(run, self.ids.expand(size, -1), mask, types, rows).hidden

    def _head(self, task: str, hidden: Tensor, mask: Tensor) -> Tensor:
        size = len(hidden)
        rows = {"rows": torch.arange(size, device=hidden.device)}
        rows["sizes"] = torch.ones_like(rows["rows"])
        ids = self.ids.expand(size, -1)
        return self.model.kinds[task].logits(self.model.heads[task], hidden, mask, ids, rows)

    def without(self, gone: Tensor) -> Tensor:
        """[n, T, H], the input with some words at the baseline; `gone` is [n, words]."""
        token_gone = torch.zeros(len(gone), len(self.words), dtype=torch.bool, device=gone.device)
        inside = self.words >= 0
        token_gone[:, inside] = gone[:, self.words[inside]]
        return torch.where(token_gone[:, :, None], self.baselines, self.inputs)

    def check(self, task: str) -> None:
        """Compare with the model's own pass over token ids.

        Raises:
            UserError: the encoder takes no embeddings, or makes something else of them.
        """
        name = self.model.config.encoder_config.model_type
        size = torch.ones(1, dtype=torch.long, device=self.ids.device)
        rows = {"rows": torch.zeros_like(size), "sizes": size}
        try:
            with torch.no_grad():
                own = self.model(self.ids, torch.ones_like(self.ids), self.types, tasks={task: rows}).logits[task]
                ours = self.logits(task, self.inputs)
        except (TypeError, ValueError, NotImplementedError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(_cannot(name, f"it does not run from word embeddings ({reason})")) from error
        finite = own.isfinite() & ours.isfinite()
        gap = float((own - ours)[finite].abs().max()) if bool(finite.any()) else 0.0
        if gap > AGREE * max(1.0, float(own[finite].abs().max())):
            raise UserError(
                _cannot(name, f'from word embeddings "{task}" gets other logits (they differ by {gap:.1e})')
            )


@contextmanager
def in_place_of_looked_up(table: nn.Module, embeddings: Tensor) -> Iterator[None]:
    """Inside this context the table of word embeddings gives out these [n, T, H], whatever the token ids are.

    Its hooks act on them as on its own output. A task's own token (`conditioning: token`) is embedded as the row's first.
    """

    def given(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        more = output.shape[1] - embeddings.shape[1]
        wide = torch.cat([embeddings[:, :1]] * more + [embeddings], dim=1)
        return wide.to(output.dtype)

    handle = table.register_forward_hook(given, prepend=True)
    try:
        yield
    finally:
        handle.remove()


def _cannot(name: str, reason: str) -> str:
    return f'encoder "{name}" cannot be explained: {reason}; attributions are for encoders that run from inputs_embeds'


def embedded_row(
    model: MultiTaskModel, row: TracedRow, shown: InputWords, baseline: int | None, device: torch.device
) -> EmbeddedRow:
    """A traced row with its embeddings."""
    ids = torch.tensor([row.input_ids], device=device)
    types = None if row.token_type_ids is None else torch.tensor([row.token_type_ids], device=device)
    real = len(row.encoding.ids)
    numbers = [shown.number(row.encoding, token) if token < real else KEPT for token in range(len(row.input_ids))]
    words = torch.tensor(numbers, device=device)
    embed = model.get_input_embeddings()
    with torch.no_grad():
        inputs = embed(ids).detach()
        nothing = torch.zeros_like(inputs) if baseline is None else embed(torch.full_like(ids, baseline)).detach()
    kept = words < 0
    return EmbeddedRow(model, ids, types, words, shown, inputs, torch.where(kept[None, :, None], inputs, nothing))
