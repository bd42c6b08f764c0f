"""Retrieval: the loss and its negatives by hand, rankings by two routes, answers from a knowledge base, faults."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtl_nlp.analysis.outcomes import outcomes
from mtl_nlp.data.batching import Collator
from mtl_nlp.data.mixture import Draw
from mtl_nlp.data.sources import read_corpora
from mtl_nlp.errors import UserError
from mtl_nlp.fusion.ensemble import fuse_ensemble
from mtl_nlp.hub.checkpoint import load_model
from mtl_nlp.hub.single_task import export_task
from mtl_nlp.inference import Predictor
from mtl_nlp.inference.knowledge import read_knowledge
from mtl_nlp.inference.onnx_export import export_onnx
from mtl_nlp.inference.writers import write_csv
from mtl_nlp.metrics import compute
from mtl_nlp.metrics.pool import pooled, retrieved
from mtl_nlp.model.heads import make_head
from mtl_nlp.model.retrieval import Pooler, split_rows
from mtl_nlp.recipe import make_recipe
from mtl_nlp.report.answers import answers_of
from mtl_nlp.task import Task
from mtl_nlp.training.calibration import calibrate
from mtl_nlp.training.finetune import finetune
from mtl_nlp.training.predictions import read_predictions, write_predictions
from mtl_nlp.training.score import score_checkpoint
from tests.conftest import SENTIMENT, write_jsonl

FAQ = [
    {"query": "where is my parcel", "positive": "the delivery is late"},
    {"query": "what does it cost", "positive": "the phone is 9 and the box 3"},
    {"query": "who is at acme", "positive": "anna and bob"},
    {"query": "what song do you love", "positive": "i like it slow"},
    {"query": "where is the order", "positive": "the delivery is late", "negatives": ["the order was early"]},
    {"query": "how is the food", "positive": "it is very good"},
]
KNOWLEDGE = [
    {"id": f"a{number}", "answer": text} for number, text in enumerate(dict.fromkeys(row["positive"] for row in FAQ))
]
LN2, LN3 = math.log(2), math.log(3)


def head(**loss: Any) -> Any:
    return make_head(Task.model_validate({"name": "faq", "head": "retrieval", "loss": loss}))


def rows_of(sizes: list[int], same: list[int]) -> dict[str, torch.Tensor]:
    starts = np.cumsum([0, *sizes[:-1]]) - np.arange(len(sizes))
    return {"sizes": torch.tensor(sizes), "same": torch.tensor(same), "labels": torch.from_numpy(starts)}


def cosines(rows: dict[str, torch.Tensor], vectors: list[list[float]], **loss: Any) -> torch.Tensor:
    """The head's logits for rows whose pooled vectors are given: one token each, no gain."""
    states = torch.tensor(vectors)[:, None]
    mask = torch.ones(states.shape[:2], dtype=torch.long)
    return head(**loss).logits(Pooler(states.shape[-1], None), states, mask, mask, rows)


def test_the_rows_of_a_text_are_its_query_and_its_passages() -> None:
    queries, passages = split_rows(torch.tensor([2, 3, 2]))
    assert queries.tolist() == [0, 2, 5]
    assert passages.tolist() == [1, 3, 4, 6]


def test_in_batch_negatives_by_hand() -> None:
    """Two queries along the axes, their passages too: cosines 1 and 0, at scale ln 3 softmax 3/4, so −ln(3/4) each."""
    rows = rows_of([2, 2], [0, 1, 2, 3])
    logits = cosines(rows, [[2.0, 0.0], [5.0, 0.0], [0.0, 1.0], [0.0, 7.0]], scale=LN3)
    assert logits.tolist() == [pytest.approx([LN3, 0.0]), pytest.approx([0.0, LN3])]
    total, units = head(scale=LN3).batch_loss(logits, rows)
    assert float(total) == pytest.approx(2 * (2 * LN2 - LN3), abs=1e-6)
    assert int(units) == 2


def test_a_hard_negative_is_a_negative_of_all() -> None:
    rows = rows_of([3, 2], [0, 1, 2, 3, 4])
    assert rows["labels"].tolist() == [0, 2]
    logits = cosines(rows, [[1.0, 0.0]] * 5, scale=1.0)
    assert logits.shape == (2, 3)
    total, _ = head().batch_loss(logits, rows)
    assert float(total) == pytest.approx(2 * LN3, abs=1e-6)


def test_a_passage_that_stands_twice_is_no_negative() -> None:
    """Texts 0 and 1 have the same passage (number 9): each sees its own and that of text 2 only."""
    rows = rows_of([2, 2, 2], [0, 9, 1, 9, 2, 3])
    logits = cosines(rows, [[1.0, 0.0]] * 6, scale=1.0)
    hidden = [(i, j) for i, row in enumerate(logits.tolist()) for j, value in enumerate(row) if value == -math.inf]
    assert hidden == [(0, 1), (1, 0)]
    total, units = head().batch_loss(logits, rows)
    assert float(total) == pytest.approx(2 * LN2 + LN3, abs=1e-6)
    assert int(units) == 3


def test_another_answer_to_the_same_query_is_no_negative() -> None:
    rows = rows_of([2, 2, 2], [7, 8, 7, 9, 2, 3])
    logits = cosines(rows, [[1.0, 0.0]] * 6, scale=1.0)
    assert logits[0].tolist() == [1.0, -math.inf, 1.0]
    assert logits[1].tolist() == [-math.inf, 1.0, 1.0]


def test_symmetric_is_the_mean_of_both_directions() -> None:
    """Passages 0 and 1 point to query 0 alike: forward ln 2 + −ln softmax, backward by the columns."""
    logits = torch.tensor([[0.0, 0.0], [0.0, LN3]])
    forward = LN2 + (2 * LN2 - LN3)
    backward = LN2 + (2 * LN2 - LN3)
    rows = {"labels": torch.tensor([0, 1])}
    assert float(head(symmetric=True).batch_loss(logits, rows)[0]) == pytest.approx((forward + backward) / 2, abs=1e-6)
    skewed = torch.tensor([[0.0, LN3], [0.0, 0.0]])
    forward, backward = 2 * LN2 + LN2, LN2 + 2 * LN2
    assert float(head(symmetric=True).batch_loss(skewed, rows)[0]) == pytest.approx((forward + backward) / 2, abs=1e-6)


def test_rankings_are_over_the_whole_pool() -> None:
    """The shortened lists give what full lists give; repeated passages are one, and a query may have two answers."""
    generator = np.random.default_rng(0)
    texts = [{"query": f"q{i // 2}", "passages": [f"p{(i * 7) % 13}", f"n{i}"]} for i in range(20)]
    vectors = [generator.normal(size=(3, 4)).astype(np.float32) for _ in texts]
    names = ["mrr", "ndcg", "map", "recall@1", "recall@5"]
    short = compute(names, *pooled(vectors, texts))
    pool = {}
    for rows, text in zip(vectors, texts, strict=True):
        for number, passage in enumerate(text["passages"]):
            pool.setdefault(passage, rows[1 + number])
    answers = {text["query"]: {t["passages"][0] for t in texts if t["query"] == text["query"]} for text in texts}
    scores = [[float(rows[0].astype(float) @ vector.astype(float)) for vector in pool.values()] for rows in vectors]
    relevance = [[float(name in answers[text["query"]]) for name in pool] for text in texts]
    full = compute(names, scores, relevance)
    for name in names:
        assert short[name] == pytest.approx(full[name], abs=1e-9), name


def test_ranks_among_all_passages_by_hand() -> None:
    """Scores of the query (1, 0): a 3, b 1, c 3, d 2. Of equal scores the wrong passage stands first."""
    texts = [
        {"query": "q", "passages": ["c", "b"]},
        {"query": "q", "passages": ["d"]},
        {"query": "r", "passages": ["a"]},
    ]
    vectors = [
        np.array(rows, dtype=np.float32) for rows in ([[1, 0], [3, 5], [1, 0]], [[1, 0], [2, 0]], [[0, 1], [3, 0]])
    ]
    first, second, third = retrieved(vectors, texts)
    assert (first.right, first.ranks) == (["c", "d"], [2, 3])
    assert (second.passage, second.score, second.ranks) == ("c", 3.0, [2, 3])
    assert (third.passage, third.right, third.ranks) == ("c", ["a"], [4])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """Sentiment and answers, learned by heart."""
    recipe = {
        "encoder": str(tiny_encoder),
        "tasks": [
            {"name": "sent", "head": "sequence_classification"},
            {"name": "faq", "head": "retrieval", "projection": 16},
        ],
        "mixture": {"batch": 12, "strategy": "uniform"},
        "training": {"max_steps": 40, "learning_rate": 3e-3, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(tmp_path_factory.mktemp("faq") / "run"),
    }
    rows = [{"negatives": [], **row} for row in FAQ]
    data = {"sent": {"train": SENTIMENT, "validation": SENTIMENT[:8]}, "faq": {"train": rows, "validation": rows}}
    return finetune(recipe, datasets=data).folder


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.from_pretrained(checkpoint, "cpu", knowledge=KNOWLEDGE)


def test_what_was_learned_is_answered(predictor: Predictor, checkpoint: Path) -> None:
    answers = predictor([row["query"] for row in FAQ])
    found = [answer["predictions"]["faq"]["answer"] for answer in answers]
    assert found == [row["positive"] for row in FAQ]
    ids = {entry["answer"]: entry["id"] for entry in KNOWLEDGE}
    assert [answer["predictions"]["faq"]["id"] for answer in answers] == [ids[text] for text in found]
    assert all("label" in answer["predictions"]["sent"] for answer in answers), "one text asks every task"
    metrics = json.loads((checkpoint / "metrics.json").read_text())["validation"]["faq"]
    assert metrics == {"mrr@10": 1.0, "recall@1": 1.0, "recall@5": 1.0, "ndcg@10": 1.0}


def test_predictions_give_the_scores_again_and_a_report(checkpoint: Path, tmp_path: Path) -> None:
    """What each query found among the passages of the split: ranks → metrics, as the scorer has them; and wrong answers."""
    asked = [{"negatives": [], **row} for row in FAQ]
    asked[1] |= {"positive": "it is cold here"}  # never learned: its passage is not the nearest
    rows = {"sent": {"validation": SENTIMENT[:8]}, "faq": {"validation": [*asked, {**asked[2], "positive": ""}]}}
    found = write_predictions(checkpoint, "validation", datasets=rows, output=tmp_path)
    lines = read_predictions(found.files["faq"])
    assert [line["row"] for line in lines] == list(range(6))
    assert lines[1]["gold"] == ["it is cold here"]
    assert lines[1]["ranks"] != [1]
    (task,) = [task for task in load_model(checkpoint).tasks if task.name == "faq"]
    for metric, value in found.metrics["faq"].items():
        assert outcomes(metric, [lines], task).scores.tolist() == [pytest.approx(value, abs=1e-12)], metric
    told = answers_of(lines, "match", (), "validation")
    assert told.wrong == sum(line["ranks"] != [1] for line in lines) >= 1
    wrong = sorted((line for line in lines if line["ranks"] != [1]), key=lambda line: -line["score"])
    assert [one.predicted for one in told.worst] == [line["predicted"] for line in wrong]


def test_the_score_is_the_cosine(predictor: Predictor) -> None:
    answer = predictor(FAQ[0]["query"], "faq", top=2)[0]["predictions"]["faq"]
    vectors = predictor.decoded([FAQ[0]["query"], answer["answer"]], "faq")
    query, passage = (one["faq"][0] for one in vectors)
    assert float(np.linalg.norm(query)) == pytest.approx(1.0, abs=1e-5)
    assert answer["score"] == pytest.approx(float(query @ passage), abs=1e-5)
    assert next(match["id"] for match in answer["matches"]) == answer["id"]
    assert len(answer["matches"]) == 2
    every = predictor(FAQ[0]["query"], "faq", scores=True)[0]["predictions"]["faq"]["matches"]
    assert len(every) == len(KNOWLEDGE)
    assert sorted((match["score"] for match in every), reverse=True) == [match["score"] for match in every]


def test_below_the_threshold_there_is_no_answer(checkpoint: Path) -> None:
    made = Predictor.from_pretrained(checkpoint, "cpu", knowledge=KNOWLEDGE)
    score = made(FAQ[0]["query"], "faq")[0]["predictions"]["faq"]["score"]
    task = next(task for task in made.tasks if task.name == "faq")
    for threshold, silent in ((score - 0.01, False), (min(score + 0.0001, 0.99999), True)):
        calibrated = Task.model_validate(
            {"name": "faq", "head": "retrieval", "calibration": {"abstain": {"threshold": threshold}}}
        )
        made.model.tasks[made.model.tasks.index(task)] = task = calibrated
        answer = made(FAQ[0]["query"], "faq")[0]["predictions"]["faq"]
        assert (answer["answer"] is None, answer["id"] is None) == (silent, silent)


def test_a_mixed_batch_is_worth_separate_ones(checkpoint: Path, predictor: Predictor) -> None:
    """The same queries in one micro-batch have the same loss, whatever other tasks' rows stand beside them."""
    tokenizer, tasks = predictor.tokenizer, predictor.model.tasks
    collator = Collator(tokenizer, tasks, {"faq": ["faq"], "sent": ["sent"]}, labelled=True)

    def record(corpus: str, text: str, first: bool = True) -> dict[str, Any]:
        coded = tokenizer(text)
        ids = {"input_ids": coded["input_ids"], "token_type_ids": coded["token_type_ids"]}
        return ids | {f"@{corpus}": 0, "draw": Draw(corpus, 0, 0), "first": first}

    pairs = [
        record("faq", text, first)
        for row in FAQ[:3]
        for text, first in ((row["query"], True), (row["positive"], False))
    ]
    others = [record("sent", row["text"]) for row in SENTIMENT[:5]]
    with torch.no_grad():
        losses = [
            predictor.model.task_losses(predictor.model(**batch).logits, batch["tasks"])["faq"]
            for batch in (collator(pairs), collator([*others[:2], *pairs, *others[2:]]))
        ]
    assert float(losses[0][0]) == pytest.approx(float(losses[1][0]), abs=1e-5)
    assert int(losses[0][1]) == int(losses[1][1]) == 3


def test_scores_of_a_checkpoint_are_those_of_its_training(checkpoint: Path, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "faq" / f"{split}.jsonl", [{"negatives": [], **row} for row in FAQ])
    recipe = {
        "tasks": [
            {
                "name": "faq",
                "head": "retrieval",
                "data": {
                    "source": str(tmp_path / "faq"),
                    "columns": {"query": "query", "positive": "positive", "negatives": "negatives"},
                },
            }
        ],
        "output_dir": str(tmp_path / "run"),
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    metrics, mean = score_checkpoint(checkpoint, path, split="validation")
    assert metrics["faq"]["mrr@10"] == mean == 1.0


def test_without_knowledge_the_task_is_named(checkpoint: Path) -> None:
    made = Predictor.from_pretrained(checkpoint, "cpu")
    assert [task.name for task in made.tasks] == ["sent"]
    assert made.without_knowledge == ["faq"]
    with pytest.raises(UserError, match=r"faq answers from a knowledge base.*--knowledge FILE"):
        made("good food", "faq")


def test_knowledge_files(tmp_path: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_text('id,answer,passage\nx,"We refund, at once",refunds\n,Call us,\n', encoding="utf-8")
    entries = read_knowledge(path)
    assert [(entry.id, entry.answer, entry.passage) for entry in entries] == [
        ("x", "We refund, at once", "refunds"),
        ("2", "Call us", "Call us"),
    ]
    broken = write_jsonl(tmp_path / "broken.jsonl", [{"id": 1, "answer": "a"}, {"id": 1, "answer": "b"}, {"id": 2}])
    with pytest.raises(UserError) as told:
        read_knowledge(broken)
    assert "broken.jsonl:2" in str(told.value)
    assert "broken.jsonl:3" in str(told.value)
    with pytest.raises(UserError, match="file not found"):
        read_knowledge(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="no entry"):
        read_knowledge([])


def test_csv_has_answer_and_score(predictor: Predictor) -> None:
    tasks = [task for task in predictor.tasks if task.name == "faq"]
    lines = list(write_csv(predictor([FAQ[2]["query"]], "faq"), tasks))
    assert lines[0].splitlines()[0] == "text,faq,faq_score"
    assert lines[0].splitlines()[1].startswith("who is at acme,anna and bob,")


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ({"head": "sequence_classification", "projection": 8}, "projection is for retrieval only"),
        ({"head": "ranking", "loss": {"scale": 5.0}}, "loss.scale does not fit head ranking"),
        ({"head": "retrieval", "data": {"columns": {"query": "q"}}}, "needs the role positive"),
        ({"head": "retrieval", "calibration": {"temperature": 2.0}}, "takes abstain.threshold alone"),
    ],
)
def test_task_faults(task: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Task.model_validate({"name": "faq", **task})


def test_calibrate_tunes_the_threshold(checkpoint: Path, tmp_path: Path) -> None:
    """By the scores of right and wrong answers over all passages of the validation split."""
    folder, data = tmp_path / "run", tmp_path / "faq"
    shutil.copytree(checkpoint, folder)
    wrong = [{"query": "a box at the weather", "positive": "never cancel a flight"}]
    for split, rows in (("train", FAQ), ("validation", [*FAQ, *wrong])):
        write_jsonl(data / f"{split}.jsonl", [{"query": row["query"], "positive": row["positive"]} for row in rows])
    task = {"name": "faq", "head": "retrieval", "projection": 16}
    columns = {"query": "query", "positive": "positive"}
    recipe = {"tasks": [{**task, "data": {"source": str(data), "columns": columns}}], "output_dir": str(folder)}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    made = Predictor.from_pretrained(folder, "cpu", knowledge=[row["positive"] for row in [*FAQ[:4], FAQ[5], *wrong]])
    scores = {row["query"]: made(row["query"], "faq")[0]["predictions"]["faq"] for row in [*FAQ, *wrong]}
    lost = scores[wrong[0]["query"]]
    with pytest.raises(UserError, match="faq cannot be calibrated"):
        calibrate(folder, path, tasks=["faq"])
    report = calibrate(folder, path, accuracy={"faq": 1.0})["faq"]
    if lost["answer"] == wrong[0]["positive"]:
        assert report.abstain is None
        return
    kept = [score["score"] for score in scores.values() if score["score"] > lost["score"]]
    assert report.abstain is not None
    assert report.abstain["threshold"] == pytest.approx((min(kept) + lost["score"]) / 2, abs=1e-4)
    assert report.answered == pytest.approx(len(kept) / 7)
    again = Predictor.from_pretrained(folder, "cpu", knowledge=[row["positive"] for row in FAQ])
    assert again(wrong[0]["query"], "faq")[0]["predictions"]["faq"]["answer"] is None


def test_an_ensemble_answers_with_the_mean_cosine(checkpoint: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    """Members of different widths and different training; the ensemble's cosines are the weighted means of theirs."""
    rows = [{"negatives": [], **row} for row in FAQ]
    data = {"faq": {"train": rows, "validation": rows}}
    recipe: dict[str, Any] = {
        "encoder": str(tiny_encoder),
        "tasks": [{"name": "faq", "head": "retrieval"}],
        "mixture": {"batch": 6},
        "training": {"max_steps": 3, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(tmp_path / "other"),
    }
    other = finetune(recipe, datasets=data).folder
    made = fuse_ensemble([str(checkpoint), str(other)], tmp_path / "both", weights="uniform", datasets=data)
    together = Predictor.from_pretrained(made, "cpu", knowledge=KNOWLEDGE)
    members = [Predictor.from_pretrained(folder, "cpu", knowledge=KNOWLEDGE) for folder in (checkpoint, other)]
    for row in FAQ:
        found = together(row["query"], "faq", scores=True)[0]["predictions"]["faq"]["matches"]
        apart = [member(row["query"], "faq", scores=True)[0]["predictions"]["faq"]["matches"] for member in members]
        cosines = [{match["id"]: match["score"] for match in matches} for matches in apart]
        for match in found:
            assert match["score"] == pytest.approx(sum(one[match["id"]] for one in cosines) / 2, abs=1e-6)
    with pytest.raises(UserError, match="an ensemble"):
        explainer_of(made)


def explainer_of(folder: Path) -> Any:
    pytest.importorskip("captum")
    from mtl_nlp.analysis.explain import Explainer

    return Explainer.from_pretrained(folder, "cpu")


def test_an_answer_is_explained_by_its_cosine(predictor: Predictor) -> None:
    pytest.importorskip("captum")
    from mtl_nlp.analysis.explain import Explainer

    answer = predictor(FAQ[0]["query"], "faq")[0]["predictions"]["faq"]
    one = Explainer(predictor)(FAQ[0]["query"], "faq")[0]["explanations"]["faq"][0]
    assert (one["target"], one["answer"]) == (answer["id"], answer["answer"])
    assert one["logit"] == pytest.approx(answer["score"], abs=1e-5)
    assert one["complete"]
    assert [word["word"] for word in one["words"]] == FAQ[0]["query"].split()


def test_exports_refuse_it_with_the_reason(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="head retrieval has no twin in transformers"):
        export_task(checkpoint, "faq", tmp_path / "plain")
    pytest.importorskip("onnxruntime")
    with pytest.raises(UserError, match="a knowledge base, which a graph does not hold"):
        export_onnx(checkpoint, tmp_path / "graph", ["faq"])


def test_check_says_what_the_negatives_are(tmp_path: Path) -> None:
    rows = [{"negatives": [], **row} for row in [*FAQ, {"query": "where is my parcel", "positive": "anna and bob"}]]
    task = {"name": "faq", "head": "retrieval", "data": {"source": str(tmp_path), "columns": {}}}
    task["data"]["columns"] = {"query": "query", "positive": "positive", "negatives": "negatives"}
    write_jsonl(tmp_path / "train.jsonl", rows)
    corpus = read_corpora(make_recipe({"tasks": [task], "output_dir": str(tmp_path / "run")}))[0]
    assert corpus.notes == [
        "7 questions, 5 different answers, 1 questions with more than one, 1 hard negatives; the negatives of a question are the "
        "other answers of its micro-batch"
    ]
