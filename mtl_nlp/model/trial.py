"""An encoder tried out on a small batch: whether it runs, and whether a row's output depends on its neighbours."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import fault

logger = logging.getLogger("mtl_nlp")

PROBE_LENGTHS = (7, 3, 12, 1)
# The row and the place of a padding id among real tokens, and of a mask behind it: RoBERTa does not count the one, ESM scales a row
# by its share of the other. Both are beyond what conditions are tried on (three rows of seven tokens).
SPECIAL_AT = (2, 8)
# Of the largest hidden state, in float32: well-behaved encoders stay below 1e-6, and Nystromformer, ConvBERT and YOSO with fresh
# weights begin at 1e-3, with larger ones at 1e-2.
DEPENDENT = 1e-3
_warned: set[str] = set()


@contextmanager
def in_eval(encoder: nn.Module) -> Iterator[None]:
    """Without dropout, then as before."""
    training = encoder.training
    encoder.eval()
    try:
        yield
    finally:
        encoder.train(training)


@contextmanager
def calls_of(modules: Iterable[nn.Module]) -> Iterator[list[nn.Module]]:
    """Those that are called meanwhile, in that order."""
    called: list[nn.Module] = []
    hooks = [m.register_forward_hook(lambda module, given, output: called.append(module)) for m in modules]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


def probe(encoder: Any) -> tuple[Tensor, Tensor]:
    """Ids and mask, [B, T], of rows that reach beyond a sliding window where there is one; one row holds padding and mask."""
    config = encoder.config
    window = getattr(config, "sliding_window", None) or 0
    most = max(1, (getattr(config, "max_position_embeddings", None) or 512) - 2)
    lengths = torch.tensor([*PROBE_LENGTHS, 3 * window + 2] if window else PROBE_LENGTHS).clamp(max=most)
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, config.vocab_size, mask.shape, generator=generator)
    padding = getattr(config, "pad_token_id", None) or 0
    other = 1 if padding == 0 else 0
    ids = torch.where(ids == padding, torch.full_like(ids, other), ids)
    row, place = SPECIAL_AT
    if lengths[row] > place + 1:
        masked = getattr(config, "mask_token_id", None)
        known = isinstance(masked, int) and masked < config.vocab_size
        ids[row, place : place + 2] = torch.tensor([padding, masked if known else padding])
    device = next(encoder.parameters()).device
    return torch.where(mask.bool(), ids, torch.full_like(ids, padding)).to(device), mask.to(device)


def tried(encoder: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Ids and mask of the probe, [B, T], and the encoder's own output for them, [B, T, H].

    Raises:
        UserError: it cannot encode them, with the library's message.
    """
    try:
        ids, mask = probe(encoder)
        with torch.no_grad():
            return ids, mask, encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    except torch.OutOfMemoryError:
        raise
    # A configuration that does not fit together can make an architecture raise anything.
    except Exception as error:
        raise _unusable(encoder, error) from error


def _unusable(encoder: Any, error: Exception) -> Exception:
    lines = str(error).strip().splitlines() or [""]
    found = f"{type(encoder).__name__} cannot encode a small batch: {type(error).__name__}: {lines[0][:300]}"
    return fault(found, key="encoder", cure="mend its config.json, or choose another encoder")


def warn_of_neighbours(encoder: Any, ids: Tensor, mask: Tensor, padded: Tensor) -> None:
    """Warn, once for each architecture, where a row alone gets another output than padded in a batch.

    Args:
        ids: [B, T], as `mask`, of which `padded` [B, T, H] is the output.
    """
    name = type(encoder).__name__
    if (
        name in _warned or padded.dtype != torch.float32
    ):  # what halves are rounded by depends on the batch for every encoder
        return
    gap = torch.zeros((), device=ids.device)
    for row, length in enumerate(mask.sum(1).tolist()):
        if length < 2:  # texts have a token at their beginning and at their end
            continue
        try:
            with torch.no_grad():
                alone = encoder(input_ids=ids[row, None, :length], attention_mask=mask[row, None, :length])
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise _unusable(encoder, error) from error
        gap = torch.maximum(gap, (alone.last_hidden_state[0] - padded[row, :length]).abs().max())
    share = float(gap / padded[mask.bool()].abs().max())
    if share > DEPENDENT:
        _warned.add(name)
        logger.warning(
            "encoder: the answers of %s depend on what a text is batched with (alone or padded beside a longer one, hidden states "
            "differ by %.1e of the largest)",
            name,
            share,
        )


def check_encoder(encoder: nn.Module) -> None:
    """Try an encoder out that keeps to its own path: as `padding_free_path` does.

    Raises:
        UserError: it cannot encode a small batch.
    """
    with in_eval(encoder):
        warn_of_neighbours(encoder, *tried(encoder))
