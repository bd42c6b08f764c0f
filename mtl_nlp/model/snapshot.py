"""`OWNER/NAME[@REVISION]` → a folder on this disk: one revision of a Hub repository, downloaded once and cached.

Pickles are never downloaded with a model. What goes wrong on the way (no such repository, private without a token, no such
revision, no network) ends in one message. The next step is `loading`, which believes nothing of what came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import FaultyInput, fault

NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95})(@(?P<revision>[\w./-]{1,200}))?")
STATE_FILES = ("*.pt", "*.pth", "*.bin", "*.pkl", "*.ckpt", "*.msgpack", "*.h5", "*.onnx", "*.gguf")


def hub_name(text: str) -> tuple[str, str | None] | None:
    """(repository, revision) of `OWNER/NAME[@REVISION]`; None for anything else."""
    found = NAME.fullmatch(text)
    if found is None or ".." in text or "--" in found["repo"]:
        return None
    return found["repo"], found["revision"]


def download(
    repo: str, revision: str | None = None, *, files: Sequence[str] | None = None, below: bool = False, **options: Any
) -> Path:
    """One revision of a model repository, as a folder of the Hub's cache.

    Args:
        files: patterns of what is wanted; the root's files but pickles if absent.
        below: whether files in subfolders are wanted too.
        options: `token`, `cache_dir`, `local_files_only`, `force_download`, as `huggingface_hub` names them.

    Raises:
        UserError: no such repository or revision, no access, or no way to the Hub.
    """
    from huggingface_hub import snapshot_download

    ignored = () if files is not None else STATE_FILES
    with told(repo, revision):
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=list(files) if files is not None else None,
                ignore_patterns=[*ignored, *(() if below else ("*/*",))],
                **options,
            )
        )


@contextmanager
def told(repo: str, revision: str | None = None, *, writing: bool = False) -> Iterator[None]:
    """What the Hub's client raises, as one message."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    try:
        yield
    except (OSError, HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, ValueError, RuntimeError) as error:
        raise _as_fault(error, repo, revision, writing) from error


def _as_fault(error: Exception, repo: str, revision: str | None, writing: bool) -> FaultyInput:
    from huggingface_hub import errors, get_token

    token = "`hf auth login`, or set HF_TOKEN"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RevisionNotFoundError):
        return fault(
            f'the repository has no revision "{revision}"', where=repo, allowed="a branch, tag or commit of it"
        )
    if isinstance(error, errors.GatedRepoError):
        return fault("access to it has to be asked for", where=repo, cure=f"ask on its page, then {token}")
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        if get_token() is None:
            return fault("no such model on the Hub, or a private one and no token is given", where=repo, cure=token)
        return fault("no such model on the Hub, or the token may not see it", where=repo, cure="check name and token")
    if isinstance(error, errors.LocalTokenNotFoundError):
        return fault("the Hub asks for a token and none is given", where=repo, cure=token)
    if status == 403:
        return fault("the token may not write there" if writing else "the token may not see it", where=repo, cure=token)
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return fault(
            "cannot be had: it is not in the cache, and the Hub cannot be reached (or HF_HUB_OFFLINE is set)",
            where=repo,
            cure="give a folder, or try again with a connection",
        )
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return fault(f"the Hub's answer: {lines[0][:300]}", where=repo, cure="try again" if status is None else "")
