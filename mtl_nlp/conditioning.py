"""`conditioning:` of a recipe: how the shared encoder is told which task a row is for; no torch here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .schema import Strict

Kind = Literal["vector", "token", "film", "lora"]
KINDS = ("vector", "token", "film", "lora")
OF_LORA = ("r", "alpha", "dropout", "targets")


class Conditioning(Strict):
    """One small set of parameters a task inside the shared encoder; a row is then a (text, task) pair.

    `vector` is added to the embeddings, `token` to a further token before the first, `film` scales and shifts the normalisation
    layers (Perez et al. 2018, arXiv:1709.07871), `lora` adds a low-rank matrix to the linear ones (Hu et al. 2021,
    arXiv:2106.09685).
    `learning_rate` is that of the conditions, the heads' if absent; the other settings are of `lora`.
    """

    kind: Literal["none", "vector", "token", "film", "lora"]
    learning_rate: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    r: int = Field(default=8, ge=1, le=4096)
    alpha: float = Field(default=16.0, gt=0.0, allow_inf_nan=False)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    targets: str | list[str] = "all-linear"


class ConditioningRecord(Strict):
    """What a checkpoint's `config.json` keeps of it.

    Attributes:
        sites: names of the encoder's modules that are conditioned (`film`, `lora`); none where it is the embeddings.
        first: the position of a row's first token (`token`).
    """

    kind: Kind
    sites: list[str] = Field(default_factory=list, max_length=10_000)
    first: int = Field(default=0, ge=0, le=1_000_000)
    r: int = Field(default=8, ge=1, le=4096)
    alpha: float = Field(default=16.0, gt=0.0, allow_inf_nan=False)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)


def as_mapping(value: Any) -> Any:
    """One word is the kind."""
    return {"kind": value} if isinstance(value, str) else value


def kind_of(spec: Conditioning | None) -> str:
    """`none` where there is no conditioning."""
    return "none" if spec is None else spec.kind
