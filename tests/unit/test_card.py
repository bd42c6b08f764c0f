"""The model card: exact text from known facts, code that runs, and a user's words that stay."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from mtl_nlp.hub.card import card_text, write_card
from mtl_nlp.hub.facts import Facts, TaskFacts, facts_of
from tests.tiny_checkpoint import build_checkpoint

GOLDEN = Path(__file__).with_name("card.golden.txt")
FACTS = Facts(
    encoder="sentence-transformers/all-MiniLM-L6-v2",
    encoder_on_hub=True,
    architecture="bert",
    tasks=[
        TaskFacts(
            "sst2",
            "sequence_classification",
            "Sentiment of film reviews",
            ["negative", "positive"],
            ["text"],
            scores={"accuracy": 0.9125, "f1_macro": 0.91},
            source="stanfordnlp/sst2",
            on_hub=True,
            language="en",
        ),
        TaskFacts(
            "btc",
            "token_classification",
            labels=["LOC", "ORG", "a|b <c>"],
            inputs=["text"],
            scores={"span_f1": 0.75},
            source="btc",
            licence="cc-by-4.0",
            language="en",
            weight=0.5,
        ),
    ],
    parameters=22_700_000,
    encoder_parameters=22_600_000,
    bytes=90_800_000,
    dtype="F32",
    mean=0.83125,
    run={"steps": 100, "seconds": 61.4, "corpora": {"sst2": {"texts": 800, "passes": 2.0}}, "truncated": {"btc": 3}},
    recipe={
        "encoder": {"name": "sentence-transformers/all-MiniLM-L6-v2", "freeze": "none"},
        "mixture": {"strategy": "temperature", "temperature": 2.0, "rates": None},
        "balancing": {"shares": "rows"},
        "training": {"num_train_epochs": 2, "logging_dir": "/home/anna/logs"},
        "seed": 13,
    },
    versions={"format": 1, "mtl_nlp": "0.1.0", "transformers": "5.23.0"},
    max_length=128,
)


def test_the_golden_card() -> None:
    assert card_text(FACTS, repository="anna/assistant") == GOLDEN.read_text(encoding="utf-8")


def test_the_hub_reads_its_front_matter() -> None:
    card = ModelCard(card_text(FACTS, repository="anna/assistant"))
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.datasets == ["stanfordnlp/sst2"]
    assert card.data.language == ["en"]
    found = [(r.task_type, r.task_name, r.metric_name, r.metric_value) for r in card.data.eval_results or []]
    assert ("text-classification", "sst2", "accuracy", 0.9125) in found
    assert ("token-classification", "btc", "span_f1", 0.75) in found


def test_what_a_user_wrote_stays() -> None:
    first = card_text(FACTS, repository="anna/assistant")
    edited = first.replace("library_name:", "license: mit\ncontact: anna\nlibrary_name:").replace(
        "- mtl-nlp\n", "- mtl-nlp\n- mine\n"
    )
    edited = edited.replace("<!-- /mtl-nlp: tasks -->", "<!-- /mtl-nlp: tasks -->\n\nBetween the sections.")
    edited = edited.replace("## Limits\n", "## Limits, as I see them\n")
    edited = re.sub(r"<!-- mtl-nlp: versions .*?<!-- /mtl-nlp: versions -->\n", "", edited, flags=re.S)
    later = Facts(**{**FACTS.__dict__, "mean": 0.5})
    again = card_text(later, repository="anna/assistant", previous=edited)
    for kept in ("license: mit", "contact: anna", "- mine", "Between the sections.", "## Limits, as I see them"):
        assert kept in again, kept
    assert "Mean of the primary metrics: 0.5000." in again, "what was not edited is renewed"
    assert "Made with" not in again, "what was removed stays away"
    assert card_text(later, repository="anna/assistant", previous=again) == again


def test_a_card_of_ones_own_comes_first() -> None:
    text = card_text(FACTS, previous="# My model\n\nAll about it.\n")
    assert text.index("All about it.") < text.index("## Tasks")


def test_the_code_in_a_card_runs(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a checkpoint with every kind of head, from its own folder."""
    folder = build_checkpoint(tmp_path / "run", tiny_encoder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert all(
        f"'{task.name}':" in printed for task in facts_of(folder).tasks if task.head != "masked_language_modeling"
    )
    assert str(tmp_path) not in text, "no path of this machine"
    write_card(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == text
