"""A checkpoint's logits on labelled texts, and how sure they are of what: what `calibration` tunes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.batching import Collator
from ..data.mixture import Draw
from ..decoding import Decoder, by_length, run_batch, texts_of, to_device
from ..metrics.pool import nearest
from ..model import losses
from ..model.heads import Head
from ..model.multitask import MultiTaskModel
from ..task import Task
from .prepare import Prepared


@dataclass
class Outputs:
    """One task's logits on labelled validation texts, in batches (shapes as the head's docstring says), with their labels.

    `sizes` are the windows of each text, for a chain that runs through them.
    """

    logits: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    sizes: list[Tensor | None] = field(default_factory=list)

    def loss(self, kind: Head, temperature: float) -> float:
        """The negative log-likelihood with the logits divided by the temperature, a mean over labelled units."""
        sizes = self.sizes or [None] * len(self.logits)
        found = [nll(kind, z / temperature, y, s) for z, y, s in zip(self.logits, self.labels, sizes, strict=True)]
        return float(sum(total for total, _ in found)) / max(sum(int(units) for _, units in found), 1)


def nll(kind: Head, logits: Tensor, labels: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood (sum, units): what a head is trained with, without class weights, focal term or smoothing."""
    if kind.task.kind.chain:
        return kind.batch_loss(logits, {"labels": labels} | ({} if sizes is None else {"sizes": sizes}))
    if kind.task.kind.annotation == "labels":
        return losses.binary_cross_entropy(logits, labels)
    if kind.task.kind.annotation == "answer":
        return losses.span_cross_entropy(logits, labels)
    return losses.cross_entropy(logits, labels)


@torch.no_grad()  # and no inference mode: marginals of a chain are gradients
def gather(model: MultiTaskModel, prepared: Prepared, names: Sequence[str], batch: int) -> dict[str, Outputs]:
    """Each task's logits and labels on the validation texts that have its annotation."""
    collator = Collator(
        prepared.tokenizer,
        prepared.tasks,
        {corpus: [name for name in tasks if name in names] for corpus, tasks in prepared.owners.items()},
        labelled=True,
    )
    found = {name: Outputs() for name in names}
    model.eval()
    for corpus, split in prepared.encoded["validation"].items():
        for numbers in by_length(split.lengths, batch):
            records = [record for text in texts_of(split, numbers, None) for record in text.records]
            for record in records:
                record["draw"] = Draw(corpus, 0, 0)
            inputs = collator(records)
            if not inputs["tasks"]:
                continue
            logits = model(**{name: to_device(value, model.device) for name, value in inputs.items()}).logits
            for name, value in logits.items():
                rows = inputs["tasks"][name]
                kept, labels = _compact(model.kinds[name], value.float().cpu(), rows["labels"])
                found[name].logits.append(kept)
                found[name].labels.append(labels)
                found[name].sizes.append(rows.get("sizes"))
    return {name: outputs for name, outputs in found.items() if outputs.labels}


def nearest_of(
    model: MultiTaskModel, prepared: Prepared, task: Task, batch: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(cosine of the nearest passage of the validation split, whether it is a right one) of every question of a retrieval."""
    collator = Collator(prepared.tokenizer, prepared.tasks, prepared.owners, labelled=False)
    decoders = {task.name: Decoder(task)}
    corpus = next(name for name, tasks in prepared.owners.items() if task.name in tasks)
    split = prepared.encoded["validation"][corpus]
    vectors, texts = [], []
    model.eval()
    for numbers in by_length(split.lengths, batch):
        found = run_batch(model, decoders, collator, corpus, texts_of(split, numbers, None), device=model.device)
        pairs = zip(found[task.name], (split.gold[task.name][number] for number in numbers), strict=True)
        for decoded, gold in pairs:
            if gold is not None:
                vectors.append(decoded.value)
                texts.append(gold)
    return nearest(vectors, texts)


def _compact(kind: Head, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Only the labelled words of a tagging task whose head scores each by itself, to save memory."""
    if kind.task.kind.annotation == "tags" and not kind.task.kind.chain:
        return logits[labels != losses.IGNORE], labels[labels != losses.IGNORE]
    return logits, labels


def decisions(kind: Head, outputs: Outputs, temperature: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(confidence, whether it is right) of every decision: [N] each.

    One label, a choice, a word's tag: the highest probability (of a chain the highest marginal one). Several labels: each label's
    probability, and whether it holds. An answer: the highest probability of its first and of its last token.
    """
    confidences, right = [], []
    sizes = outputs.sizes or [None] * len(outputs.logits)
    for logits, labels, windows in zip(outputs.logits, outputs.labels, sizes, strict=True):
        z = logits / temperature
        if kind.task.kind.chain:
            highest, place = marginals(kind, z, labels, windows).max(-1)
            confidences.append(highest)
            right.append(place == labels[labels != losses.IGNORE])
            continue
        if kind.task.kind.annotation == "labels":
            known = ~labels.isnan().any(-1)
            confidences.append(z[known].sigmoid().flatten())
            right.append(labels[known].flatten())
            continue
        if kind.task.kind.annotation == "answer":
            z = z.transpose(1, 2)  # [b, 2, T]
        highest, place = z.softmax(-1).max(-1)
        known = labels != losses.IGNORE
        confidences.append(highest[known].flatten())
        right.append((place == labels)[known].flatten())
    return tuple(torch.cat(parts).double().numpy() for parts in (confidences, right))  # type: ignore[return-value]


def marginals(kind: Head, logits: Tensor, labels: Tensor, sizes: Tensor | None) -> Tensor:
    """Each labelled word's probabilities under a chain, [N, K].

    The gradient of −log p(tags) by a word's emissions is its marginal probabilities less 1 at its own tag.
    """
    with torch.enable_grad():
        packed = logits.detach().requires_grad_()
        total, _ = nll(kind, packed, labels, sizes)
        (gradient,) = torch.autograd.grad(total, packed)
    labelled = labels != losses.IGNORE
    own = gradient[:, logits.shape[-1] + 2 :][labelled]
    return own + torch.nn.functional.one_hot(labels[labelled], logits.shape[-1])
