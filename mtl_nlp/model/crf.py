"""A linear-chain CRF over the vanilla token head (Lafferty, McCallum and Pereira 2001; over an encoder, Lample et al. 2016).

The chain runs over words, that is over first tokens, through all windows of a text. Transitions that the tag scheme forbids do not
exist, in training and in decoding. All of it is computed in float32, whatever the encoder runs in.

Its logits are packed, so that one tensor holds all that loss and decoding need: [b, K + 2 + T, K], in every row the transitions
[K, K] (from, to), the potentials of a first and of a last tag, then the T tokens' emissions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..labels import transition_mask
from ..task import Task
from .heads import Head, TokenClassification
from .losses import IGNORE

# Finite, so that no gradient is NaN; exp(FORBIDDEN) is 0.
FORBIDDEN = -1e4
TINY = 1e-30


class ChainTagger(nn.Module):
    """The vanilla token head and the chain's potentials, which start at 0: as a tagger without a chain.

    Args:
        emitter: gives the tokens' emissions.
        tags: K.
    """

    def __init__(self, emitter: nn.Module, tags: int) -> None:
        super().__init__()
        self.emitter = emitter
        self.transitions = nn.Parameter(torch.zeros(tags, tags))
        self.start = nn.Parameter(torch.zeros(tags))
        self.end = nn.Parameter(torch.zeros(tags))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, inputs_embeds: Tensor) -> Tensor:
        """[b, T, H] hidden states → packed logits [b, K + 2 + T, K], float32."""
        emissions = self.emitter(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds).logits
        chain = torch.cat([self.transitions, self.start[None], self.end[None]]).float()
        return torch.cat([chain.expand(len(emissions), -1, -1), emissions.float()], 1)


class TokenClassificationCRF(Head):
    """One tag a word, each depending on its neighbours. Logits packed (see the module); labels [b, T], −100 elsewhere.

    The loss is the negative log-likelihood of each text's tags; its unit is the word, so that it is on the scale of the plain token
    head's cross entropy.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.emitting = TokenClassification(task)
        start, allowed = transition_mask(self.emitting.label_names, task.tag_scheme)
        self.start_allowed, self.allowed = torch.from_numpy(start), torch.from_numpy(allowed)

    @property
    def outputs(self) -> int:
        """K, the number of tags."""
        return self.emitting.outputs

    def build(self, encoder_config: Any) -> nn.Module:
        """The architecture's token head with the chain's parameters."""
        return ChainTagger(self.emitting.build(encoder_config), self.outputs)

    def logits(
        self, module: nn.Module, hidden: Tensor, mask: Tensor, ids: Tensor, rows: Mapping[str, Tensor]
    ) -> Tensor:
        """Packed logits."""
        packed: Tensor = module(input_ids=ids, attention_mask=mask, inputs_embeds=hidden)
        return packed

    def loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood, every row a text."""
        return self._loss(logits, labels, torch.arange(len(labels), device=labels.device))

    def batch_loss(self, logits: Tensor, rows: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood, the windows of a text joined to one chain (`rows["sizes"]`: windows of each text)."""
        if "sizes" not in rows:
            return self.loss(logits, rows["labels"])
        sizes = rows["sizes"].to(logits.device)
        text = torch.repeat_interleave(torch.arange(len(sizes), device=logits.device), sizes)
        return self._loss(logits, rows["labels"], text)

    def _loss(self, logits: Tensor, labels: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        packed, size = logits.float(), self.outputs
        labelled = labels != IGNORE
        units = labelled.sum()
        if not int(units):
            return packed.sum() * 0.0, units
        row, token = labelled.nonzero(as_tuple=True)
        lengths = torch.bincount(text[row])
        first = lengths.cumsum(0) - lengths
        place = torch.arange(len(row), device=row.device) - first[text[row]]
        width = int(lengths.max())
        emissions = packed.new_zeros(len(lengths), width, size).index_put(
            (text[row], place), packed[row, token + size + 2]
        )
        tags = labels.new_zeros(len(lengths), width).index_put((text[row], place), labels[row, token])
        kept = lengths > 0
        likelihood = chain_log_likelihood(
            emissions[kept],
            tags[kept],
            lengths[kept],
            (packed[0, :size], packed[0, size], packed[0, size + 1]),
            (self.start_allowed.to(packed.device), self.allowed.to(packed.device)),
        )
        return -likelihood.sum(), units

    def scores(self, logits: Tensor) -> Tensor:
        """The packed log-potentials, float32."""
        return logits.float()


def chain_log_likelihood(
    emissions: Tensor,
    tags: Tensor,
    lengths: Tensor,
    chain: tuple[Tensor, Tensor, Tensor],
    allowed: tuple[Tensor, Tensor],
) -> Tensor:
    """log p(tags) of each text under the chain, over all sequences that are allowed.

    Where the tags themselves take a step that is not allowed (a word without a token stands between them, or a label that the task
    does not have), the chain is cut: what follows does not depend on what was before.

    Args:
        emissions: [n, W, K].
        tags: [n, W], 0 beyond a text's length.
        lengths: [n], at least 1.
        chain: transitions [K, K], start [K], end [K].
        allowed: which tag may be first [K], which may follow which [K, K].
    """
    transitions, start, end = chain
    inside = torch.arange(tags.shape[1], device=tags.device) < lengths[:, None]
    cut = ~allowed[1][tags[:, :-1], tags[:, 1:]] & inside[:, 1:]
    free = ~allowed[0][tags[:, 0]]
    last = tags.gather(1, lengths[:, None] - 1).squeeze(1)
    score = (emissions.gather(2, tags[..., None]).squeeze(2) * inside).sum(1)
    score = score + (transitions[tags[:, :-1], tags[:, 1:]] * (inside[:, 1:] & ~cut)).sum(1)
    score = score + torch.where(free, 0.0, start[tags[:, 0]]) + end[last]
    bounded = torch.where(allowed[1], transitions, FORBIDDEN)
    begin = torch.where(free[:, None], 0.0, torch.where(allowed[0], start, FORBIDDEN))
    # Under autocast a matrix product would be taken in bf16.
    with torch.autocast(emissions.device.type, enabled=False):
        return score - _log_partition(emissions, inside, cut, bounded, begin, end)


def _log_partition(
    emissions: Tensor, inside: Tensor, cut: Tensor, transitions: Tensor, start: Tensor, end: Tensor
) -> Tensor:
    """log Σ exp(score) over all sequences: the forward algorithm, as products of [n, K] with [K, K], so that memory is n·W·K."""
    highest = transitions.detach().max()
    step = (transitions - highest).exp()
    alpha = start + emissions[:, 0]
    for word in range(1, emissions.shape[1]):
        top = alpha.detach().amax(1, keepdim=True)
        before = (alpha - top).exp()
        joined = (before @ step).clamp_min(TINY).log() + highest
        joined = torch.where(cut[:, word - 1, None], before.sum(1, keepdim=True).log(), joined)
        alpha = torch.where(inside[:, word, None], joined + top + emissions[:, word], alpha)
    return torch.logsumexp(alpha + end, 1)
