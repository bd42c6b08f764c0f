"""An intent and its slots decoded together: the exact best consistent pair, what is learned of it, measured, saved and refused."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_nlp import Predictor, finetune, score_checkpoint
from mtl_nlp.data.sources import read_corpora
from mtl_nlp.decoding import Decoder, TextInput, decode_all
from mtl_nlp.errors import FaultyInput
from mtl_nlp.hub.checkpoint import load_model
from mtl_nlp.joint import Agreement, joint_scores
from mtl_nlp.labels import tag_names, transition_mask
from mtl_nlp.recipe import make_recipe
from mtl_nlp.task import Consistency, Task
from tests.conftest import write_jsonl

INTENTS = ["book", "play", "rare"]
TYPES = {"book": ["city", "date"], "play": ["song"]}
TAGS = tag_names(["city", "date", "song"], "iob2")


def pair(head: str = "token_classification") -> tuple[Task, Task]:
    intent = Task(name="intent", head="sequence_classification", labels=INTENTS)
    slots = Task(
        name="slots",
        head=head,
        labels=["city", "date", "song"],
        consistent_with=Consistency(task="intent", types=TYPES),
    )
    return intent, slots


def agrees(label: str, tags: list[str]) -> bool:
    return label not in TYPES or all(tag == "O" or tag[2:] in TYPES[label] for tag in tags)


def inputs(words: list[int]) -> list[TextInput]:
    return [TextInput([{"words": list(range(n)), "input_ids": [5] * n, "first": True}], n) for n in words]


def brute(probabilities: Any, words: Any, chain: Any) -> tuple[str, list[str]]:
    """The best consistent pair by enumeration; ties do not occur."""
    start, allowed = transition_mask(TAGS, "iob2")
    best: tuple[float, str, list[str]] = (-np.inf, "", [])
    for tags in itertools.product(range(len(TAGS)), repeat=len(words)):
        if not (start[tags[0]] and all(allowed[i, j] for i, j in itertools.pairwise(tags))):
            continue
        if chain is None:
            value = sum(np.log(words[w, t]) for w, t in enumerate(tags))
        else:
            value = sum(words[w, t] for w, t in enumerate(tags)) + chain[len(TAGS), tags[0]]
            value += chain[len(TAGS) + 1, tags[-1]] + sum(chain[i, j] for i, j in itertools.pairwise(tags))
        names = [TAGS[t] for t in tags]
        for label, probability in zip(INTENTS, probabilities, strict=True):
            if agrees(label, names) and value + np.log(probability) > best[0]:
                best = (value + np.log(probability), label, names)
    return best[1], best[2]


@pytest.mark.parametrize("head", ["token_classification", "token_classification_crf"])
def test_the_joint_answer_is_the_best_consistent_pair_of_enumeration(head: str) -> None:
    intent, slots = pair(head)
    decoders = {"intent": Decoder(intent), "slots": Decoder(slots)}
    rng = np.random.default_rng(0)
    lengths, changed = [3, 1, 2] * 20, 0
    texts = inputs(lengths)
    labels = rng.dirichlet([0.5, 0.5, 0.05], len(lengths)).astype(np.float32) + 1e-6
    size = len(TAGS)
    chain = rng.normal(size=(size + 2, size)).astype(np.float32) if head.endswith("crf") else None
    words = rng.dirichlet(np.ones(size) * 0.3, (len(lengths), 3)).astype(np.float32) + 1e-6
    words = words if chain is None else np.log(words)
    scores = (
        words if chain is None else np.concatenate([np.broadcast_to(chain, (len(lengths), *chain.shape)), words], 1)
    )
    found = decode_all(decoders, {"intent": labels, "slots": scores}, {"intent": texts, "slots": texts})
    for i, length in enumerate(lengths):
        one, two = found["intent"][i], found["slots"][i]
        assert (one.value, two.value) == brute(labels[i], words[i, :length], chain)
        assert agrees(one.value, two.value)
        assert one.alone == INTENTS[int(labels[i].argmax())]
        assert two.scores is not None
        assert len(two.scores) == length
        changed += (one.alone, two.alone) != (one.value, two.value)
    assert changed > 10, "the heads have to disagree often for this to prove anything"


def test_one_of_the_two_alone_is_decoded_alone() -> None:
    _, slots = pair()
    table = np.full((1, 1, len(TAGS)), 0.01, dtype=np.float32)
    table[0, 0, TAGS.index("B-song")] = 0.9
    found = decode_all({"slots": Decoder(slots)}, {"slots": table}, {"slots": inputs([1])})
    assert (found["slots"][0].value, found["slots"][0].alone) == (["B-song"], None)


def test_scores_by_hand() -> None:
    agreement = Agreement.of(INTENTS, TAGS, pair()[1])
    assert agreement is not None
    references = [("book", ["B-city"]), ("play", ["O"]), (None, ["O"]), ("book", ["O"])]
    pairs = [("book", ["B-city"]), ("play", ["B-song"]), ("play", ["O"]), ("book", ["O"])]
    alone = [("play", ["B-city"]), ("play", ["B-song"]), ("rare", ["B-song"]), ("book", ["O"])]
    assert joint_scores(pairs, alone, references, agreement) == {
        "sentence_accuracy": 2 / 3,
        "consistency": 1.0,
        "sentence_accuracy_alone": 1 / 3,
        "consistency_alone": 3 / 4,
    }


ROWS = [
    {"tokens": ["book", "paris", "today"], "intent": "book", "tags": ["O", "B-city", "B-date"]},
    {"tokens": ["play", "this", "song"], "intent": "play", "tags": ["O", "O", "B-song"]},
    {"tokens": ["what", "now"], "intent": None, "tags": ["O", "B-song"]},
    {"tokens": ["book", "song"], "intent": "book", "tags": None},
    {"tokens": ["hello"], "intent": "greet", "tags": ["O"]},
]


@pytest.fixture
def assistant(tmp_path: Path, tiny_encoder: Path) -> dict[str, Any]:
    for split in ("train", "validation", "test"):
        write_jsonl(tmp_path / "d" / f"{split}.jsonl", ROWS * 2)
    source = str(tmp_path / "d")
    intent = {"source": source, "columns": {"tokens": "tokens", "label": "intent"}}
    slots = {"source": source, "columns": {"tokens": "tokens", "labels": "tags"}}
    return {
        "encoder": str(tiny_encoder),
        "tasks": [
            {"name": "intent", "head": "sequence_classification", "data": intent},
            {"name": "slots", "head": "token_classification", "data": slots, "consistent_with": "intent"},
        ],
        "mixture": {"batch": 4},
        "training": {"max_steps": 4, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(tmp_path / "run"),
    }


def test_types_are_counted_in_training_texts_with_both_annotations(assistant: dict[str, Any]) -> None:
    corpus = read_corpora(make_recipe(assistant))[0]
    given = corpus.tasks[1].consistent_with
    assert isinstance(given, Consistency)
    assert given.types == {"book": ["city", "date"], "greet": [], "play": ["song"]}
    assert corpus.notes == [
        "slots is decoded with intent: 3 of 9 pairs of label and type occur in training",
    ]


def test_a_run_measures_saves_and_predicts_consistent_pairs(assistant: dict[str, Any]) -> None:
    result = finetune(assistant)
    slots = result.metrics["slots"]
    assert set(slots) >= {"sentence_accuracy", "consistency", "sentence_accuracy_alone", "consistency_alone"}
    assert slots["consistency"] == 1.0
    types = {"book": {"city", "date"}, "greet": set(), "play": {"song"}}
    predictor = Predictor.from_pretrained(result.folder)
    rows = [{"tokens": list(words)} for words in itertools.product(["book", "play", "song", "paris"], repeat=3)]
    for batch in (1, 32):
        for one in predictor(rows, batch_size=batch):
            answer = one["predictions"]
            assert {e["entity_group"] for e in answer["slots"]["entities"]} <= types[answer["intent"]["label"]]
    saved = load_model(result.folder).tasks[1].consistent_with
    assert isinstance(saved, Consistency)
    assert {name: set(allowed) for name, allowed in (saved.types or {}).items()} == types
    test, _ = score_checkpoint(result.folder)
    assert test["slots"]["consistency"] == 1.0


def test_the_best_model_may_be_chosen_by_sentence_accuracy(assistant: dict[str, Any]) -> None:
    training = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    assistant["training"] = training | {
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_slots_sentence_accuracy",
    }
    assert "sentence_accuracy" in finetune(assistant).metrics["slots"]


def changed(recipe: dict[str, Any], **slots: Any) -> dict[str, Any]:
    made = copy.deepcopy(recipe)
    made["tasks"][1] |= slots
    return made


def test_what_cannot_be_consistent_is_refused(assistant: dict[str, Any]) -> None:
    with pytest.raises(FaultyInput, match=r'no task "intents"\. Did you mean "intent"'):
        make_recipe(changed(assistant, consistent_with="intents"))
    made = copy.deepcopy(assistant)
    made["tasks"][0]["consistent_with"] = "slots"
    with pytest.raises(FaultyInput, match="put the key on the token task"):
        make_recipe(made)
    with pytest.raises(FaultyInput, match="needs tags of types, with a scheme"):
        make_recipe(changed(assistant, scheme="none"))
    given = {"task": "intent", "types": {"bok": ["city"], "book": ["town"]}}
    with pytest.raises(FaultyInput, match=r"the label bok(.|\n)*the type town"):
        read_corpora(make_recipe(changed(assistant, consistent_with=given)))


def test_tasks_of_two_corpora_are_refused(assistant: dict[str, Any], tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "e" / f"{split}.jsonl", ROWS)
    assistant["tasks"][1]["data"]["source"] = str(tmp_path / "e")
    with pytest.raises(FaultyInput, match=r"intent reads other texts than slots.*same source"):
        read_corpora(make_recipe(assistant))
