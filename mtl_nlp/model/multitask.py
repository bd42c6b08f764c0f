"""`MultiTaskModel`: one encoder pass over a mixed batch, each head on the rows of its task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from ..errors import UserError, listed
from ..recipe import EncoderSpec
from ..sharing import owner_of
from ..task import Task
from .conditioning import Conditioning, agrees_without_padding
from .conditioning.fit import run_padded
from .config import MultiTaskConfig, task_record
from .dropout import MaskSource, install_fast_dropout
from .encoder import freeze, load_encoder
from .files import write_checksums
from .heads import Head, MaskedLanguageModeling, PassThroughBase, make_head
from .joint_losses import cross_entropies
from .last_layer import MOST
from .loading import load_strictly
from .padding_free import PaddingFree, padding_free_path
from .pooled_heads import PooledHeads, find_pooled_heads
from .structure import Structure

PUSH_OPTIONS = ("repo_id", "commit_message", "commit_description", "private", "revision", "create_pr", "tags")
TaskRows = Mapping[str, Tensor]


@dataclass
class MultiTaskOutput(ModelOutput):
    """Each task's logits over its own rows; shapes as the head's docstring says.

    `hidden` are the encoder's states of the whole batch, [B, T, H] (of a conditioned encoder those of its (row, task) pairs), where
    tasks were asked for perhaps of the tokens alone that their heads read; `idle` is 0, to be added to the loss (see `forward`).
    """

    # First, because ModelOutput would take a mapping in its first field for its own fields.
    hidden: Tensor | None = None
    logits: dict[str, Tensor] | None = None
    idle: Tensor | None = None


class Heads(nn.ModuleDict):
    """The heads' modules by task; a task that shares a head finds its owner's, which is held, saved and listed once.

    Args:
        modules: owner → module.
        owners: task → owner, for tasks that share a head.
    """

    def __init__(self, modules: Mapping[str, nn.Module], owners: Mapping[str, str]) -> None:
        super().__init__(modules)
        self.owners = dict(owners)

    def __getitem__(self, task: str) -> nn.Module:
        return super().__getitem__(self.owners.get(task, task))

    def __contains__(self, task: str) -> bool:
        return super().__contains__(self.owners.get(task, task))


class MultiTaskModel(PreTrainedModel):
    """A shared encoder under a head a task (hard parameter sharing; Caruana 1997).

    Args:
        config: encoder configuration and task definitions.
        encoder: a pretrained encoder to use; built from the configuration (uninitialised) when absent.
    """

    config_class = MultiTaskConfig
    config: Any
    encoder: Any
    heads: Any
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # The Trainer would otherwise hand the number of labels to `forward` and stop dividing by the accumulation steps.
    accepts_loss_kwargs = False
    # Called with a task's name and its part of the shared representation, [b, T_t, H], before its head runs.
    watch: Callable[[str, Tensor], None] | None = None
    # The word embeddings' gradient, where training keeps it by rows (`mtl_nlp.training.embedding_gradient`).
    row_gradient: Any = None
    structure: Structure | None = None

    def __init__(self, config: MultiTaskConfig, encoder: nn.Module | None = None) -> None:
        super().__init__(config)
        self.tasks: list[Task] = config.task_definitions()
        self.padding_free: PaddingFree | None = None
        self.pooled_heads: PooledHeads | None = None
        self.encoder = AutoModel.from_config(config.encoder_config) if encoder is None else encoder
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None
        self.kinds: dict[str, Head] = {task.name: make_head(task) for task in self.tasks}
        owners = {task.name: owner_of(task) for task in self.tasks}
        absent = sorted(set(owners.values()) - set(self.kinds))
        if absent:
            raise UserError(f"a task shares the head of {listed(absent)}, which is not among the tasks; add it")
        built = {name: self.kinds[name].build(config.encoder_config) for name in dict.fromkeys(owners.values())}
        self.heads = Heads(built, owners)
        self._declare_ties()
        self.post_init()
        self.conditioning: Conditioning | None = None
        if config.conditioning is not None:
            self.conditioning = Conditioning(config.conditioning, self.encoder, list(self.kinds))

    def _declare_ties(self) -> None:
        ties: dict[str, str] = {}
        if getattr(self.config.encoder_config, "tie_word_embeddings", True):
            for name, head in self.heads.items():
                kind = self.kinds[name]
                if isinstance(kind, MaskedLanguageModeling):
                    ties |= kind.tied_keys(type(head), head.base_model_prefix, name)
        self._tied_weights_keys = ties
        self.config.tie_word_embeddings = bool(ties)

    @classmethod
    def from_encoder(
        cls, encoder: str | EncoderSpec, tasks: Sequence[Task], *, base: Path = Path(), pad_token_id: int | None = None
    ) -> MultiTaskModel:
        """A model on a pretrained encoder, with fresh heads (and the encoder's own pooler as each pooled head's start).

        Args:
            encoder: a Hub name, a folder, or a recipe's `encoder`.
            tasks: definitions whose labels are settled.
            base: the folder that a relative encoder path starts from.
            pad_token_id: the tokenizer's, for encoders whose configuration has none.

        Raises:
            UserError: the encoder cannot be loaded or does not fit a head.
        """
        spec = EncoderSpec(name=encoder) if isinstance(encoder, str) else encoder
        loaded: Any = load_encoder(spec, base)
        if getattr(loaded.config, "pad_token_id", None) is None:
            loaded.config.pad_token_id = pad_token_id
        pooler = getattr(loaded, "pooler", None)
        for module in loaded.modules():
            module._is_hf_initialized = True
        loaded.config.__dict__.pop("auto_map", None)  # a checkpoint names no code
        config = MultiTaskConfig(loaded.config, [task_record(task) for task in tasks])
        config._attn_implementation = loaded.config._attn_implementation
        model = cls(config, loaded)
        model._start_poolers(pooler)
        freeze(model.encoder, spec.freeze)
        return model

    def _start_poolers(self, pooler: nn.Module | None) -> None:
        """Each head's pooler begins as the pretrained one."""
        if pooler is None:
            return
        for head in self.heads.values():
            base = getattr(head, getattr(head, "base_model_prefix", ""), None)
            if isinstance(base, PassThroughBase) and hasattr(base, "pooler"):
                base.pooler.load_state_dict(pooler.state_dict())

    def fix_structure(self, *, narrow: bool = False) -> None:
        """No module or parameter comes or goes, or changes its mode alone, until `free_structure`: a step asks for them several
        times, and with hundreds of heads finding them takes a tenth of it.

        Args:
            narrow: gradients come from this process alone, and by the heads' forward passes (see `Structure`).
        """
        self.free_structure()
        self.train(self.training)  # a pretrained encoder comes in evaluation mode
        self.structure = Structure(self, narrow=narrow)

    def free_structure(self) -> None:
        """Modules and parameters may change again."""
        self.structure = None

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """As ever."""
        return super().parameters(recurse) if self.structure is None or not recurse else iter(self.structure.parameters)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As ever."""
        if self.structure is None or not set_to_none:
            super().zero_grad(set_to_none)
        else:
            self.structure.clear_gradients()

    def train(self, mode: bool = True) -> MultiTaskModel:
        """As ever."""
        return self if self.structure is not None and self.training is mode else super().train(mode)

    def use_fast_paths(self, dropout: MaskSource | None = None, *, padding_free: bool = True) -> None:
        """Encode without padding where this encoder's outputs stay the same (compared here), and draw dropout masks from `dropout`.

        Args:
            dropout: replaces torch's generator in every plain dropout layer and in attention; None leaves them alone.
            padding_free: False where the encoder has to attend by a function of the user's choice.

        Raises:
            UserError: the encoder cannot encode a small batch.
        """
        self.padding_free = padding_free_path(self.encoder, dropout) if padding_free else None
        if self.conditioning is not None and self.padding_free is not None:
            self.padding_free = (
                self.padding_free if agrees_without_padding(self.conditioning, self.padding_free) else None
            )
        if dropout is not None:
            install_fast_dropout(self, dropout)
        self.pooled_heads = find_pooled_heads(self.kinds, self.heads, self.config.encoder_config)

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP holds the parameters in parts (it changes the class of the model that it takes)."""
        return hasattr(self, "set_requires_gradient_sync")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """A checkpoint's model, shared encoder and all, loaded strictly (see `mtl_nlp.model.loading`).

        Args:
            pretrained_model_name_or_path: a folder, or `OWNER/NAME[@REVISION]` on the Hub.
            kwargs: as transformers' own: `dtype` (the checkpoint's if absent), `revision`, `token`, …

        Raises:
            UserError: not a checkpoint, damaged, hostile, of a later version, or weights missing, unexpected or misshapen (named).
        """
        return load_strictly(cls, super().from_pretrained, pretrained_model_name_or_path, *model_args, **kwargs)

    def save_pretrained(self, save_directory: Any, *args: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Weights, configuration, and the checksums that vouch for them."""
        target = {key: kwargs.pop(key) for key in PUSH_OPTIONS if key in kwargs} if push_to_hub else {}
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            write_checksums(Path(save_directory))
        if push_to_hub:
            self.push_to_hub(target.pop("repo_id", Path(save_directory).name), **target)

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's word embeddings."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the encoder's word embeddings."""
        self.encoder.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        tasks: Mapping[str, TaskRows] | None = None,
        idle: Sequence[str] | None = None,
        tokens: int | None = None,
    ) -> MultiTaskOutput:
        """One encoder pass, then the heads that the batch asks for.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T].
            token_type_ids: [B, T], for encoders that use them.
            tasks: name → `rows` [b], the rows of the batch that belong to the task; all tasks on all rows if absent (which
                for choices and candidates are those of one text).
            idle: tasks without rows here whose heads are to get a gradient of zeros, because they have rows in another process and
                parameters are sharded.
            tokens: real ones in the batch, where they are counted already: on a GPU counting would wait.

        Returns:
            `logits`: name → the task's logits over its rows.
        """
        if input_ids is None:
            raise UserError("input_ids is missing: pass [rows, tokens] token ids")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        asked = tasks is not None
        if tasks is None:
            every = torch.arange(len(input_ids), device=input_ids.device)
            whole = torch.tensor([len(input_ids)], device=input_ids.device)
            listing = {task.name for task in self.tasks if task.kind.input in ("choices", "candidates")}
            tasks = {
                name: {"rows": every, "sizes": whole} if name in listing else {"rows": every} for name in self.kinds
            }
        if self.structure is not None and torch.is_grad_enabled():
            self.structure.note(tasks)
        if self.conditioning is not None and tasks:
            packed = self.padding_free is not None
            encoded = self.conditioning.encode(self._encode, input_ids, mask, token_type_ids, tasks, packed=packed)
            hidden, mask, input_ids, tasks = encoded.hidden, encoded.mask, encoded.ids, encoded.tasks
        else:
            wanted = self._wanted(mask, tasks) if asked else None
            hidden = self._encode(input_ids, mask, token_type_ids, tokens=tokens, wanted=wanted)
        logits = self._pooled_logits(hidden, tasks)
        rest = {name: rows for name, rows in tasks.items() if name not in logits}
        parts = self._states(hidden, rest)
        logits |= {name: self._head_logits(name, parts[name], mask, input_ids, rows) for name, rows in rest.items()}
        in_order = {name: logits[name] for name in tasks}
        return MultiTaskOutput(hidden=hidden, logits=in_order, idle=self._nothing(idle) if idle else None)

    def _nothing(self, idle: Sequence[str]) -> Tensor:
        """0, with the heads of these tasks in its graph."""
        heads = {id(self.heads[name]): self.heads[name] for name in idle}
        return sum((p.sum() * 0.0 for head in heads.values() for p in head.parameters()), torch.zeros(()))

    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """What a task has beside the shared encoder: its head (which it may share) and its condition."""
        own = list(self.heads[task].parameters())
        return own if self.conditioning is None else own + list(self.conditioning.tasks[task].parameters())

    def _encode(
        self,
        input_ids: Tensor,
        mask: Tensor,
        token_type_ids: Tensor | None,
        positions: Tensor | None = None,
        tokens: int | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """The encoder's output, [B, T, H]."""
        if self.padding_free is not None:
            return self.padding_free(input_ids, mask, token_type_ids, positions, tokens, wanted)
        if positions is not None:
            return run_padded(self.encoder, input_ids, mask, token_type_ids, positions)
        kwargs = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.encoder(input_ids=input_ids, attention_mask=mask, **kwargs).last_hidden_state

    def _states(self, hidden: Tensor, tasks: Mapping[str, TaskRows]) -> dict[str, Tensor]:
        """Each task's part of the encoder's output, [b, T_t, H]: gathered at once, because what is gathered for a head alone is
        given back, in the backward pass, in a gradient of the whole batch."""
        chosen = [rows["rows"] for rows in tasks.values()]
        if len(chosen) > 1 and torch.is_grad_enabled():
            parts = hidden.index_select(0, torch.cat(chosen)).split([len(rows) for rows in chosen])
        else:
            parts = tuple(hidden[rows] for rows in chosen)
        widths = [int(rows["width"]) if "width" in rows else hidden.shape[1] for rows in tasks.values()]
        return {name: part[:, :width] for name, part, width in zip(tasks, parts, widths, strict=True)}

    def _wanted(self, mask: Tensor, tasks: Mapping[str, TaskRows]) -> Tensor | None:
        """[B, T], the tokens that these tasks' heads read, on a CPU and where they are few enough for the last layer to be cut."""
        path, pooled = self.padding_free, self.pooled_heads
        if path is None or path.last is None or pooled is None or self.watch is not None or mask.device.type != "cpu":
            return None
        wanted = torch.zeros_like(mask, dtype=torch.bool)
        wanted[:, 0] = True
        for name, rows in tasks.items():
            if not pooled.holds(name, self.heads):
                wanted[rows["rows"]] = True
        wanted &= mask.bool()
        return wanted if int(wanted.sum()) <= MOST * int(mask.sum()) else None

    def _pooled_logits(self, hidden: Tensor, tasks: Mapping[str, TaskRows]) -> dict[str, Tensor]:
        """The logits of the heads that are run side by side, in training, unless somebody watches what each of them is given."""
        if self.pooled_heads is None or self.watch is not None or not torch.is_grad_enabled():
            return {}
        return self.pooled_heads(hidden, tasks, self.heads)

    def _head_logits(self, name: str, states: Tensor, mask: Tensor, ids: Tensor, rows: TaskRows) -> Tensor:
        chosen, width = rows["rows"], states.shape[1]
        if self.watch is not None:
            self.watch(name, states)
        return self.kinds[name].logits(self.heads[name], states, mask[chosen, :width], ids[chosen, :width], rows)

    def task_losses(
        self, logits: Mapping[str, Tensor], tasks: Mapping[str, TaskRows], *, joint: bool = False
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Per task (sum, units): the loss over labelled units and their number; tasks without labels are left out.

        Args:
            joint: there will be one backward pass, from all of them: heads that run side by side may be compared at once.
        """
        names = [name for name in logits if "labels" in tasks[name]]
        pooled, found = self.pooled_heads, {}
        if joint and pooled is not None:
            labels = {name: tasks[name]["labels"] for name in names if pooled.holds(name, self.heads)}
            found = cross_entropies(self.kinds, logits, labels)
        return {
            name: found[name] if name in found else self.kinds[name].batch_loss(logits[name], tasks[name])
            for name in names
        }


AutoModel.register(MultiTaskConfig, MultiTaskModel)
