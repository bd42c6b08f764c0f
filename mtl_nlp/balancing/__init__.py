"""Many losses → one update: loss weights, task gradients, and how gradients are aggregated.

In come each task's mean loss over an optimizer step (`LossWeighting`) or its gradient (`TaskGradients`); out go one weight a
task, or one gradient. Nothing here knows a model, a batch or a trainer; `mtl_nlp.training.balance` puts the pieces into a step.

    weighting = make_weighting("uncertainty", WeightingContext(tasks=["sst2", "conll2003"], seed=13))
    weighting.weights(step=0)                                  # tensor([1., 1.])
    aggregator = make_aggregator("pcgrad", tasks=["sst2", "conll2003"], seed=13)
    aggregator.weights(gramian, present=[0, 1], step=0)        # what each task's gradient is multiplied by
"""

from .gradient_aggregation import AGGREGATORS, GradientAggregator, make_aggregator
from .loss_weighting import WEIGHTINGS, make_weighting
from .rules import RULES, Setup, broken_rules
from .task_gradients import TaskGradients, representation_gramian
from .weighting import LossWeighting, Observation, WeightingContext

__all__ = [
    "AGGREGATORS",
    "RULES",
    "WEIGHTINGS",
    "GradientAggregator",
    "LossWeighting",
    "Observation",
    "Setup",
    "TaskGradients",
    "WeightingContext",
    "broken_rules",
    "make_aggregator",
    "make_weighting",
    "representation_gramian",
]
