"""`MultiTaskTrainer`: `transformers.Trainer` with mixed batches, the contract's loss and one evaluation of all tasks.

A step minimises Σ w_t · s_t · L_t: L_t is the mean over task t's labelled units in the whole optimizer step, s_t its share of the
step's labelled rows. Units are counted over all micro-batches and processes before the first forward pass of the step.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from ..data.batching import Collator, MicroBatches, MixtureDataset, MixtureLoader, lookahead
from ..data.features import EncodedSplit
from ..data.mixture import Mixture
from ..decoding import to_device
from ..hub.checkpoint import read_state
from ..model.dropout import MaskSource
from ..model.multitask import MultiTaskModel, MultiTaskOutput
from ..recipe import Stopping
from .arguments import OwnArguments
from .balance import AfterUpdate, Balancer
from .callbacks import ScheduleCallback, TaskProgress, default_progress
from .clipping import clip_gradient
from .cosines import GradientCosines
from .counts import StepCounts, TaskLog, weighted_sum
from .evaluation import Scorer
from .optimizer import TouchedAdamW, parameter_groups
from .publishing import Publisher
from .saving import SavingTrainer
from .schedule import Schedule
from .sharding import idle_tasks
from .throughput import Throughput


class MultiTaskTrainer(SavingTrainer):
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
        dropout: the source of the model's dropout masks, restarted in every micro-batch so that a resumed run draws the same.
        stopping: a recipe's `stopping:`, for tasks that retire and for budgets.
        balancer: loss weighting and gradient aggregation; plain summing if absent.
        cosine_steps: how often gradient cosines between tasks are noted; never if None.
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
        dropout: MaskSource | None = None,
        stopping: Stopping | None = None,
        balancer: Balancer | None = None,
        cosine_steps: int | None = None,
        save_extra: Any = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.mixture, self.scorer, self.own = mixture, scorer, own or OwnArguments()
        self.task_names = [task.name for task in model.tasks]
        drawn = {name for names in mixture.regimes.tasks.values() for name in names}
        scored = {
            task.name: f"eval_{task.name}_{task.metric_names[0]}"
            for task in model.tasks
            if task.counts_in_mean and task.name in drawn
        }
        self.schedule = Schedule(mixture, self.task_names, metrics=scored, stopping=stopping, reduce=self._all_reduce)
        self.weights = dict.fromkeys(self.task_names, 1.0) | dict(weights or {})
        self.equal_shares, self.save_extra = equal_shares, save_extra
        self._dropout, self._micro_batch = dropout, (-1, 0)
        self._places = {name: place for place, name in enumerate(self.task_names)}
        self._task_log, self.throughput = TaskLog(), Throughput()
        self._weights: int | None = None
        self.scores: dict[int, dict[str, float]] = {}  # by step
        self._loader: MixtureLoader | None = None
        self.publisher: Publisher | None = None  # set by `init_hf_repo`
        rows = MixtureDataset(train)
        # The Trainer asks for an evaluation set although it is the scorer that evaluates.
        super().__init__(
            model=model, args=args, data_collator=collator, train_dataset=rows, eval_dataset=rows if scorer else None
        )
        self.balancer = balancer or Balancer(self.task_names)
        self.balancer.prepare(self)
        self.cosines = GradientCosines(self, cosine_steps) if cosine_steps else None
        self.add_callback(AfterUpdate(self))
        self.remove_callback(default_progress(args))
        self.add_callback(ScheduleCallback(self.schedule, self.throughput))
        self.add_callback(TaskProgress(self.task_names, self.schedule))
        for callback in callbacks:
            self.add_callback(callback)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train, or go on from a `checkpoint-N`; what the run decided until then rules again."""
        if isinstance(resume_from_checkpoint, str | Path):
            self.schedule.load_state_dict(read_state(Path(resume_from_checkpoint))["schedule"])
        # What is there by now stays. Python's collector would walk through it again and again: of two blocks of 65 536 draws the
        # second took 0.40 s in place of 0.06.
        gc.freeze()
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            gc.unfreeze()
            if self._loader is not None:
                self._loader.close()
            self.multi.free_structure()

    def _get_learning_rate(self) -> float:
        """What is logged: the rate of the step, with the decay at the end of a run that is cut short."""
        return super()._get_learning_rate() * self.schedule.decay()

    def get_train_dataloader(self) -> MixtureLoader:
        """The mixture's stream; sliced by the mixture's own rule, so accelerate does not shard it again."""
        batches = MicroBatches(
            self.mixture,
            self.mixture.steps(1),
            process=self.args.process_index,
            processes=self.args.world_size,
            accumulation=self.args.gradient_accumulation_steps,
        )
        workers, prefetch = lookahead(
            self.args.dataloader_num_workers,
            self.args.dataloader_prefetch_factor,
            self.mixture.block_batches * self.args.gradient_accumulation_steps if self.schedule.changes else None,
        )
        self._loader = MixtureLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=batches,
            onward=not self.schedule.changes,
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
            prefetch_factor=prefetch,
            persistent_workers=workers > 0,
            # Its own generator: the loader's seed would otherwise be drawn from the one that dropout uses.
            generator=torch.Generator().manual_seed(self.args.seed),
        )
        return self._loader

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimizer of `training.optim`, with head and layer-wise learning rates."""
        target: Any = self.model if model is None else model
        if self.optimizer is None:
            cls, kwargs = self.get_optimizer_cls_and_kwargs(self.args, target)
            decayed = self.get_decay_parameter_names(target)
            groups = parameter_groups(target, self.args.learning_rate, self.args.weight_decay, decayed, self.own)
            learned = self.balancer.parameter_group()
            groups += [learned] if learned else []
            narrow = cls is torch.optim.AdamW and self.narrows
            self.optimizer = TouchedAdamW(groups, self.multi, **kwargs) if narrow else cls(groups, **kwargs)
        return self.optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The step's micro-batches, and how many units and rows each task has in them; none when the run is over."""
        self.throughput.begin()
        self.schedule.settle()
        if self.schedule.over:  # resumed at its end
            self.control.should_training_stop = True
            return [], None
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        for name in self.schedule.retired_in(self.state.global_step):
            for batch in batches:
                batch["tasks"].pop(name, None)
        counts = self._count(batches)
        self.schedule.used = (counts.encoded, counts.clock)
        self.throughput.note(counts.tokens, counts.positions)
        return batches, counts

    def _prepare_input(self, data: Any) -> Any:
        """On the run's device; a GPU is not waited for, since batches come from pinned memory."""
        return to_device(data, self.args.device)

    def _count(self, batches: Sequence[Mapping[str, Any]]) -> StepCounts:
        # Beside the tasks: positions, tokens encoded, real tokens; and the first process' time, so that all end a run together.
        units, seen, kinds = [0.0] * (len(self.task_names) + 3), [0] * (len(self.task_names) + 3), self.multi.kinds
        conditioned = self.multi.conditioning is not None
        for batch in batches:
            units[-1] += batch["tokens"] if "tokens" in batch else int(batch["attention_mask"].sum())
            units[-3] += batch["attention_mask"].numel()
            if conditioned:
                lengths = batch["attention_mask"].sum(1)
                units[-2] += sum(int(lengths[rows["rows"]].sum()) for rows in batch["tasks"].values())
            for name, rows in batch["tasks"].items():
                place = self._places[name]
                units[place] += kinds[name].units(rows["labels"])
                seen[place] += len(rows["rows"])
        seen[-1] = self.schedule.clock() if self.args.process_index == 0 else 0
        table = torch.tensor([units, seen], dtype=torch.float64)
        self._all_reduce(table)
        (*units, positions, encoded, tokens), (*rows_seen, _, _, clock) = table.tolist()
        return StepCounts(
            dict(zip(self.task_names, units, strict=True)),
            dict(zip(self.task_names, map(round, rows_seen), strict=True)),
            tokens=round(tokens),
            clock=round(clock),
            encoded=round(encoded) if conditioned else round(tokens),
            positions=round(positions),
        )

    def floating_point_ops(self, inputs: Any) -> int:
        """For the Trainer's `total_flos`: 6 a token and weight of the encoder, whose weights are counted once."""
        if self._weights is None:
            embeddings = {
                id(p) for m in self.multi.encoder.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
            }
            self._weights = sum(p.numel() for p in self.multi.encoder.parameters() if id(p) not in embeddings)
        return 6 * self._weights * int(inputs["input_ids"].numel())

    def _all_reduce(self, table: Tensor) -> None:
        """Sum a small table over all processes, in place."""
        if self.args.world_size > 1:
            moved = table.to(self.args.device)
            torch.distributed.all_reduce(moved)
            table.copy_(moved)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One micro-batch, forward and backward by the balancer's route; gradient cosines first where they are due."""
        step = self.state.global_step
        self._micro_batch = (step, self._micro_batch[1] + 1 if self._micro_batch[0] == step else 0)
        if self.cosines is not None:
            self.cosines.micro_batch(inputs, num_items_in_batch)
        self._restart_dropout()
        plain = super().training_step
        return self.balancer.training_step(
            self, lambda: plain(model, inputs, num_items_in_batch), inputs, num_items_in_batch
        )

    def _restart_dropout(self) -> None:
        if self._dropout is not None:
            self._dropout.restart(self.args.seed, *self._micro_batch, self.args.process_index)

    def _clip_grad_norm(self, model: Any) -> Tensor:
        """The gradient's norm before it is clipped to `training.max_grad_norm`."""
        return self._clipped(self.args.max_grad_norm) if self._clips else super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """As the Trainer, which wants the norm where nothing is clipped, too."""
        own = grad_norm is None and self._clips
        return super()._get_grad_norm(model, self._clipped(float("inf")) if own else grad_norm)

    @property
    def _clips(self) -> bool:
        """Whether the fast paths of a CPU are on; gradients that are scaled for fp16 are accelerate's to divide."""
        return self._dropout is not None and self.accelerator.scaler is None

    @property
    def narrows(self) -> bool:
        """Whether a step may pass over the parameters that it has not touched: on the same fast paths, in one process."""
        return self._dropout is not None and self.args.world_size == 1

    def _clipped(self, most: float) -> Tensor:
        structure = self.multi.structure
        parameters = self.multi.parameters() if structure is None else structure.touched()
        return clip_gradient(parameters, most, self.multi.row_gradient)

    def random_state(self) -> Any:
        """Where the generators stand that dropout draws from, before a micro-batch."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return torch.get_rng_state(), cuda, self._micro_batch

    def set_random_state(self, state: Any) -> None:
        """Put them back."""
        torch.set_rng_state(state[0])
        if state[1]:
            torch.cuda.set_rng_state_all(state[1])
        self._micro_batch = state[2]
        self._restart_dropout()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This micro-batch's part of the step's loss; `num_items_in_batch` are the step's `StepCounts`."""
        counts: StepCounts = num_items_in_batch or self._count([inputs])
        # Of numbers that go to a GPU together the tensor would be waited for.
        outputs, means = self.task_means(model, inputs, counts, joint=self.args.device.type == "cpu")
        # DDP averages gradients over processes, the step's loss is a sum over them.
        factors = self._factors(means, counts, inputs, times=self.args.world_size)
        total = weighted_sum(means, factors, self.args.device)
        if outputs.idle is not None:
            total = total + outputs.idle
        return (total, outputs) if return_outputs else total

    def task_means(
        self, model: Any, inputs: Mapping[str, Any], counts: StepCounts, *, joint: bool = False
    ) -> tuple[MultiTaskOutput, dict[str, Tensor]]:
        """The model's output, and this batch's part of each task's mean loss L_t over the step.

        Args:
            joint: one backward pass follows, from all of them, so that they may share operations.
        """
        if self.multi.is_sharded:
            inputs = {**inputs, "idle": idle_tasks(self.task_names, counts.rows, inputs["tasks"])}
        outputs = model(**inputs)
        losses = self.multi.task_losses(outputs.logits, inputs["tasks"], joint=joint)
        sums = {name: loss for name, (loss, _) in losses.items()}
        return outputs, counts.means(sums) if joint else {name: counts.mean(name, loss) for name, loss in sums.items()}

    def weighted(self, means: Mapping[str, Tensor], counts: StepCounts, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Each task's part of the step's loss: w_t · s_t · L_t; notes losses and shares for the log."""
        factors = self._factors(means, counts, inputs)
        return {name: factors[name] * mean for name, mean in means.items()}

    def _factors(
        self, means: Mapping[str, Tensor], counts: StepCounts, inputs: dict[str, Any], times: int = 1
    ) -> dict[str, float]:
        """w_t · s_t, `times` as much, of these tasks; notes losses and shares for the log."""
        present = [name for name in self.task_names if counts.rows[name]]
        shares = {name: 1 / len(present) if self.equal_shares else counts.share(name) for name in present}
        factors = {name: self.weights[name] * shares[name] * times for name in means}
        weights = self.balancer.loss_weights(self, means, factors, inputs)
        self._task_log.note(means)
        if self.accelerator.sync_gradients:
            losses, absent = self._task_log.note_step(shares), torch.zeros(())
            self.schedule.note_losses({name: losses.get(name, absent) for name in present if counts.units[name]})
        return {name: weights[name] * factors[name] for name in means}

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.args.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def loss_scale(self) -> float:
        """What losses are multiplied by in fp16 until the optimizer divides gradients by it; 1 otherwise."""
        scaler = self.accelerator.scaler
        return float(scaler.get_scale()) if scaler is not None else 1.0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each task's mean loss and effective share since the last line to a training line."""
        if "loss" in logs and self._task_log.steps:
            log = self._task_log
            for name in self.task_names:
                if name in log.seen:
                    # Its rows may all have been in other processes.
                    mine = log.loss.get(name, torch.zeros((), device=self.args.device))
                    logs[f"loss_{name}"] = self._summed(mine) / log.seen[name]
                logs[f"share_{name}"] = log.share.get(name, 0.0) / log.steps
            logs |= self.throughput.lines() | self.balancer.log_lines()
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
        self.scores[self.state.global_step] = metrics
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
