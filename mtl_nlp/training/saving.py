"""`SavingTrainer`: how `transformers.Trainer` writes checkpoints, publishes them, and reads them again.

A checkpoint is written aside, synced and renamed; what a run resumes from stands beside the model. `MultiTaskTrainer` adds what a
step does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from transformers import Trainer
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data.mixture import Mixture
from ..durable import sync_folder
from ..errors import UserError
from ..hub.checkpoint import load_weights, read_state, write_checksums, write_state
from ..model.multitask import MultiTaskModel
from . import lora
from .balance import Balancer
from .publishing import Publisher
from .schedule import Schedule
from .sharding import load_sharded, save_optimizer


class SavingTrainer(Trainer):
    """A Trainer whose checkpoints are whole or absent, and hold no pickle in the model.

    Attributes:
        mixture, schedule, balancer: what has a state to resume from.
        save_extra: called with a folder to add what belongs beside the weights (tokenizer, recipe).
        publisher: commits to the Hub; None where nothing is published.
    """

    mixture: Mixture
    schedule: Schedule
    balancer: Balancer
    save_extra: Any
    publisher: Publisher | None

    @property
    def multi(self) -> MultiTaskModel:
        """The model, not wrapped."""
        # Unwrapping walks through all modules, and this is asked for several times a step.
        model: Any = self.model
        return (
            model if isinstance(model, MultiTaskModel) else cast(MultiTaskModel, self.accelerator.unwrap_model(model))
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Weights, configuration and what belongs beside them; no pickle. One process writes, from `state_dict` if sharded."""
        if not self.args.should_save:
            return
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
            self._push_from_checkpoint(str(final))
            self._forget_old(run)

    def _write_checkpoint(self, folder: Path) -> None:
        self.save_model(str(folder), _internal_call=True)
        if self.multi.is_sharded:
            save_optimizer(self, folder)
        else:
            self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        schedule = self.schedule.state_dict()
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            if lora.is_adapted(self.multi):
                lora.write_adapters(self.multi, folder)
            self._write_run_state(folder, schedule)
            write_checksums(folder)  # so that it loads as a model too
            sync_folder(folder)

    def _write_run_state(self, folder: Path, schedule: dict[str, Any]) -> None:
        for callback in [c for c in [*self.callback_handler.callbacks, self.control] if isinstance(c, ExportableState)]:
            cast(dict[str, Any], self.state.stateful_callbacks)[type(callback).__name__] = callback.state()
        self.state.save_to_json(str(folder / "trainer_state.json"))
        step = self.state.global_step
        sizes = {name: len(split) for name, split in self.train_dataset.corpora.items()}  # type: ignore[union-attr]
        mixture = self.mixture.state_at(step).to_dict()
        write_state(folder, step=step, mixture=mixture, schedule=schedule, sizes=sizes, balancing=self.balancer.state())

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Open the repository before the training, so that a missing token is told at once."""
        if self.is_world_process_zero():
            self.publisher = Publisher(self.args)
            self.hub_model_id = cast(Any, self.publisher.repo)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.publisher is not None:
            self.publisher.save(Path(checkpoint_folder), self.state.global_step)

    def _finish_current_push(self) -> None:
        if self.publisher is not None:
            self.publisher.wait()

    def push_to_hub(  # type: ignore[override]
        self, commit_message: str | None = "End of training", **kwargs: Any
    ) -> str | None:
        """Commit the model as it is now; the commit's address (None on processes other than the first).

        Raises:
            UserError: no token, or the Hub refuses it.
        """
        if self.publisher is None:
            self.init_hf_repo()
        if self.publisher is None:
            return None
        with tempfile.TemporaryDirectory(prefix="mtl-nlp-push-") as folder:
            self._save(folder)
            write_checksums(Path(folder))
            return self.publisher.model(Path(folder), commit_message or "End of training")

    def _forget_old(self, run: Path) -> None:
        from transformers.trainer_utils import rotate_checkpoints

        newest = run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.publisher is not None and self.publisher.uploading not in (None, newest):
            self.publisher.wait()  # what is being uploaded must not be removed
        rotate_checkpoints(
            output_dir=str(run),
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
            use_mtime=False,
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._load_weights(self.multi if model is None else model, Path(resume_from_checkpoint))
        self.balancer.load_state(read_state(Path(resume_from_checkpoint)).get("balancing", {}))

    def _load_best_model(self) -> None:
        self._load_weights(self.multi, Path(str(self.state.best_model_checkpoint)))

    def _load_weights(self, model: Any, folder: Path) -> None:
        adapted = lora.is_adapted(self.multi)
        load = lora.load_adapters if adapted else load_sharded if self.multi.is_sharded else load_weights
        load(model, folder)
