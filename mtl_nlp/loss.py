"""A task's `loss:` block: how its own imbalance is met, and what of it fits which head.

Nothing here imports torch. What is learned from the training split (`inverse_frequency`) is settled in
`mtl_nlp.data.class_weights`; the losses themselves are in `mtl_nlp.model.losses`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from .errors import closest, listed
from .kinds import HeadKind
from .labels import tag_names
from .schema import Strict

INVERSE_FREQUENCY = "inverse_frequency"
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


def _some_weight(value: Any) -> Any:
    if isinstance(value, dict) and not any(value.values()):
        raise ValueError("a mapping with at least one weight above 0")
    return value


class Loss(Strict):
    """How a task's loss is formed, and how much it counts beside its share of the mixture.

    Attributes:
        weight: factor on the whole.
        class_weights: a weight for each label (1 where absent), or `inverse_frequency`; the mean is over weights, as torch's.
        focal: gamma of the focal loss (Lin et al. 2017, arXiv:1708.02002); None for none.
        smoothing: label smoothing (Szegedy et al. 2016, arXiv:1512.00567), in [0, 1).
        pos_weight: factor on the positive term of each label of a multi-label task; one number, one for each label, or
            `inverse_frequency`, its negatives over its positives.
        objective: of a ranking.
        scale: of a retrieval's cosines before the softmax, 1 / temperature; 20 if absent.
        symmetric: each passage of a retrieval has to find its query, too.
    """

    weight: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    class_weights: Literal["inverse_frequency"] | Annotated[dict[str, Weight], AfterValidator(_some_weight)] | None = (
        None
    )
    focal: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    pos_weight: Literal["inverse_frequency"] | Positive | dict[str, Positive] | None = None
    objective: Literal["listwise", "pairwise"] | None = None
    scale: float | None = Field(default=None, gt=0.0, le=1000.0)
    symmetric: bool = False

    def given(self) -> list[str]:
        """The options in use, beside the weight."""
        return list(self.model_dump(exclude_defaults=True, exclude={"weight"}))


def option_faults(loss: Loss, kind: HeadKind) -> Iterable[str]:
    """What of a task's loss does not fit its head."""
    for option in loss.given():
        if option not in kind.loss_options:
            fitting = listed(kind.loss_options) if kind.loss_options else "weight alone"
            hint = "; pos_weight is for several labels a text" if option == "class_weights" and _several(kind) else ""
            yield f"loss.{option} does not fit head {kind.name} (it takes {fitting}{hint}): remove the key"
    if loss.focal is not None and loss.smoothing:
        yield "loss.focal and loss.smoothing pull opposite ways on sure predictions: keep one of them"


def _several(kind: HeadKind) -> bool:
    return "pos_weight" in kind.loss_options


def name_faults(loss: Loss, outputs: Sequence[str], labels: Sequence[str]) -> Iterable[str]:
    """Weights for labels that the task does not have; `outputs` are its labels, or the tags of its types."""
    for option in ("class_weights", "pos_weight"):
        weights = getattr(loss, option)
        if isinstance(weights, Mapping):
            known = list(dict.fromkeys([*labels, *outputs]))
            for name in [name for name in weights if name not in known]:
                yield f'loss.{option} has "{name}", which is no label of the task.{closest(name, known)} Known: {listed(known, 40)}'


def outputs_of(kind: HeadKind, labels: Sequence[str] | None, scheme: str) -> list[str]:
    """Names of a head's outputs: the labels, or the tags that a scheme makes of them."""
    return tag_names(labels or [], scheme) if kind.annotation == "tags" else list(labels or ())


def weights_in_order(weights: Any, outputs: Sequence[str]) -> list[float] | None:
    """One weight an output: that of its name, else of its type (PER for B-PER and I-PER), else 1; None for none at all."""
    if weights is None:
        return None
    if isinstance(weights, int | float):
        return [float(weights)] * len(outputs)
    return [
        float(weights.get(name, weights.get(name[2:] if name[:2] in ("B-", "I-") else name, 1.0))) for name in outputs
    ]
