"""Heads and encoders taken from other checkpoints: labels mapped by name, weights the same, mismatches refused with both lists."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from mtl_nlp.errors import UserError
from mtl_nlp.hub.checkpoint import load_model
from mtl_nlp.model.encoder import load_config, load_encoder
from mtl_nlp.recipe import EncoderSpec, make_recipe
from mtl_nlp.schema import Source, parse_yaml, validate
from mtl_nlp.training.finetune import build_trainer, finetune
from mtl_nlp.training.prepare import prepare
from mtl_nlp.training.transfer import NoMatch, map_labels, map_types


@pytest.mark.parametrize(
    ("own", "head", "given", "expected"),
    [
        (["bad", "good"], ["good", "bad"], False, ["good", "bad"]),
        (["negative", "positive"], ["POSITIVE", "NEGATIVE"], False, ["positive", "negative"]),
        (["a", "A"], ["A", "a"], False, ["A", "a"]),
        # From the data: the head may know more, and keeps it.
        (["bad", "good"], ["good", "neutral", "bad"], False, ["good", "neutral", "bad"]),
        # No names: the listed order is the head's.
        (["bad", "good"], ["LABEL_0", "LABEL_1"], True, ["bad", "good"]),
        (["LABEL_1", "LABEL_0"], ["LABEL_0", "LABEL_1"], False, ["LABEL_0", "LABEL_1"]),
    ],
)
def test_labels_are_mapped_by_name(own: list[str], head: list[str], given: bool, expected: list[str]) -> None:
    assert map_labels(own, head, given=given) == expected


@pytest.mark.parametrize(
    ("own", "head", "given"),
    [
        (["bad", "fine"], ["bad", "good"], False),
        (["bad", "good"], ["bad", "good", "neutral"], True),
        (["bad", "good"], ["LABEL_0", "LABEL_1"], False),
        (["bad", "good"], ["LABEL_0", "LABEL_1", "LABEL_2"], True),
        (["yes", "Yes"], ["YES", "no"], False),
    ],
)
def test_what_cannot_be_mapped_is_refused(own: list[str], head: list[str], given: bool) -> None:
    with pytest.raises(NoMatch):
        map_labels(own, head, given=given)


def test_types_stand_in_the_order_of_their_first_tag() -> None:
    head = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]
    assert map_types(["PER", "LOC"], head, given=True) == ["LOC", "PER"]
    assert map_types(["per"], head, given=False) == ["LOC", "per"]
    with pytest.raises(NoMatch, match="both B-x and I-x"):
        map_types(["PER", "LOC"], ["B-LOC", "I-LOC", "I-PER", "O"], given=False)
    with pytest.raises(NoMatch, match="both B-x and I-x"):
        map_types(["PER"], ["O", "B-PER", "I-PER", "E-PER", "S-PER"], given=False)


def vanilla(cls: Any, names: list[str], folder: Path, encoder: Path, **more: Any) -> Any:
    """A fine-tuned model of transformers on the tiny encoder's architecture, with random weights."""
    torch.manual_seed(7)
    config = copy.deepcopy(BertConfig.from_pretrained(encoder))
    config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    config.update(more)
    config._attn_implementation = "eager"
    model = cls(config).eval()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return model


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 60, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def started(recipe: dict[str, Any]) -> Any:
    # With padding, as the vanilla model computes it.
    return build_trainer(prepare(make_recipe({**recipe, "performance": "plain"}))).multi.eval()


def test_encoder_and_head_of_a_fine_tuned_model_give_its_logits(
    recipe: dict[str, Any], tiny_encoder: Path, tmp_path: Path
) -> None:
    plain = vanilla(BertForSequenceClassification, ["POSITIVE", "NEGATIVE"], tmp_path / "v", tiny_encoder)
    recipe["encoder"] = {"from": str(tmp_path / "v")}
    recipe["tasks"][0]["from"] = str(tmp_path / "v")
    model = started(recipe)
    assert model.tasks[0].labels == ["positive", "negative"]
    with torch.no_grad():
        assert torch.equal(model(**batch()).logits["sent"], plain(**batch()).logits)


def test_tags_in_another_order_are_put_in_ours(recipe: dict[str, Any], tiny_encoder: Path, tmp_path: Path) -> None:
    names = ["I-LOC", "O", "B-PER", "B-LOC", "I-ORG", "I-PER", "B-ORG"]
    plain = vanilla(BertForTokenClassification, names, tmp_path / "v", tiny_encoder)
    recipe["encoder"] = {"from": str(tmp_path / "v")}
    recipe["tasks"][1]["from"] = str(tmp_path / "v")
    model = started(recipe)
    assert model.tasks[1].labels == ["LOC", "PER", "ORG"]
    ours = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER", "B-ORG", "I-ORG"]
    with torch.no_grad():
        expected = plain(**batch()).logits[..., [names.index(name) for name in ours]]
        assert torch.allclose(model(**batch()).logits["ner"], expected, atol=1e-6)


def test_a_checkpoint_of_ours_gives_encoder_and_heads(recipe: dict[str, Any], tmp_path: Path) -> None:
    first = finetune(recipe).folder
    recipe |= {"encoder": {"from": str(first)}, "output_dir": str(tmp_path / "second")}
    recipe["tasks"][0] |= {"from": str(first), "name": "mood"}
    recipe["tasks"][1] |= {"from": f"{first}#ner"}
    before, after = load_model(first), started(recipe)
    with torch.no_grad():
        old, new = before(**batch()).logits, after(**batch()).logits
    assert torch.equal(old["sent"], new["mood"])
    assert torch.equal(old["ner"], new["ner"])
    recipe["training"]["max_steps"] = 1
    assert finetune(recipe).report["steps"] == 1
    again, _ = parse_yaml((tmp_path / "second" / "recipe.resolved.yaml").read_text(), "resolved")
    assert again["encoder"]["from"] == str(first)
    assert again["tasks"][1]["from"] == f"{first}#ner"


def test_an_encoder_keeps_its_bits(tiny_encoder: Path, tmp_path: Path) -> None:
    plain = vanilla(BertForTokenClassification, ["O", "B-X", "I-X"], tmp_path / "v", tiny_encoder)
    spec = validate(EncoderSpec, {"from": str(tmp_path / "v")}, Source())
    loaded = load_encoder(spec).state_dict()
    for key, value in plain.bert.state_dict().items():
        assert torch.equal(loaded[key], value), key


def test_a_masked_lm_head_is_taken(recipe: dict[str, Any], tiny_encoder: Path, tmp_path: Path) -> None:
    plain = vanilla(BertForMaskedLM, ["a", "b"], tmp_path / "v", tiny_encoder)
    recipe["encoder"] = {"from": str(tmp_path / "v")}
    source = {"source": recipe["tasks"][0]["data"]["source"], "columns": {"text": "text"}}
    recipe["tasks"].append(
        {
            "name": "mlm",
            "head": "masked_language_modeling",
            "auxiliary": True,
            "data": source,
            "from": str(tmp_path / "v"),
        }
    )
    model = started(recipe)
    with torch.no_grad():
        assert torch.equal(model(**batch()).logits["mlm"], plain(**batch()).logits)


FAULTS = [
    ({"names": ["great", "awful"]}, ["sent.from", "negative, positive", "great, awful"]),
    ({"names": ["LABEL_0", "LABEL_1"]}, ["sent.from", "no names", "negative, positive"]),
    ({"cls": BertForTokenClassification}, ["sent.from", "BertForTokenClassification", "BertForSequenceClassification"]),
    ({"problem_type": "multi_label_classification"}, ["sent.from", "multi_label_classification", "single_label"]),
]


@pytest.mark.parametrize(("how", "told"), FAULTS)
def test_a_head_that_does_not_fit_is_refused(
    how: dict[str, Any], told: list[str], recipe: dict[str, Any], tiny_encoder: Path, tmp_path: Path
) -> None:
    how = {"cls": BertForSequenceClassification, "names": ["negative", "positive"], **how}
    vanilla(how.pop("cls"), how.pop("names"), tmp_path / "v", tiny_encoder, **how)
    recipe["tasks"][0]["from"] = str(tmp_path / "v")
    with pytest.raises(UserError) as caught:
        prepare(make_recipe(recipe))
    for part in told:
        assert part in str(caught.value)


def test_a_head_of_another_architecture_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    config = DistilBertConfig(vocab_size=90, dim=32, n_layers=1, n_heads=2, hidden_dim=48)
    config.id2label = {0: "negative", 1: "positive"}
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path / "v")
    recipe["tasks"][0]["from"] = str(tmp_path / "v")
    with pytest.raises(UserError, match=r"sent\.from: the head of that distilbert does not fit.*for this bert"):
        started(recipe)


@pytest.mark.parametrize(
    ("place", "told"),
    [("nowhere/at-all", "cannot be read"), ("{run}#mood", 'no task "mood".*sent .*ner ')],
)
def test_a_source_that_is_not_there_is_named(place: str, told: str, recipe: dict[str, Any]) -> None:
    run = finetune({**recipe, "training": {**recipe["training"], "max_steps": 1}}).folder
    recipe["tasks"][0]["from"] = place.format(run=run)
    with pytest.raises(UserError, match=f"sent.from: .*{told}"):
        prepare(make_recipe(recipe))


def test_a_checkpoint_of_ours_as_a_plain_encoder_tells_the_cure(recipe: dict[str, Any]) -> None:
    run = finetune({**recipe, "training": {**recipe["training"], "max_steps": 1}}).folder
    with pytest.raises(UserError, match=r"encoder: \{from: CHECKPOINT\}"):
        load_config(EncoderSpec(name=str(run)))
