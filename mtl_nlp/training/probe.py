"""What a run will do, and about how long it will take.

`plan_run` works it out from the recipe and the mixture; `estimate` trains the real model on the mixture's first batches for a
few steps, times them and a few batches of evaluation, and throws the model away. Nothing is written to the run's folder.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments

from ..data.mixture import CorpusDraws, Mixture
from ..decoding import by_length, run_batch, texts_of
from ..errors import fault
from ..recipe import Stopping
from .arguments import fit_batches, training_arguments
from .conditioning import row_cost
from .evaluation import Scorer
from .finetune import build_trainer, make_scorer
from .memory import peak_memory
from .mixing import foretold
from .prepare import Prepared
from .trainer import MultiTaskTrainer

logger = logging.getLogger("mtl_nlp")

WARMUP, MEASURED = 2, 5
EVALUATED = 2


@dataclass(frozen=True)
class RunPlan:
    """What a run will do.

    Attributes:
        batch: the global batch in texts: `processes` × `accumulation` × `device_batch`. With `max_tokens` it is the mean, rounded.
        max_tokens: most real tokens in it, where there is such a limit.
        epochs: draws over the texts of all training splits.
        warmup_steps: steps until the learning rate stands at its height.
        evaluations: during the run; one more scores the finished model. Early stopping may leave some out.
        validation_texts: what one evaluation scores.
        corpora: texts, rate, draws and passes of each corpus.
        notes: what these leave open, and what may end the run early.
    """

    encoder: str
    max_length: int
    strategy: str
    batching: str
    batch: int
    max_tokens: int | None
    processes: int
    accumulation: int
    device_batch: int
    steps: int
    epochs: float
    steps_per_epoch: int
    draws: int
    warmup_steps: int
    evaluations: int
    validation_texts: int
    corpora: list[CorpusDraws]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Estimate:
    """About how long the run takes on this machine.

    Attributes:
        steps: optimizer steps that were timed, after those that warmed up.
        step_seconds: their median.
        texts_per_second: texts scored in evaluation.
        training_seconds: steps of the run × `step_seconds`.
        evaluation_seconds: of one evaluation; the run has its own and one of the finished model.
        peak_memory: bytes, while training and scoring: what was allocated on the GPU, else the whole process (data included).
    """

    device: str
    steps: int
    step_seconds: float
    texts_per_second: float
    training_seconds: float
    evaluation_seconds: float
    total_seconds: float
    peak_memory: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def plan_run(prepared: Prepared) -> RunPlan:
    """Work out what a run will do.

    Raises:
        FaultyInput: the arguments contradict each other or the mixture.
    """
    recipe, mixture = prepared.recipe, prepared.mixture()
    steps = mixture.planned
    arguments, _ = training_arguments(recipe, max_steps=steps)
    fit_batches(arguments, mixture, recipe)
    drawn = mixture.describe(steps=steps)
    draws = sum(corpus.draws for corpus in drawn)
    evaluations = count_evaluations(arguments, mixture)
    cost = row_cost(prepared, mixture)
    return RunPlan(
        encoder=recipe.encoder_spec.name,
        max_length=prepared.max_length,
        strategy=recipe.mixture.strategy,
        batching=recipe.mixture.batching,
        batch=round(draws / steps),
        max_tokens=recipe.mixture.max_tokens,
        processes=arguments.world_size,
        accumulation=arguments.gradient_accumulation_steps,
        device_batch=arguments.per_device_train_batch_size,
        steps=steps,
        epochs=draws / mixture.total,
        steps_per_epoch=mixture.steps(1),
        draws=draws,
        warmup_steps=arguments.get_warmup_steps(steps),
        evaluations=evaluations,
        validation_texts=sum(len(split) for split in prepared.encoded["validation"].values()),
        corpora=drawn,
        notes=foretold(recipe, mixture) + ([cost.line()] if cost is not None else []),
    )


def count_evaluations(arguments: TrainingArguments, mixture: Mixture) -> int:
    """How often the Trainer evaluates in `max_steps` steps, as its `DefaultFlowCallback` decides it."""
    steps, delay = arguments.max_steps, arguments.eval_delay
    if arguments.eval_strategy == "no":
        return 0
    start = int(bool(arguments.eval_on_start))
    if arguments.eval_strategy == "epoch":
        size = mixture.steps(1)
        ends = [min(epoch * size, steps) / size for epoch in range(1, math.ceil(steps / size) + 1)]
        return start + sum(delay <= end for end in ends)
    every = float(arguments.eval_steps or arguments.logging_steps)
    every = math.ceil(steps * every) if every < 1 else int(every)
    # The last step is always evaluated.
    return start + sum(delay <= step for step in {*range(every, steps + 1, every), steps})


class StepClock(TrainerCallback):
    """The time at the end of every optimizer step, data loading included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time once the device has done its work."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def seconds(self, warmup: int) -> list[float]:
        """How long each step took, from the end of the one before; the first `warmup` steps are left out."""
        kept = self.ends[warmup - 1 :]
        return [after - before for before, after in pairwise(kept)]


def estimate(prepared: Prepared, plan: RunPlan, *, warmup: int = WARMUP, measured: int = MEASURED) -> Estimate:
    """Time a few real steps and a few batches of evaluation.

    Args:
        warmup: steps that are not timed, at least 1.
        measured: steps that are.

    Raises:
        UserError: the model cannot be built, or a batch does not fit the device's memory.
    """
    logger.info("probing: %d steps of training and a little of evaluation …", warmup + measured)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    clock = StepClock()
    try:
        with TemporaryDirectory(prefix="mtl-nlp-probe-") as folder:
            trial = replace(prepared, recipe=_trial(prepared, folder, warmup + measured))
            trainer = build_trainer(trial, callbacks=[clock])
            trainer.train()
            evaluation = _evaluation_seconds(trainer, make_scorer(trial, "validation"))
    except torch.OutOfMemoryError as error:
        where = prepared.recipe.place_of("mixture", "batch")
        cure = "a smaller mixture.batch or more training.gradient_accumulation_steps, or a smaller encoder.max_length"
        raise fault("does not fit the device's memory", where=where, key="mixture.batch", cure=cure) from error
    step = statistics.median(clock.seconds(warmup))
    return Estimate(
        device=_device_name(trainer.args.device),
        steps=measured,
        step_seconds=step,
        texts_per_second=plan.validation_texts / evaluation,
        training_seconds=plan.steps * step,
        evaluation_seconds=evaluation,
        total_seconds=plan.steps * step + (plan.evaluations + 1) * evaluation,
        peak_memory=_peak_memory(),
    )


def _trial(prepared: Prepared, folder: str, steps: int) -> Any:
    """The recipe with nothing of a run but its steps: no evaluation, no files, no log back ends."""
    silent = {
        "max_steps": steps,
        # A delay, because some schedulers refuse to go without an evaluation strategy.
        "eval_delay": 1e9,
        "eval_on_start": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "load_best_model_at_end": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
    recipe = prepared.recipe
    # One process cannot shard.
    training = {key: value for key, value in recipe.training.items() if key not in ("fsdp", "fsdp_config")}
    stopping = Stopping()
    # Teachers are asked once, before the first step, and cost a step next to nothing.
    changes = {"training": {**training, **silent}, "stopping": stopping, "output_dir": folder, "distil": None}
    return recipe.model_copy(update=changes)


def _evaluation_seconds(trainer: MultiTaskTrainer, scorer: Scorer) -> float:
    """One evaluation of all corpora, from a few batches of each, spread over the lengths."""
    size, total = trainer.args.per_device_eval_batch_size, 0.0
    trainer.multi.eval()
    for corpus, split in scorer.splits.items():
        batches = list(by_length(split.lengths, size))
        chosen = list(spread(len(batches), EVALUATED))
        _score(trainer, scorer, corpus, batches[chosen[0]])
        start = time.perf_counter()
        for number in chosen:
            _score(trainer, scorer, corpus, batches[number])
        seconds = time.perf_counter() - start
        total += seconds * len(split) / sum(len(batches[number]) for number in chosen)
    return total


def _score(trainer: MultiTaskTrainer, scorer: Scorer, corpus: str, texts: list[int]) -> None:
    wanted = {name: scorer.decoders[name] for name in scorer.owners[corpus] if name in scorer.decoders}
    if not wanted:
        return
    inputs = texts_of(scorer.splits[corpus], texts, scorer.contexts.get(corpus))
    context, device = trainer.compute_loss_context_manager, trainer.args.device
    run_batch(trainer.multi, wanted, scorer.collators[corpus], corpus, inputs, device=device, context=context)


def spread(size: int, number: int) -> Iterator[int]:
    """At most `number` places of `size`, in the middle of equal parts: 10 and 2 → 2, 7."""
    number = min(size, number)
    yield from ((2 * part + 1) * size // (2 * number) for part in range(number))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _peak_memory() -> int | None:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_memory()
