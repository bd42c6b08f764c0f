"""YAML 1.2 with line numbers, and validation that names every fault at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from mtl_nlp.errors import Faults, FaultyInput, fault
from mtl_nlp.schema import (
    Source,
    Strict,
    dotted,
    dump_yaml,
    known_keys,
    merged,
    parse_value,
    parse_yaml,
    read_yaml,
    set_key,
    validate,
)


class Inner(Strict):
    """Two keys."""

    size: int = 1
    mode: Literal["one", "two"] = "one"


class Outer(Strict):
    """A key of every sort."""

    name: str
    rate: float = 0.1
    inner: Inner = Field(default_factory=Inner)
    either: str | Inner = "x"
    names: str | list[str] = "x"
    items: list[Inner] = Field(default_factory=list)


def load(text: str) -> Any:
    return parse_yaml(text, "f.yaml")[0]


def told(text: str, model: type[Strict] = Outer) -> list[str]:
    data, source = parse_yaml(text, "f.yaml")
    with pytest.raises(FaultyInput) as caught:
        validate(model, data, source)
    return [str(item) for item in caught.value.faults]


def refused(text: str) -> str:
    with pytest.raises(FaultyInput) as caught:
        parse_yaml(text, "f.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    "word", ["no", "yes", "on", "off", "No", "YES", "y", "n", "12:30:45", "2024-01-31", "1e", "0b1_x"]
)
def test_words_that_yaml_1_1_takes_for_something_else_stay_strings(word: str) -> None:
    assert load(f"a: {word}\nb: [{word}]\n") == {"a": word, "b": [word]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("1.0e-4", 1e-4),
        ("3", 3),
        ("-1", -1),
        (".5", 0.5),
        ("true", True),
        ("false", False),
        ("null", None),
    ],
)
def test_numbers_truth_and_nothing(text: str, value: Any) -> None:
    found = load(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_quotes_make_a_string_and_scalars_are_plain_python() -> None:
    data = load("a: \"0\"\nb: '5e-5'\nc: 1.50\nd: |\n  two\n  lines\n")
    assert data == {"a": "0", "b": "5e-5", "c": 1.5, "d": "two\nlines\n"}
    assert {type(value) for value in data.values()} == {str, float}


def test_lines_of_keys_and_entries() -> None:
    _, source = parse_yaml("# title\na: 1\nb:\n  c: 2\n  d:\n    - x\n    - y: 3\n", "f.yaml")
    where = {("a",): 2, ("b",): 3, ("b", "c"): 4, ("b", "d"): 5, ("b", "d", 0): 6, ("b", "d", 1, "y"): 7}
    assert {key: source.where(key) for key in where} == {key: f"f.yaml:{line}" for key, line in where.items()}
    assert source.where(("b", "c", "no", "such")) == "f.yaml:4"
    assert source.below("b").where(("d", 1)) == "f.yaml:7"
    assert Source("f.yaml").where(("a",)) == "f.yaml"


def test_anchors_and_merges() -> None:
    assert load("x: &x {a: 1}\ny: {<<: *x, b: 2}\n") == {"x": {"a": 1}, "y": {"a": 1, "b": 2}}


def test_a_key_given_twice_is_refused_with_its_line() -> None:
    message = refused("a: 1\nb: 2\na: 3\n")
    assert message.startswith("f.yaml:3: not valid YAML: ")
    assert 'duplicate key "a"' in message


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        ("a: [1\nb: 2\n", "f.yaml:2: not valid YAML"),
        ("a:\n\t- b\n", "f.yaml:2: not valid YAML"),
        ("a: 'x\n", "f.yaml:2: not valid YAML"),
        ("", "f.yaml: found an empty file → a mapping of keys"),
        ("# nothing\n", "f.yaml: found an empty file"),
        ("- a\n", "f.yaml: found a "),
        ("word\n", "f.yaml: found a "),
        ("a: *x\n", "f.yaml:1: not valid YAML"),
    ],
)
def test_what_is_no_mapping_is_refused_in_one_line(text: str, beginning: str) -> None:
    assert refused(text).startswith(beginning)
    assert "\n" not in refused(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("a: 1")
    (tmp_path / "latin.yaml").write_bytes("a: 1\nb: caf\xe9\n".encode("latin-1"))
    for name, expected in (
        ("none.yaml", "recipe not found (in that folder: latin.yaml, other.yaml)"),
        ("latin.yaml", "latin.yaml:2: byte 0xe9 is not UTF-8 (save the file as UTF-8)"),
        ("", "recipe is a folder (give the file itself)"),
    ):
        with pytest.raises(FaultyInput) as caught:
            read_yaml(tmp_path / name, "recipe")
        assert expected in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfname: a\n")
    assert read_yaml(tmp_path / "bom.yaml")[0] == {"name": "a"}


def test_all_faults_of_a_file_are_told_at_once_with_their_lines() -> None:
    text = "nam: a\nrate: fast\ninner:\n  size: 1.5\n  mode: thre\n  sise: 2\nitems:\n  - size: true\n"
    assert told(text) == [
        "f.yaml:1: name: missing → this key has to be given",
        'f.yaml:2: rate: found "fast" → a number',
        "f.yaml:4: inner.size: found 1.5 → a whole number",
        "f.yaml:5: inner.mode: found \"thre\" → 'one' or 'two'",
        'f.yaml:6: inner.sise: unknown key → size, mode (Did you mean "size"?)',
        "f.yaml:8: items.0.size: found true (a boolean) → a whole number",
        'f.yaml:1: nam: unknown key → name, rate, inner, either, names, items (Did you mean "name"?)',
    ]


def test_cures_for_quotes_that_are_missing_or_too_many() -> None:
    assert told("name: 3\nrate: '5e-5'\nnames: [a, false]\n") == [
        'f.yaml:1: name: found 3 → a string (write it in quotes: "3")',
        'f.yaml:2: rate: found "5e-5" → a number (write the number without quotes)',
        'f.yaml:3: names.1: found false (a boolean) → a string (write it in quotes: "false")',
    ]


def test_a_choice_of_types_gives_one_fault() -> None:
    assert told("name: a\neither: {sise: 2}\n") == [
        'f.yaml:2: either.sise: unknown key → size, mode (Did you mean "size"?)'
    ]
    assert told("name: a\neither: [1]\n") == ["f.yaml:2: either: found [1] → a string or a mapping"]
    assert told("name: a\nnames: {b: 1}\n") == ["f.yaml:2: names: found a mapping → a string or a list"]


def test_keys_of_a_nested_model() -> None:
    assert known_keys(Outer, ("inner",)) == ["size", "mode"]
    assert known_keys(Outer, ("items", 0)) == ["size", "mode"]
    assert known_keys(Outer, ("either",)) == ["size", "mode"]
    assert known_keys(Outer, ("no", "such")) == []


def test_mappings_merge_and_everything_else_is_replaced() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merged(base, {"a": {"c": [3]}, "e": 2}) == {"a": {"b": 1, "c": [3]}, "d": 1, "e": 2}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merged({"a": {"b": 1}}, {"a": None}) == {"a": None}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-5", 3e-5),
        ("[a, 1]", ["a", 1]),
        ("{a: 1}", {"a": 1}),
        ("no", "no"),
        ("", None),
        ("a: b", "a: b"),
        ("[a", "[a"),
    ],
)
def test_a_value_of_the_command_line(text: str, value: Any) -> None:
    assert parse_value(text) == value


def set_all(data: dict[str, Any], *assignments: str, source: Source | None = None) -> list[str]:
    faults = Faults()
    for assignment in assignments:
        set_key(data, assignment, faults, source)
    return [str(item) for item in faults]


def test_set_reaches_every_kind_of_path() -> None:
    data: dict[str, Any] = {
        "encoder": "bert",
        "tasks": ["sst2", "sub/ner.yaml", {"use": "cola", "loss": {"weight": 1}}, {"name": "own", "data": {}}],
        "training": {"a": 1},
    }
    assert (
        set_all(
            data,
            "seed=7",
            "training.a=2",
            "mixture.batch=8",
            "encoder.freeze=all",
            "tasks.sst2.loss.weight=0.5",
            "tasks.ner.data.source=x.jsonl",
            "tasks.cola.loss.weight=2",
            "tasks.own.data.splits.train=[a, b]",
            "tasks.0.auxiliary=true",
            "output_dir=a=b",
        )
        == []
    )
    assert data == {
        "seed": 7,
        "training": {"a": 2},
        "mixture": {"batch": 8},
        "encoder": {"name": "bert", "freeze": "all"},
        "tasks": [
            {"use": "sst2", "loss": {"weight": 0.5}, "auxiliary": True},
            {"use": "sub/ner.yaml", "data": {"source": "x.jsonl"}},
            {"use": "cola", "loss": {"weight": 2}},
            {"name": "own", "data": {"splits": {"train": ["a", "b"]}}},
        ],
        "output_dir": "a=b",
    }


def test_set_replaces_a_whole_entry_by_number() -> None:
    data: dict[str, Any] = {"tasks": ["sst2", "cola"]}
    assert set_all(data, "tasks.0=mrpc") == []
    assert data == {"tasks": ["mrpc", "cola"]}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("seed", '--set: found "seed" → KEY=VALUE, such as training.learning_rate=3e-5'),
        ("=3", '--set: found "=3" → KEY=VALUE, such as training.learning_rate=3e-5'),
        ("tasks.cola.loss.weight=1", '--set tasks.cola: nothing called "cola" → sst2, own'),
        ("tasks.5.auxiliary=true", '--set tasks.5: nothing called "5" → sst2, own'),
        ("tasks.7=cola", '--set tasks.7: no entry "7" → 0 … 1'),
        ("tasks.own.labels.0.x=cola", '--set tasks.own.labels.0: nothing called "0" → a, b'),
    ],
)
def test_set_says_what_it_cannot_reach(assignment: str, message: str) -> None:
    assert set_all({"tasks": ["sst2", {"name": "own", "labels": ["a", "b"]}]}, assignment) == [message]


def test_what_set_laid_over_stands_on_the_command_line() -> None:
    data, source = parse_yaml("name: a\nrate: 1.0\ninner:\n  size: 2\n", "f.yaml")
    assert set_all(data, "rate=slow", "inner.mode=three", source=source) == []
    with pytest.raises(FaultyInput) as caught:
        validate(Outer, data, source)
    assert str(caught.value).splitlines() == [
        '--set: rate: found "slow" → a number',
        "--set: inner.mode: found \"three\" → 'one' or 'two'",
    ]


@pytest.mark.parametrize(
    "value",
    ["no", "on", "5e-5", "0", "true", "null", "~", "", " a ", "a: b", "# x", "2024-01-31", "0x1", "é\u2028x", "😀",
     "two\nlines", "tab\tx", "- a", "{a}", "*x", "x" * 300, "\\n", '"', "'", "1_000", "=", "<<"],
)  # fmt: skip
def test_any_string_is_written_so_that_it_reads_back(value: str) -> None:
    assert load(dump_yaml({"a": value, "b": [value], "c": {"d": value}})) == {
        "a": value,
        "b": [value],
        "c": {"d": value},
    }


@pytest.mark.parametrize("value", [5e-5, 1e-30, 0.1, -0.0, 3, -1, True, None, [], {}, [[1], [2, {"a": None}]]])
def test_any_plain_value_reads_back_with_its_type(value: Any) -> None:
    found = load(dump_yaml({"a": value}))["a"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_written_in_their_order() -> None:
    assert list(load(dump_yaml({"b": 1, "a": {"z": 1, "y": 2}}))) == ["b", "a"]
    assert list(load(dump_yaml({"a": {"z": 1, "y": 2}}))["a"]) == ["z", "y"]


def test_a_fault_reads_where_key_found_allowed_cure() -> None:
    error = fault("found 3", where="f:1", key="a.b", allowed="a string", cure="quote it")
    assert str(error) == "f:1: a.b: found 3 → a string (quote it)"
    faults = Faults()
    faults.extend(error)
    faults.extend(error)
    faults.add("more")
    assert len(faults) == 3
    with pytest.raises(FaultyInput) as caught:
        faults.check()
    assert str(caught.value) == "f:1: a.b: found 3 → a string (quote it)\nmore"
    assert dotted(("a", 0, "b")) == "a.0.b"
