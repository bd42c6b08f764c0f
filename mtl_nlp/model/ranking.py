"""The ranking head: a score for each candidate of a query, by the architecture's sequence head with one output.

So a ranking task is a cross-encoder: query and candidate are read together. Its rows are candidates; those of a query stand in one
batch, so that losses over lists and pairs are exact under accumulation and on several devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .heads import VanillaHead
from .losses import padded_choices


class Ranking(VanillaHead):
    """An order of candidates. Logits [b, C], −inf for candidates that a query lacks; labels [b, C], NaN for those.

    `loss.objective`: `listwise` (default) is the cross entropy between the relevance, as shares of its sum, and the softmax of the
    scores (Bruch et al. 2019; with one relevant candidate MT-DNN's loss, Liu et al. 2019); `pairwise` is the logistic loss of every
    pair of unlike relevance, its mean within a query (RankNet, Burges et al. 2005). The unit is the query; one that teaches nothing
    (nothing relevant, or for pairs nothing unlike) is none.
    """

    auto_class = "AutoModelForSequenceClassification"

    def config(self, encoder_config: Any) -> Any:
        """The vanilla configuration with one output, whose score is not squashed."""
        config = super().config(encoder_config)
        config.problem_type = "regression"
        return config

    @property
    def label_names(self) -> list[str]:
        """One score."""
        return ["LABEL_0"]

    def logits(
        self, module: nn.Module, hidden: Tensor, mask: Tensor, ids: Tensor, rows: Mapping[str, Tensor]
    ) -> Tensor:
        """The score of each candidate, a row a query (`rows["sizes"]` says how many each has)."""
        return padded_choices(self.run(module, hidden, mask, ids).logits.view(-1), rows["sizes"])

    def units(self, labels: Tensor) -> float:
        """Queries that teach something."""
        return int(self._teaches(labels).sum())

    def _teaches(self, labels: Tensor) -> Tensor:
        """[b], whether a query has anything relevant, or for pairs anything unlike."""
        if self.task.loss.objective == "pairwise":
            return (labels[:, :, None] > labels[:, None, :]).flatten(1).any(1)
        return labels.nan_to_num().sum(1) > 0

    def loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over queries, and how many teach something."""
        one = pairwise if self.task.loss.objective == "pairwise" else listwise
        return one(logits, labels).sum(), self._teaches(labels).sum()

    def scores(self, logits: Tensor) -> Tensor:
        """The scores themselves."""
        return logits.float()


def listwise(logits: Tensor, labels: Tensor) -> Tensor:
    """[b], softmax cross entropy of each query, 0 where nothing is relevant.

    Args:
        logits: [b, C], −inf where there is no candidate.
        labels: [b, C], relevance, NaN where there is no candidate.
    """
    relevance = labels.nan_to_num()
    share = relevance / relevance.sum(1, keepdim=True).clamp_min(torch.finfo(relevance.dtype).tiny)
    log_probability = logits.float().masked_fill(labels.isnan(), float("-inf")).log_softmax(1)
    return -torch.where(share > 0, share * log_probability.masked_fill(share == 0, 0.0), 0.0).sum(1)


def pairwise(logits: Tensor, labels: Tensor) -> Tensor:
    """[b], mean logistic loss over a query's pairs of unlike relevance, 0 where there is none; arguments as `listwise`."""
    scores = logits.float().masked_fill(labels.isnan(), 0.0)
    better = (labels[:, :, None] > labels[:, None, :]).float()
    each = F.softplus(scores[:, None, :] - scores[:, :, None]) * better
    return each.flatten(1).sum(1) / better.flatten(1).sum(1).clamp_min(1.0)
