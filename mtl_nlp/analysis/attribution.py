"""How much each token's embedding contributed to one number that a head gives: three methods.

* Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365): the gradient, averaged along the straight line from a baseline
  to the input, × their difference. Complete: the sum is the difference of the numbers at both ends. The number of steps is doubled
  until that holds within 1 %.
* Gradient × input (Shrikumar et al. 2017, arXiv:1605.01713): one gradient. Quick, not complete.
* Occlusion (Zeiler and Fergus 2014, arXiv:1311.2901): what the number loses when a word is replaced by the baseline. Needs no
  gradient, so it checks the other two.

All three are captum's (the extra `explain`). Letters: T tokens, H width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import fault

METHODS = ("integrated_gradients", "gradient_x_input", "occlusion")
PIP = 'pip install "mtl-nlp[explain]"'
COMPLETE = 0.01
# Below this a difference of numbers is rounding in float32, and 1 % of it means nothing.
ROUNDING = 1e-5
FEWEST, MOST = 16, 1024

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Attribution:
    """What one method says of one number.

    Attributes:
        tokens: [T], each token's contribution; for occlusion a word's stands on its first token.
        value: the number for the input; `baseline` for the baseline.
        steps: of integrated gradients, else None.
    """

    tokens: NDArray[np.float64]
    value: float
    baseline: float
    steps: int | None = None

    @property
    def delta(self) -> float | None:
        """Sum of the contributions − (value − baseline); None for methods that promise no such sum."""
        if self.steps is None:
            return None
        return math.fsum(self.tokens.tolist()) - (self.value - self.baseline)

    @property
    def complete(self) -> bool | None:
        """Whether |delta| is at most 1 % of the difference (or rounding); None where nothing is promised."""
        return None if self.delta is None else abs(self.delta) <= allowed_gap(self.value, self.baseline)


def allowed_gap(value: float, baseline: float) -> float:
    """How far the sum may be from the difference."""
    return max(COMPLETE * abs(value - baseline), ROUNDING * max(1.0, abs(value), abs(baseline)))


def captum_methods() -> Any:
    """captum's module of methods.

    Raises:
        UserError: captum is not installed.
    """
    try:
        import captum.attr
    except ImportError as error:
        raise fault("explanations need captum", key="explain", cure=PIP) from error
    return captum.attr


def attribute(
    method: str,
    score: Score,
    inputs: Tensor,
    baselines: Tensor,
    words: Tensor,
    *,
    batch: int = 32,
    fewest: int = FEWEST,
    most: int = MOST,
) -> Attribution:
    """The contributions of an input's tokens to `score`.

    Args:
        method: one of `METHODS`.
        score: embeddings [n, T, H] → [n].
        inputs: [1, T, H], the input's embeddings.
        baselines: [1, T, H].
        words: [T], the word that each token belongs to, −1 for tokens that are kept (special ones).
        batch: most rows a pass.
        fewest: steps to begin with.
        most: steps to give up at; the result is then not `complete`.

    Raises:
        UserError: an unknown method, or captum is missing.
    """
    if method not in METHODS:
        raise fault(f'found "{method}"', key="--method", allowed=", ".join(METHODS))
    methods = captum_methods()
    with torch.no_grad():
        value, baseline = (float(score(point)) for point in (inputs, baselines))
    if method == "integrated_gradients":
        tokens, steps = _integrated(methods, score, inputs, baselines, (value, baseline), batch, fewest, most)
        return Attribution(tokens, value, baseline, steps)
    if method == "gradient_x_input":
        found = methods.InputXGradient(score).attribute(inputs.clone().requires_grad_())
        return Attribution(_by_token(found), value, baseline)
    return Attribution(_occluded(methods, score, inputs, baselines, words, batch), value, baseline)


def _by_token(attributed: Tensor) -> NDArray[np.float64]:
    """[1, T, H] → [T]."""
    return attributed.detach()[0].double().sum(-1).cpu().numpy()


def _integrated(
    methods: Any,
    score: Score,
    inputs: Tensor,
    baselines: Tensor,
    ends: tuple[float, float],
    batch: int,
    fewest: int,
    most: int,
) -> tuple[NDArray[np.float64], int]:
    """Contributions, and the steps (of Gauss-Legendre quadrature) that they took."""
    integral, steps = methods.IntegratedGradients(score), min(fewest, most)
    while True:
        found = integral.attribute(inputs, baselines, n_steps=steps, internal_batch_size=batch)
        attribution = Attribution(_by_token(found), *ends, steps)
        if attribution.complete or steps >= most:
            return attribution.tokens, steps
        steps = min(2 * steps, most)


def _occluded(
    methods: Any, score: Score, inputs: Tensor, baselines: Tensor, words: Tensor, batch: int
) -> NDArray[np.float64]:
    """What `score` loses without each word, on the word's first token."""
    tokens = np.zeros(inputs.shape[1])
    present = [int(word) for word in words.unique() if word >= 0]
    if not present:
        return tokens
    # captum ablates features 0 … n − 1 one by one; tokens that are kept are a feature whose baseline is the input.
    numbers = {word: i for i, word in enumerate(present)}
    mask = torch.tensor([numbers.get(int(word), len(present)) for word in words], device=inputs.device)
    found = methods.FeatureAblation(score).attribute(
        inputs,
        baselines=baselines,
        feature_mask=mask[None, :, None].expand_as(inputs),
        perturbations_per_eval=batch,
    )
    for word in present:
        first = int((words == word).nonzero()[0])
        tokens[first] = float(found[0, first, 0])
    return tokens
