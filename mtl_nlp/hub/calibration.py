"""What `calibrate` found, folded into a vanilla model's last layer.

A softmax head answers softmax(z / T), a multi-label head takes label k where sigmoid(z_k / T) > t_k. Both are affine in the logits
z = W·h + b, so W / T and b / T − logit(t) in the place of W and b make a stock pipeline, which knows neither, decide alike.
Temperature scaling: Guo et al. 2017 (arXiv:1706.04599).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import fault
from ..model.heads import Head

TOLERANCE = 1e-5
SCALED = ("label", "labels", "tags", "answer", "choice")


@dataclass(frozen=True)
class Calibration:
    """A task's calibration as the checkpoint keeps it.

    Attributes:
        temperature: one for all outputs, or one each.
        thresholds: one an output, multi-label only.
        abstain: below which probability no label is given; a stock pipeline always gives one.
    """

    temperature: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()
    abstain: Any = None

    def __bool__(self) -> bool:
        return bool(self.parts)

    @property
    def parts(self) -> list[str]:
        """Names of what it has."""
        given = {"temperature": self.temperature, "thresholds": self.thresholds, "abstain": self.abstain}
        return [name for name, value in given.items() if value not in ((), None)]

    def applied(self, logits: Tensor) -> Tensor:
        """Logits [..., K] as a model has them whose weights hold temperature and thresholds."""
        if self.temperature:
            logits = logits / torch.tensor(self.temperature, device=logits.device)
        if self.thresholds and self.foldable:
            logits = logits - torch.logit(torch.tensor(self.thresholds, device=logits.device))
        return logits

    @property
    def foldable(self) -> bool:
        """Whether every threshold is a probability that some logit reaches."""
        return all(0 < value < 1 for value in self.thresholds)

    @classmethod
    def of(cls, record: Any, kind: Head, where: str) -> Calibration:
        """From a task's record: `{temperature, thresholds, abstain}`, each of which may be absent.

        Raises:
            FaultyInput: not numbers, or not as many as the head has outputs.
        """
        if not record:
            return cls()
        if not isinstance(record, Mapping):
            raise fault(f"found {record!r}", where=where, allowed="temperature, thresholds, abstain")
        names = list(kind.task.labels or ())
        annotation = kind.task.kind.annotation
        temperature = _numbers(record.get("temperature"), names, f"{where}.temperature")
        if any(not 0 < value < math.inf for value in temperature):
            raise fault(f"found {temperature}", where=f"{where}.temperature", allowed="above 0")
        if all(value == 1.0 for value in temperature) or annotation not in SCALED:
            temperature = ()
        thresholds = _numbers(record.get("thresholds"), names, f"{where}.thresholds")
        if len(thresholds) == 1 and len(names) > 1:
            thresholds *= len(names)
        if all(value == 0.5 for value in thresholds) or annotation != "labels":
            thresholds = ()
        return cls(temperature, thresholds, record.get("abstain"))


def _numbers(value: Any, names: Sequence[str], where: str) -> tuple[float, ...]:
    """A number, a list in the order of the labels, or label → number."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        if set(value) != set(names):
            raise fault(f"found {sorted(map(str, value))}", where=where, allowed=f"one for each of {sorted(names)}")
        value = [value[name] for name in names]
    listed = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in listed):
        raise fault(f"found {value!r}", where=where, allowed="numbers")
    if len(listed) not in (1, len(names)):
        raise fault(f"found {len(listed)} numbers", where=where, allowed=f"one, or {len(names)}: one a label")
    return tuple(float(one) for one in listed)


def fold_into(plain: nn.Module, calibration: Calibration, kind: Head, logits: Callable[[], Tensor]) -> list[str]:
    """Change the last layer's weight and bias; returns what was folded (`temperature`, `thresholds`).

    A layer without bias takes no thresholds; what does not come out as worked out is taken back.

    Args:
        logits: runs the model on a fixed batch.
    """
    annotation = kind.task.kind.annotation
    scale, shift = torch.tensor(calibration.temperature), torch.tensor(calibration.thresholds)
    folded: list[str] = []
    before = logits()
    layer = last_layer(plain, before.shape[-1] if annotation != "choice" else 1, logits)
    if layer is None:
        return folded
    old = {key: value.clone() for key, value in layer.state_dict().items()}
    expected = before
    with torch.no_grad():
        if len(scale):
            layer.weight.div_(scale[:, None] if len(scale) > 1 else scale)
            if layer.bias is not None:
                layer.bias.div_(scale)
            expected = expected / scale
            folded.append("temperature")
        if len(shift) and layer.bias is not None and calibration.foldable:
            layer.bias.sub_(torch.logit(shift))
            expected = expected - torch.logit(shift)
            folded.append("thresholds")
    if not torch.allclose(logits(), expected, rtol=TOLERANCE, atol=TOLERANCE):
        layer.load_state_dict(old)
        return []
    return folded


def last_layer(plain: nn.Module, width: int, run: Callable[[], Any]) -> nn.Linear | None:
    """The linear layer of `width` outputs that runs last; None where there is none."""
    ran: list[nn.Linear] = []
    hooks = [
        module.register_forward_hook(lambda module, args, output: ran.append(module))
        for module in plain.modules()
        if isinstance(module, nn.Linear) and module.out_features == width
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return ran[-1] if ran else None
