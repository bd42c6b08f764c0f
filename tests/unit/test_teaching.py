"""Distillation: the schedule, the losses by hand, and runs with teachers that resume bit by bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mtl_nlp.distil import Distil
from mtl_nlp.errors import UserError
from mtl_nlp.fusion.distil import distil_recipe, fuse_distil
from mtl_nlp.fusion.ensemble import fuse_ensemble
from mtl_nlp.inference.predictor import Predictor
from mtl_nlp.recipe import load_recipe, make_recipe
from mtl_nlp.training.finetune import build_trainer, finetune
from mtl_nlp.training.prepare import prepare
from mtl_nlp.training.teachers import read_targets, teacher_targets, write_targets
from mtl_nlp.training.teaching import TeachingCollator, TeachingTrainer, distance, labels_share
from tests.conftest import build_tokenizer
from tests.fusion_runs import build_singles, recipe_of, write_data
from tests.unit.test_fuse_merge import plain_classifier


def test_the_labels_share_grows_from_0_to_1() -> None:
    spec = Distil(teachers={"t": "x"})
    assert [labels_share(spec, step, 8) for step in range(9)] == [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1]
    assert labels_share(spec, 12, 8) == 1.0
    constant = Distil(teachers={"t": "x"}, annealing=False, gold=0.3)
    assert {labels_share(constant, step, 8) for step in range(9)} == {0.3}


def test_distances_by_hand() -> None:
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    one = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # KL((3/4, 1/4) ‖ (1/2, 1/2))
    rows = {"labels": torch.tensor([1]), "teacher": teacher}
    assert float(distance("label", student, rows, 1.0, None)) == pytest.approx(one)
    assert float(distance("label", student, rows, 1.0, [2.0, 5.0])) == pytest.approx(5 * one)  # of its label's weight
    gap = {"labels": torch.tensor([-100]), "teacher": teacher}
    assert float(distance("label", student, gap, 1.0, None)) == 0.0
    tags = {"labels": torch.tensor([[0, -100, 1]]), "teacher": teacher.expand(1, 3, 2)}
    assert float(distance("tags", torch.zeros(1, 3, 2), tags, 1.0, None)) == pytest.approx(2 * one)
    number = {"labels": torch.tensor([1.0, math.nan]), "teacher": torch.tensor([[0.5], [9.0]])}
    assert float(distance("value", torch.tensor([[2.0], [0.0]]), number, 1.0, None)) == 2.25
    several = {"labels": torch.tensor([[0.0, 1.0]]), "teacher": torch.tensor([[math.log(3.0), 0.0]])}
    assert float(distance("labels", torch.zeros(1, 2), several, 1.0, None)) == pytest.approx(one / 2)


def test_the_gradient_is_that_of_mixed_targets() -> None:
    """What BAM trains on: cross entropy with λ · label + (1 − λ) · teacher, squared error to λ · number + (1 − λ) · teacher."""
    from torch.nn import functional as F

    share, student = 0.3, torch.tensor([[0.5, -0.2, 0.1]], requires_grad=True)
    teacher, label = torch.tensor([[1.0, 0.2, -1.0]]), torch.tensor([2])
    rows = {"labels": label, "teacher": teacher}
    mixed = share * F.cross_entropy(student, label, reduction="sum")
    mixed = mixed + (1 - share) * distance("label", student, rows, 1.0, None)
    (found,) = torch.autograd.grad(mixed, student)
    target = share * F.one_hot(label, 3) + (1 - share) * teacher.softmax(-1)
    (expected,) = torch.autograd.grad(F.cross_entropy(student, target, reduction="sum"), student)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def singles(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build_singles(tiny_encoder, tmp_path_factory.mktemp("singles"))


def student(
    encoder: Path, folder: Path, distil: dict[str, Any], name: str = "student", **training: Any
) -> dict[str, Any]:
    tasks = write_data(folder)
    return recipe_of(encoder, list(tasks.values()), folder / name, **training) | {"distil": distil}


def test_the_steps_loss_by_hand(singles: dict[str, Path], tiny_encoder: Path, tmp_path: Path) -> None:
    teachers = {"sent": str(singles["sent"]), "ner": str(singles["ner"])}
    prepared = prepare(
        make_recipe(student(tiny_encoder, tmp_path, {"teachers": teachers, "temperature": 2.0}, max_steps=4))
    )
    trainer = build_trainer(prepared)
    assert isinstance(trainer, TeachingTrainer)
    assert isinstance(trainer.data_collator, TeachingCollator)
    trainer.state.max_steps, trainer.state.global_step = 4, 1
    batch = next(iter(trainer.get_train_dataloader()))
    counts = trainer._count([batch])
    trainer.multi.eval()
    outputs, means = trainer.task_means(trainer.multi, batch, counts)
    for name, rows in batch["tasks"].items():
        logits, labels, teacher = outputs.logits[name], rows["labels"], rows["teacher"]
        known = labels != -100
        gold = torch.nn.functional.cross_entropy(logits[known], labels[known])
        p, q = ((x[known] / 2).log_softmax(-1) for x in (teacher, logits))
        soft = 4 * (p.exp() * (p - q)).sum(-1).mean()
        expected = (0.25 * gold + 0.75 * soft).item()
        assert means[name].item() == pytest.approx(expected, rel=1e-5)
    # The teacher's outputs in the batch are those that it gives when it is asked for the same rows.
    from mtl_nlp.hub.checkpoint import load_model

    rows = batch["tasks"]["sent"]
    inputs = {name: value for name, value in batch.items() if name != "tasks"}
    with torch.inference_mode():
        asked = load_model(singles["sent"])(**inputs, tasks={"sent": {"rows": rows["rows"]}}).logits["sent"]
    torch.testing.assert_close(rows["teacher"].softmax(-1), asked.softmax(-1), rtol=0, atol=1e-5)


def test_a_run_resumes_bit_equal_and_reads_its_teachers_again(
    singles: dict[str, Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    teachers = {"sent": str(singles["sent"]), "ner": str(singles["ner"])}
    recipe = student(
        tiny_encoder, tmp_path, {"teachers": teachers}, "whole", max_steps=6, save_strategy="steps", save_steps=3
    )
    whole = finetune(recipe).folder
    kept = whole / "teachers" / "ner.safetensors"
    assert kept.is_file()
    again = {**recipe, "output_dir": str(tmp_path / "again")}
    resumed = finetune(again, resume=whole / "checkpoint-3").folder  # the outputs are computed anew
    assert (whole / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()
    assert kept.read_bytes() == (resumed / "teachers" / "ner.safetensors").read_bytes()
    before = kept.stat().st_mtime_ns
    last = finetune(recipe, resume=True).folder  # and here they are read
    assert kept.stat().st_mtime_ns == before
    assert (last / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()
    assert set(Predictor.from_pretrained(whole)(["anna is in london"])[0]["predictions"]) == {"sent", "ner"}
    assert load_recipe(whole / "recipe.resolved.yaml").distil is not None


def test_kept_outputs_of_something_else_are_not_read(tmp_path: Path) -> None:
    from mtl_nlp.training.teachers import Targets

    path = tmp_path / "teachers" / "t.safetensors"
    write_targets(path, "key", Targets(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 3])))
    found = read_targets(path, "key")
    assert found is not None
    assert found.of_text(1).tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert read_targets(path, "other") is None
    path.write_bytes(path.read_bytes()[:20])
    assert read_targets(path, "key") is None
    assert read_targets(tmp_path / "none.safetensors", "key") is None


def test_teachers_of_another_kind(singles: dict[str, Path], tiny_encoder: Path, tmp_path: Path) -> None:
    """A plain model with labels in another order and case, an ensemble, and a CRF under another tokenizer."""
    from transformers import BertConfig, BertModel

    plain = plain_classifier(tiny_encoder, tmp_path / "plain", ["POSITIVE", "NEGATIVE"])
    tasks = write_data(tmp_path)
    other = tmp_path / "other"
    tokenizer = build_tokenizer(other, ["anna", "film"])
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **small)).save_pretrained(other)
    crf = {**tasks["ner"], "head": "token_classification_crf"}
    chain = finetune(recipe_of(other, [crf], tmp_path / "crf", max_steps=2)).folder
    recipe = student(tiny_encoder, tmp_path, {"teachers": {"sent": str(plain), "ner": str(chain)}})
    prepared = prepare(make_recipe(recipe))
    found = teacher_targets(prepared, None)
    values = found["sent"].values.softmax(-1)
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    text = prepared.corpora[0].splits["train"].data["text"][0]
    with torch.inference_mode():
        inputs = AutoTokenizer.from_pretrained(plain)([text], return_tensors="pt")
        logits = AutoModelForSequenceClassification.from_pretrained(plain).eval()(**inputs).logits[0]
    assert prepared.tasks[0].labels == ["negative", "positive"]
    torch.testing.assert_close(values[0], logits.softmax(-1)[[1, 0]], rtol=0, atol=1e-5)
    words = sum(len(tokens) for tokens in prepared.corpora[1].splits["train"].data["tokens"])
    assert found["ner"].values.shape == (words, 7)
    torch.testing.assert_close(found["ner"].values.exp().sum(-1), torch.ones(words), rtol=0, atol=1e-5)
    pair = fuse_ensemble([singles["sent"], singles["again"]], tmp_path / "pair", weights="uniform")
    made = make_recipe({**recipe, "distil": {"teachers": {"sent": str(pair)}}})
    both = teacher_targets(prepare(made), None)["sent"].values.softmax(-1)
    each = []
    for name in ("sent", "again"):
        made = make_recipe({**recipe, "distil": {"teachers": {"sent": str(singles[name])}}})
        each.append(teacher_targets(prepare(made), None)["sent"].values.softmax(-1))
    torch.testing.assert_close(both, (each[0] + each[1]) / 2, rtol=0, atol=1e-6)


def test_what_cannot_be_taught_is_refused_all_at_once(
    singles: dict[str, Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    recipe = student(tiny_encoder, tmp_path, {"teachers": {"sent": "x"}})
    tasks = [{**recipe["tasks"][0]}, {**recipe["tasks"][1], "head": "token_classification_crf"}]
    wrong = {"teachers": {"ner": "x", "snt": "y"}, "gold": 0.2}
    with pytest.raises(UserError) as error:
        make_recipe({**recipe, "tasks": tasks, "distil": wrong})
    told = str(error.value)
    assert "distil.teachers.ner: token_classification_crf cannot be taught" in told
    assert 'distil.teachers.snt: no task "snt". Did you mean "sent"?' in told
    assert "distil.gold: found 0.2 (with annealing" in told
    with pytest.raises(UserError, match=r"distil\.teachers"):
        make_recipe({**recipe, "distil": {"teachers": {}}})
    bad = plain_classifier(tiny_encoder, tmp_path / "bad", ["a", "b"])
    places = {"sent": str(bad), "ner": str(singles["sent"])}
    with pytest.raises(UserError) as error:
        finetune({**recipe, "distil": {"teachers": places}, "output_dir": str(tmp_path / "new")})
    told = str(error.value)
    assert "distil.teachers.sent" in told
    assert "distil.teachers.ner" in told
    assert "its head is sequence_classification → token_classification" in told


def test_teachers_given_beside_a_recipe(singles: dict[str, Path], tiny_encoder: Path, tmp_path: Path) -> None:
    recipe = student(tiny_encoder, tmp_path, {"teachers": {"sent": "old"}}, max_steps=2)
    made = distil_recipe(recipe, {"sent": singles["sent"]}, temperature=3.0, gold=0.25)
    assert made.distil == Distil(teachers={"sent": str(singles["sent"])}, annealing=False, gold=0.25, temperature=3.0)
    plain = {key: value for key, value in recipe.items() if key != "distil"}
    folder = fuse_distil(plain, {"sent": singles["sent"]}, tmp_path / "out")
    assert folder == tmp_path / "out"
    with pytest.raises(UserError, match=r"distil\.teachers"):
        distil_recipe(plain, {})
