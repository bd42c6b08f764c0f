"""The torch half of the head kinds.

A head is the architecture's own `AutoModelForXxx` with its base model replaced by a pass-through that receives the shared encoder's
output as `inputs_embeds`. So every task of a checkpoint is a vanilla model, and its logits are the vanilla model's.

A `Head` has no state of its own: `build` makes the module, `logits` runs it on the rows of its task, `loss` compares, `scores`
reduces to what decoding needs. To add a kind, subclass it and register it (docs/how-to/add-a-head.md).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions as BaseOutput

from ..errors import fault
from ..labels import tag_names
from ..loss import outputs_of, weights_in_order
from ..task import Task
from . import losses


class PassThroughBase(nn.Module):
    """Stands where a vanilla head's base model was; hands on the hidden states that come in as `inputs_embeds`.

    A BERT-style pooler belongs to the base model but is part of the head here: it stays, one a task, under its vanilla key.
    """

    pooler: Any
    pooler_activation: Any

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        pooler = getattr(base, "pooler", None)
        if pooler is not None:
            self.pooler = pooler
            if isinstance(pooler, nn.Linear):  # ALBERT keeps the activation beside it
                self.pooler_activation = base.pooler_activation

    def forward(self, *args: Any, inputs_embeds: Tensor | None = None, **kwargs: Any) -> BaseOutput:
        """[b, T, H] in, the same out as `last_hidden_state`, with the pooled [b, H] where there is a pooler."""
        assert inputs_embeds is not None
        pooled = None
        if hasattr(self, "pooler"):
            if hasattr(self, "pooler_activation"):
                pooled = self.pooler_activation(self.pooler(inputs_embeds[:, 0]))
            else:
                pooled = self.pooler(inputs_embeds)
        return BaseOutput(last_hidden_state=inputs_embeds, pooler_output=pooled)


class Head(ABC):
    """One kind of head for one task.

    Args:
        task: the definition, its labels in final order.
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    @property
    def outputs(self) -> int:
        """K, the width of the logits."""
        return len(self.task.labels or ())

    @abstractmethod
    def build(self, encoder_config: Any) -> nn.Module:
        """The module, uninitialised parameters allowed: the model initialises what it finds."""

    @abstractmethod
    def logits(
        self, module: nn.Module, hidden: Tensor, mask: Tensor, ids: Tensor, rows: Mapping[str, Tensor]
    ) -> Tensor:
        """The task's logits.

        Args:
            hidden: [b, T, H], the encoder's output for the task's rows, cut to their longest.
            mask: [b, T], 1 for real tokens.
            ids: [b, T], the token ids.
            rows: the task's part of the batch (`rows`, and what its collation added).
        """

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(sum over labelled units, number of labelled units)."""

    def batch_loss(self, logits: Tensor, rows: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """`loss` on the task's part of a batch; to override where more than the labels is needed."""
        return self.loss(logits, rows["labels"])

    def units(self, labels: Tensor) -> float:
        """How many labelled units `labels` hold: those that are neither −100 nor NaN; with class weights the sum of theirs."""
        if labels.is_floating_point():
            return int((~(labels.isnan().any(-1) if labels.dim() > 1 else labels.isnan())).sum())
        weights = self.class_weights
        if weights is None:  # NumPy is quicker for a few labels, and starts no threads for many
            return int(np.count_nonzero(labels.numpy(force=True) != losses.IGNORE))
        return losses.mass(labels, weights).item()

    @property
    def class_weights(self) -> list[float] | None:
        """One weight an output, None where the task gives none."""
        loss, task = self.task.loss, self.task
        if loss.class_weights is None:
            return None
        return weights_in_order(loss.class_weights, outputs_of(task.kind, task.labels, task.tag_scheme))

    def classes_loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy with the task's class weights, focal term and smoothing."""
        loss = self.task.loss
        return losses.cross_entropy(
            logits, labels, weights=self.class_weights, smoothing=loss.smoothing, focal=loss.focal
        )

    def scores(self, logits: Tensor) -> Tensor:
        """What decoding needs, in float32: probabilities, unless the kind says otherwise."""
        return logits.float().softmax(-1)


class VanillaHead(Head):
    """A head whose module is a vanilla `AutoModelForXxx`."""

    auto_class: ClassVar[str]

    def config(self, encoder_config: Any) -> Any:
        """The vanilla configuration of this task alone."""
        config = copy.deepcopy(encoder_config)
        names = self.label_names
        config.id2label = dict(enumerate(names))
        config.label2id = {name: i for i, name in enumerate(names)}
        return config

    @property
    def label_names(self) -> list[str]:
        """Names of the K outputs."""
        return list(self.task.labels or ())

    @property
    def outputs(self) -> int:
        """K, the width of the logits."""
        return len(self.label_names)

    def vanilla_class(self, encoder_config: Any) -> type:
        """The architecture's class for this kind.

        Raises:
            UserError: transformers has none for the architecture.
        """
        mapping = getattr(transformers, self.auto_class)._model_mapping
        if type(encoder_config) not in mapping:
            raise fault(
                f"transformers has no {self.auto_class.removeprefix('AutoModelFor')} model for {encoder_config.model_type}",
                where=self.task.where,
                key=f"{self.task.name}.head",
                cure="choose another encoder or another head",
            )
        found = mapping[type(encoder_config)]
        return found[0] if isinstance(found, tuple) else found

    def build(self, encoder_config: Any) -> nn.Module:
        """The vanilla model without its base; parameters are left for the model to initialise or load."""
        # Built without memory: the base that comes with it would be as large as the encoder and is thrown away.
        cls = self.vanilla_class(encoder_config)
        with torch.device("meta"):
            head = cls(self.config(encoder_config))
        prefix = head.base_model_prefix
        setattr(head, prefix, PassThroughBase(getattr(head, prefix)))
        if _default_device() != "meta":
            head.to_empty(device=_default_device())
        for module in head.modules():
            module._is_hf_initialized = False
        for parameter in head.parameters():
            parameter._is_hf_initialized = False
        head._tied_weights_keys, head.all_tied_weights_keys = None, {}
        return head

    def run(self, module: nn.Module, hidden: Tensor, mask: Tensor, ids: Tensor) -> Any:
        """The vanilla forward pass on hidden states."""
        return module(input_ids=ids, attention_mask=mask, inputs_embeds=hidden)

    def logits(
        self, module: nn.Module, hidden: Tensor, mask: Tensor, ids: Tensor, rows: Mapping[str, Tensor]
    ) -> Tensor:
        """The vanilla model's logits."""
        return self.run(module, hidden, mask, ids).logits


def _default_device() -> str:
    return torch.empty(0).device.type


class SequenceClassification(VanillaHead):
    """One label a text or pair. Logits [b, K]; labels [b] or −100; cross entropy a row."""

    auto_class = "AutoModelForSequenceClassification"
    problem: ClassVar[str] = "single_label_classification"

    def config(self, encoder_config: Any) -> Any:
        """The vanilla configuration, with the problem type that an export needs."""
        config = super().config(encoder_config)
        config.problem_type = self.problem
        return config

    def loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy."""
        return self.classes_loss(logits, labels)


class MultiLabelClassification(SequenceClassification):
    """Any number of labels. Logits [b, K]; labels [b, K] of 0 and 1, NaN where not annotated."""

    problem = "multi_label_classification"

    def loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Binary cross entropy, mean over the labels of a row."""
        loss = self.task.loss
        weights = weights_in_order(loss.pos_weight, self.task.labels or ())
        return losses.binary_cross_entropy(
            logits, labels, pos_weight=weights, smoothing=loss.smoothing, focal=loss.focal
        )

    def scores(self, logits: Tensor) -> Tensor:
        """One probability a label, [b, K]."""
        return logits.float().sigmoid()


class Regression(SequenceClassification):
    """One number. Logits [b, 1]; labels [b], NaN where not annotated; squared error."""

    problem = "regression"

    @property
    def label_names(self) -> list[str]:
        """One output, named as transformers does."""
        return ["LABEL_0"]

    def loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error."""
        return losses.squared_error(logits, labels)

    def scores(self, logits: Tensor) -> Tensor:
        """The number itself, [b]."""
        return logits.float().squeeze(-1)


class TokenClassification(VanillaHead):
    """One tag a word, on its first token. Logits [b, T, K]; labels [b, T], −100 elsewhere; cross entropy a labelled token."""

    auto_class = "AutoModelForTokenClassification"

    @property
    def label_names(self) -> list[str]:
        """The tags: O, B-x, I-x, … or the labels as they are (scheme none)."""
        return tag_names(self.task.labels or [], self.task.tag_scheme)

    def loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy."""
        return self.classes_loss(logits, labels)


class QuestionAnswering(VanillaHead):
    """A span of the context. Logits [b, T, 2]; labels [b, 2], first and last token, (0, 0) for no answer in the window."""

    auto_class = "AutoModelForQuestionAnswering"

    @property
    def label_names(self) -> list[str]:
        """First and last."""
        return ["LABEL_0", "LABEL_1"]

    def logits(
        self, module: nn.Module, hidden: Tensor, mask: Tensor, ids: Tensor, rows: Mapping[str, Tensor]
    ) -> Tensor:
        """The vanilla model's start and end logits, side by side; −inf on padding.

        The softmax is over positions: with the vanilla model's logits there a row's loss would depend on its neighbours' lengths.
        """
        output = self.run(module, hidden, mask, ids)
        pair = torch.stack([output.start_logits, output.end_logits], dim=-1)
        return pair.masked_fill(~mask.bool()[:, : pair.shape[1], None], float("-inf"))

    def units(self, labels: Tensor) -> float:
        """A row is one unit."""
        return len(labels)

    def loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of the two cross entropies."""
        return losses.span_cross_entropy(logits, labels)

    def scores(self, logits: Tensor) -> Tensor:
        """Log-probabilities of first and last token, [b, T, 2]."""
        return logits.float().log_softmax(1)


class MultipleChoice(VanillaHead):
    """One of several endings. Rows are choices; logits [b, C] with −inf for choices that a text lacks; labels [b]."""

    auto_class = "AutoModelForMultipleChoice"

    @property
    def label_names(self) -> list[str]:
        """One score a choice."""
        return ["LABEL_0"]

    def logits(
        self, module: nn.Module, hidden: Tensor, mask: Tensor, ids: Tensor, rows: Mapping[str, Tensor]
    ) -> Tensor:
        """The vanilla model's score of each choice, a row a text (`rows["sizes"]` says how many choices each has)."""
        # The vanilla head wants [texts, choices, …]; as texts of one choice each, their number may differ.
        output = module(input_ids=ids[:, None], attention_mask=mask[:, None], inputs_embeds=hidden[:, None])
        return losses.padded_choices(output.logits.view(-1), rows["sizes"])

    def loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy over the choices of a text; it counts as one labelled unit."""
        return losses.cross_entropy(logits, labels)


class MaskedLanguageModeling(VanillaHead):
    """Masked tokens of unlabelled text (BERT, arXiv:1810.04805). Logits [b, T, vocabulary]; labels −100 where not masked."""

    auto_class = "AutoModelForMaskedLM"

    def config(self, encoder_config: Any) -> Any:
        """The encoder's own configuration."""
        return copy.deepcopy(encoder_config)

    def loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy over masked tokens."""
        return losses.cross_entropy(logits, labels)

    def tied_keys(self, head_class: type, prefix: str, name: str) -> dict[str, str]:
        """Which parameters of the head are the encoder's own, as keys of the whole model."""
        keys = getattr(head_class, "_tied_weights_keys", None) or {}
        own = f"heads.{name}."
        return {
            own + target: f"encoder.{source.removeprefix(prefix + '.')}"
            if source.startswith(prefix + ".")
            else own + source
            for target, source in keys.items()
        }


def make_head(task: Task) -> Head:
    """The torch half of a task's head."""
    return task.kind.torch_half()(task)
