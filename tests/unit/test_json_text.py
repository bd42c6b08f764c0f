"""What JSON may not hold: halves of surrogate pairs and NaN, on the way to training and to prediction."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.data.json_text import escaped_surrogate, no_unicode, strict_json, surrogate_place
from mtl_nlp.data.readers import read_files, read_memory
from mtl_nlp.data.sources import read_corpora
from mtl_nlp.errors import FaultyInput
from mtl_nlp.inference.formats import read_items
from mtl_nlp.inference.knowledge import read_knowledge
from mtl_nlp.recipe import make_recipe

BAD = b'{"text": "ok", "label": "a"}\n{"text": "bad \\ud800 x", "label": "b"}\n'


def told(call: Any, *args: Any) -> str:
    with pytest.raises(FaultyInput) as caught:
        call(*args)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [("", None), ("plain", None), ("\N{GRINNING FACE} é", None), ("\ud800", 1), ("é\udfff", 2), ("bad \ud800 x", 5)],
)
def test_the_first_half_of_a_pair_is_placed(text: str, place: int | None) -> None:
    assert surrogate_place(text) == place


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"text": "a", "n": [1, None, {"b": "c"}]}, None),
        ({"id": 1, "text": "a\ud800"}, "F:1: text: not valid Unicode (a lone surrogate at character 2)"),
        ({"tokens": ["a", "\udc00"]}, "F:1: tokens: not valid Unicode (a lone surrogate at character 1)"),
        ({"meta": {"by": "\udc00"}}, "F:1: meta: not valid Unicode (a lone surrogate at character 1)"),
        (["\udc00"], "F:1: not valid Unicode (a lone surrogate at character 1)"),
        ({"a\udc00": 1}, "F:1: a field's name is not valid Unicode (a lone surrogate at character 2)"),
    ],
)
def test_the_field_is_named(value: Any, said: str | None) -> None:
    found = no_unicode(value, "F:1")
    assert (None if found is None else str(found)) == said


@pytest.mark.parametrize(
    ("line", "lone"),
    [
        (rb'{"a": "\ud83d\ude00"}', False),
        (rb'{"a": "\uD83D\uDE00"}', False),
        (rb'{"a": "\\ud800"}', False),
        (rb'{"a": "\u00e9"}', False),
        (rb'{"a": "\ud800"}', True),
        (rb'{"a": "\\\ud800"}', True),
        (rb'{"a": "\ude00\ud83d"}', True),
        (rb'{"a": "\ud83d\ud83d\ude00"}', True),
        (rb'{"a": "\uD83Dx"},', True),
    ],
)
def test_escapes_are_told_apart(line: bytes, lone: bool) -> None:
    assert (escaped_surrogate(line, "F:1") is not None) == lone


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_no_json(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is no JSON value"):
        strict_json(f'{{"a": [{name}]}}')


# To prediction


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (r'{"text": "bad \ud800 x"}', "F:2: text: not valid Unicode (a lone surrogate at character 5)"),
        (r'{"id": "\ud800", "text": "a"}', "F:2: id: not valid Unicode (a lone surrogate at character 1)"),
        (r'"\udc00"', "F:2: not valid Unicode (a lone surrogate at character 1)"),
        ('{"text": NaN}', "F:2: not valid JSON: NaN is no JSON value → one object a line"),
        ('{"text": "a", "n": [-Infinity]}', "F:2: not valid JSON: -Infinity is no JSON value → one object a line"),
    ],
)
def test_rows_before_it_are_read(line: str, said: str) -> None:
    rows = read_items(io.BytesIO(f'{{"text": "\\ud83d\\ude00"}}\n{line}\n'.encode()), "F", "jsonl")
    assert next(rows).fields == {"text": "\N{GRINNING FACE}"}
    assert told(next, rows) == said


def test_a_knowledge_base_names_its_entry() -> None:
    said = told(read_knowledge, [{"answer": "a"}, {"answer": "b\ud800"}])
    assert said == "knowledge, entry 2: not valid Unicode (a lone surrogate at character 2)"


# To training


def test_a_file_to_train_on_names_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(BAD)
    assert told(read_files, [path]) == f"{path}:2: text: not valid Unicode (a lone surrogate at character 5)"


def test_an_array_to_train_on_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(b'[\n{"text": "ok"},\n{"text": "bad \\ud800 x"},\n{"text": "ok"}]\n')
    assert told(read_files, [path]) == f"{path}:3: not valid Unicode (a lone surrogate, \\ud800)"


def test_a_stream_to_train_on_names_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(BAD)
    data = {"source": "bad.jsonl", "columns": {"text": "text", "label": "label"}, "streaming": True, "rows": 2}
    recipe = make_recipe({"tasks": [{"name": "mine", "head": "sequence_classification", "data": data}]}, base=tmp_path)
    assert told(read_corpora, recipe) == f"{path}:2: text: not valid Unicode (a lone surrogate at character 5)"


def test_rows_in_memory_name_row_and_field() -> None:
    said = told(read_memory, [{"text": "a"}, {"text": "b\ud800"}], "mine")
    assert said == "mine, row 2: text: not valid Unicode (a lone surrogate at character 2)"
