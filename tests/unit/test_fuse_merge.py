"""Merged checkpoints: what comes out of parents that fit, and how those that do not are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mtl_nlp.errors import UserError
from mtl_nlp.fusion.common import new_folder
from mtl_nlp.fusion.merge import fuse_merge
from mtl_nlp.fusion.search import Search, moved
from mtl_nlp.hub.checkpoint import load_model
from mtl_nlp.inference.predictor import Predictor
from mtl_nlp.recipe import load_recipe
from mtl_nlp.training.finetune import finetune
from mtl_nlp.training.score import score_checkpoint
from tests.conftest import build_tokenizer
from tests.fusion_runs import build_singles, recipe_of, write_data


@pytest.fixture(scope="module")
def singles(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build_singles(tiny_encoder, tmp_path_factory.mktemp("singles"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_average_of_a_model_with_itself_is_the_model(singles: dict[str, Path], tmp_path: Path) -> None:
    folder = fuse_merge([singles["sent"], singles["sent"]], tmp_path / "m", coefficients=[0.5, 0.5])
    before, after = weights(singles["sent"]), weights(folder)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert score_checkpoint(folder)[0] == score_checkpoint(singles["sent"])[0]


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare"])
def test_one_parent_with_coefficient_1_is_the_parent(singles: dict[str, Path], tmp_path: Path, method: str) -> None:
    density = {} if method == "task_arithmetic" else {"density": 1.0}
    folder = fuse_merge([singles["ner"]], tmp_path / "m", method=method, coefficients=[1.0], **density)
    before, after = weights(singles["ner"]), weights(folder)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_merge_is_an_ordinary_checkpoint_with_its_provenance(singles: dict[str, Path], tmp_path: Path) -> None:
    folder = fuse_merge([singles["sent"], singles["ner"]], tmp_path / "m", method="task_arithmetic", coefficients=[0.4])
    parents = {name: weights(singles[name]) for name in ("sent", "ner")}
    found = weights(folder)
    for name in found:
        if name.startswith("heads."):  # each head is its parent's own
            assert torch.equal(found[name], parents[name.split(".")[1]][name])
    from transformers import AutoModel

    start = AutoModel.from_pretrained(load_recipe(folder / "recipe.resolved.yaml").encoder_spec.name)
    state, name = dict(start.named_parameters()), "encoder.layer.1.output.dense.weight"
    key = f"encoder.{name}"
    # By hand: θ₀ + 0.4 (θ₁ − θ₀) + 0.4 (θ₂ − θ₀).
    expected = state[name] + 0.4 * (parents["sent"][key] - state[name]) + 0.4 * (parents["ner"][key] - state[name])
    torch.testing.assert_close(found[key], expected.detach(), rtol=0, atol=1e-6)
    facts = json.loads((folder / "fusion.json").read_text(encoding="utf-8"))
    assert (facts["method"], facts["coefficients"]) == ("task_arithmetic", [0.4, 0.4])
    assert [parent["tasks"] for parent in facts["parents"]] == [["sent"], ["ner"]]
    assert all(parent["fingerprint"] for parent in facts["parents"])
    answers = Predictor.from_pretrained(folder)(["anna is in london"])[0]["predictions"]
    assert set(answers) == {"sent", "ner"}
    scores, mean = score_checkpoint(folder, split="validation")
    told = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert (told["validation"], told["mean"]) == (scores, mean)


def test_a_task_of_two_parents_gets_the_mean_of_their_heads(singles: dict[str, Path], tmp_path: Path) -> None:
    folder = fuse_merge([singles["sent"], singles["again"]], tmp_path / "m", coefficients=[0.25, 0.75])
    one, two, found = (weights(path) for path in (singles["sent"], singles["again"], folder))
    name = "heads.sent.classifier.weight"
    torch.testing.assert_close(found[name], 0.25 * one[name] + 0.75 * two[name], rtol=0, atol=1e-7)


class Fake:
    """Scores a trial by a known function: the best is (0.7, 0.3) on task arithmetic's grid."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, ...]] = []

    def score(self, model: Any) -> tuple[dict[str, dict[str, float]], float]:
        self.asked.append(tuple(model))
        value = 1 - (model[0] - 0.7) ** 2 - (model[1] - 0.3) ** 2
        return {"t": {"accuracy": value}}, value


def test_the_search_finds_goes_on_and_refuses_another(tmp_path: Path) -> None:
    whole = Fake()
    search = Search(tmp_path, {"method": "x"}, lambda c: c, whole)  # type: ignore[arg-type, return-value]
    best = search.best("task_arithmetic", 2)
    assert best == [0.7, 0.3]
    assert len(whole.asked) == len(set(whole.asked))
    lines = (tmp_path / "search.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) == 1 + len(whole.asked)
    # Cut in the middle of the fifth trial: only what is missing is tried again.
    (tmp_path / "search.jsonl").write_text("".join(lines[:5]) + lines[5][:7], encoding="utf-8")
    rest = Fake()
    assert Search(tmp_path, {"method": "x"}, lambda c: c, rest).best("task_arithmetic", 2) == best  # type: ignore[arg-type, return-value]
    assert rest.asked == whole.asked[4:]
    with pytest.raises(UserError, match="the search that was begun is another"):
        Search(tmp_path, {"method": "y"}, lambda c: c, rest)  # type: ignore[arg-type, return-value]


def test_weights_of_a_mean_still_sum_to_1() -> None:
    assert moved([0.5, 0.5], 0, 0.1, mean=True) == [0.6, 0.4]
    assert moved([0.2, 0.4, 0.4], 0, 0.3, mean=True) == [0.5, 0.25, 0.25]
    assert moved([0.05, 0.95], 0, -0.1, mean=True) is None
    assert moved([1.0, 0.5], 1, 0.1, mean=False) == [1.0, 0.6]


def test_a_searched_merge_keeps_its_trials(singles: dict[str, Path], tmp_path: Path) -> None:
    folder = fuse_merge([singles["sent"], singles["ner"]], tmp_path / "m")
    facts = json.loads((folder / "fusion.json").read_text(encoding="utf-8"))
    best = max(trial["mean"] for trial in facts["trials"])
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["mean"] == pytest.approx(best)
    assert not (folder / "search.jsonl").exists()
    assert fuse_merge([singles["sent"], singles["ner"]], folder, resume=True) == folder  # finished: nothing is done
    with pytest.raises(UserError, match="it holds another merge"):
        fuse_merge([singles["sent"], singles["again"]], folder, resume=True)


def test_what_does_not_fit_is_refused_all_at_once(singles: dict[str, Path], tiny_encoder: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    tasks = write_data(tmp_path)
    other = tmp_path / "other"
    tokenizer = build_tokenizer(other, ["zebra", "film", "the"])
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(other)
    odd = finetune(recipe_of(other, [tasks["ner"]], tmp_path / "odd", max_steps=1)).folder
    with pytest.raises(UserError) as error:
        fuse_merge([singles["sent"], odd], tmp_path / "m", ancestor=tiny_encoder, coefficients=[0.5])
    told = str(error.value)
    assert f"{odd}: architecture: weights that only one has: encoder.layer.1" in told
    assert f"{odd}: vocabulary: embeddings.word_embeddings.weight is" in told
    assert f"{odd}: vocabulary: " in told
    assert "tokens have other ids" in told
    with pytest.raises(UserError, match=r"--ancestor: the checkpoints have several ancestors"):
        fuse_merge([singles["sent"], odd], tmp_path / "m", coefficients=[0.5])
    assert not (tmp_path / "m").exists()


def test_a_model_that_is_no_descendant_is_refused(singles: dict[str, Path], tiny_encoder: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    stranger = tmp_path / "stranger"
    shutil.copytree(tiny_encoder, stranger)
    torch.manual_seed(99)
    BertModel(BertConfig.from_pretrained(tiny_encoder)).save_pretrained(stranger)
    with pytest.raises(UserError, match=r"--ancestor: its weights are 1\.\d\d of their norm from stranger"):
        fuse_merge([singles["sent"]], tmp_path / "m", method="ties", ancestor=stranger, coefficients=[1.0])


def test_settings_are_refused_all_at_once(singles: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        fuse_merge([singles["sent"]], tmp_path / "m", method="tie", density=2.0, coefficients=[1.0, 2.0])
    assert 'found "tie" → average, task_arithmetic, ties, dare' in str(error.value)
    assert "--density: found 2.0" in str(error.value)
    assert "--coefficients: 2 for 1 checkpoints" in str(error.value)
    with pytest.raises(UserError, match="no such folder"):
        fuse_merge([tmp_path / "nothing", singles["sent"]], tmp_path / "m")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="is not empty"):
        fuse_merge([singles["sent"]], tmp_path / "full")


def plain_classifier(tiny_encoder: Path, folder: Path, names: list[str]) -> Path:
    """A fine-tuned model of transformers, with its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(5)
    id2label = dict(enumerate(names))
    label2id = {name: i for i, name in id2label.items()}
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, id2label=id2label, label2id=label2id)
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight += 0.01
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(folder)
    return folder


def test_plain_models_are_parents_too(singles: dict[str, Path], tiny_encoder: Path, tmp_path: Path) -> None:
    plain = plain_classifier(tiny_encoder, tmp_path / "plain", ["NEGATIVE", "POSITIVE"])
    folder = fuse_merge(
        [f"mood={plain}", singles["ner"]], tmp_path / "m", method="task_arithmetic", coefficients=[1.0, 0.0]
    )
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(plain)
    inputs = tokenizer(["the film was great", "awful food"], return_tensors="pt", padding=True)
    with torch.inference_mode():
        expected = AutoModelForSequenceClassification.from_pretrained(plain).eval()(**inputs).logits
        every = {"mood": {"rows": torch.arange(2)}}
        found = load_model(folder)(**inputs, tasks=every).logits["mood"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert load_model(folder).tasks[0].labels == ["NEGATIVE", "POSITIVE"]


def test_a_plain_models_labels_are_those_of_the_recipe(
    tiny_encoder: Path, singles: dict[str, Path], tmp_path: Path
) -> None:
    tasks = write_data(tmp_path)
    plain = plain_classifier(tiny_encoder, tmp_path / "plain", ["POSITIVE", "NEGATIVE"])
    named = {**tasks["sent"], "labels": ["negative", "positive"]}
    recipe = recipe_of(tiny_encoder, [named, tasks["ner"]], tmp_path / "run")
    folder = fuse_merge(
        [f"sent={plain}", singles["ner"]], tmp_path / "m", method="ties", coefficients=[1.0], recipe=recipe
    )
    model = load_model(folder)
    assert model.tasks[0].labels == ["positive", "negative"]  # the recipe's names, in the head's order
    assert set(score_checkpoint(folder)[0]) == {"sent", "ner"}
    bad = plain_classifier(tiny_encoder, tmp_path / "bad", ["a", "b"])
    with pytest.raises(UserError, match="labels of the task that the head does not know"):
        fuse_merge([f"sent={bad}"], tmp_path / "n", recipe=recipe)


def test_adapters_are_merged_by_peft_as_their_products_are(tiny_encoder: Path, tmp_path: Path) -> None:
    """Two routes agree: peft on A and B, and the task vectors of the models that have them merged in."""
    tasks = write_data(tmp_path)
    parts = []
    for number, name in enumerate(("sent", "ner")):
        run = recipe_of(
            tiny_encoder, [tasks[name]], tmp_path / f"run-{name}", max_steps=4, save_strategy="steps", save_steps=4
        )
        lora = {"r": 2 + number, "alpha": 6.0, "targets": ["query", "value"] if number else "all-linear"}
        parts.append(finetune({**run, "lora": lora}).folder / "checkpoint-4")
    for method, numbers in (("average", [1.0, 3.0]), ("task_arithmetic", [0.5, 1.0])):
        known = {"method": method, "coefficients": numbers}
        one = weights(fuse_merge(parts, tmp_path / f"a-{method}", adapters=True, **known))  # type: ignore[arg-type]
        two = weights(fuse_merge(parts, tmp_path / f"b-{method}", **known))  # type: ignore[arg-type]
        assert one.keys() == two.keys()
        for name, value in one.items():
            torch.testing.assert_close(value, two[name], rtol=0, atol=1e-5)
    fuse_merge(parts, tmp_path / "ties", adapters=True, method="ties", coefficients=[1.0], density=0.5)
    with pytest.raises(UserError, match=r"--adapters: no lora\.safetensors"):
        fuse_merge([tmp_path / "ties"], tmp_path / "no", adapters=True, coefficients=[1.0])


def test_only_what_can_go_on_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    with pytest.raises(UserError) as ensemble:
        new_folder(tmp_path)
    assert str(ensemble.value).endswith("OUTPUT: is not empty → a new folder (another OUTPUT, or remove it)")
    with pytest.raises(UserError, match=r"is not empty → a new folder \(or --resume\)"):
        new_folder(tmp_path, resume=False)
    assert new_folder(tmp_path, resume=True) == tmp_path
