"""`finetune`: recipe in, checkpoint out; resumable at any moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..data.batching import Collator
from ..data.mixture import Mixture
from ..errors import UserError, fault
from ..hub.card import write_card
from ..hub.checkpoint import CARD, HISTORY, METRICS, write_json, write_model
from ..hub.environment import history
from ..hub.location import repository
from ..model.multitask import MultiTaskModel
from ..recipe import Recipe, load_recipe, make_recipe
from ..schema import Source
from . import lora
from .arguments import fit_batches, training_arguments
from .balance import Balancer
from .callbacks import summary
from .chance import chance_losses
from .conditioning import condition_model, row_cost
from .distil import DistillingTrainer
from .evaluation import Scorer
from .fast_paths import fast_paths
from .forgetting import forgetting, old_scores
from .memory import release_memory
from .mixing import plan_lines
from .precision import keep_precision
from .prepare import Prepared, check_recipe, prepare
from .profiling import Profile, ProfileCallback
from .resume import check_same_run, find_checkpoint, output_folder
from .sharding import check_processes, shard_layers, whole_state
from .teachers import teacher_targets
from .teaching import TeachingCollator, TeachingTrainer
from .trainer import MultiTaskTrainer
from .transfer import take_heads
from .warm_start import warm_model

logger = logging.getLogger("mtl_nlp")


@dataclass
class Result:
    """What a run gave.

    Attributes:
        folder: the checkpoint.
        metrics: task → metric → value on validation, `mean` apart.
        mean: the mean of the primary metrics, None without evaluation.
        report: steps, seconds, texts and passes by corpus.
        pushed: the address of the commit on the Hub, None where nothing was published.
        forgetting: what became of the tasks that the run inherited (`training.forgetting`); None where there are none.
    """

    folder: Path
    metrics: dict[str, dict[str, float]]
    mean: float | None
    report: dict[str, Any]
    pushed: str | None = None
    forgetting: dict[str, Any] | None = None


def as_recipe(recipe: Recipe | str | Path | Mapping[str, Any], memory: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from a file, plain data, or as it is."""
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return make_recipe(recipe, Source("recipe"), memory=memory or ())
    return load_recipe(recipe, memory=memory or ())


def finetune(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    datasets: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
    resume: bool | str | Path = False,
    push: str | None = None,
    private: bool = False,
    callbacks: Any = (),
    profile: Profile | None = None,
) -> Result:
    """Train one shared encoder on all tasks of a recipe and save the checkpoint to its `output_dir`.

    Args:
        recipe: a file, plain data with the keys of a recipe, or a `Recipe`.
        datasets: task → data in memory: a `datasets.Dataset`, a DataFrame or a list of dicts, or a mapping split → such.
        data_root: read `DIR/TASK_NAME/{train,validation,test}.*` in place of Hub datasets.
        resume: continue from the newest complete checkpoint of `output_dir` (or from the one named, a folder or `OWNER/NAME` on
            the Hub); from the start if there is none.
        push: publish the finished model as `OWNER/NAME`; and while training, as `training.hub_strategy` says.
        private: whether a repository that this makes is private.
        callbacks: further `transformers.TrainerCallback`s.
        profile: write where the time of a step goes to the run's folder.

    Raises:
        UserError: anything at fault in recipe, data or output folder, before the first step.
    """
    made = as_recipe(recipe, datasets)
    check_recipe(made)
    check_processes(made)
    folder = output_folder(made, resume=bool(resume))
    root = Path(data_root) if data_root is not None else None
    prepared = prepare(made, data_root=root, memory=datasets)
    checkpoint = find_checkpoint(folder, resume)
    if checkpoint is not None:
        if prepared.precision is not None:
            prepared.precision = keep_precision(made, prepared.precision, checkpoint)
        check_same_run(checkpoint, prepared)
    trainer = build_trainer(prepared, callbacks=callbacks, push=push, private=private)
    before = old_scores(prepared, scoring(trainer))
    folder.mkdir(parents=True, exist_ok=True)
    cost = row_cost(prepared, trainer.mixture)
    if trainer.is_world_process_zero():
        for line in (*plan_lines(made, trainer.mixture), str(prepared.precision)):
            logger.info("%s", line)
        if cost is not None:
            logger.info("%s", cost.line())
    if profile is not None and trainer.is_world_process_zero():
        trainer.add_callback(ProfileCallback(trainer, profile, folder))
    start = time.perf_counter()
    output = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    report = run_report(prepared, trainer.mixture, output.global_step, time.perf_counter() - start)
    report["parameters"] = parameter_counts(trainer.multi)
    report |= trainer.schedule.report()
    if cost is not None:
        report["rows_per_text"] = {"training": round(cost.training, 4), "prediction": cost.prediction}
    result = save_result(trainer, prepared, folder, report, before)
    del trainer  # else the model would be there until the caller has the result
    release_memory()
    return result


def parameter_counts(model: MultiTaskModel) -> dict[str, int]:
    """How many numbers the model has, and how many of them were trained."""
    return {
        "total": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def build_trainer(
    prepared: Prepared, *, callbacks: Any = (), push: str | None = None, private: bool = False
) -> MultiTaskTrainer:
    """Model and trainer for prepared data; all randomness from the recipe's seed."""
    from transformers import EarlyStoppingCallback, set_seed

    recipe, tasks = prepared.recipe, prepared.tasks
    mixture = prepared.mixture()
    arguments, own = training_arguments(recipe, max_steps=mixture.planned)
    fit_batches(arguments, mixture, recipe)
    if push is not None:
        arguments.push_to_hub = True
        arguments.hub_model_id, arguments.hub_revision = repository(push)
        arguments.hub_private_repo = private or arguments.hub_private_repo
    set_seed(recipe.seed)
    model = starting_model(prepared)
    dropout = fast_paths(model, recipe, arguments)
    if recipe.lora is not None and arguments.fsdp:
        raise fault(
            "found it beside fsdp", where=recipe.place_of("lora"), key="lora", cure="train with DDP, or without lora"
        )
    shard_layers(arguments, model)
    evaluates = str(
        arguments.eval_strategy.value if hasattr(arguments.eval_strategy, "value") else arguments.eval_strategy
    )
    scorer = make_scorer(prepared, "validation") if evaluates != "no" else None
    extra = list(callbacks)
    if recipe.stopping.patience is not None and not recipe.stopping.per_task:
        arguments.restore_callback_states_from_checkpoint = True
        extra.append(EarlyStoppingCallback(recipe.stopping.patience, recipe.stopping.tolerance))
    # Tasks that are only kept have no labels here, wherever their texts are drawn.
    owners = {
        corpus: [name for name in names if name not in recipe.untrained] for corpus, names in prepared.owners.items()
    }
    return trainer_class(prepared)(
        model,
        arguments,
        mixture=mixture,
        train=prepared.encoded["train"],
        collator=training_collator(prepared, owners, arguments),
        scorer=scorer,
        own=own,
        weights={task.name: task.loss.weight for task in tasks},
        equal_shares=recipe.balancing.shares == "equal",
        dropout=dropout,
        stopping=recipe.stopping,
        balancer=Balancer.from_recipe(
            recipe.balancing, model, seed=recipe.seed, chance=lambda: chance_losses(prepared)
        ),
        cosine_steps=recipe.balancing.cosine_steps,
        save_extra=lambda folder: save_extra(folder, prepared),
        callbacks=extra,
    )


def starting_model(prepared: Prepared) -> MultiTaskModel:
    """The model before its first step: on a pretrained encoder or at a checkpoint, with adapters where the recipe has lora."""
    recipe = prepared.recipe
    if prepared.start is not None:
        model = warm_model(prepared.start, prepared.tasks, recipe.encoder_spec, recipe.untrained)
    else:
        pad = prepared.tokenizer.pad_token_id
        model = MultiTaskModel.from_encoder(recipe.encoder_spec, prepared.tasks, base=recipe.base, pad_token_id=pad)
    take_heads(model, prepared.tasks)
    condition_model(model, recipe)
    if recipe.lora is not None:
        lora.add_adapters(model, recipe.lora)
    return model


def training_collator(prepared: Prepared, owners: Mapping[str, list[str]], arguments: Any) -> Collator:
    """Pads training rows; with teachers it adds what they say, computed here or read from the run's folder."""
    recipe = prepared.recipe
    options: dict[str, Any] = {"labelled": True, "seed": recipe.seed}
    if recipe.distil is None:
        return Collator(prepared.tokenizer, prepared.tasks, owners, **options)
    folder = None if recipe.output_dir is None else Path(recipe.output_dir)
    first, batch = arguments.process_index == 0, arguments.per_device_eval_batch_size
    # Whether outputs are computed or read again, what is drawn afterwards is the same.
    with torch.random.fork_rng():
        targets = teacher_targets(prepared, folder, write=first, batch=batch)
    return TeachingCollator(prepared.tokenizer, prepared.tasks, owners, targets=targets, **options)


def trainer_class(prepared: Prepared) -> Callable[..., MultiTaskTrainer]:
    """The plain trainer, or one that learns from teachers or holds inherited tasks to their old outputs."""
    recipe, retain = prepared.recipe, prepared.recipe.retain
    if recipe.distil is not None:
        return partial(TeachingTrainer, distil=recipe.distil)
    if prepared.start is None or retain is None or retain.method != "distil":
        return MultiTaskTrainer
    old = prepared.start.model()
    if recipe.performance != "plain":
        old.use_fast_paths()
    return partial(
        DistillingTrainer,
        old=old,
        inherited=recipe.inherited,
        weight=retain.weight,
        temperature=retain.temperature,
    )


def make_scorer(prepared: Prepared, split: str) -> Scorer:
    """A scorer over one split of every corpus that has it.

    Raises:
        UserError: no corpus has it.
    """
    splits = prepared.encoded[split]
    if not splits:
        raise fault(f"no task has the split {split}", key="--split", allowed="a split that the tasks' data has")
    return Scorer(prepared.tasks, splits, prepared.owners, prepared.tokenizer, prepared.contexts(split))


def save_extra(folder: Path, prepared: Prepared) -> None:
    """What belongs beside the weights: tokenizer and resolved recipe."""
    prepared.tokenizer.save_pretrained(folder)
    prepared.recipe.write_resolved(folder)


def scoring(trainer: MultiTaskTrainer) -> dict[str, Any]:
    """How `Scorer.score` runs on this trainer's device and processes."""
    return {
        "device": trainer.args.device,
        "batch": trainer.args.per_device_eval_batch_size,
        "context": trainer.compute_loss_context_manager,
        "process": trainer.args.process_index,
        "processes": trainer.args.world_size,
    }


def scores_of_final(trainer: MultiTaskTrainer) -> dict[str, float]:
    """The validation scores of the weights that the run ended with, where they were taken on the way; empty if not."""
    state = trainer.state
    best = trainer.args.load_best_model_at_end and state.best_model_checkpoint is not None
    step = state.best_global_step if best else state.global_step
    return dict(trainer.scores.get(step or 0, {}))


def save_result(
    trainer: MultiTaskTrainer,
    prepared: Prepared,
    folder: Path,
    report: dict[str, Any],
    before: Mapping[str, float] | None = None,
) -> Result:
    """Score the final model on validation and write the model folder.

    Args:
        before: the scores of the checkpoint that the run began at.
    """
    metrics = {} if lora.is_adapted(trainer.multi) else scores_of_final(trainer)
    lora.merge(trainer.multi)
    if prepared.encoded["validation"] and not metrics:
        scorer = trainer.scorer or make_scorer(prepared, "validation")
        metrics = scorer.score(trainer.multi, **scoring(trainer))
    if metrics:
        logger.info("validation: %s", summary(metrics, [task.name for task in prepared.tasks]))
    names = [task.name for task in prepared.tasks]
    scores = by_task(metrics, names)
    lost = forgetting(by_task(before or {}, names), scores)
    result = Result(folder, scores, metrics.get("eval_mean"), report, forgetting=lost)
    state = whole_state(trainer.multi)
    if trainer.args.should_save:
        try:
            write_model(folder, lambda path: _write_model(path, trainer, prepared, result, state))
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{folder}: the model cannot be written: {error}; free some space, then --resume"
            ) from error
    if trainer.publisher is not None:
        try:
            result.pushed = trainer.publisher.finish(folder)
        except UserError as error:
            cure = f"the model is in {folder}; `mtl-nlp push {folder} {trainer.publisher.repo}` tries again"
            raise UserError(f"{error}; {cure}") from error
    trainer.accelerator.wait_for_everyone()
    return result


def _write_model(
    folder: Path, trainer: MultiTaskTrainer, prepared: Prepared, result: Result, state: dict[str, Any] | None
) -> None:
    trainer._save(str(folder), state_dict=state)
    facts = {"validation": result.metrics, "mean": result.mean, "run": result.report}
    write_json(folder / METRICS, facts | ({"forgetting": result.forgetting} if result.forgetting else {}))
    write_json(folder / HISTORY, history(trainer.state.log_history))
    earlier = result.folder / CARD
    write_card(folder, previous=earlier.read_text(encoding="utf-8", errors="replace") if earlier.is_file() else None)


def by_task(metrics: Mapping[str, float], tasks: list[str], prefix: str = "eval") -> dict[str, dict[str, float]]:
    """`eval_TASK_METRIC` → task → metric → value; the longest task name that fits owns a key."""
    found: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        owners = [task for task in tasks if key.startswith(f"{prefix}_{task}_")]
        if owners:
            task = max(owners, key=len)
            found.setdefault(task, {})[key.removeprefix(f"{prefix}_{task}_")] = value
    return found


def run_report(prepared: Prepared, mixture: Mixture, steps: int, seconds: float) -> dict[str, Any]:
    """Steps, seconds, and what the epochs meant for each corpus."""
    rows = mixture.describe(steps=steps)
    corpora = {r.corpus: {"texts": r.texts, "rate": r.rate, "draws": r.draws, "passes": r.passes} for r in rows}
    truncated = {name: split.truncated for name, split in prepared.encoded["train"].items()}
    return {"steps": steps, "seconds": round(seconds, 1), "corpora": corpora, "truncated": truncated}
