"""Gradient aggregators: from the Gramian of the tasks' gradients to one weight a task.

The Gramian G [m, m] holds the inner products of the gradients of w_t · s_t · L_t, over the tasks that a step holds; the
aggregated gradient is Σ α_t g_t. The maths is torchjd's (Quinton and Rey 2024, arXiv:2406.16232). Where torchjd's weights sum to
about 1, ours are m times that, so that gradients that are orthogonal and of one length give the plain sum, and the learning rate
means the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from ..errors import UserError, closest, fault, listed
from ..registry import Registry
from ..schema import Strict
from .settings import NoSettings, Written, method_name, method_settings

NONE = "none"
TORCHJD = "torchjd:"
KEY = "balancing.gradients"
PIP = 'pip install "mtl-nlp[balance]"'


def torchjd_weighting(name: str) -> Any:
    """A class of `torchjd.aggregation`.

    Raises:
        FaultyInput: torchjd is not installed.
    """
    try:
        import torchjd.aggregation as found
    except ImportError as error:
        raise fault("gradient aggregation needs torchjd", key=KEY, cure=PIP) from error
    return getattr(found, name)


class GradientAggregator(ABC):
    """One rule for α.

    Args:
        tasks: names, in order.
        seed: the run's, for those that draw.

    Attributes:
        scale_free: the direction of the result does not change when a task's gradient is multiplied by a positive number.
        only_conflict: orthogonal gradients are left as they are.
    """

    Settings: ClassVar[type[Strict]] = NoSettings
    scale_free: ClassVar[bool] = False
    only_conflict: ClassVar[bool] = False

    def __init__(self, tasks: Sequence[str], seed: int, settings: Any) -> None:
        self.tasks, self.seed, self.settings = list(tasks), seed, settings

    @abstractmethod
    def weights(self, gramian: Tensor, present: Sequence[int], step: int) -> Tensor:
        """α [m].

        Args:
            gramian: [m, m] float64 on the CPU, finite.
            present: the numbers of the m tasks.
            step: of the optimizer, from 0; draws are keyed by it, so every process draws the same.
        """

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as JSON."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        return None


class FromTorchjd(GradientAggregator):
    """α from a `torchjd.aggregation.XWeighting`, on the Gramian divided by its mean diagonal (their guards are absolute
    numbers).
    """

    weighting: ClassVar[str]
    mean_scaled: ClassVar[bool] = False

    def __init__(self, tasks: Sequence[str], seed: int, settings: Any) -> None:
        super().__init__(tasks, seed, settings)
        self.rule = self._rule()

    def _rule(self) -> Any:
        try:
            return torchjd_weighting(self.weighting)(**self.settings.model_dump(exclude_none=True))
        except ImportError as error:
            raise fault(f"{self.weighting} needs a solver", key=KEY, cure=PIP) from error

    def weights(self, gramian: Tensor, present: Sequence[int], step: int) -> Tensor:
        """α [m]."""
        size = gramian.diagonal().mean()
        if float(size) == 0.0:
            return torch.ones(len(gramian), dtype=torch.float64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 1_000_003 + step)
            found = self.rule(gramian / size).detach().double()
        return found * len(gramian) if self.mean_scaled else found


class PCGrad(FromTorchjd):
    """Gradient surgery (Yu et al. 2020, arXiv:2001.06782): each gradient loses what points against each other one, in random
    order.
    """

    weighting = "PCGradWeighting"
    only_conflict = True


class CAGradSettings(Strict):
    """`c`: radius of the ball around the mean gradient, as a share of its length."""

    c: float = Field(default=0.4, ge=0, allow_inf_nan=False)


class CAGrad(FromTorchjd):
    """Conflict-averse gradient (Liu et al. 2021, arXiv:2110.14048): near the mean, the best worst improvement. No rescaling by 1
    + c².
    """

    weighting = "CAGradWeighting"
    mean_scaled = True
    Settings = CAGradSettings


class MgdaSettings(Strict):
    """Of the Frank-Wolfe solver: the smallest move, and the most steps."""

    epsilon: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    max_iters: int = Field(default=100, ge=1)


class Mgda(FromTorchjd):
    """Multiple gradient descent (Désidéri 2012; Sener and Koltun 2018, arXiv:1810.04650): the shortest convex combination."""

    weighting = "MGDAWeighting"
    mean_scaled = True
    Settings = MgdaSettings


class ImtlG(GradientAggregator):
    """Impartial multi-task learning, gradient part (Liu et al. 2021): equal projections on all gradients' directions.

    v = G⁺ √diag(G), α = m · v / Σ|v|; weights may be negative. Theirs, and torchjd's, divides by Σ v: where that is negative the
    projections are equal and negative, and every task gets worse.
    """

    scale_free = True

    def weights(self, gramian: Tensor, present: Sequence[int], step: int) -> Tensor:
        """α [m]."""
        lengths = gramian.diagonal().sqrt()
        if float(lengths.min()) == 0.0:
            return torch.ones(len(gramian), dtype=torch.float64)
        # Unit gradients, so that short ones are not taken for dependent ones by the pseudo-inverse.
        cosines = gramian / (lengths[:, None] * lengths[None, :])
        found = torch.linalg.pinv(cosines, hermitian=True) @ torch.ones_like(lengths) / lengths
        return found * len(found) / found.abs().sum()


class AlignedSettings(Strict):
    """`scale_mode`: which eigenvalue all are drawn to."""

    scale_mode: Literal["min", "median", "rmse"] = "min"


class AlignedMtl(FromTorchjd):
    """Aligned-MTL (Senushkin et al. 2023, arXiv:2305.19000): the gradients' principal components are drawn to one length."""

    weighting = "AlignedMTLWeighting"
    mean_scaled = True
    Settings = AlignedSettings


class UpGrad(FromTorchjd):
    """UPGrad (Quinton and Rey 2024, arXiv:2406.16232): the mean of the gradients' projections on the cone that harms no task."""

    weighting = "UPGradWeighting"
    mean_scaled = True
    only_conflict = True


class NashMtl(GradientAggregator):
    """Nash-MTL (Navon et al. 2022, arXiv:2202.01017): the bargaining solution G α = 1 / α, at a mean α of 1.

    It is the one minimum of ½ αᵀ G α − Σ log α over α > 0, found by Newton's method. Their code, and torchjd's, come near it by a
    sequence of convex programs, a thousand times slower; theirs cuts the result to length 1, which a mean of 1 replaces.
    """

    scale_free = True
    ridge = 1e-8

    def weights(self, gramian: Tensor, present: Sequence[int], step: int) -> Tensor:
        """α [m]."""
        lengths = gramian.diagonal().sqrt()
        if float(lengths.min()) == 0.0:
            return torch.ones(len(gramian), dtype=torch.float64)
        # In β = α · length the problem is that of unit gradients, so long and short ones do no harm to its conditioning.
        cosines = gramian / (lengths[:, None] * lengths[None, :])
        alpha = bargain(cosines + self.ridge * torch.eye(len(gramian), dtype=torch.float64)) / lengths
        return alpha * len(alpha) / alpha.sum()


def bargain(gramian: Tensor, steps: int = 200) -> Tensor:
    """α > 0 with G α = 1 / α: damped Newton, which converges from anywhere because the logarithm is self-concordant."""
    alpha = torch.ones(len(gramian), dtype=torch.float64)
    for _ in range(steps):
        gradient = gramian @ alpha - 1 / alpha
        move = torch.linalg.solve(gramian + torch.diag(alpha**-2), gradient)
        decrement = float((gradient @ move).clamp_min(0).sqrt())
        alpha = alpha - move / (1 + decrement if decrement > 0.25 else 1.0)
        if decrement < 1e-12:
            break
    return alpha


_BUILTIN = {
    "pcgrad": PCGrad,
    "cagrad": CAGrad,
    "mgda": Mgda,
    "imtl_g": ImtlG,
    "aligned_mtl": AlignedMtl,
    "nash_mtl": NashMtl,
    "upgrad": UpGrad,
}
AGGREGATORS = Registry(
    "gradient aggregator",
    "mtl_nlp.gradient_aggregators",
    {name: f"{__name__}:{cls.__name__}" for name, cls in _BUILTIN.items()},
)
# torchjd's weightings that a Gramian is enough for and that keep no state between steps.
TORCHJD_NAMES = (
    "AlignedMTL",
    "CAGrad",
    "DualProj",
    "FairGrad",
    "IMTLG",
    "MGDA",
    "Mean",
    "PCGrad",
    "Random",
    "Sum",
    "UPGrad",
)
ONLY_CONFLICT, SCALE_FREE = ("DualProj", "PCGrad", "UPGrad"), ("IMTLG",)
_STATE = "it keeps a state that torchjd cannot save, so a run could not be resumed"
_WHOLE = "it needs whole gradients, not their inner products"
_COUNTS = "it counts on a fixed number of tasks, and a step may hold fewer"
TORCHJD_REFUSED = dict.fromkeys(("GradVac", "PCD", "ExcessMTL", "CRMOGM", "MoDo", "SDMGrad"), _STATE)
TORCHJD_REFUSED |= dict.fromkeys(("GradDrop", "ConFIG", "TrimmedMean"), _WHOLE)
TORCHJD_REFUSED |= {"Krum": _COUNTS, "Constant": _COUNTS, "NashMTL": "built in as nash_mtl"}


class AnySettings(Strict):
    """Whatever torchjd's own constructor takes."""

    model_config = ConfigDict(extra="allow")


def _other(name: str) -> type[FromTorchjd]:
    """`torchjd:NAME` as a class; the scale is torchjd's own."""
    if name in TORCHJD_REFUSED:
        raise fault(
            f"{TORCHJD}{name}: {TORCHJD_REFUSED[name]}", key=KEY, allowed=f"{TORCHJD}NAME of {listed(TORCHJD_NAMES)}"
        )
    if name not in TORCHJD_NAMES:
        cure = closest(name, TORCHJD_NAMES).strip()
        raise fault(f'found "{TORCHJD}{name}"', key=KEY, allowed=f"{TORCHJD}NAME of {listed(TORCHJD_NAMES)}", cure=cure)
    made = {"weighting": f"{name}Weighting", "Settings": AnySettings}
    made |= {"only_conflict": name in ONLY_CONFLICT, "scale_free": name in SCALE_FREE}
    return type(name, (FromTorchjd,), {"__doc__": f"torchjd's {name}.", **made})


def aggregator_class(name: str) -> type[GradientAggregator] | None:
    """The class of a name; None for `none`.

    Raises:
        FaultyInput: unknown; the message lists the known ones.
    """
    if name == NONE:
        return None
    if name.startswith(TORCHJD):
        return _other(name.removeprefix(TORCHJD))
    if name not in AGGREGATORS:
        known = [NONE, *AGGREGATORS.names()]
        allowed = f"{listed(known)}, or {TORCHJD}NAME"
        raise fault(f'found "{name}"', key=KEY, allowed=allowed, cure=closest(name, known).strip())
    cls: type[GradientAggregator] = AGGREGATORS.get(name)
    return cls


def make_aggregator(written: Written, *, tasks: Sequence[str], seed: int) -> GradientAggregator | None:
    """An aggregator from `NAME` or `{name: NAME, settings}`; None for `none`.

    Raises:
        FaultyInput: an unknown name or setting, or torchjd is missing.
    """
    cls = aggregator_class(method_name(written, KEY))
    settings = method_settings(cls.Settings if cls else NoSettings, written, KEY)
    if cls is None:
        return None
    try:
        return cls(tasks, seed, settings)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise fault(str(error), key=KEY) from error
