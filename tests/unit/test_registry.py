"""The table of names: what is found, when it is imported, what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mtl_nlp.errors import UserError
from mtl_nlp.kinds import ANNOTATIONS, HEADS, INPUT_COLUMNS, HeadKind, head_kind
from mtl_nlp.registry import Registry, resolve


def test_a_module_is_imported_when_its_name_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazy_part.py").write_text("THING = object()\n")
    monkeypatch.syspath_prepend(tmp_path)
    table = Registry("thing", builtin={"lazy": "lazy_part:THING"})
    assert table.names() == ["lazy"]
    assert "lazy" in table
    assert "lazy_part" not in sys.modules
    assert table.get("lazy") is table.get("lazy")
    assert sys.modules["lazy_part"].THING is table.get("lazy")


def test_the_decorator_hands_back_what_it_enters() -> None:
    table = Registry("thing")

    @table.register("mine")
    def mine() -> int:
        return 3

    assert table.get("mine") is mine
    assert mine() == 3


def test_a_name_is_entered_once() -> None:
    table = Registry("thing", builtin={"a": "json:loads"})
    with pytest.raises(UserError, match='thing "a" is registered already; choose another name'):
        table.add("a", 1)
    table.add("b", 1)
    table.add("b", 1)
    with pytest.raises(UserError, match="registered already"):
        table.add("b", 2)
    assert table.get("b") == 1


def test_an_unknown_name_is_told_the_known_ones() -> None:
    table = Registry("sampler", builtin={"uniform": "json:loads", "temperature": "json:loads"})
    table.add("mine", 1)
    with pytest.raises(UserError) as caught:
        table.get("temprature")
    assert str(caught.value) == (
        'no sampler "temprature". Did you mean "temperature"? Known: temperature, uniform; your own: mine'
    )


@pytest.mark.parametrize("path", ["no_such_module:x", "json:no_such_name", "json"])
def test_what_cannot_be_imported_is_a_users_error(path: str) -> None:
    with pytest.raises(UserError, match="is its package installed"):
        resolve(path)


def test_every_kind_is_whole() -> None:
    assert HEADS.names() == sorted(HEADS.names())
    for name in HEADS.names():
        kind = head_kind(name)
        assert isinstance(kind, HeadKind)
        assert kind.name == name
        assert kind.annotation in ANNOTATIONS
        assert kind.input in INPUT_COLUMNS
        assert kind.description


def test_default_metrics_are_the_annotations_unless_the_kind_has_its_own() -> None:
    assert head_kind("sequence_classification").default_metrics == ("accuracy", "f1_macro")
    assert head_kind("masked_language_modeling").default_metrics == ()
    own = HeadKind("mine", "label", "m:a", metrics=("matthews_correlation",))
    assert own.default_metrics == ("matthews_correlation",)
    assert own.form is ANNOTATIONS["label"]
