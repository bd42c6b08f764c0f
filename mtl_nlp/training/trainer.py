"""`MultiTaskTrainer`: `transformers.Trainer` with mixed batches, the contract's loss and one evaluation of all tasks.

A step minimises Σ w_t · s_t · L_t: L_t is the mean over task t's labelled units in the whole optimizer step, s_t its share of the
step's labelled rows. Units are counted over all micro-batches and processes before the first forward pass of the step.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data.batching import Collator, MicroBatches, MixtureDataset, MixtureLoader
from ..data.features import EncodedSplit
from ..data.mixture import Mixture
from ..errors import UserError
from ..hub.checkpoint import load_weights, sync_folder, write_checksums, write_state
from ..model.multitask import MultiTaskModel
from . import lora
from .arguments import OwnArguments
from .callbacks import TaskProgress
from .evaluation import Scorer
from .optimizer import parameter_groups


@dataclass
class StepCounts:
    """Labelled units and rows of each task in one optimizer step, over all micro-batches and processes."""

    units: dict[str, int]
    rows: dict[str, int]

    def share(self, task: str) -> float:
        """s_t: the task's labelled rows over those of all tasks."""
        return self.rows[task] / max(sum(self.rows.values()), 1)


@dataclass
class TaskLog:
    """Sums since the last log line."""

    loss: dict[str, Tensor] = field(default_factory=dict)
    share: dict[str, float] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    steps: int = 0


class MultiTaskTrainer(Trainer):
    """Trains a `MultiTaskModel` on a mixture of corpora.

    Args:
        model: the model; its tasks name the heads.
        args: from `training_arguments`.
        mixture: which texts come next.
        train: corpus → encoded training split.
        collator: pads training rows.
        scorer: evaluates all tasks; None for no evaluation.
        own: head and layer-wise learning rates.
        weights: task → loss weight w_t; 1 where absent.
        equal_shares: drop s_t from the loss.
        save_extra: called with a folder to add what belongs beside the weights (tokenizer, recipe).
    """

    # Each micro-batch's loss is already its part of the step's.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: MultiTaskModel,
        args: TrainingArguments,
        *,
        mixture: Mixture,
        train: Mapping[str, EncodedSplit],
        collator: Collator,
        scorer: Scorer | None = None,
        own: OwnArguments | None = None,
        weights: Mapping[str, float] | None = None,
        equal_shares: bool = False,
        save_extra: Any = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.mixture, self.scorer, self.own = mixture, scorer, own or OwnArguments()
        self.task_names = [task.name for task in model.tasks]
        self.weights = dict.fromkeys(self.task_names, 1.0) | dict(weights or {})
        self.equal_shares, self.save_extra = equal_shares, save_extra
        self._task_log = TaskLog()
        rows = MixtureDataset(train)
        # The Trainer asks for an evaluation set although it is the scorer that evaluates.
        super().__init__(
            model=model, args=args, data_collator=collator, train_dataset=rows, eval_dataset=rows if scorer else None
        )
        self.remove_callback(_default_progress(self))
        self.add_callback(TaskProgress(self.task_names))
        for callback in callbacks:
            self.add_callback(callback)

    @property
    def multi(self) -> MultiTaskModel:
        """The model, not wrapped."""
        return cast(MultiTaskModel, self.accelerator.unwrap_model(self.model))

    def get_train_dataloader(self) -> MixtureLoader:
        """The mixture's stream; sliced by the mixture's own rule, so accelerate does not shard it again."""
        batches = MicroBatches(
            self.mixture,
            self.mixture.steps(1),
            process=self.args.process_index,
            processes=self.args.world_size,
            accumulation=self.args.gradient_accumulation_steps,
        )
        workers = self.args.dataloader_num_workers
        return MixtureLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
            prefetch_factor=self.args.dataloader_prefetch_factor if workers else None,
            # Its own generator: the loader's seed would otherwise be drawn from the one that dropout uses.
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimizer of `training.optim`, with head and layer-wise learning rates."""
        target: Any = self.model if model is None else model
        if self.optimizer is None:
            cls, kwargs = self.get_optimizer_cls_and_kwargs(self.args, target)
            decayed = self.get_decay_parameter_names(target)
            groups = parameter_groups(target, self.args.learning_rate, self.args.weight_decay, decayed, self.own)
            self.optimizer = cls(groups, **kwargs)
        return self.optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The step's micro-batches, and how many units and rows each task has in them."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        return batches, self._count(batches, device)

    def _count(self, batches: Sequence[Mapping[str, Any]], device: torch.device) -> StepCounts:
        table = torch.zeros(2, len(self.task_names), dtype=torch.long)
        for batch in batches:
            for name, rows in batch["tasks"].items():
                place = self.task_names.index(name)
                table[0, place] += self.multi.kinds[name].units(rows["labels"])
                table[1, place] += len(rows["rows"])
        if self.args.world_size > 1:
            table = table.to(device)
            torch.distributed.all_reduce(table)
        units, rows_seen = table.tolist()
        return StepCounts(
            dict(zip(self.task_names, units, strict=True)), dict(zip(self.task_names, rows_seen, strict=True))
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This micro-batch's part of the step's loss; `num_items_in_batch` are the step's `StepCounts`."""
        counts: StepCounts = num_items_in_batch or self._count([inputs], self.args.device)
        outputs = model(**inputs)
        sums = self.multi.task_losses(outputs.logits, inputs["tasks"])
        present = [name for name in self.task_names if counts.rows[name]]
        total = torch.zeros((), device=self.args.device)
        for name, (loss_sum, _) in sums.items():
            mean = loss_sum / max(counts.units[name], 1)
            share = 1 / len(present) if self.equal_shares else counts.share(name)
            # DDP averages gradients over processes, the step's loss is a sum over them.
            total = total + self.weights[name] * share * mean * self.args.world_size
            self._note(name, mean.detach())
        self._note_step(counts, present)
        return (total, outputs) if return_outputs else total

    def _note(self, name: str, mean: Tensor) -> None:
        log = self._task_log
        log.loss[name] = log.loss.get(name, torch.zeros_like(mean)) + mean

    def _note_step(self, counts: StepCounts, present: Sequence[str]) -> None:
        if not self.accelerator.sync_gradients:
            return
        self._task_log.steps += 1
        for name in present:
            share = 1 / len(present) if self.equal_shares else counts.share(name)
            self._task_log.share[name] = self._task_log.share.get(name, 0.0) + share
            self._task_log.seen[name] = self._task_log.seen.get(name, 0) + 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each task's mean loss and effective share since the last line to a training line."""
        if "loss" in logs and self._task_log.steps:
            log = self._task_log
            for name in self.task_names:
                if name in log.seen:
                    logs[f"loss_{name}"] = self._summed(log.loss[name]) / log.seen[name]
                logs[f"share_{name}"] = log.share.get(name, 0.0) / log.steps
            self._task_log = TaskLog()
        super().log(logs, start_time)

    def _summed(self, loss: Tensor) -> float:
        if self.args.world_size > 1:
            loss = loss.clone()
            torch.distributed.all_reduce(loss)
        return float(loss)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """All tasks in one go, then `on_evaluate` once, with `eval_mean`: so early stopping and search see it."""
        assert self.scorer is not None
        self.multi.eval()
        context = self.compute_loss_context_manager if self.args.bf16 or self.args.fp16 else nullcontext
        metrics = self.scorer.score(
            self.multi,
            device=self.args.device,
            batch=self.args.per_device_eval_batch_size,
            prefix=metric_key_prefix,
            process=self.args.process_index,
            processes=self.args.world_size,
            context=context,
            on_batch=lambda: self.callback_handler.on_prediction_step(self.args, self.state, self.control),
        )
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Weights, configuration and what belongs beside them; no pickle."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        if lora.is_adapted(self.multi):
            state_dict = lora.merged_state(self.multi)
        self.multi.save_pretrained(folder, state_dict=state_dict)
        if self.save_extra is not None:
            self.save_extra(folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """`checkpoint-N`, written as `tmp-checkpoint-N`, synced and renamed, so that none is ever half written.

        Raises:
            UserError: the disk is full or cannot be written; what was written of it is removed.
        """
        self.store_flos()
        run = Path(self._get_output_dir(trial=trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        temporary, final = run / f"tmp-{name}", run / name
        if self.args.should_save:
            shutil.rmtree(temporary, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        best = run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
        if self.state.best_global_step and (best == final or best.exists()):
            self.state.best_model_checkpoint = str(best)
        # torch reports a full disk as a RuntimeError, safetensors as its own.
        try:
            self._write_checkpoint(temporary)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{final} cannot be written: {reason}; free some space, then --resume") from error
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
            sync_folder(run, deep=False)
            self._forget_old(run)

    def _write_checkpoint(self, folder: Path) -> None:
        self.save_model(str(folder), _internal_call=True)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            if lora.is_adapted(self.multi):
                lora.write_adapters(self.multi, folder)
            self._write_run_state(folder)
            write_checksums(folder)  # so that it loads as a model too
            sync_folder(folder)

    def _write_run_state(self, folder: Path) -> None:
        for callback in [c for c in [*self.callback_handler.callbacks, self.control] if isinstance(c, ExportableState)]:
            cast(dict[str, Any], self.state.stateful_callbacks)[type(callback).__name__] = callback.state()
        self.state.save_to_json(str(folder / "trainer_state.json"))
        step = self.state.global_step
        sizes = {name: len(split) for name, split in self.train_dataset.corpora.items()}  # type: ignore[union-attr]
        write_state(
            folder, step=step, mixture=self.mixture.state_at(step).to_dict(), rates=self.mixture.rates, sizes=sizes
        )

    def _forget_old(self, run: Path) -> None:
        from transformers.trainer_utils import rotate_checkpoints

        rotate_checkpoints(
            output_dir=str(run),
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
            use_mtime=False,
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._load_model(self.multi if model is None else model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        self._load_model(self.multi, Path(str(self.state.best_model_checkpoint)))

    def _load_model(self, model: Any, folder: Path) -> None:
        lora.load_adapters(model, folder) if lora.is_adapted(model) else load_weights(model, folder)


def _default_progress(trainer: Trainer) -> type:
    """The progress callback that transformers chose; it writes its log lines to stdout."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    return PrinterCallback if trainer.args.disable_tqdm else ProgressCallback
