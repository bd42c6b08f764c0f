"""Ensembles: probabilities and votes by hand, and a folder behind the `Predictor`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mtl_nlp.decoding import Decoded
from mtl_nlp.ensembling import EnsembleDecoder, Kept
from mtl_nlp.errors import UserError
from mtl_nlp.fusion.ensemble import fuse_ensemble, select
from mtl_nlp.hub.ensemble import read_ensemble
from mtl_nlp.inference.predictor import Predictor
from mtl_nlp.model.files import write_checksums
from mtl_nlp.task import Calibration, Task
from mtl_nlp.training.finetune import finetune
from mtl_nlp.training.score import score_checkpoint
from tests.conftest import build_tokenizer
from tests.fusion_runs import build_singles, recipe_of, write_data
from tests.unit.test_fuse_merge import plain_classifier

LABEL = Task(name="t", head="sequence_classification", labels=["a", "b"])
TURNED = LABEL.model_copy(update={"labels": ["b", "a"]})
TAGS = Task(name="n", head="token_classification", labels=["PER", "LOC"])  # O, B-PER, I-PER, B-LOC, I-LOC


def scores(*values: float) -> Decoded:
    return Decoded(None, np.asarray(values, dtype=np.float32))


def tagged(tags: Sequence[str], table: Sequence[Sequence[float]]) -> Kept:
    return Kept(list(tags), None, table=np.asarray(table, dtype=np.float32))


def decided(decoder: EnsembleDecoder, *answers: Sequence[Decoded]) -> list[Decoded]:
    return decoder.decode(*decoder.gather(answers))


def test_probabilities_by_hand_and_labels_by_name() -> None:
    decoder = EnsembleDecoder(LABEL, [LABEL, TURNED], [0.75, 0.25])
    # a: 0.75 · 0.4 + 0.25 · 0.9 = 0.525; the second member's order is b, a.
    (found,) = decided(decoder, [scores(0.4, 0.6)], [scores(0.1, 0.9)])
    assert found.value == "a"
    assert found.scores is not None
    assert found.scores.tolist() == pytest.approx([0.525, 0.475])


def test_several_labels_a_number_and_a_choice_by_hand() -> None:
    several = Task(
        name="m", head="multi_label_classification", labels=["x", "y"],
        calibration=Calibration(thresholds={"x": 0.5, "y": 0.3}),
    )  # fmt: skip
    (found,) = decided(EnsembleDecoder(several, [several] * 2, [0.5, 0.5]), [scores(0.9, 0.5)], [scores(0.0, 0.2)])
    assert found.value == ["y"]  # 0.45 and 0.35 against 0.5 and 0.3
    number = Task(name="v", head="regression")
    pair = decided(EnsembleDecoder(number, [number] * 2, [0.25, 0.75]), [Decoded(1.0)], [Decoded(3.0)])
    assert pair[0].value == 2.5
    choice = Task(name="c", head="multiple_choice")
    decoder = EnsembleDecoder(choice, [choice] * 2, [0.5, 0.5])
    found, other = decided(
        decoder, [scores(0.1, 0.2, 0.7), scores(0.9, 0.1)], [scores(0.1, 0.8, 0.1), scores(0.2, 0.8)]
    )
    assert (found.value, other.value) == ("1", "0")
    assert found.scores is not None
    assert len(found.scores) == 3


SURE = {"O": 0, "B-PER": 1, "I-PER": 2, "B-LOC": 3, "I-LOC": 4}


def table(*tags: tuple[str, float]) -> list[list[float]]:
    """A word's probability on one tag, the rest evenly on the others."""
    return [[p if SURE[tag] == k else (1 - p) / 4 for k in range(5)] for tag, p in tags]


def test_entities_by_vote() -> None:
    whole, part = ["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "O", "O", "B-LOC"]
    rows = table(("B-PER", 0.9), ("I-PER", 0.6), ("O", 0.9), ("B-LOC", 0.9))
    members = [[tagged(whole, rows)], [tagged(whole, rows)], [tagged(part, rows)]]
    third = EnsembleDecoder(TAGS, [TAGS] * 3, [1 / 3] * 3)
    assert decided(third, *members)[0].value == whole
    # With 0.6 of the weight the third member has its way: an entity is its words and its type.
    assert decided(EnsembleDecoder(TAGS, [TAGS] * 3, [0.2, 0.2, 0.6]), *members)[0].value == part
    # Three members of whom no two agree on an entity: none is taken.
    other = [[tagged(["B-PER", "O"], table(("O", 0.9), ("O", 0.9)))], [tagged(["B-LOC", "O"], table(("O", 0.9), ("O", 0.9)))],
             [tagged(["B-PER", "I-PER"], table(("O", 0.9), ("O", 0.9)))]]  # fmt: skip
    assert decided(third, *other)[0].value == ["O", "O"]


def test_at_exactly_half_the_mean_probabilities_decide() -> None:
    decoder = EnsembleDecoder(TAGS, [TAGS] * 2, [0.5, 0.5])
    one = tagged(["B-PER", "O"], table(("B-PER", 0.9), ("O", 0.9)))
    unsure = tagged(["O", "O"], table(("O", 0.5), ("O", 0.9)))
    (found,) = decided(decoder, [one], [unsure])
    assert found.value == ["B-PER", "O"]  # mean of B-PER: (0.9 + 0.125) / 2, of O: (0.025 + 0.5) / 2
    assert found.scores is not None
    assert found.scores.tolist() == pytest.approx([0.5125, 0.9])
    sure = tagged(["O", "O"], table(("O", 0.99), ("O", 0.9)))
    weak = tagged(["B-PER", "O"], table(("B-PER", 0.5), ("O", 0.9)))
    assert decided(decoder, [weak], [sure])[0].value == ["O", "O"]


def test_tags_by_mean_probabilities_obey_the_scheme() -> None:
    decoder = EnsembleDecoder(TAGS, [TAGS] * 2, [0.5, 0.5], vote=False)
    one = tagged(["O", "O"], table(("O", 0.6), ("I-PER", 0.9)))
    two = tagged(["O", "O"], table(("O", 0.5), ("I-PER", 0.9)))
    assert decided(decoder, [one], [two])[0].value[1] != "I-LOC"
    assert decided(decoder, [one], [two])[0].value in (["B-PER", "I-PER"], ["I-PER", "I-PER"], ["O", "B-PER"])


def test_answers_by_their_scores() -> None:
    task = Task(name="q", head="question_answering")
    decoder = EnsembleDecoder(task, [task] * 3, [0.4, 0.3, 0.3])
    members = [
        [Decoded("Paris", None, (3, 8), 0.9)],
        [Decoded("", None, (0, 0), 0.8)],
        [Decoded("", None, (0, 0), 0.5)],
    ]
    (found,) = decided(decoder, *members)
    assert (found.value, found.score) == ("", pytest.approx(0.39))  # 0.3 · 0.8 + 0.3 · 0.5 against 0.4 · 0.9 = 0.36


def test_members_that_count_other_words_are_refused() -> None:
    decoder = EnsembleDecoder(TAGS, [TAGS] * 2, [0.5, 0.5])
    with pytest.raises(UserError, match="the members cut a text into 1 and 2 words"):
        decoder.gather([[tagged(["O"], table(("O", 1.0)))], [tagged(["O", "O"], table(("O", 1.0), ("O", 1.0)))]])


def test_selection_by_hand() -> None:
    # The score is best at (2/3, 1/3): after bags (1,0), (1,1) or (2,0) comes (2,1).
    def score(weights: Sequence[float]) -> float:
        return -abs(weights[0] - 2 / 3)

    weights, value = select(score, [0, 1], 2, [0.5, 0.5])
    assert weights == pytest.approx([2 / 3, 1 / 3])
    assert value == pytest.approx(0.0)
    # Nothing is better than equal weights: they stay.
    assert select(lambda weights: 0.9, [0, 2], 3, [0.5, 0.0, 0.5]) == ([0.5, 0.0, 0.5], 0.9)


@pytest.fixture(scope="module")
def singles(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build_singles(tiny_encoder, tmp_path_factory.mktemp("singles"))


ROWS = ["anna was in london", "the food was awful", "bob at acme corp", {"tokens": ["anna", "love", "paris"]}]


@pytest.mark.parametrize("tags", ["vote", "average"])
def test_twice_the_same_model_is_the_model(tiny_encoder: Path, tmp_path: Path, tags: str) -> None:
    tasks = write_data(tmp_path)
    both = finetune(
        recipe_of(tiny_encoder, list(tasks.values()), tmp_path / "both", max_steps=30, learning_rate=1e-2)
    ).folder
    folder = fuse_ensemble([both, both], tmp_path / "e", tags=tags)
    assert read_ensemble(folder).weights == {"sent": [0.5, 0.5], "ner": [0.5, 0.5]}
    alone, together = (Predictor.from_pretrained(path)(ROWS, scores=True) for path in (both, folder))
    assert alone == together  # answers, scores and their order
    assert any(row["predictions"].get("ner", {}).get("entities") for row in alone)
    assert score_checkpoint(folder) == score_checkpoint(both)


def test_members_of_other_tasks_and_a_tuned_task(singles: dict[str, Path], tmp_path: Path) -> None:
    folder = fuse_ensemble([singles["sent"], singles["ner"], singles["again"]], tmp_path / "e")
    made = read_ensemble(folder)
    assert list(made.tasks) == ["sent", "ner"]
    assert made.weights["ner"] == [0.0, 1.0, 0.0]
    assert made.weights["sent"][1] == 0.0
    assert sum(made.weights["sent"]) == pytest.approx(1.0)
    ner = Predictor.from_pretrained(singles["ner"])(ROWS)
    found = Predictor.from_pretrained(folder)(ROWS)
    assert [row["predictions"]["ner"] for row in found] == [row["predictions"]["ner"] for row in ner]
    told = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    scores, mean = score_checkpoint(folder, split="validation")
    assert (told["validation"], told["mean"]) == (scores, mean)
    single = max(score_checkpoint(singles[name], split="validation")[1] or 0.0 for name in ("sent", "again"))
    assert scores["sent"]["accuracy"] >= single - 1e-9 or made.weights["sent"] == [0.5, 0.0, 0.5]


def test_members_of_another_tokenizer_and_plain_ones(
    singles: dict[str, Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    from transformers import BertConfig, BertModel

    tasks = write_data(tmp_path)
    other = tmp_path / "other"
    tokenizer = build_tokenizer(other, ["anna", "film", "the", "was"])
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **small)).save_pretrained(other)
    run = recipe_of(other, list(tasks.values()), tmp_path / "other-run", max_steps=2)
    second = finetune(run).folder
    plain = plain_classifier(tiny_encoder, tmp_path / "plain", ["NEGATIVE", "POSITIVE"])
    named = {**tasks["sent"], "labels": ["negative", "positive"]}
    recipe = recipe_of(tiny_encoder, [named, tasks["ner"]], tmp_path / "run")
    members = [singles["sent"], singles["ner"], second, f"sent={plain}"]
    folder = fuse_ensemble(members, tmp_path / "e", weights="uniform", recipe=recipe)
    assert read_ensemble(folder).weights == {"sent": [1 / 3, 0.0, 1 / 3, 1 / 3], "ner": [0.0, 0.5, 0.5, 0.0]}
    answer = Predictor.from_pretrained(folder)(["anna love paris"], scores=True)[0]["predictions"]
    each = [Predictor.from_pretrained(path)(["anna love paris"], "sent", scores=True) for path in
            (singles["sent"], second, folder / "member-4")]  # fmt: skip
    mean = sum(one[0]["predictions"]["sent"]["scores"]["positive"] for one in each) / 3
    assert answer["sent"]["scores"]["positive"] == pytest.approx(mean, abs=1e-6)
    assert set(score_checkpoint(folder)[0]) == {"sent", "ner"}


def test_members_that_mean_other_things_are_refused(singles: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sent: head token_classification, not sequence_classification"):
        fuse_ensemble([singles["sent"], f"sent={singles['ner']}"], tmp_path / "e", weights="uniform")
    with pytest.raises(UserError) as error:
        fuse_ensemble([singles["sent"]], tmp_path / "e", weights="best", tags="some")
    assert 'found "best" → tuned, uniform' in str(error.value)
    assert 'found "some" → vote, average' in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_damaged_or_hostile_ensemble_is_refused(singles: dict[str, Path], tmp_path: Path) -> None:
    folder = fuse_ensemble([singles["sent"]], tmp_path / "e", weights="uniform")
    data = json.loads((folder / "ensemble.json").read_text(encoding="utf-8"))

    def refused(change: dict[str, object], match: str, *, vouch: bool = True) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        (copy / "ensemble.json").write_text(json.dumps({**data, **change}), encoding="utf-8")
        if vouch:
            write_checksums(copy)
        with pytest.raises(UserError, match=match):
            Predictor.from_pretrained(copy)
        shutil.rmtree(copy)

    refused({"weights": "x"}, "its checksum is another", vouch=False)
    refused({"format_version": 9}, "format_version: found 9")
    refused({"members": [{"folder": "../e/member-1"}]}, "a folder beside it")
    refused({"members": []}, "not a list of members")
    refused({"auto_map": {"AutoModel": "x.py"}}, "a checkpoint can name no code to run")
    for weights in ([0.5], [float("1e999")], [-1.0, 2.0], ["1"]):
        refused({"tasks": [{**data["tasks"][0], "weights": weights}]}, r"tasks\.0\.weights|JSON")
    other = {**data["tasks"][0]["task"], "labels": ["x", "y"]}
    refused({"tasks": [{**data["tasks"][0], "task": other}]}, "sent has other labels")
    from mtl_nlp.hub.checkpoint import load_model

    with pytest.raises(UserError, match="an ensemble of checkpoints"):
        load_model(folder)


def test_an_ensemble_without_retrieval_takes_no_knowledge_base_and_no_precision(
    singles: dict[str, Path], tmp_path: Path
) -> None:
    made = fuse_ensemble([str(folder) for folder in singles.values()], tmp_path / "both", weights="uniform")
    with pytest.raises(UserError, match="no task answers from a knowledge base"):
        Predictor.from_pretrained(made, knowledge=["an answer"])
    with pytest.raises(UserError, match="precision"):
        Predictor.from_pretrained(made, precision="bf16")
