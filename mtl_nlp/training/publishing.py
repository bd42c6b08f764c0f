"""Pushing to the Hub while training: `push_to_hub`, `hub_strategy` and its siblings of `TrainingArguments`, on our checkpoints.

`every_save` commits the model of each save to the repository's root; `checkpoint` adds what a run resumes from as
`last-checkpoint`, in the same commit; `all_checkpoints` keeps each as `checkpoint-N`; `end` commits the finished model alone.
Uploads run beside the training; while one is on its way the next save is not pushed, unless `hub_always_push`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers.trainer_utils import HubStrategy

from ..errors import UserError
from ..hub.facts import facts_of
from ..hub.location import LAST
from ..hub.push import commit, model_operations, open_repository, push
from ..model.files import CARD

logger = logging.getLogger("mtl_nlp")


class Publisher:
    """One run's way to its repository.

    Args:
        arguments: the Trainer's.
        repo: `OWNER/NAME`; the output folder's name under the token's user if absent.

    Raises:
        UserError: no token, or the Hub refuses; before the training starts.
    """

    def __init__(self, arguments: Any) -> None:
        self.strategy = HubStrategy(arguments.hub_strategy)
        self.always = bool(arguments.hub_always_push)
        self.private = bool(arguments.hub_private_repo)
        self.branch: str | None = arguments.hub_revision
        self.repo = arguments.hub_model_id or Path(arguments.output_dir).absolute().name
        if "/" not in self.repo:
            self.repo = f"{_user(self.repo)}/{self.repo}"
        self.api = open_repository(self.repo, private=self.private, branch=self.branch)
        self.running: Any = None
        self.uploading: Path | None = None

    def save(self, checkpoint: Path, step: int) -> None:
        """Commit a checkpoint that was just written; returns at once."""
        if self.strategy == HubStrategy.END:
            return
        if self.running is not None and not self.running.done() and not self.always:
            logger.info("step %d is not pushed: the push before it is still on its way", step)
            return
        self.wait()
        self.uploading = checkpoint
        message = f"Training in progress, step {step}"
        self.running = self.api.run_as_future(self._commit, checkpoint, message, self._state(checkpoint))

    def _commit(self, folder: Path, message: str, more: list[Any]) -> str:
        facts = facts_of(folder)
        operations = model_operations(folder, self.repo, card_facts=facts, api=self.api, revision=self.branch)
        return commit(self.api, self.repo, [*operations, *more], message, self.branch)

    def model(self, folder: Path, message: str) -> str:
        """Commit the model in a folder that only this call knows; the commit's address.

        Raises:
            UserError: the Hub refuses it.
        """
        self.wait()
        return self._commit(folder, message, [])

    def _state(self, checkpoint: Path) -> list[Any]:
        from huggingface_hub import CommitOperationAdd

        if self.strategy not in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            return []
        name = LAST if self.strategy == HubStrategy.CHECKPOINT else checkpoint.name
        files = sorted(path for path in checkpoint.iterdir() if path.is_file() and path.name != CARD)
        return [CommitOperationAdd(f"{name}/{path.name}", str(path)) for path in files]

    def wait(self) -> None:
        """Until the running push is done. One that failed is told and does not stop the training: the next may succeed."""
        if self.running is None:
            return
        try:
            self.running.result()
        except UserError as error:
            logger.warning("a push failed: %s", error)
        self.running = self.uploading = None

    def finish(self, folder: Path, message: str | None = None) -> str:
        """Commit the finished model; the commit's address.

        Raises:
            UserError: the Hub refuses it.
        """
        self.wait()
        target = self.repo if self.branch is None else f"{self.repo}@{self.branch}"
        return push(folder, target, private=self.private, message=message or "End of training")


def _user(repo: str) -> str:
    from huggingface_hub import HfApi

    from ..model.snapshot import told

    with told(repo, writing=True):
        return str(HfApi().whoami()["name"])
