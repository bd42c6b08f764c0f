"""The demo corpus: splits that share nothing, exact offsets, every label everywhere, files that can be made again."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "tasks" / "demo"
SPLITS = ("train", "validation", "test")
FIELDS = ("sentiment", "intent", "entities")
SENTIMENTS = {"negative", "neutral", "positive"}
ENTITY_TYPES = {"AMOUNT", "CITY", "COMPANY", "DATE", "EMAIL", "ORDER_ID", "PERSON", "PHONE", "PRODUCT"}

Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def script() -> Any:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return importlib.import_module("make_demo_corpus")
    finally:
        sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture(scope="module")
def corpus(script: Any) -> Any:
    return script.build(script.SEED)


def _read(folder: Path) -> Rows:
    return {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        for split in SPLITS
    }


@pytest.fixture(scope="module", params=["shipped", "generated", "other seed"])
def rows(request: pytest.FixtureRequest, script: Any, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The rows as a reader of the files sees them: those that ship, those made now, and those of another seed."""
    if request.param == "shipped":
        return _read(SHIPPED)
    folder = tmp_path_factory.mktemp("corpus")
    script.write(script.build(script.SEED if request.param == "generated" else script.SEED + 1), folder)
    return _read(folder)


def _plain(text: str) -> str:
    """The text without case and punctuation."""
    return "".join(sign for sign in text.casefold() if sign.isalnum())


def test_sizes(rows: Rows) -> None:
    assert {split: len(rows[split]) for split in SPLITS} == {"train": 2600, "validation": 450, "test": 550}
    assert sum(len(rows[split]) for split in SPLITS) >= 3000


def test_rows_have_the_documented_form(rows: Rows) -> None:
    for split in SPLITS:
        assert [row["id"] for row in rows[split]] == [f"{split}-{n:05d}" for n in range(1, len(rows[split]) + 1)]
        for row in rows[split]:
            assert list(row) == ["id", "text", *FIELDS]
            assert row["text"] == " ".join(row["text"].split())
            assert row["text"]


def test_no_text_occurs_twice(rows: Rows) -> None:
    counts = Counter(_plain(row["text"]) for split in SPLITS for row in rows[split])
    assert [text for text, count in counts.items() if count > 1] == []


def test_offsets_are_exact(rows: Rows) -> None:
    for row in (row for split in SPLITS for row in rows[split] if row["entities"]):
        text, end = row["text"], 0
        for entity in row["entities"]:
            assert set(entity) == {"start", "end", "label"}
            surface = text[entity["start"] : entity["end"]]
            assert end <= entity["start"] < entity["end"] <= len(text), row
            assert surface == surface.strip(), row
            assert not surface.endswith("."), row
            # An entity is made of whole words: a letter or digit never continues it on either side.
            assert not re.match(r"\w\w", text[max(0, entity["start"] - 1) : entity["start"] + 1]), row
            assert not re.match(r"\w\w", text[entity["end"] - 1 : entity["end"] + 1]), row
            end = entity["end"]


def test_spans_hold_what_their_label_says(rows: Rows) -> None:
    shapes = {
        "EMAIL": re.compile(r"[\w.]+@(mail|post|firm)?\.?(example)(\.com|\.org)?", re.I),
        "ORDER_ID": re.compile(r"[A-Z0-9/-]*\d[A-Z0-9/-]*", re.I),
        "PHONE": re.compile(r"[\d +()-]{7,}"),
    }
    checked = Counter[str]()
    for row in (row for split in SPLITS for row in rows[split]):
        for entity in row["entities"] or ():
            if entity["label"] in shapes:
                surface = row["text"][entity["start"] : entity["end"]]
                assert shapes[entity["label"]].fullmatch(surface), surface
                checked[entity["label"]] += 1
    assert min(checked[label] for label in shapes) >= 100


def test_nothing_that_is_an_entity_is_left_unmarked(rows: Rows) -> None:
    """Outside the spans of an annotated row stand no address, no date and no price."""
    leak = re.compile(
        r"@|[£$€]|\b(\d+ euros|(mon|tues|wednes|thurs|fri|satur|sun)day|january|february|october)\b", re.I
    )
    for row in (row for split in SPLITS for row in rows[split] if row["entities"] is not None):
        rest = row["text"]
        for entity in reversed(row["entities"]):
            rest = rest[: entity["start"]] + "_" + rest[entity["end"] :]
        assert leak.search(rest) is None, row


def test_every_label_is_in_every_split(rows: Rows) -> None:
    for split in SPLITS:
        intents = {row["intent"] for row in rows[split]} - {None}
        assert len(intents) == 16
        assert {row["sentiment"] for row in rows[split]} - {None} == SENTIMENTS
        types = Counter(entity["label"] for row in rows[split] for entity in row["entities"] or ())
        assert set(types) == ENTITY_TYPES
        assert min(types.values()) >= 20, types


def test_sentiment_does_not_follow_from_intent(rows: Rows) -> None:
    for split in SPLITS:
        seen = {(row["intent"], row["sentiment"]) for row in rows[split]}
        assert all((intent, tone) in seen for intent in {i for i, _ in seen} - {None} for tone in SENTIMENTS)


def test_intents_are_unequal(rows: Rows) -> None:
    counts = Counter(row["intent"] for row in rows["test"]).values()
    assert max(counts) >= 4 * min(counts)


def test_evaluation_splits_are_annotated_in_full(rows: Rows) -> None:
    assert all(row[field] is not None for split in SPLITS[1:] for row in rows[split] for field in FIELDS)


def test_training_annotations_are_missing_as_planned(rows: Rows) -> None:
    train = rows["train"]
    shares = {field: sum(row[field] is None for row in train) / len(train) for field in FIELDS}
    for field, planned in {"sentiment": 0.35, "entities": 0.45, "intent": 0.15}.items():
        assert shares[field] == pytest.approx(planned, abs=0.04)
    assert all(any(row[field] is not None for field in FIELDS) for row in train)


def test_no_entity_is_not_a_missing_annotation(rows: Rows) -> None:
    for split in SPLITS:
        assert sum(row["entities"] == [] for row in rows[split]) >= 5


def test_texts_vary(rows: Rows) -> None:
    """Capitals only, small letters only, no punctuation, negation, letters beyond ASCII: all are there."""
    texts = [row["text"] for row in rows["train"]]
    assert sum(text == text.upper() for text in texts) >= 50
    assert sum(text == text.lower() for text in texts) >= 200
    assert sum(not re.search(r"[.,!?;:]", text) for text in texts) >= 100
    assert sum(bool(re.search(r"\b(not|never|n't|no)\b|n't", text, re.I)) for text in texts) >= 500
    assert sum(not text.isascii() for text in texts) >= 200


def test_splits_share_no_template(corpus: Any) -> None:
    used = {split: {name for message in corpus[split] for name in message.templates} for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert used[one] & used[other] == set()
    cores = {name for names in used.values() for name in names if name.startswith("core/")}
    assert len(cores) >= 400


def test_no_two_templates_are_alike(script: Any) -> None:
    counts = Counter(_plain(template.text) for template in script.all_templates())
    assert [text for text, count in counts.items() if count > 1] == []


def test_templates_use_only_known_slots(script: Any) -> None:
    filler = script.SlotFiller(
        {name: list(values) for name, values in script.POOLS.items()}, rng=script.random.Random(0), seed=0
    )
    used = {
        slot.rstrip("0123456789")
        for template in script.all_templates()
        for slot in re.findall(r"\{(\w+)\}", template.text)
    }
    assert used == set(filler.slots)


def test_one_seed_gives_one_corpus(script: Any, corpus: Any) -> None:
    assert script.build(script.SEED) == corpus
    assert script.build(script.SEED + 1) != corpus


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    """Through the command line, and whatever order Python gives its sets."""
    for number in ("0", "1"):
        command = [sys.executable, "scripts/make_demo_corpus.py", "--seed", "13", "--output", str(tmp_path / number)]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": number}, check=True, capture_output=True)
    for split in SPLITS:
        assert (tmp_path / "0" / f"{split}.jsonl").read_bytes() == (tmp_path / "1" / f"{split}.jsonl").read_bytes()


def test_shipped_files_are_what_the_script_writes(script: Any, corpus: Any, tmp_path: Path) -> None:
    """Byte for byte with the Faker that they were made with; with another one the same sizes and ids."""
    script.write(corpus, tmp_path)
    for split in SPLITS:
        made, shipped = tmp_path / f"{split}.jsonl", SHIPPED / f"{split}.jsonl"
        if script.faker.VERSION == script.FAKER_VERSION:
            assert made.read_bytes() == shipped.read_bytes()
        else:
            assert [row["id"] for row in _read(tmp_path)[split]] == [row["id"] for row in _read(SHIPPED)[split]]


def test_files_stay_small() -> None:
    assert sum((SHIPPED / f"{split}.jsonl").stat().st_size for split in SPLITS) < 2_000_000


def test_readme_names_every_label_and_size() -> None:
    readme = (SHIPPED / "README.md").read_text(encoding="utf-8")
    shipped = _read(SHIPPED)
    labels = {row["intent"] for row in shipped["test"]} | SENTIMENTS | ENTITY_TYPES
    assert {label for label in labels if f"`{label}`" not in readme} == set()
    for split in SPLITS:
        annotated = [sum(row[field] is not None for row in shipped[split]) for field in FIELDS]
        spans = sum(len(row["entities"] or ()) for row in shipped[split])
        cells = " | ".join(str(number) for number in (len(shipped[split]), *annotated, spans))
        assert f"| {split} | {cells} |" in readme
