"""What goes with what: the one table that `check` refuses from and that the matrix in docs/methods.md is generated from.

A `Setup` says what a recipe asks for; a `Rule` says which setups cannot work and why. What is not known yet is None, and a rule
that needs it waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import Faults, FaultyInput
from .gradient_aggregation import AGGREGATORS, NONE, aggregator_class
from .loss_weighting import WEIGHTINGS, weighting_class
from .weighting import GRADIENT_NORMS, LOSSES_AFTER

IN_BACKWARD = ("lomo", "adalomo")


@dataclass(frozen=True)
class Setup:
    """What a recipe asks for, as far as rules care.

    Attributes:
        on: `parameters` or `representation`, for gradients.
        tasks: how many.
        batching: `mixed` or `homogeneous`.
        accumulation: micro-batches a step.
        frozen: the whole encoder keeps its weights.
        sharded: FSDP or DeepSpeed.
        optimizer: `training.optim`.
        shared_texts: whether some corpus has annotations of two tasks; None before the data was read.
        cosines: gradient cosines are noted while training.
        conditioning: its kind.
        recomputed: layers run a second time, or compiled (gradient checkpointing, `torch_compile`).
    """

    weighting: str = "fixed"
    gradients: str = NONE
    on: str = "parameters"
    tasks: int = 2
    batching: str = "mixed"
    accumulation: int = 1
    frozen: bool = False
    sharded: bool = False
    optimizer: str = "adamw_torch_fused"
    shared_texts: bool | None = None
    cosines: bool = False
    conditioning: str = "none"
    recomputed: bool = False

    @property
    def conditioned(self) -> bool:
        """Whether a row of the encoder is for one task."""
        return self.conditioning != "none"

    @property
    def aggregates(self) -> bool:
        """Whether gradients are aggregated."""
        return self.gradients != NONE

    @property
    def reads(self) -> frozenset[str]:
        """What the weighting reads."""
        return weighting_class(self.weighting).reads

    @property
    def compares(self) -> bool:
        """Whether the weighting compares the tasks of a step."""
        return bool(self.reads & {GRADIENT_NORMS, LOSSES_AFTER})

    @property
    def scale_free(self) -> bool:
        """Whether the aggregator does not feel a loss weight."""
        cls = aggregator_class(self.gradients)
        return cls is not None and cls.scale_free

    @property
    def only_conflict(self) -> bool:
        """Whether the aggregator acts on conflicting gradients only."""
        cls = aggregator_class(self.gradients)
        return cls is not None and cls.only_conflict

    @property
    def learned(self) -> bool:
        """Whether the weighting has parameters in the optimizer."""
        return weighting_class(self.weighting).learned


@dataclass(frozen=True)
class Rule:
    """One combination that cannot work.

    Attributes:
        name: for the matrix.
        key: of the recipe.
        broken: whether a setup is such a combination.
        reason: why it cannot work.
        cure: what to do.
    """

    name: str
    key: str
    broken: Callable[[Setup], bool]
    reason: str
    cure: str


def _one_task(setup: Setup) -> bool:
    return setup.tasks < 2 and (setup.aggregates or setup.weighting not in ("fixed", "chance", "uncertainty"))


RULES = (
    Rule(
        "one task",
        "balancing",
        _one_task,
        "there is one task: nothing to balance",
        "leave `balancing` out, or add a task",
    ),
    Rule(
        "scale-free aggregator",
        "balancing.weighting",
        lambda s: s.weighting != "fixed" and s.scale_free,
        "the aggregator does not feel how long a task's gradient is, so loss weights would be without effect on the encoder",
        "weighting: fixed, or another aggregator",
    ),
    Rule(
        "FAMO and an aggregator",
        "balancing.weighting",
        lambda s: LOSSES_AFTER in s.reads and s.aggregates,
        "it learns from what its own weighted sum did to the losses, and an aggregator replaces that sum",
        "gradients: none, or another weighting",
    ),
    Rule(
        "homogeneous batches",
        "mixture.batching",
        lambda s: s.batching == "homogeneous" and s.shared_texts is False and (s.aggregates or s.compares),
        "a step holds one task, so there is nothing to compare",
        "batching: mixed",
    ),
    Rule(
        "representation and accumulation",
        "balancing.on",
        lambda s: s.aggregates and s.on == "representation" and s.accumulation > 1,
        "what the encoder's backward pass begins with is only known after the last micro-batch",
        "on: parameters, or training.gradient_accumulation_steps: 1",
    ),
    Rule(
        "representation without shared texts",
        "balancing.on",
        lambda s: s.on == "representation" and s.only_conflict and s.shared_texts is False,
        "no text belongs to two tasks, so their gradients on the representation never meet and the aggregator would do nothing",
        "on: parameters",
    ),
    Rule(
        "representation without an aggregator",
        "balancing.on",
        lambda s: s.on == "representation" and not s.aggregates,
        "no gradients are aggregated",
        "give `gradients`, or leave `on` out",
    ),
    Rule(
        "frozen encoder",
        "encoder.freeze",
        lambda s: s.frozen and (s.aggregates or GRADIENT_NORMS in s.reads),
        "the encoder learns nothing, so there are no gradients on what the tasks share",
        "gradients: none and a weighting that reads losses",
    ),
    Rule(
        "FSDP or DeepSpeed",
        "balancing",
        lambda s: s.sharded and (s.aggregates or s.compares or s.learned),
        "parameters are sharded: task gradients, a second forward pass and weights in the optimizer need them whole",
        "DDP (torchrun), or one of fixed, chance, random, dwa",
    ),
    Rule(
        "cosines",
        "balancing.cosine_steps",
        lambda s: s.cosines and (s.tasks < 2 or s.frozen or s.sharded),
        "cosines are between the gradients of two tasks or more on an encoder that learns and is not sharded",
        "leave it out",
    ),
    Rule(
        "optimizers that step in the backward pass",
        "training.optim",
        lambda s: (
            (s.optimizer in IN_BACKWARD or s.optimizer.endswith("_layerwise"))
            and (s.aggregates or s.compares or s.learned)
        ),
        "it updates a parameter before the gradients of all tasks are known",
        "another optim",
    ),
    Rule(
        "representation of a conditioned encoder",
        "balancing.on",
        lambda s: s.on == "representation" and s.aggregates and s.conditioned,
        "each row of a conditioned encoder is for one task, so there is no representation that tasks share",
        "on: parameters",
    ),
    Rule(
        "conditioning and sharded parameters",
        "conditioning",
        lambda s: s.conditioned and s.sharded,
        "the conditions are read inside the encoder's layers, outside the unit that gathers them",
        "DDP (torchrun), or no conditioning",
    ),
    Rule(
        "conditioning and recomputed layers",
        "conditioning",
        lambda s: s.conditioned and s.recomputed,
        "a layer that runs again in the backward pass, or compiled, does not know which rows are for which task",
        "leave gradient_checkpointing and torch_compile out",
    ),
)


def broken_rules(setup: Setup) -> list[Rule]:
    """The rules that a setup breaks."""
    return [rule for rule in RULES if rule.broken(setup)]


def check_setup(setup: Setup, where: Callable[[str], str] = lambda key: "") -> None:
    """Refuse what cannot work.

    Args:
        where: a key's `file:line`.

    Raises:
        FaultyInput: every broken rule with its reason.
    """
    faults = Faults()
    for rule in broken_rules(setup):
        found = described(setup, rule)
        faults.add(f"{found}: {rule.reason}", where=where(rule.key), key=rule.key, cure=rule.cure)
    if len(faults):
        raise FaultyInput(faults)


def described(setup: Setup, rule: Rule) -> str:
    """The two that do not go together, in the recipe's words."""
    method = f"weighting {setup.weighting}" if setup.weighting != "fixed" else ""
    if rule.key == "conditioning":
        return f"conditioning {setup.conditioning}"
    if setup.aggregates:
        method = " and ".join(part for part in (method, f"gradients {setup.gradients}") if part)
    other = {
        "mixture.batching": f"batching {setup.batching}",
        "balancing.on": f"on {setup.on}",
        "encoder.freeze": "freeze all",
        "training.optim": f"optim {setup.optimizer}",
    }.get(rule.key, "")
    if rule.name == "representation and accumulation":
        other += f" and {setup.accumulation} micro-batches a step"
    return " with ".join(part for part in (method, other) if part) or rule.name


CIRCUMSTANCES: tuple[tuple[str, dict[str, object]], ...] = (
    ("accumulation", {"accumulation": 8}),
    ("homogeneous batches¹", {"batching": "homogeneous", "shared_texts": False}),
    ("one task", {"tasks": 1}),
    ("frozen encoder", {"frozen": True}),
    ("FSDP, DeepSpeed", {"sharded": True}),
    ("conditioned encoder", {"conditioning": "vector"}),
)


def matrix() -> str:
    """The tables of docs/methods.md: weighting × aggregator, and each method × circumstances."""
    weightings, aggregators = WEIGHTINGS.builtin(), AGGREGATORS.builtin()
    columns = [NONE, *aggregators]
    lines = ["| weighting | " + " | ".join(f"`{name}`" for name in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for weighting in weightings:
        cells = [_cell(Setup(weighting=weighting, gradients=gradients)) for gradients in columns]
        lines.append(f"| `{weighting}` | " + " | ".join(cells) + " |")
    methods = [(f"`{name}`", Setup(weighting=name)) for name in weightings if name != "fixed"]
    methods += [(f"`{name}`", Setup(gradients=name)) for name in aggregators]
    names = [name for name, _ in CIRCUMSTANCES]
    wide = [*names, "`on: representation`", "the same, no shared texts", "the same, conditioned"]
    lines += ["", "| method | " + " | ".join(wide) + " |", "|---" * (len(wide) + 1) + "|"]
    for name, setup in methods:
        cells = [_cell(replace(setup, **change)) for _, change in CIRCUMSTANCES]  # type: ignore[arg-type]
        on = [replace(setup, on="representation", shared_texts=shared) for shared in (True, False)]
        on += [replace(on[0], conditioning="vector")]
        lines.append(f"| {name} | " + " | ".join(cells + [_cell(one) for one in on]) + " |")
    lines += ["", "A number is the reason why a combination is refused:", ""]
    lines += [f"{number}. {rule.name}: {rule.reason}." for number, rule in enumerate(RULES, 1)]
    lines += ["", "¹ Where no text belongs to two tasks; otherwise a homogeneous step may hold several."]
    return "\n".join(lines)


def _cell(setup: Setup) -> str:
    broken = broken_rules(setup)
    return ", ".join(str(RULES.index(rule) + 1) for rule in broken) if broken else "yes"
