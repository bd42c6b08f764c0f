"""`mtl-nlp predict`: every format in and out, files and pipes, streaming, atomic output, faults.

Most runs are in this process, through the console's own `main`; what needs a real pipe runs as a program.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.data.conll import read_conll
from mtl_nlp.errors import UserError
from mtl_nlp.inference.formats import guess, read_items
from tests.tiny_checkpoint import CONTEXT, build_checkpoint

PROGRAM = [sys.executable, "-m", "mtl_nlp", "predict"]
TEXT_TASKS = ["sent", "topics", "stars", "ner", "places"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> str:
    return str(build_checkpoint(tmp_path_factory.mktemp("predict") / "run", tiny_encoder, max_length=24))


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], checkpoint: str) -> Run:
    """`mtl-nlp predict CHECKPOINT …` in this process; `stdin` are the bytes of a pipe."""

    def called(*args: object, stdin: bytes = b"", folder: str = checkpoint) -> Ran:
        from mtl_nlp.cli import main

        monkeypatch.setattr(sys, "argv", ["mtl-nlp", "predict", folder, *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        monkeypatch.setattr(sys, "stdout", os.fdopen(os.dup(1), "w", encoding="utf-8"))
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Ran(int(leaving.value.code or 0), out.decode(), err.decode())

    return called


# Formats in


def test_texts_of_the_command_line(run: Run) -> None:
    done = run("--text", "anna is in paris", "--text", "", "--tasks", "sent, ner")
    assert done.code == 0
    assert [row["text"] for row in done.rows] == ["anna is in paris", ""]
    assert [list(row["predictions"]) for row in done.rows] == [["sent", "ner"]] * 2
    assert done.err == ""


def test_one_text_a_line_keeps_empty_lines_and_lines_up(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes("\ufeffcafé\r\n\n  two words\t.\nlast".encode())
    done = run(tmp_path / "in.txt", "--tasks", "sent")
    assert [row["text"] for row in done.rows] == ["café", "", "  two words\t.", "last"]


def test_jsonl_keeps_fields_and_takes_every_form_of_row(run: Run, tmp_path: Path) -> None:
    rows: list[Any] = [
        {"id": 1, "text": "anna é", "meta": {"a": [1]}},
        {"premise": "a", "hypothesis": "b", "id": "x"},
        {"question": "who", "context": CONTEXT},
        {"context": "anna", "e0": "a", "e1": "b"},
        ["anna", "is"],
        "paris",
    ]
    (tmp_path / "in.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    done = run(tmp_path / "in.jsonl")
    assert [list(row["predictions"]) for row in done.rows] == [
        TEXT_TASKS,
        ["nli"],
        ["qa"],
        ["swag"],
        TEXT_TASKS,
        TEXT_TASKS,
    ]
    for given, found in zip(rows[:4], done.rows, strict=False):
        assert {name: value for name, value in found.items() if name != "predictions"} == given
    assert "é" in done.out, "text is written as it is, not escaped"


def test_csv_with_quotes_and_line_ends_in_fields(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('id,text\n1,"anna, ""the"" film\nsecond line"\n2,paris\n')
    done = run(tmp_path / "in.csv", "--tasks", "sent")
    assert [(row["id"], row["text"]) for row in done.rows] == [("1", 'anna, "the" film\nsecond line'), ("2", "paris")]


def test_tsv_by_option(run: Run) -> None:
    done = run("-", "--format", "tsv", "--tasks", "nli", stdin=b"premise\thypothesis\na, b\tc\n")
    assert [(row["premise"], row["hypothesis"]) for row in done.rows] == [("a, b", "c")]


CONLL = "-DOCSTART-\tO\n\n# a comment\nanna\tB-PER\nis\tO\n \n@x\tO\n\n\ncaf\u00e9\tO\r\n"


def test_conll_gives_words_the_other_columns_and_tags(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.conll").write_text(CONLL, encoding="utf-8", newline="")
    done = run(tmp_path / "in.conll", "--tasks", "ner")
    assert [row["tokens"] for row in done.rows] == [["anna", "is", "@x"], ["café"]]
    assert [row["labels"] for row in done.rows] == [["B-PER", "O", "O"], ["O"]]
    assert [len(row["predictions"]["ner"]["tags"]) for row in done.rows] == [3, 1]


# Formats out


def test_conll_out_adds_a_column_a_token_task(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.conll").write_text(CONLL, encoding="utf-8", newline="")
    done = run(tmp_path / "in.conll", "--output", tmp_path / "out.conll")
    assert (done.code, done.out) == (0, "")
    lines = (tmp_path / "out.conll").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# columns: tokens labels ner places"
    assert [line.split("\t")[:2] for line in lines[1:4]] == [["anna", "B-PER"], ["is", "O"], ["@x", "O"]]
    tags = [row["predictions"] for row in run(tmp_path / "in.conll", "--tasks", "ner,places").rows]
    read = read_conll(tmp_path / "out.conll")
    assert [s[0] for s in read.sentences] == [["anna", "is", "@x"], ["café"]]
    assert [s[2] for s in read.sentences] == [found["ner"]["tags"] for found in tags]
    assert [s[3] for s in read.sentences] == [found["places"]["tags"] for found in tags]


def test_conll_out_from_words_alone(run: Run) -> None:
    args = ("-", "--format", "conll", "--output-format", "conll", "--tasks", "ner")
    done = run(*args, stdin=b"anna\nis\n\nin\n")
    lines = [line.split("\t")[0] for line in done.out.splitlines()]
    assert lines == ["# columns: tokens ner", "anna", "is", "", "in", ""]


def test_conll_out_needs_words_and_token_tasks(run: Run) -> None:
    done = run("--text", "anna", "--output-format", "conll")
    assert done.code == 2
    assert "row 1 has no words → CoNLL, or rows with a list `tokens`" in done.err
    done = run("--text", "anna", "--output-format", "conll", "--tasks", "sent")
    assert done.code == 2
    assert "sent has no tag a word" in done.err


def test_csv_out_has_two_columns_a_scored_task(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": 1, "text": "a, \\"b\\"", "x": [1]}\n{"id": 2, "text": "anna"}\n')
    done = run(tmp_path / "in.jsonl", "--output", tmp_path / "out.csv", "--tasks", "sent,topics,stars,ner")
    assert done.code == 0
    with (tmp_path / "out.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["id", "text", "x", "sent", "sent_score", "topics", "stars", "ner"]
    expected = run(tmp_path / "in.jsonl").rows
    for row, found in zip(rows, expected, strict=True):
        assert row["text"] == found["text"]
        assert row["sent"] == found["predictions"]["sent"]["label"]
        assert float(row["sent_score"]) == pytest.approx(found["predictions"]["sent"]["score"], abs=1e-5)
        assert row["topics"] == "|".join(one["label"] for one in found["predictions"]["topics"]["labels"])
        assert json.loads(row["ner"]) == found["predictions"]["ner"]["entities"]


def test_tsv_out_reads_back(run: Run, tmp_path: Path) -> None:
    text = 'anna\tis "in" paris'
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": 1, "text": text}) + "\n")
    done = run(tmp_path / "in.jsonl", "--output", tmp_path / "out.tsv", "--tasks", "sent")
    assert done.code == 0, done.err
    with (tmp_path / "out.tsv").open(newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    assert [list(row) for row in rows] == [["id", "text", "sent", "sent_score"]]
    assert (rows[0]["id"], rows[0]["text"]) == ("1", text)
    told = run(tmp_path / "out.tsv", "--output-format", "tsv", "--tasks", "sent")
    assert "--output-format tsv: the input has a field sent, sent_score, as a task is called" in told.err


def test_csv_out_refuses_fields_that_come_late_or_clash(run: Run) -> None:
    done = run("-", "--output-format", "csv", "--tasks", "sent", stdin=b'{"text": "a"}\n{"text": "b", "y": 1}\n')
    assert done.code == 2
    assert "row 2 has a field y that the first has not" in done.err
    done = run("-", "--output-format", "csv", "--tasks", "sent", stdin=b'{"text": "a", "sent": 1}\n')
    assert done.code == 2
    assert "the input has a field sent" in done.err


def test_scores_and_words_reach_the_predictor(run: Run) -> None:
    done = run("--text", "paris, london", "--scores", "--words", "pretokenizer")
    found = done.rows[0]["predictions"]
    assert set(found["sent"]["scores"]) == {"positive", "negative"}
    assert "paris," not in [entity["word"] for entity in found["places"]["entities"]], "a comma is a word of its own"


# Output


def test_output_appears_whole_or_not_at_all(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n' * 3)
    done = run(tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", "--tasks", "sent")
    assert (done.code, done.out) == (0, "")
    assert f"3 predictions: {tmp_path / 'out.jsonl'}" in done.err
    before = (tmp_path / "out.jsonl").read_text()
    assert len(before.splitlines()) == 3
    (tmp_path / "in.jsonl").write_text('{"text": "b"}\n' * 3 + "oops\n")
    done = run(tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", "--tasks", "sent", "--batch", "1")
    assert done.code == 2
    assert (tmp_path / "out.jsonl").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_output_may_be_the_input(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    assert run(path, "--output", path, "--tasks", "sent").code == 0
    assert [list(json.loads(line)) for line in path.read_text().splitlines()] == [["text", "predictions"]] * 2


def test_long_texts_are_told(run: Run) -> None:
    done = run("--text", "the food " * 50, "--text", "anna")
    assert "1 of 2 texts are longer than 24 tokens" in done.err
    assert len(done.rows) == 2


@pytest.mark.parametrize("kind", ["auto", "text", "jsonl", "csv", "conll"])
def test_empty_input_is_a_note(run: Run, tmp_path: Path, kind: str) -> None:
    done = run("-", "--format", kind, "--output", tmp_path / "out.jsonl")
    assert (done.code, done.out) == (0, "")
    assert done.err == "stdin: no text in it, so nothing is predicted\n"
    assert (tmp_path / "out.jsonl").read_text() == ""


# Faults


@pytest.mark.parametrize(
    ("ending", "content", "told"),
    [
        ("jsonl", b'{"text": "a"}\n{"text": \n', ":2: not valid JSON"),
        ("jsonl", b'{"text": "a"}\n\n3\n', ":3: found a int"),
        (
            "jsonl",
            b'{"text": "a"}\n{"text": "b \\ud800"}\n',
            ":2: text: not valid Unicode (a lone surrogate at character 3)",
        ),
        ("jsonl", b'{"text": "a"}\n{"text": NaN}\n', ":2: not valid JSON: NaN is no JSON value"),
        ("jsonl", b'{"text": "a"}\n{"id": 1}\n', ":2: sent: no field text or tokens; the row has id"),
        ("json", b'[\n{"text": "a"}\n', ":3: not valid JSON: no comma between two rows, or no ] at the end"),
        ("txt", b"a\n\xe9\n", ":2: byte 0xe9 is not UTF-8 (save the file as UTF-8"),
        ("csv", b"id,text\n1,a\n2,b,c\n", ":3: too many fields: 3 → 2: id, text"),
        ("csv", b"id,text\n1\n", ":2: too few fields"),
        ("csv", b"text,text\na,b\n", ":1: column text stands more than once"),
        ("csv", b'text\n"a\n', ":2: not a readable record"),
        ("csv", b"id;text\n1;a\n", ":2: sent: no field text or tokens; the row has id;text"),
        ("conll", b"a\tO\nb\n", ':2: too few columns: 1 in "b" → 2 columns'),
        ("parquet", b"PAR1", ": .parquet files are not read here"),
    ],
)
def test_a_malformed_line_is_named(run: Run, tmp_path: Path, ending: str, content: bytes, told: str) -> None:
    path = tmp_path / f"in.{ending}"
    path.write_bytes(content)
    done = run(path, "--tasks", "sent")
    assert done.code == 2
    assert f"error: {path}{told}" in done.err
    assert "Traceback" not in done.err


def test_what_stands_before_a_malformed_line_is_answered(run: Run) -> None:
    done = run("-", "--tasks", "sent", stdin=b'{"text": "a"}\n{"text": "b"}\n{"text"\n')
    assert done.code == 2
    assert [row["text"] for row in done.rows] == ["a", "b"]
    assert "error: stdin:3: not valid JSON" in done.err


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--text", "a", "--tasks", "sentt"], 'no task "sentt". Did you mean "sent"?'),
        (["--text", "a", "--tasks", "qa"], "--text 1: qa: no field question, context; the row has text"),
        (["--text", "a", "--words", "spaces"], 'words: found "spaces" → given, whitespace, pretokenizer'),
        (["--text", "a", "--output-format", "xml"], '--output-format: found "xml" → jsonl, csv, tsv, conll'),
        (["--text", "a", "--output", "/nowhere/x.jsonl"], "/nowhere: --output: no such folder"),
        (["--text", "a", "--device", "gpu"], 'device: "gpu" cannot be used'),
        (["-", "--format", "xml"], '--format: found "xml" → auto, text, jsonl, json, csv, tsv, conll, conllu'),
        (["absent.jsonl"], "absent.jsonl: file not found"),
        (["."], ".: is a folder"),
        (["in.txt", "--text", "a"], 'found "in.txt" and --text → one of them'),
        (["--batch", "0"], "Invalid value for '--batch'"),
    ],
)
def test_wrong_arguments(run: Run, args: list[str], told: str) -> None:
    done = run(*args)
    assert done.code == 2
    assert told in done.err
    assert done.out == ""


def test_no_checkpoint(run: Run, tmp_path: Path) -> None:
    done = run("--text", "a", folder=str(tmp_path))
    assert done.code == 2
    assert "not a checkpoint" in done.err


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('{"text": "a"}', "jsonl"),
        ('  {"text"', "jsonl"),
        ("anna\tB-PER\n", "conll"),
        ("anna\tB-PER\r\n", "conll"),
        ("a sentence\twith a tab", "text"),
        ("one\ttwo\tthree", "text"),
        ("anna", "text"),
        ("", "text"),
        ('["a", "b"]\n', "jsonl"),
        ('"a text"\n', "jsonl"),
        ('"a text", he said\n', "text"),
        ('"a text\n', "text"),
        ("[laughs] a text\n", "text"),
        ('["a", 1]\n', "text"),
        ("[1]\n", "text"),
        ("3\n", "text"),
        ("null\n", "text"),
        ("[\n", "json"),
        ('[{"text": "a"}]\n', "json"),
        ("[" * 5000, "text"),
        ("text,id\n", "text"),
    ],
)
def test_a_pipes_format_is_seen_in_its_first_line(line: str, kind: str) -> None:
    assert guess(line) == kind


def test_reading_goes_no_further_than_asked() -> None:
    stream = io.BytesIO(b"a\nb\n\xff\n")
    items = read_items(stream, "stdin", "text")
    assert [next(items).where, next(items).where] == ["stdin:1", "stdin:2"]
    with pytest.raises(UserError, match="stdin:3: byte 0xff"):
        next(items)


def test_piped_conll_is_recognised(run: Run) -> None:
    done = run("--tasks", "ner", "--output-format", "conll", stdin=b"anna\tO\nis\tO\n\nin\tO\n")
    others = "another format is said by --format (text, jsonl, json, csv, tsv, conllu)"
    assert (done.code, done.err) == (0, f"stdin: read as CoNLL, by its first line; {others}\n")
    lines = [line.split("\t")[0] for line in done.out.splitlines()]
    assert lines == ["# columns: tokens labels ner", "anna", "is", "", "in", ""]


@pytest.mark.parametrize(
    ("content", "texts", "told"),
    [
        (b"one\ntwo\n", ["one", "two"], "plain text, one text a line"),
        (b"text,id\nhello,1\n", ["text,id", "hello,1"], "plain text, one text a line"),
        (b'"one"\n"two"\n', ["one", "two"], "JSONL"),
        (b'{"text": "one"}\n', ["one"], "JSONL"),
        (b'[\n {"text": "one"},\n {"text": "two"}\n]\n', ["one", "two"], "a JSON array"),
    ],
)
def test_what_a_pipe_is_read_as_is_told(run: Run, content: bytes, texts: list[str], told: str) -> None:
    done = run("-", "--tasks", "sent", stdin=content)
    assert [row["text"] for row in done.rows] == texts
    assert done.err.startswith(f"stdin: read as {told}, by its first line; another format is said by --format (")
    assert done.err.count("\n") == 1


def test_a_format_that_is_said_is_not_told(run: Run) -> None:
    done = run("-", "--tasks", "sent", "--format", "csv", stdin=b"text,id\nhello,1\n")
    assert (done.err, [row["id"] for row in done.rows]) == ("", ["1"])


def test_lists_of_words_on_a_pipe_are_words(run: Run) -> None:
    done = run("-", "--tasks", "ner", stdin=b'["anna", "is"]\n["bob"]\n')
    assert [row["tokens"] for row in done.rows] == [["anna", "is"], ["bob"]]


UD = b"""# sent_id = 1
# text = anna is in paris.
1\tanna\tAnna\tPROPN\t_\t_\t2\tnsubj\t_\t_
2\tis\tbe\tAUX\t_\t_\t0\troot\t_\t_
#comment
3-4\tinparis\t_\t_\t_\t_\t_\t_\t_\t_
3\tin\tin\tADP\t_\t_\t4\tcase\t_\t_
4\tparis\tParis\tPROPN\t_\t_\t2\tobl\t_\t_
4.1\twas\tbe\tAUX\t_\t_\t_\t_\t_\t_

1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
"""


def test_conll_u_gives_forms_as_words(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.conllu").write_bytes(UD)
    done = run(tmp_path / "in.conllu", "--tasks", "ner")
    assert done.err == f"{tmp_path}/in.conllu: 2 lines of multiword tokens (3-4) and empty nodes (5.1) are left out\n"
    assert [row["tokens"] for row in done.rows] == [["anna", "is", "in", "paris"], ["#"]]
    assert [row["upos"] for row in done.rows] == [["PROPN", "AUX", "ADP", "PROPN"], ["SYM"]]
    assert run("-", "--tasks", "ner", "--format", "conllu", stdin=UD).rows == done.rows


def test_conll_u_keeps_its_columns_as_conll(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.conllu").write_bytes(UD)
    done = run(tmp_path / "in.conllu", "--tasks", "ner", "--output", tmp_path / "out.conll")
    assert done.code == 0, done.err
    first, second = (tmp_path / "out.conll").read_text().splitlines()[:2]
    assert first == "# columns: tokens id lemma upos xpos feats head deprel deps misc ner"
    assert second.split("\t")[:4] == ["anna", "1", "Anna", "PROPN"]


def test_a_line_of_conll_u_without_a_number_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.conllu").write_bytes(UD.replace(b"2\tis", b"x\tis"))
    done = run(tmp_path / "in.conllu", "--tasks", "ner")
    assert f'error: {tmp_path}/in.conllu:4: column 1: found "x" → a word\'s number, as 3, 3-4 or 5.1' in done.err


def test_a_conllu_file_of_two_columns_is_conll(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.conllu").write_bytes(b"anna\tO\nis\tO\n")
    assert [row["tokens"] for row in run(tmp_path / "in.conllu", "--tasks", "ner").rows] == [["anna", "is"]]


# JSON arrays


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('[{"text": "a"}, {"text": "b"}]', [("1", {"text": "a"}), ("1", {"text": "b"})]),
        ('\n[\n {\n  "text": "a"\n },\n "b"\n]\n\n', [("3", {"text": "a"}), ("6", {"text": "b"})]),
        ('[["a", "b"]]', [("1", {"tokens": ["a", "b"]})]),
        ("[]", []),
        ("", []),
        ("\n", []),
        ('{"text": "a"}\n\n"b"\n', [("1", {"text": "a"}), ("3", {"text": "b"})]),
        ('["a", "b"]\n["c"]\n', [("1", {"tokens": ["a", "b"]}), ("2", {"tokens": ["c"]})]),
    ],
)
def test_a_json_file_is_an_array_or_a_row_a_line(content: str, found: list[tuple[str, Any]]) -> None:
    items = read_items(io.BytesIO(content.encode()), "x.json", "auto")
    assert [(item.where.removeprefix("x.json:"), item.fields) for item in items] == found


@pytest.mark.parametrize(
    ("content", "read", "told"),
    [
        ('["a",\n"b" "c"]', 2, ":2: not valid JSON: no comma between two rows, or no ] at the end (column 5)"),
        ('["a",\n{"b" 1}]', 1, ":2: not valid JSON: Expecting ':' delimiter (column 6)"),
        ('["a",\n]', 1, ":2: not valid JSON: a comma before the end (column 1)"),
        ('[\n"a"\n]\n"b"\n', 1, ":4: not valid JSON: more stands behind the array (column 1)"),
        ('["a",\n{"text": NaN}]', 1, ":2: not valid JSON: NaN is no JSON value (column 1)"),
        ('["a",\n3]', 1, ":2: found a int"),
        ('["a",\n{"text": "b\\ud800"}]', 1, ":2: text: not valid Unicode (a lone surrogate at character 2)"),
        ("[", 0, ":1: not valid JSON: Expecting value (column 2)"),
    ],
)
def test_a_faulty_array_names_the_line(content: str, read: int, told: str) -> None:
    items = read_items(io.BytesIO(content.encode()), "x.json", "auto")
    assert len([next(items) for _ in range(read)]) == read
    with pytest.raises(UserError) as caught:
        next(items)
    assert str(caught.value).startswith(f"x.json{told}")


# Real pipes


def test_a_slow_pipe_is_answered_batch_by_batch(checkpoint: str) -> None:
    command = [*PROGRAM, checkpoint, "-", "--batch", "2", "--tasks", "sent"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    for start in (0, 2):
        process.stdin.write(f"text {start}\ntext {start + 1}\n".encode())
        process.stdin.flush()
        found = [json.loads(process.stdout.readline())["text"] for _ in range(2)]
        assert found == [f"text {start}", f"text {start + 1}"], "answered while the pipe is open"
    process.stdin.write(b"text 4\n")
    out, err = process.communicate(timeout=60)
    assert [json.loads(line)["text"] for line in out.decode().splitlines()] == ["text 4"]
    assert (process.returncode, err.count(b"\n")) == (0, 1), err
    assert err.startswith(b"stdin: read as plain text, one text a line, by its first line")


def test_piped_jsonl_is_recognised_and_written_as_utf_8(checkpoint: str) -> None:
    text = json.dumps({"id": 1, "text": "café 🙂"}, ensure_ascii=False).encode()
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [*PROGRAM, checkpoint, "--tasks", "sent"]
    done = subprocess.run(command, input=text, capture_output=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0
    assert json.loads(done.stdout.decode())["text"] == "café 🙂"


def test_a_reader_that_leaves_ends_it_quietly(checkpoint: str, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("the food was good\n" * 6000)
    command = [*PROGRAM, checkpoint, str(tmp_path / "in.txt"), "--tasks", "sent", "--batch", "256"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["text"] == "the food was good"
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), err) == (0, b"")


# Precision and several processes


def test_precision_and_path_are_told(run: Run) -> None:
    found = run("--text", "anna is in london", "--precision", "bf16", "--verbose")
    assert found.code == 0
    assert "path: bfloat16 weights, padding-free" in found.err
    refused = run("--text", "a", "--precision", "int8")
    assert refused.code == 2
    assert "--format onnx --int8" in refused.err
    assert run("--text", "a", "--precision", "half").code == 2


@pytest.mark.slow
def test_several_processes_write_what_one_writes(checkpoint: str, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    words = "anna is in london and bob was at acme corp".split()
    source.write_text("".join(" ".join(words[: 1 + i % 9]) + "\n" for i in range(2100)))
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29631"]
    written = {}
    for name, command in {
        "one": PROGRAM,
        "two": PROGRAM,
        "launched": [*launcher, "-m", "mtl_nlp", "predict"],
    }.items():
        target = tmp_path / f"{name}.jsonl"
        more = ["--processes", "2"] if name == "two" else []
        args = [checkpoint, str(source), "--tasks", "sent,ner", "--device", "cpu", "--output", str(target), *more]
        done = subprocess.run([*command, *args], env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        written[name] = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert len(written["one"]) == 2100
    for name in ("two", "launched"):
        assert [row["text"] for row in written[name]] == [row["text"] for row in written["one"]]
        for one, other in zip(written["one"], written[name], strict=True):
            assert one["predictions"]["sent"]["label"] == other["predictions"]["sent"]["label"]
            assert one["predictions"]["ner"].keys() == other["predictions"]["ner"].keys()
    refused = subprocess.run(
        [*launcher, "-m", "mtl_nlp", "predict", checkpoint, "--text", "a"], env=env, capture_output=True, text=True
    )
    assert "every process has to read the input" in refused.stderr
