"""`init`: from a folder of files to a checkpoint that predicts, with nothing edited."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.cli import main
from mtl_nlp.recipe import load_recipe
from tests.conftest import ENTITIES, SENTIMENT, write_conll, write_jsonl

ROOT = Path(__file__).parents[2]


def mtl(*words: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mtl_nlp", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def in_process(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The command line here; its exit code."""
    monkeypatch.setattr(sys, "argv", ["mtl-nlp", *map(str, words)])
    try:
        main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def write_csv(path: Path, columns: list[str], rows: list[list[Any]]) -> Path:
    """Rows as CSV, quoted where need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([columns, *rows])
    return path


def reviews(number: int = 24) -> list[list[Any]]:
    """Rows with quotes, commas and line breaks inside fields, and names that are not ASCII."""
    rows = []
    for i in range(number):
        said = f'the film was {"great" if i % 2 else "awful"}, "really"\nnumber {i}'
        rows.append([i, "José Müller-Ångström", said, "positive" if i % 2 else "negative"])
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A CSV, a CoNLL file, a JSONL file with two annotations, and files of no use."""
    place = tmp_path / "my data"
    write_csv(place / "Bewertungen, neu.csv", ["Unnamed: 0", "author", "review", "sentiment"], reviews())
    write_conll(place / "ner.conll", ENTITIES)
    rows: list[dict[str, Any]] = []
    for i in range(24):
        text = f"play the song {i} please" if i % 2 else f"cancel my order {i} please"
        spans = [{"start": 5, "end": 13, "label": "OBJECT"}] if i % 2 else []
        rows.append({"id": f"r{i}", "utterance": text, "intent": "play" if i % 2 else "cancel", "spans": spans})
    write_jsonl(place / "intents.jsonl", rows)
    (place / "notes.txt").write_text("These files were made by hand.\nBy us.\n", encoding="utf-8")
    (place / "sheet.xlsx").write_bytes(b"PK")
    return place


def test_a_folder_becomes_a_recipe_that_trains_and_predicts(folder: Path, tmp_path: Path, tiny_encoder: Path) -> None:
    made = mtl("init", folder)
    assert made.returncode == 0, made.stderr
    target = folder / "recipe.yaml"
    assert made.stdout.strip() == str(target)
    for word in (
        "Bewertungen, neu.csv",
        "train 24",
        "bewertungen_neu",
        "intents_spans",
        "text: utterance, label: intent",
    ):
        assert word in made.stderr
    assert "not used: notes.txt: a text, not one word a line with its tag" in made.stderr
    assert 'not used: sheet.xlsx: ending ".xlsx" is not read' in made.stderr

    before = target.read_text(encoding="utf-8")
    again = mtl("init", folder)
    assert (again.returncode, again.stdout) == (2, "")
    assert "recipe.yaml: exists already and is not overwritten (give --output with another file)" in again.stderr
    assert target.read_text(encoding="utf-8") == before

    run = tmp_path / "run"
    settings = (f"encoder={tiny_encoder}", "training.max_steps=2", "mixture.batch=8")
    trained = mtl(
        "train", target, *(word for setting in settings for word in ("--set", setting)), "--output", run, "--json"
    )
    assert trained.returncode == 0, trained.stderr
    scores = json.loads(trained.stdout)["validation"]
    assert set(scores) == {"bewertungen_neu", "ner", "intents_intent", "intents_spans"}
    assert {"config.json", "model.safetensors", "tokenizer.json", "recipe.resolved.yaml"} <= {
        p.name for p in run.iterdir()
    }

    predicted = mtl("predict", run, "--text", "play the song please")
    assert predicted.returncode == 0, predicted.stderr
    found = json.loads(predicted.stdout)["predictions"]
    assert found["bewertungen_neu"]["label"] in ("negative", "positive")
    assert found["intents_intent"]["label"] in ("cancel", "play")
    assert "entities" in found["ner"]


def test_the_recipe_says_what_was_seen_and_lists_no_labels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_process(monkeypatch, "init", folder) == 0
    text = (folder / "recipe.yaml").read_text(encoding="utf-8")
    assert "# Seen in 24 annotated of 24 rows: negative 12, positive 12" in text
    assert "# labels: [negative, positive]" in text
    assert "# Unused columns: Unnamed: 0 (no annotation, it seems); author (one value only)" in text
    loaded = load_recipe(folder / "recipe.yaml")
    tasks = {task.name: task for task in loaded.definitions}
    assert all(task.labels is None for task in tasks.values())
    assert tasks["bewertungen_neu"].data.source == "Bewertungen, neu.csv"
    assert tasks["bewertungen_neu"].data.columns.roles() == {"text": ["review"], "label": ["sentiment"]}
    assert tasks["ner"].scheme == "iob2"
    assert tasks["intents_spans"].data.source == tasks["intents_intent"].data.source == "intents.jsonl"
    assert loaded.mixture.batch == 16
    assert loaded.output_dir == str(folder / "runs" / "my data")


def test_paths_of_a_recipe_elsewhere_lead_back(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "recipes" / "mine.yaml"
    monkeypatch.chdir(tmp_path)
    assert in_process(monkeypatch, "init", "my data", "--output", "recipes/mine.yaml", "--encoder", "owner/name") == 0
    loaded = load_recipe(target)
    assert loaded.encoder_spec.name == "owner/name"
    assert not (folder / "recipe.yaml").exists()
    for task in loaded.definitions:
        assert (target.parent / str(task.data.source)).is_file()


def test_folders_with_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, size in (("train", 32), ("dev", 8), ("test", 8)):
        write_jsonl(tmp_path / "sent" / f"{split}.jsonl", SENTIMENT[:size])
        write_conll(tmp_path / "ner" / f"{split}.conll", ENTITIES[:size])
    assert in_process(monkeypatch, "init", tmp_path) == 0
    tasks = {task.name: task for task in load_recipe(tmp_path / "recipe.yaml").definitions}
    assert set(tasks) == {"ner", "sent"}
    assert tasks["sent"].data.splits.given() == {
        "train": ["sent/train.jsonl"],
        "validation": ["sent/dev.jsonl"],
        "test": ["sent/test.jsonl"],
    }
    assert "validation" not in tasks["sent"].data.model_fields_set
    assert "train 32" in capsys.readouterr().err


def test_files_with_splits_in_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ["author", "review", "stars"]
    rows = [[f"a{i}", f"the film {i}", i * 0.5] for i in range(30)]
    write_csv(tmp_path / "reviews_train.csv", columns, rows)
    write_csv(tmp_path / "reviews_test.csv", columns, rows[:5])
    write_jsonl(tmp_path / "topic.train.jsonl", SENTIMENT)
    write_jsonl(tmp_path / "topic.validation.jsonl", SENTIMENT[:8])
    assert in_process(monkeypatch, "init", tmp_path) == 0
    tasks = {task.name: task for task in load_recipe(tmp_path / "recipe.yaml").definitions}
    assert tasks["reviews"].head == "regression"
    assert tasks["reviews"].data.splits.given() == {"train": ["reviews_train.csv"], "test": ["reviews_test.csv"]}
    assert tasks["reviews"].data.validation == 0.2
    assert tasks["topic"].data.splits.given() == {
        "train": ["topic.train.jsonl"],
        "validation": ["topic.validation.jsonl"],
    }


def test_a_test_file_without_labels_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "a_train.jsonl", SENTIMENT)
    write_jsonl(tmp_path / "a_dev.jsonl", [{"text": "good", "label": None}, {"text": "bad", "label": ""}])
    write_jsonl(tmp_path / "a_test.jsonl", [{"text": "good"}, {"text": "bad"}])
    assert in_process(monkeypatch, "init", tmp_path) == 0
    said = capsys.readouterr().err
    assert "note: a_test.jsonl is left out: it has no column label" in said
    assert "note: a_dev.jsonl is left out: it has no annotation in label" in said
    data = load_recipe(tmp_path / "recipe.yaml").definitions[0].data
    assert (data.source, data.splits.given()) == ("a_train.jsonl", {})


def test_names_that_collide_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("été.jsonl", "ete.jsonl", "отзывы.jsonl"):
        write_jsonl(tmp_path / name, SENTIMENT)
    assert in_process(monkeypatch, "init", tmp_path) == 0
    names = [task.name for task in load_recipe(tmp_path / "recipe.yaml").definitions]
    assert names == ["ete", "ete_2", "label"]


def test_a_folder_of_no_use_says_what_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "texts.jsonl", [{"text": f"no label {i}"} for i in range(5)])
    assert in_process(monkeypatch, "init", tmp_path) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "nothing to learn from (texts.jsonl: no column to learn from beside text" in said.err
    assert "NAME_train.csv" in said.err
    assert not (tmp_path / "recipe.yaml").exists()


def test_conll_u_is_drafted_without_its_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def line(number: str, form: str, upos: str) -> str:
        return "\t".join([number, form, "_", upos, *"______"]) + "\n"

    one = line("1", "Ada", "PROPN") + line("2-3", "inOslo", "_") + line("2", "in", "ADP")
    (tmp_path / "ud_train.conllu").write_text("".join(f"{one}{line('3', f'Oslo{i}', 'PROPN')}\n" for i in range(10)))
    assert in_process(monkeypatch, "init", tmp_path) == 0
    (task,) = load_recipe(tmp_path / "recipe.yaml").definitions
    assert task.data.columns.roles() == {"tokens": ["tokens"], "labels": ["upos"]}
    text = (tmp_path / "recipe.yaml").read_text()
    assert "# Seen in 10 annotated of 10 rows: ADP 10, PROPN 20" in text
    told = "ud_train.conllu: 10 lines of multiword tokens (3-4) and empty nodes (5.1) are left out"
    assert f"# Note: {told}." in text
    assert f"note: {told}" in " ".join(capsys.readouterr().err.split())


def test_one_text_cannot_be_parted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_conll(tmp_path / "same.conll", ENTITIES[:1] * 5)
    write_conll(tmp_path / "both_train.conll", ENTITIES[:1] * 5)
    write_conll(tmp_path / "both_dev.conll", ENTITIES[:1])
    assert in_process(monkeypatch, "init", tmp_path) == 0
    assert [task.name for task in load_recipe(tmp_path / "recipe.yaml").definitions] == ["both"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", "sentence,tags\n" + "Ada is in Oslo,B-PER O O B-LOC\n" * 30, "one annotated text only, in 30 rows"),
        ("a.txt", "Ada B-PER\nis O\n" * 15, "one sentence only, as no blank line ends a sentence"),
        ("a.conll", "Ada B-PER\nis O\n\n" * 15, "one sentence only, which stands there 15 times"),
        ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["B-X", "O"]}\n', "one annotated text only"),
    ],
)
def test_why_one_text_cannot_be_parted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str,
    why: str,
) -> None:
    (tmp_path / name).write_text(content)
    assert in_process(monkeypatch, "init", tmp_path) == 2
    told = f"nothing to learn from ({name}: {why}: another is needed, to be held back for validation)"
    assert told in capsys.readouterr().err


def test_the_faults_of_all_files_come_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,a\n".encode("latin-1"))
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": \n', encoding="utf-8")
    (tmp_path / "ner.conll").write_text("anna\tB-PER\nleft\n", encoding="utf-8")
    write_jsonl(tmp_path / "fine.jsonl", SENTIMENT)
    assert in_process(monkeypatch, "init", tmp_path) == 2
    said = capsys.readouterr().err
    assert "latin.csv:2: byte 0xe9 is not UTF-8" in said
    assert "broken.jsonl:2: not valid JSON" in said
    assert "ner.conll:2: too few columns" in said
    assert not (tmp_path / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: no such folder → a folder of data files"),
        (["file.csv"], "file.csv: is a file → a folder of data files"),
        ([".", "--output", "folder"], "folder: --output: is a folder"),
    ],
)
def test_wrong_places_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.csv").touch()
    (tmp_path / "folder").mkdir()
    assert in_process(monkeypatch, "init", *words) == 2
    assert message in capsys.readouterr().err


def test_questions_with_passages_and_rankings_are_drafted_and_checked(tmp_path: Path, tiny_encoder: Path) -> None:
    questions = [f"question {i} about parcels" for i in range(24)]
    answered = [
        {"question": text, "positive": f"Answer {i}.", "negatives": [f"Not this {i}."]}
        for i, text in enumerate(questions)
    ]
    write_jsonl(tmp_path / "data" / "faq" / "train.jsonl", answered)
    # One question stands on both sides with the same answer, one with another answer: only the first gives anything away.
    held = [answered[3], {**answered[4], "positive": "Another answer."}, {**answered[5], "question": "a new question"}]
    write_jsonl(tmp_path / "data" / "faq" / "validation.jsonl", held)
    ranked = [{"query": text, "candidates": [f"one {text}", "another"], "relevance": [1, 0]} for text in questions]
    write_jsonl(tmp_path / "data" / "rank.jsonl", ranked)
    recipe = tmp_path / "recipe.yaml"
    drafted = mtl("init", tmp_path / "data", "--output", recipe)
    assert drafted.returncode == 0, drafted.stderr
    assert {task.head for task in load_recipe(recipe).definitions} == {"retrieval", "ranking"}
    checked = mtl("check", recipe, "--set", f"encoder={tiny_encoder}", "--json", "--no-probe")
    assert checked.returncode == 1, checked.stderr
    (leak,) = json.loads(checked.stdout)["leaks"]
    assert (leak["texts"], leak["examples"][0]["text"]) == (1, "question 3 about parcels")
