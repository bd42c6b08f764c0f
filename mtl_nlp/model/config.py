"""`MultiTaskConfig`: the encoder's configuration and every task's definition, in order.

Tasks and labels are lists: `config.json` is written with sorted keys, and a reordered `ModuleDict` would load optimizer state
against the wrong parameters. `format_version` says how to read the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig

from ..errors import UserError, fault, listed
from ..schema import Source, validate
from ..task import Task
from ..version import VERSION

FORMAT_VERSION = 1
TASK_KEYS = (
    "name",
    "description",
    "head",
    "share_head_with",
    "consistent_with",
    "labels",
    "scheme",
    "words",
    "metrics",
    "auxiliary",
    "mask_probability",
    "projection",
    "calibration",
)


class MultiTaskConfig(PreTrainedConfig):
    """Configuration of a `MultiTaskModel`.

    Args:
        encoder_config: the shared encoder's configuration.
        tasks: one mapping a task, in order: name, head, labels and what prediction needs; no data sources.
        conditioning: how the encoder is conditioned on the task (`mtl_nlp.conditioning.ConditioningRecord`); None if it is not.
        format_version: of the checkpoint; 1.
        mtl_nlp_version: of the library that made it.
    """

    model_type = "mtl_nlp"
    sub_configs: ClassVar = {"encoder_config": AutoConfig}

    def __init__(
        self,
        encoder_config: Any = None,
        tasks: Sequence[dict[str, Any]] | None = None,
        format_version: int = FORMAT_VERSION,
        conditioning: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # So that `AutoModel`, which makes the configuration first, knows the model class.
        from . import multitask  # noqa: F401

        if isinstance(encoder_config, dict):
            encoder_config = _encoder_config(encoder_config)
        self.encoder_config = encoder_config
        # The base class hands its own attention implementation down; an absent one would reach the live encoder, which then
        # attends to padding.
        kwargs.setdefault("attn_implementation", getattr(encoder_config, "_attn_implementation", None))
        self.tasks = list(tasks or [])
        self.format_version = format_version
        self.conditioning = conditioning
        self.mtl_nlp_version = kwargs.pop("mtl_nlp_version", VERSION)
        super().__init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As in `config.json`, which says nothing of a conditioning that there is not."""
        data = super().to_dict()
        if data.get("conditioning") is None:
            data.pop("conditioning", None)
        return data

    def get_text_config(self, *args: Any, **kwargs: Any) -> Any:
        """The encoder's configuration: where transformers looks for `vocab_size`."""
        return self.encoder_config

    def task_definitions(self) -> list[Task]:
        """The tasks as `Task` objects.

        Raises:
            UserError: the file was written by a later version, or a definition is not valid.
        """
        if self.format_version != FORMAT_VERSION:
            raise UserError(
                f"this checkpoint has format_version {self.format_version}; this mtl-nlp reads {FORMAT_VERSION}: "
                "install the version that wrote it, or a later one"
            )
        source = Source("config.json")
        names = [str(task.get("name")) for task in self.tasks if isinstance(task, dict)]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise fault(f"{listed(doubled)} more than once", where="config.json", key="tasks", allowed="each name once")
        return [validate(Task, task, source, ("tasks", i)) for i, task in enumerate(self.tasks)]


def _encoder_config(data: dict[str, Any]) -> Any:
    """The encoder's configuration from plain data.

    Raises:
        UserError: of a kind that this version of transformers does not know, or with values that it refuses.
    """
    settings = dict(data)
    kind = settings.pop("model_type", None)
    try:
        return AutoConfig.for_model(kind, **settings)
    except Exception as error:
        # Their values may be anything, and so may what transformers raises.
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise fault(
            f"found {kind!r}: {reason}",
            where="config.json",
            key="encoder_config",
            cure="a newer transformers may know it: pip install -U transformers",
        ) from error


def task_record(task: Task) -> dict[str, Any]:
    """What a checkpoint keeps of a task: all that prediction and scoring need, nothing of where its data was."""
    data = task.model_dump(exclude_none=True, include=set(TASK_KEYS))
    if task.kind.annotation != "none":
        data.pop("mask_probability")
    record = {key: data[key] for key in TASK_KEYS if key in data}
    loss = task.loss.model_dump(exclude_defaults=True, exclude={"weight"})
    if loss:
        record["loss"] = loss
    columns = task.data.columns.model_dump(exclude_none=True)
    if columns:
        record["data"] = {"columns": columns}
    if task.kind.annotation == "tags":
        record["words"] = task.word_splitter
        record["scheme"] = task.tag_scheme
    return record


AutoConfig.register(MultiTaskConfig.model_type, MultiTaskConfig)
