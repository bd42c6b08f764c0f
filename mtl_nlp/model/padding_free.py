"""The padding-free path through the shared encoder: token-wise layers see real tokens only.

A padded batch [B, T] is laid out as one sequence of its N real tokens; positions restart at each row and attention stays inside the
rows (`attention`). It works for every architecture that reads its attention function from transformers' `AttentionInterface`.
Some others accept the sequence and compute something else, so which encoders can is established by comparing outputs when a
model is loaded, never from a list of names.
"""

from __future__ import annotations

import inspect
import logging
import threading
from typing import Any

import torch
from torch import Tensor, nn

from .attention import Layout, layout_of, packed_attention
from .dropout import MaskSource
from .encoder import layers_of
from .last_layer import LastLayer
from .trial import in_eval, tried, warn_of_neighbours
from .varlen import varlen_works

logger = logging.getLogger("mtl_nlp")

TOLERANCE = 1e-5


class PaddingFree:
    """An encoder's padding-free path.

    Args:
        encoder: the base model.
        first: the position id of a row's first token (RoBERTa's begin after the padding id).
        source: draws the masks of attention dropout; torch's generator where None.
        uncounted: an id that gets the position before the first wherever it stands and is not counted for those behind it
            (RoBERTa's padding id, which a text can hold too).

    Attributes:
        last: the last layer, where it can be cut to some of the tokens.
        tells_rows: the encoder is told where rows end, for layers that are compiled; it has to hand that on to its attention.
    """

    last: LastLayer | None = None
    tells_rows = False

    def __init__(
        self, encoder: nn.Module, first: int = 0, source: MaskSource | None = None, uncounted: int | None = None
    ) -> None:
        self.encoder, self.first, self.source, self.uncounted = encoder, first, source, uncounted
        # The layers read from the shared configuration which attention to use, so two threads take turns.
        self._turn = threading.Lock()
        self._types = "token_type_ids" in inspect.signature(encoder.forward).parameters

    def __call__(
        self,
        input_ids: Tensor,
        mask: Tensor,
        token_type_ids: Tensor | None = None,
        positions: Tensor | None = None,
        tokens: int | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """[B, T] ids and mask in, hidden states [B, T, H] out; zero where there is no token.

        Args:
            positions: [B, T], in place of those that count a row's real tokens.
            tokens: how many are real, where that is known (see `layout_of`).
            wanted: [B, T], the only tokens that need an output; others may have zeros.
        """
        layout = layout_of(mask, self.source, tokens)
        flat: dict[str, Any] = {
            "input_ids": input_ids.reshape(-1)[layout.places][None],
            "position_ids": self._positions(input_ids, mask, layout)
            if positions is None
            else positions.reshape(-1)[layout.places][None],
        }
        if self._types:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            flat["token_type_ids"] = types.reshape(-1)[layout.places][None]
        if self.tells_rows:
            flat |= {"packed_ends": layout.ends, "packed_width": layout.width}
        places, some = layout.places, None
        if wanted is not None and self.last is not None:
            some = wanted.reshape(-1)[places].nonzero().view(-1)
            places = places[some]
        with self._turn, packed_attention(self.encoder.config, layout, self.last, some):
            hidden = self.encoder(**flat).last_hidden_state.squeeze(0)  # [N, H], or as many as are wanted
        padded = hidden.new_zeros(input_ids.numel(), hidden.shape[-1])
        return padded.index_copy(0, places, hidden).view(*input_ids.shape, -1)

    def compile_layers(
        self, device: torch.device, dtype: torch.dtype, backend: Any = None, mode: str | None = None
    ) -> None:
        """Compile each layer by itself (`torch.compile`), for any number of tokens: layers of one kind share what is compiled.

        Args:
            device: where they will run.
            dtype: what attention will be given; one that has kernels there (`varlen`) becomes part of a layer's graph.
        """
        options = None if mode or backend not in (None, "inductor") else _inductor_options()
        for layer in layers_of(self.encoder):
            layer.compile(dynamic=True, backend=backend or "inductor", mode=mode, options=options)
        parameters = inspect.signature(self.encoder.forward).parameters.values()
        width = _head_width(self.encoder.config)
        self.tells_rows = any(p.kind is p.VAR_KEYWORD for p in parameters) and varlen_works(device, dtype, width)

    def _positions(self, input_ids: Tensor, mask: Tensor, layout: Layout) -> Tensor:
        """[1, N] position ids."""
        if self.uncounted is None:
            return layout.positions + self.first
        counted = (input_ids != self.uncounted).long() * mask
        within = counted.cumsum(1) * counted + self.first - 1  # [B, T]
        return within.reshape(-1)[layout.places][None]


def _inductor_options() -> dict[str, Any]:
    """How layers are compiled where nothing is said."""
    from torch._inductor import config

    # It fuses the gradients by a norm's inputs and by its weights: 39.9 ms of a step of BERT-base on an H200, 9.4 without.
    off = {"triton.mix_order_reduction": False}
    return {key: value for key, value in off.items() if hasattr(config.triton, key.rpartition(".")[2])}


def _head_width(config: Any) -> int:
    """Of attention; 0 where the configuration does not tell."""
    width, heads = (getattr(config, name, None) or 0 for name in ("hidden_size", "num_attention_heads"))
    return getattr(config, "head_dim", None) or (width // heads if heads else 0)


def padding_free_path(encoder: nn.Module, source: MaskSource | None = None) -> PaddingFree | None:
    """The encoder's padding-free path, if its outputs are those of the padded path; None, with the reason in the log, if not.

    Equal means within 1e-5 (float32) on a small batch of rows of different lengths, longer than any sliding window, one of them
    with the padding id among its real tokens. An encoder that keeps the padding is also looked at with its rows alone (`trial`).

    Raises:
        UserError: it cannot encode a small batch.
    """
    with in_eval(encoder):
        ids, mask, padded = tried(encoder)
        path = _equal_path(encoder, source, ids, mask, padded)
        if path is None:
            warn_of_neighbours(encoder, ids, mask, padded)
    return path


def _equal_path(
    encoder: nn.Module, source: MaskSource | None, ids: Tensor, mask: Tensor, padded: Tensor
) -> PaddingFree | None:
    name = type(encoder).__name__
    if "position_ids" not in inspect.signature(encoder.forward).parameters:
        logger.info("encoder: padded path (%s takes no positions)", name)
        return None
    gap = float("inf")
    for first in first_positions(encoder):
        for uncounted in (None,) if first == 0 else (first - 1, None):
            path = PaddingFree(encoder, first, source, uncounted)
            gap = min(gap, _largest_gap(path, ids, mask, padded))
            if gap <= TOLERANCE:
                logger.debug("encoder: padding-free path (outputs differ by %.1e)", gap)
                _try_last_layer(path, ids, mask, padded)
                return path
    logger.info("encoder: padded path (without padding the outputs of %s differ by %.1e)", name, gap)
    return None


def _try_last_layer(path: PaddingFree, ids: Tensor, mask: Tensor, padded: Tensor) -> None:
    """Let the path cut the last layer, if wanted tokens' outputs stay the same: all of the first row, the first of the others."""
    wanted = mask.bool().clone()
    wanted[1:, 1:] = False
    path.last = LastLayer(layers_of(path.encoder)[-1])
    if _largest_gap(path, ids, mask, padded, wanted) > TOLERANCE:
        path.last = None


def first_positions(encoder: Any) -> list[int]:
    """What may be the position of a row's first token."""
    padding = getattr(encoder.config, "pad_token_id", None)
    return [0] if padding is None else [0, int(padding) + 1]


def _largest_gap(path: PaddingFree, ids: Tensor, mask: Tensor, padded: Tensor, wanted: Tensor | None = None) -> float:
    try:
        with torch.no_grad():
            packed = path(ids, mask, wanted=wanted)
    # Whatever an architecture raises on an unusual sequence, it only means that it cannot take this path.
    except Exception as error:  # noqa: BLE001
        logger.debug("padding-free path: %s: %s", type(error).__name__, error)
        return float("inf")
    difference = (padded - packed).float().abs()[mask.bool() if wanted is None else wanted]
    return float(difference.max()) if bool(difference.isfinite().all()) else float("inf")
