"""Faults of a recipe's keys get the line that the key stands on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..errors import FaultyInput
from ..recipe import Recipe


def place(recipe: Recipe, key: str) -> str:
    """`file:line` of a dotted key; digits are places in a list."""
    return recipe.place_of(*(int(part) if part.isdigit() else part for part in key.split(".")))


@contextmanager
def placed(recipe: Recipe) -> Iterator[None]:
    """Faults that are raised within and do not say where get the place of their key.

    Raises:
        FaultyInput: the same faults, placed.
    """
    try:
        yield
    except FaultyInput as error:
        raise FaultyInput(replace(one, where=one.where or place(recipe, one.key)) for one in error.faults) from error
