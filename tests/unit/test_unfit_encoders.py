"""An encoder that does not fit is refused before training, by its name and with the reason."""

from __future__ import annotations

import pytest
from transformers import AutoConfig, PreTrainedConfig

from mtl_nlp.errors import UserError
from mtl_nlp.model.encoder import REFUSED, check_architecture

FITTING = [
    "bert",
    "distilbert",
    "roberta",
    "xlm-roberta",
    "electra",
    "albert",
    "deberta-v2",
    "mpnet",
    "modernbert",
    "eurobert",
]


@pytest.mark.parametrize("kind", FITTING)
def test_ten_architectures_fit(kind: str) -> None:
    check_architecture(AutoConfig.for_model(kind))


@pytest.mark.parametrize("kind", list(REFUSED))
def test_known_misfits(kind: str) -> None:
    with pytest.raises(UserError) as error:
        check_architecture(AutoConfig.for_model(kind))
    assert f'architecture "{kind}" does not fit a shared encoder: {REFUSED[kind]}' in str(error.value)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("t5", "a decoder"),
        ("bart", "a decoder"),
        ("marian", "a decoder"),
        ("vit", "reads no text"),
        ("clip", "reads no text"),
    ],
)
def test_what_is_no_text_encoder(kind: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        check_architecture(AutoConfig.for_model(kind))
    assert f'architecture "{kind}"' in str(error.value)


def test_code_that_comes_with_a_checkpoint() -> None:
    class Strange(PreTrainedConfig):
        model_type = "strange"
        vocab_size = 100

    with pytest.raises(UserError, match=r'architecture "strange".*a checkpoint can name no code to run'):
        check_architecture(Strange())
