"""Publishing: a whole checkpoint to the Hub, in one commit.

Nothing that does not load is published, nothing that the checksums do not speak for (but the card and the scores), and no
pickle. The Hub takes a commit whole or not at all, so a push that breaks off leaves the earlier revision as it was.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import UserError, fault, listed
from ..model.files import CARD, CHECKSUMS, INDEX, METRICS, TOKENIZER, TOKENIZER_CONFIG, read_json, vouched
from ..model.loading import check_folder
from ..model.snapshot import told
from ..recipe import RESOLVED
from .card import card_text
from .checkpoint import load_model
from .facts import Facts, facts_of
from .location import repository

logger = logging.getLogger("mtl_nlp")
WHOLE = (CHECKSUMS, TOKENIZER, TOKENIZER_CONFIG, RESOLVED, METRICS)
TASKS = "tasks"


def push(
    folder: str | Path,
    target: str,
    *,
    private: bool = False,
    branch: str | None = None,
    message: str | None = None,
    with_tasks: bool = False,
    token: str | None = None,
) -> str:
    """Publish a checkpoint folder as `OWNER/NAME`, in one commit; the repository is made if there is none.

    Args:
        target: `OWNER/NAME`, or `OWNER/NAME@BRANCH`.
        private: whether a new repository is private; a public one that exists is refused.
        branch: pushed to, and made where it does not exist; the main branch if absent.
        with_tasks: add each task as a plain transformers model in `tasks/NAME`.
        token: of the Hub; the one that was logged in with if absent.

    Returns:
        The commit's address.

    Raises:
        UserError: not a whole checkpoint, no token, or the Hub refuses.
    """
    path = check_whole(folder)
    repo, revision = repository(target)
    if branch is not None and revision is not None and branch != revision:
        raise fault(f'found "{target}" and the branch "{branch}"', key="--branch", allowed="one branch")
    api = open_repository(repo, private=private, branch=branch or revision, token=token)
    load_model(path)  # what does not load is not published
    with tempfile.TemporaryDirectory(prefix="mtl-nlp-push-") as scratch:
        exported = export_tasks(path, Path(scratch)) if with_tasks else []
        operations = model_operations(path, repo, card_facts=facts_of(path), api=api, revision=branch or revision)
        operations += task_operations(exported, Path(scratch), api, repo, branch or revision)
        return commit(api, repo, operations, message or default_message(path), branch or revision)


def check_whole(folder: str | Path) -> Path:
    """The folder, if every file of a checkpoint is there.

    Raises:
        UserError: what is missing.
    """
    if not Path(folder).is_dir():
        raise fault("no such folder", where=str(folder), allowed="a checkpoint on this disk")
    path = check_folder(folder)
    missing = [name for name in WHOLE if not (path / name).is_file()]
    if missing:
        raise fault(
            f"not a whole checkpoint: {listed(missing)} missing",
            where=str(folder),
            cure="push what `mtl-nlp train` wrote; a run that was cut short goes on with --resume",
        )
    return path


def open_repository(repo: str, *, private: bool = False, branch: str | None = None, token: str | None = None) -> Any:
    """The Hub's client, with repository and branch made where they do not exist.

    Raises:
        UserError: no token, no right to write, or a public repository where a private one is asked for.
    """
    from huggingface_hub import HfApi, get_token

    if (token or get_token()) is None:
        raise fault("the Hub asks for a token and none is given", where=repo, cure="`hf auth login`, or set HF_TOKEN")
    api = HfApi(token=token)
    with told(repo, branch, writing=True):
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise fault(
                "exists and is public", where=repo, key="--private", cure="make it private first, or push elsewhere"
            )
        if branch is not None and branch != "main":
            api.create_branch(repo, branch=branch, exist_ok=True)
    return api


def model_operations(path: Path, repo: str, *, card_facts: Facts, api: Any, revision: str | None = None) -> list[Any]:
    """What a commit adds and deletes so that the repository's root is the checkpoint in `path`."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    names = {file.name for file in vouched(path)} & set(read_json(path / CHECKSUMS)) | {CHECKSUMS}
    names |= {METRICS} if (path / METRICS).is_file() else set()
    operations: list[Any] = [CommitOperationAdd(name, str(path / name)) for name in sorted(names)]
    with told(repo, revision):
        there = api.list_repo_files(repo, revision=revision)
    local = (path / CARD).read_text(encoding="utf-8", errors="replace") if (path / CARD).is_file() else None
    card = card_text(card_facts, repository=repo, previous=_card_there(api, repo, revision, there) or local)
    operations.append(CommitOperationAdd(CARD, card.encode()))
    stale = [name for name in there if "/" not in name and (name.endswith(".safetensors") or name == INDEX)]
    operations += [CommitOperationDelete(name) for name in stale if name not in names]
    return operations


def _card_there(api: Any, repo: str, revision: str | None, files: Sequence[str]) -> str | None:
    """The card in the repository, in which somebody may have written."""
    if CARD not in files:
        return None
    with told(repo, revision):
        found = api.hf_hub_download(repo, CARD, revision=revision, force_download=True)
    return Path(found).read_text(encoding="utf-8", errors="replace")


def export_tasks(path: Path, scratch: Path) -> list[str]:
    """Each task as a plain transformers model in `scratch`/NAME; those without a vanilla twin are named and left out.

    Raises:
        UserError: no task can be exported.
    """
    try:
        export_task: Callable[..., Any] = import_module("mtl_nlp.hub.single_task").export_task
    except ImportError as error:
        raise UserError("--with-tasks needs the exporter (mtl_nlp.hub.single_task), which is not installed") from error
    done: list[str] = []
    for task in facts_of(path).tasks:
        try:
            export_task(path, task.name, scratch / task.name)
        except UserError as error:
            logger.warning("%s is not exported: %s", task.name, error)
        else:
            done.append(task.name)
    if not done:
        raise fault("no task has a plain transformers model", where=str(path), key="--with-tasks", cure="leave it out")
    return done


def task_operations(names: Sequence[str], scratch: Path, api: Any, repo: str, revision: str | None) -> list[Any]:
    """What a commit adds and deletes so that `tasks/` holds these exports and no earlier ones."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    with told(repo, revision):
        there = [name for name in api.list_repo_files(repo, revision=revision) if name.startswith(f"{TASKS}/")]
    if not names:
        if there:
            logger.warning("%s keeps the task models of an earlier push in %s/; --with-tasks renews them", repo, TASKS)
        return []
    files = {
        f"{TASKS}/{file.relative_to(scratch).as_posix()}": file
        for name in names
        for file in sorted((scratch / name).rglob("*"))
        if file.is_file()
    }
    added: list[Any] = [CommitOperationAdd(name, str(file)) for name, file in files.items()]
    return added + [CommitOperationDelete(name) for name in there if name not in files]


def commit(api: Any, repo: str, operations: Sequence[Any], message: str, revision: str | None = None) -> str:
    """One commit; its address.

    Raises:
        UserError: the Hub refuses it, or the way there broke off.
    """
    with told(repo, revision, writing=True):
        return str(api.create_commit(repo, operations, commit_message=message, revision=revision).commit_url)


def default_message(path: Path) -> str:
    """`Upload sst2, ner (mtl-nlp)`."""
    return f"Upload {listed((task.name for task in facts_of(path).tasks), 6)} (mtl-nlp)"
