"""The linear-chain CRF against brute force: likelihood, best sequence, marginals; windows, gaps, bf16, and that it learns."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtl_nlp import Predictor, finetune
from mtl_nlp.data.batching import Collator, MixtureDataset
from mtl_nlp.data.mixture import Draw
from mtl_nlp.labels import Chain, best_scores, best_tags, tag_names, tag_probabilities, transition_mask
from mtl_nlp.model.crf import TokenClassificationCRF, chain_log_likelihood
from mtl_nlp.model.heads import make_head
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.recipe import make_recipe
from mtl_nlp.task import Task
from mtl_nlp.training.prepare import prepare
from tests.conftest import write_conll

TAGS = tag_names(["PER", "LOC"], "iob2")
SCHEMES = pytest.mark.parametrize("scheme", ["iob2", "none"])
IGNORE = -100


def potentials(seed: int, texts: int = 4, words: int = 4, tags: int = 5) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    chain = (rng.normal(size=(tags, tags)), rng.normal(size=tags), rng.normal(size=tags))
    return rng.normal(size=(texts, words, tags)) * 2, chain


def brute(emissions: Any, chain: Any, scheme: str) -> dict[tuple[int, ...], float]:
    """Every allowed sequence of one text → its score."""
    start_allowed, allowed = transition_mask(TAGS, scheme)
    transitions, start, end = chain
    found = {}
    for tags in itertools.product(range(len(TAGS)), repeat=len(emissions)):
        if start_allowed[tags[0]] and all(allowed[i, j] for i, j in itertools.pairwise(tags)):
            score = start[tags[0]] + end[tags[-1]] + sum(emissions[w, t] for w, t in enumerate(tags))
            found[tags] = score + sum(transitions[i, j] for i, j in itertools.pairwise(tags))
    return found


def log_sum(scores: Any) -> float:
    return float(np.logaddexp.reduce(list(scores)))


@SCHEMES
def test_the_likelihood_is_that_of_enumeration(scheme: str) -> None:
    emissions, chain = potentials(1)
    lengths = torch.tensor([4, 1, 3, 2])
    every = [brute(e[:n], chain, scheme) for e, n in zip(emissions, lengths.tolist(), strict=True)]
    rng = np.random.default_rng(2)
    gold = [list(sequences)[rng.integers(len(sequences))] for sequences in every]
    tags = torch.tensor([[*g, *[0] * (4 - len(g))] for g in gold])
    mask = tuple(torch.from_numpy(part) for part in transition_mask(TAGS, scheme))
    tensors = tuple(torch.from_numpy(part) for part in chain)
    ours = chain_log_likelihood(torch.from_numpy(emissions), tags, lengths, tensors, mask)  # type: ignore[arg-type]
    expected = [found[g] - log_sum(found.values()) for found, g in zip(every, gold, strict=True)]
    assert ours.tolist() == pytest.approx(expected, abs=1e-9)


@SCHEMES
def test_the_best_tags_and_their_probabilities_are_those_of_enumeration(scheme: str) -> None:
    for seed in range(20):
        emissions, parts = potentials(seed)
        lengths = [4, 1, 3, 0]
        packed = np.concatenate([parts[0], parts[1][None], parts[2][None]])
        chain = Chain.unpacked(packed, *transition_mask(TAGS, scheme))
        paths = best_tags(emissions, lengths, chain)
        scores = best_scores(emissions, lengths, chain, paths)
        marginals = tag_probabilities(emissions, lengths, chain)
        for text, length in enumerate(lengths[:3]):
            found = brute(emissions[text, :length], parts, scheme)
            best = max(found, key=lambda tags: found[tags])
            assert paths[text].tolist() == [*best, *[-1] * (4 - length)]
            assert scores[text] == pytest.approx(found[best])
            total = log_sum(found.values())
            for word, tag in itertools.product(range(length), range(len(TAGS))):
                by_hand = sum(np.exp(s - total) for tags, s in found.items() if tags[word] == tag)
                assert marginals[text, word, tag] == pytest.approx(by_hand, abs=1e-12)
        assert paths[3].tolist() == [-1] * 4
        assert scores[3] == 0.0
        assert not marginals[3].any()


def test_among_equal_sequences_the_lower_tag_wins() -> None:
    chain = Chain(np.zeros((3, 3)), np.zeros(3), np.zeros(3))
    assert best_tags(np.zeros((1, 4, 3)), [4], chain).tolist() == [[0, 0, 0, 0]]


def head(scheme: str = "iob2") -> TokenClassificationCRF:
    made = make_head(Task(name="t", head="token_classification_crf", labels=["PER", "LOC"], scheme=scheme))
    assert isinstance(made, TokenClassificationCRF)
    return made


def packed(emissions: Any, chain: Any) -> Tensor:
    parts = np.concatenate([chain[0], chain[1][None], chain[2][None]])
    return torch.tensor(np.stack([np.concatenate([parts, row]) for row in emissions]), dtype=torch.float32)


def test_windows_of_a_text_are_one_chain_and_unlabelled_tokens_are_no_words() -> None:
    emissions, chain = potentials(3)
    labels = torch.tensor([[IGNORE, 1, 2, IGNORE], [2, IGNORE, 0, IGNORE], [IGNORE, IGNORE, 3, 4], [IGNORE] * 4])
    # The first two rows are one text of the tags B-PER I-PER I-PER O; the third is B-LOC I-LOC; the fourth has no word.
    rows = {"labels": labels, "sizes": torch.tensor([2, 1, 1])}
    total, units = head().batch_loss(packed(emissions, chain), rows)
    first = np.stack([emissions[0, 1], emissions[0, 2], emissions[1, 0], emissions[1, 2]])
    one, two = brute(first, chain, "iob2"), brute(emissions[2, 2:], chain, "iob2")
    expected = log_sum(one.values()) - one[1, 2, 2, 0] + log_sum(two.values()) - two[3, 4]
    assert (float(total), int(units)) == (pytest.approx(expected, rel=1e-5), 6)
    assert head().units(labels) == 6


def test_a_chain_is_cut_where_the_gold_tags_take_a_forbidden_step() -> None:
    # O I-PER: what stood between has no token. Then there is no transition, and any tag may follow.
    emissions, chain = potentials(4, texts=1, words=2)
    total, _ = head().loss(packed(emissions, chain), torch.tensor([[0, 2]]))
    _, start, end = chain
    begin = {i: start[i] + emissions[0, 0, i] for i in (0, 1, 3)}
    after = end + emissions[0, 1]
    expected = log_sum(begin.values()) + log_sum(after) - begin[0] - after[2]
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_no_labelled_word_gives_nothing_and_a_finite_gradient() -> None:
    logits = torch.randn(2, 9, 5, requires_grad=True)
    total, units = head().loss(logits, torch.full((2, 2), IGNORE))
    total.backward()
    assert (float(total.detach()), int(units)) == (0.0, 0)
    assert logits.grad is not None
    assert not bool(logits.grad.any())


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_gradients_are_right_and_finite_even_where_probabilities_vanish(scale: float) -> None:
    emissions, chain = potentials(5)
    tags, lengths = torch.tensor([[1, 2, 0, 3], [0, 0, 1, 0], [3, 4, 4, 0], [0, 0, 0, 0]]), torch.tensor([4, 3, 4, 1])
    mask = tuple(torch.from_numpy(part) for part in transition_mask(TAGS, "iob2"))
    inputs = [torch.from_numpy(part).clone().requires_grad_() for part in (emissions * scale, *chain)]

    def likelihood(*parts: Tensor) -> Tensor:
        return chain_log_likelihood(parts[0], tags, lengths, (parts[1], parts[2], parts[3]), mask)  # type: ignore[arg-type]

    if scale == 1.0:
        assert torch.autograd.gradcheck(likelihood, inputs)
    likelihood(*inputs).sum().backward()
    assert all(bool(part.grad.isfinite().all()) for part in inputs if part.grad is not None)


def test_under_bf16_the_chain_is_computed_in_float32(tiny_encoder: Path) -> None:
    task = Task(name="t", head="token_classification_crf", labels=["PER", "LOC"])
    torch.manual_seed(0)
    model = MultiTaskModel.from_encoder(str(tiny_encoder), [task]).eval()
    ids = torch.randint(5, 60, (3, 7))
    rows = {"rows": torch.arange(3), "labels": torch.tensor([[IGNORE, 0, 1, 2, 0, 3, IGNORE]] * 3)}
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids, tasks={"t": rows}).logits["t"]
        total, _ = model.task_losses({"t": logits}, {"t": rows})["t"]
    assert logits.dtype == total.dtype == torch.float32
    again, _ = model.kinds["t"].loss(logits.double(), rows["labels"])
    assert float(total.detach()) == pytest.approx(float(again.detach()), rel=1e-5)


@pytest.fixture
def alternating(tmp_path: Path, tiny_encoder: Path) -> dict[str, Any]:
    """The same word over and over: only the neighbour tells whether an entity goes on."""
    sentence = [("box", "B-A"), ("box", "I-A"), ("box", "O")]
    for split, number in (("train", 16), ("validation", 4)):
        write_conll(tmp_path / "d" / f"{split}.conll", [sentence * (1 + i % 5) for i in range(number)])
    task = {
        "name": "t",
        "head": "token_classification_crf",
        "data": {"source": str(tmp_path / "d"), "columns": {"tokens": "tokens", "labels": "labels"}},
    }
    return {
        "encoder": {"name": str(tiny_encoder), "max_length": 12, "stride": 2},
        "tasks": [task],
        "mixture": {"batch": 4},
        "training": {"max_steps": 2, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(tmp_path / "run"),
    }


def test_training_joins_windows_and_prediction_reads_them_all(alternating: dict[str, Any]) -> None:
    prepared = prepare(make_recipe(alternating))
    split = prepared.encoded["train"]["t"]
    longest = int(np.argmax(split.word_counts))
    assert len(split.rows_of([longest])) > 1, "the text has to have windows"
    records = MixtureDataset({"t": split}).__getitems__([Draw("t", longest, 0), Draw("t", 0, 0)])
    batch = Collator(prepared.tokenizer, prepared.tasks, prepared.owners, labelled=True)(records)
    rows = batch["tasks"]["t"]
    assert rows["sizes"].tolist() == [len(split.rows_of([longest])), 1]
    assert int((rows["labels"] != IGNORE).sum()) == 15 + 3
    result = finetune(alternating)
    words = ["box"] * 15
    predictor = Predictor.from_pretrained(result.folder)
    whole = predictor([{"tokens": words}])[0]["predictions"]["t"]
    assert len(whole["tags"]) == 15
    # More windows than a pass takes: in parts, decoded whole.
    assert predictor([{"tokens": words}], batch_size=1)[0]["predictions"]["t"]["tags"] == whole["tags"]
    alone = predictor([{"tokens": words}, {"tokens": ["box"]}])
    assert alone[0]["predictions"]["t"]["tags"] == whole["tags"]


def test_transitions_are_learned_where_words_tell_nothing() -> None:
    """With the same emissions everywhere the chain alone finds the pattern; a plain head cannot."""
    torch.manual_seed(1)
    made = head()
    chain = [torch.zeros(5, 5), torch.zeros(5), torch.zeros(5)]
    parameters = [part.requires_grad_() for part in chain]
    gold = torch.tensor([[1, 2, 0] * 3])
    optimizer = torch.optim.Adam(parameters, lr=0.2)
    for _ in range(150):
        rows = torch.cat([chain[0], chain[1][None], chain[2][None], torch.zeros(9, 5)])[None]
        loss, units = made.loss(rows, gold)
        optimizer.zero_grad()
        (loss / units).backward()
        optimizer.step()
    assert float((loss / units).detach()) < 0.05
    learned = Chain.unpacked(rows[0, :7].detach().numpy(), *transition_mask(TAGS, "iob2"))
    assert best_tags(np.zeros((1, 9, 5)), [9], learned).tolist() == gold.tolist()
