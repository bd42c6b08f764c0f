"""Ranking: losses and metrics by hand, both forms of data, a run that learns an order, and what is refused."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import ndcg_score

from mtl_nlp import Predictor, finetune
from mtl_nlp.data.sources import read_corpora
from mtl_nlp.errors import FaultyInput, UserError
from mtl_nlp.inference.writers import write_csv
from mtl_nlp.metrics import compute
from mtl_nlp.model.heads import make_head
from mtl_nlp.model.ranking import listwise, pairwise
from mtl_nlp.recipe import make_recipe
from mtl_nlp.task import Task
from mtl_nlp.training.split_rows import split_rows
from tests.conftest import write_jsonl

NAN, INF = float("nan"), math.inf
LN2, LN3 = math.log(2), math.log(3)


def test_the_listwise_loss_by_hand() -> None:
    # softmax(ln 2, 0, 0) = 1/2, 1/4, 1/4 against shares 1/4, 0, 3/4.
    found = listwise(torch.tensor([[LN2, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 3.0]]))
    assert found.tolist() == pytest.approx([LN2 / 4 + 3 * math.log(4) / 4])


def test_with_one_relevant_candidate_it_is_cross_entropy() -> None:
    logits = torch.randn(3, 4)
    labels = torch.eye(4)[[2, 0, 1]]
    theirs = torch.nn.functional.cross_entropy(logits, torch.tensor([2, 0, 1]), reduction="none")
    assert torch.allclose(listwise(logits, labels), theirs)


def test_the_pairwise_loss_by_hand() -> None:
    # Better, worse: (2, 0), (2, 1), (1, 0) of the relevance 1, 0, 2 → candidates (2 > 0), (2 > 1), (0 > 1).
    logits = torch.tensor([[LN3, 0.0, 0.0]])
    each = [math.log(1 + 3), LN2, math.log(1 + 1 / 3)]
    assert pairwise(logits, torch.tensor([[1.0, 0.0, 2.0]])).tolist() == pytest.approx([sum(each) / 3])


@pytest.mark.parametrize("objective", ["listwise", "pairwise"])
def test_absent_candidates_and_queries_that_teach_nothing_add_nothing(objective: str) -> None:
    head = make_head(Task(name="r", head="ranking", loss={"objective": objective}))
    logits = torch.tensor([[1.0, 2.0, -INF], [0.5, 0.1, 3.0], [1.0, 1.0, 1.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0, NAN], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    total, units = head.loss(logits, labels)
    total.backward()
    # Equal relevance of all teaches a pairwise loss nothing; a listwise one that scores should be equal.
    assert int(units) == head.units(labels) == (1 if objective == "pairwise" else 2)
    short, _ = head.loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
    extra = LN3 if objective == "listwise" else 0.0
    assert float(total.detach()) == pytest.approx(float(short) + extra)
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert logits.grad[1].tolist() == [0.0, 0.0, 0.0]
    assert float(logits.grad[0, 2]) == 0.0


def test_the_metrics_by_hand() -> None:
    scores = [[0.1, 0.9, 0.5], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]
    relevance = [[1.0, 0.0, 2.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    # Orders: (0, 2, 1) and (0, 0, 1); the third has nothing relevant and is left out.
    first = (2 / math.log2(3) + 1 / 2) / (2 + 1 / math.log2(3))
    expected = {
        "ndcg": (first + 1 / 2) / 2,
        "mrr": (1 / 2 + 1 / 3) / 2,
        "map": ((1 / 2 + 2 / 3) / 2 + 1 / 3) / 2,
        "mrr@10": (1 / 2 + 1 / 3) / 2,
        "ndcg@10": (first + 1 / 2) / 2,
    }
    assert compute(list(expected), scores, relevance) == pytest.approx(expected)


def test_ndcg_is_scikit_learns_and_cutoffs_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, relevance = torch.rand(7, 15, generator=generator), torch.randint(0, 4, (7, 15), generator=generator)
    rows = scores.tolist(), relevance.double().tolist()
    assert compute(["ndcg"], *rows)["ndcg"] == pytest.approx(float(ndcg_score(relevance, scores)))
    assert compute(["ndcg@10"], *rows)["ndcg@10"] == pytest.approx(float(ndcg_score(relevance, scores, k=10)))
    late = [[float(-i) for i in range(12)]], [[0.0] * 11 + [1.0]]
    assert compute(["mrr", "mrr@10", "ndcg@10"], *late) == {"mrr": 1 / 12, "mrr@10": 0.0, "ndcg@10": 0.0}


def test_ties_count_against_the_model_and_nothing_relevant_is_undefined() -> None:
    assert compute(["mrr", "map"], [[0.0, 0.0]], [[1.0, 0.0]]) == {"mrr": 0.5, "map": 0.5}
    assert compute(["mrr"], [[NAN, -5.0]], [[1.0, 0.0]]) == {"mrr": 0.5}
    assert compute(["ndcg"], [[0.0, 1.0]], [[0.0, 0.0]]) == {"ndcg": 0.0}
    with pytest.raises(UserError, match="2 scores for 1 candidates"):
        compute(["mrr"], [[0.0, 1.0]], [[1.0]])


QUERIES = {"where is my parcel ?": "the delivery was late", "was the food good ?": "the food was awful"}
OTHERS = ["i love this song", "a flight to paris"]


def listed_rows() -> list[dict[str, Any]]:
    return [{"query": q, "passages": [*OTHERS, right], "gold": [0, 0, 1]} for q, right in QUERIES.items()]


def long_rows() -> list[dict[str, Any]]:
    """One candidate a row, the queries interleaved."""
    by_query = [(r["query"], p, g) for r in listed_rows() for p, g in zip(r["passages"], r["gold"], strict=True)]
    return [{"query": q, "passage": p, "gold": g} for q, p, g in sorted(by_query, key=lambda row: row[1])]


@pytest.fixture
def ranking(tmp_path: Path, tiny_encoder: Path) -> dict[str, Any]:
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "listed" / f"{split}.jsonl", listed_rows())
        write_jsonl(tmp_path / "long" / f"{split}.jsonl", long_rows())
    columns = {"query": "query", "candidates": "passages", "relevance": "gold"}
    return {
        "encoder": str(tiny_encoder),
        "tasks": [
            {"name": "rank", "head": "ranking", "data": {"source": str(tmp_path / "listed"), "columns": columns}}
        ],
        "mixture": {"batch": 2},
        "training": {"max_steps": 40, "learning_rate": 3e-3, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(tmp_path / "run"),
    }


def use_long(recipe: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(recipe)
    changed["tasks"][0]["data"]["source"] = recipe["tasks"][0]["data"]["source"].replace("listed", "long")
    changed["tasks"][0]["data"]["columns"] = {"query": "query", "candidate": "passage", "relevance": "gold"}
    return changed


def test_candidates_one_a_row_are_gathered_by_query(ranking: dict[str, Any]) -> None:
    split = read_corpora(make_recipe(use_long(ranking)))[0].splits["train"]
    assert split.data["context"][:] == ["where is my parcel ?", "was the food good ?"]
    assert [sorted(row) for row in split.data["choices"]] == [sorted(r["passages"]) for r in listed_rows()]
    right = [dict(zip(*pair, strict=True)) for pair in zip(split.data["choices"], split.data["@rank"], strict=True)]
    assert [found[gold] for found, gold in zip(right, QUERIES.values(), strict=True)] == [1.0, 1.0]
    assert [split.where(i).rpartition(":")[2] for i in range(2)] == ["1", "2"]


@pytest.mark.parametrize("objective", ["listwise", "pairwise"])
def test_it_learns_an_order_and_predicts_it(ranking: dict[str, Any], objective: str) -> None:
    ranking["tasks"][0]["loss"] = {"objective": objective}
    result = finetune(use_long(ranking) if objective == "pairwise" else ranking)
    assert result.metrics["rank"] == {"ndcg": 1.0, "mrr": 1.0, "map": 1.0}
    predictor = Predictor.from_pretrained(result.folder)
    answers = predictor([{"query": row["query"], "candidates": row["passages"]} for row in listed_rows()])
    assert [one["predictions"]["rank"]["ranking"][0]["candidate"] for one in answers] == list(QUERIES.values())
    assert answers[0]["predictions"]["rank"]["ranking"][0]["index"] == 2
    (corpus,) = split_rows(result.folder, "validation")  # the split's own rows are asked as any others
    ordered = [one["predictions"]["rank"]["ranking"][0]["candidate"] for one in predictor(corpus.rows, "rank")]
    assert ordered == list(QUERIES.values())
    alone = predictor({"query": "was the food good ?", "candidates": ["the food was awful", "i love this song"]})
    whole = {one["candidate"]: one["score"] for one in answers[1]["predictions"]["rank"]["ranking"]}
    assert alone[0]["predictions"]["rank"]["ranking"][0]["score"] == pytest.approx(
        whole["the food was awful"], abs=1e-5
    )
    table = "".join(write_csv(answers, predictor.tasks)).splitlines()
    assert table[0] == "query,candidates,rank"


def test_data_in_memory_needs_no_columns(ranking: dict[str, Any]) -> None:
    del ranking["tasks"][0]["data"]
    rows = [{"query": r["query"], "candidates": r["passages"], "relevance": r["gold"]} for r in listed_rows()]
    found = read_corpora(make_recipe(ranking, memory=["rank"]), memory={"rank": {"train": rows, "validation": rows}})
    assert found[0].splits["train"].data["@rank"][:] == [[0.0, 0.0, 1.0]] * 2


@pytest.mark.parametrize(
    ("gold", "told"),
    [
        ([0, 1], "2 values for 3 candidates"),
        ([0, -1, 1], "found relevance -1"),
        ([0, None, 1], "found relevance None"),
        (1, "a list with the relevance of each candidate"),
    ],
)
def test_relevance_that_cannot_be_taken_is_told_with_its_line(ranking: dict[str, Any], gold: Any, told: str) -> None:
    folder = Path(ranking["tasks"][0]["data"]["source"])
    rows = [{**row, "gold": gold} for row in listed_rows()]
    write_jsonl(folder / "train.jsonl", rows)
    with pytest.raises(FaultyInput, match=rf"train\.jsonl:1: .*{told}"):
        read_corpora(make_recipe(ranking))


def test_both_forms_at_once_are_refused(ranking: dict[str, Any]) -> None:
    ranking["tasks"][0]["data"]["columns"]["candidate"] = "passage"
    with pytest.raises(FaultyInput, match=r"candidates \(a list\) with candidate \(one a row\)"):
        make_recipe(ranking)
