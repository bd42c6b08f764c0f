"""What an encoder has no vector for, token types or positions, is known before a row reaches it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from transformers import AutoConfig, AutoModel, AutoTokenizer

from mtl_nlp import Predictor
from mtl_nlp.errors import UserError
from mtl_nlp.hub.single_task import export_task
from mtl_nlp.model.encoder import longest_row, match_types, positions_of
from tests.conftest import build_tokenizer
from tests.equivalence.architectures import OFF, SMALL, VOCABULARY, more_configs
from tests.tiny_checkpoint import build_checkpoint

COMMON = {"vocab_size": VOCABULARY, "pad_token_id": 3, "max_position_embeddings": 20}


def config_of(name: str, **more: Any) -> Any:
    return AutoConfig.for_model(name, **{**SMALL, **OFF, **COMMON, **more})


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("bert", 20),
        ("electra", 20),
        ("nystromformer", 20),
        ("mpnet", 18),  # its positions begin at 2 whatever the padding id
        ("roberta", 16),
        ("xlm-roberta", 16),
        ("camembert", 16),
        ("xlm-roberta-xl", 16),
        ("data2vec-text", 16),
        ("roberta-prelayernorm", 16),
        ("ibert", 16),
        ("xmod", 16),
        ("esm", 16),
    ],
)
def test_the_longest_row_is_the_longest_that_the_encoder_takes(name: str, most: int) -> None:
    more = {"xmod": {"default_language": "en_XX"}, "esm": {"mask_token_id": 4}}
    more["nystromformer"] = {"num_landmarks": 8, "segment_means_seq_len": 8}
    config = config_of(name, **more.get(name, {}))
    assert positions_of(config) == most
    encoder: Any = AutoModel.from_config(config).eval()
    ids = torch.full((1, most + 1), 7)
    with torch.no_grad():
        assert (
            encoder(input_ids=ids[:, 1:], attention_mask=torch.ones_like(ids[:, 1:])).last_hidden_state.isfinite().all()
        )
        with pytest.raises((IndexError, RuntimeError)):
            encoder(input_ids=ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize(("name", "most"), [("lilt", 16), ("markuplm", 16)])
def test_relatives_of_roberta_that_read_layout_too(name: str, most: int) -> None:
    assert positions_of(config_of(name)) == most


@pytest.mark.parametrize("name", ["roberta-prelayernorm", "esm"])
def test_a_longer_row_is_refused_and_none_is_needed(name: str, tmp_path: Path) -> None:
    tokenizer = build_tokenizer(tmp_path)
    config = config_of(name, mask_token_id=4)
    assert longest_row(config, tokenizer, None) == longest_row(config, tokenizer, 16) == 16
    with pytest.raises(UserError, match=r"^encoder\.max_length: found 17 → at most 16 for this encoder$"):
        longest_row(config, tokenizer, 17)


def test_finding_the_positions_draws_no_random_number() -> None:
    before = torch.random.get_rng_state()
    positions_of(config_of("roberta"))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("types", "kept"), [(0, True), (1, False), (2, True)], ids=["an encoder without types", "one type", "two types"]
)
def test_types_are_left_out_where_the_encoder_lacks_one(types: int, kept: bool, tmp_path: Path) -> None:
    tokenizer = build_tokenizer(tmp_path)
    match_types(tokenizer, config_of("bert", type_vocab_size=types))
    tokenizer.save_pretrained(tmp_path / "saved")
    for one in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        assert ("token_type_ids" in one("the film", "the food")) is kept


def test_deberta_and_an_encoder_that_says_nothing_of_types_keep_them(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(tmp_path)
    for config in (more_configs()["deberta-v3"], t.DistilBertConfig(), t.ModernBertConfig()):
        match_types(tokenizer, config)
        assert "token_type_ids" in tokenizer.model_input_names


@pytest.fixture(scope="module")
def single_type(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of every head kind on a RoBERTa with one type and a tokenizer that gives two."""
    folder = tmp_path_factory.mktemp("single-type")
    tokenizer = build_tokenizer(folder / "encoder")
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "pad_token_id": 0}
    torch.manual_seed(0)
    AutoModel.from_config(config_of("roberta", type_vocab_size=1, **size)).save_pretrained(folder / "encoder")
    return build_checkpoint(folder / "run", folder / "encoder")


PAIRS = [
    {"premise": "the food was good", "hypothesis": "i love it"},
    {"premise": "a", "hypothesis": "the film was slow"},
]


def test_pairs_are_learned_and_answered_alike_on_both_paths(single_type: Path) -> None:
    paths = [Predictor.from_pretrained(single_type, performance=how) for how in ("auto", "plain")]
    assert ["padding-free" in one.path for one in paths] == [True, False]
    found = [one(PAIRS, tasks=["nli"], scores=True) for one in paths]
    for one, other in zip(*found, strict=True):
        mine, theirs = one["predictions"]["nli"], other["predictions"]["nli"]
        assert mine["scores"] == pytest.approx(theirs["scores"], abs=1e-6)


def test_a_text_with_the_padding_token_is_answered_alike_on_both_paths(single_type: Path) -> None:
    texts = ["anna is [PAD] in london", "[PAD]", "the [PAD] [PAD] film was very good and the food was not"]
    found = [
        Predictor.from_pretrained(single_type, performance=how)(texts, tasks=["sent", "topics"], scores=True)
        for how in ("auto", "plain")
    ]
    for one, other in zip(*found, strict=True):
        for task in ("sent", "topics"):
            mine, theirs = one["predictions"][task]["scores"], other["predictions"][task]["scores"]
            assert mine == pytest.approx(theirs, abs=1e-6)


def test_the_exported_task_reads_pairs_by_its_own_tokenizer(single_type: Path, tmp_path: Path) -> None:
    export_task(single_type, "nli", tmp_path / "nli")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "nli")
    plain: Any = t.AutoModelForSequenceClassification.from_pretrained(tmp_path / "nli").eval()
    coded = tokenizer(
        *map(list, zip(*(pair.values() for pair in PAIRS), strict=True)), padding=True, return_tensors="pt"
    )
    assert "token_type_ids" not in coded
    with torch.no_grad():
        chances = plain(**coded).logits.softmax(-1)
    answers = Predictor.from_pretrained(single_type)(PAIRS, tasks=["nli"], scores=True)
    for row, answer in zip(chances, answers, strict=True):
        expected = {plain.config.id2label[i]: float(value) for i, value in enumerate(row)}
        assert answer["predictions"]["nli"]["scores"] == pytest.approx(expected, abs=1e-6)
