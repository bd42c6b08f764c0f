"""A method's name and its settings, as a recipe writes them: `dwa`, or `{name: dwa, temperature: 1.0}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ..errors import Faults, FaultyInput, fault
from ..schema import Source, Strict, validate

S = TypeVar("S", bound=Strict)

Written = str | Mapping[str, Any]


class NoSettings(Strict):
    """A method without settings."""


def method_name(written: Written, key: str = "balancing") -> str:
    """The name in `NAME` or `{name: NAME, …}`.

    Raises:
        FaultyInput: a mapping without a name.
    """
    if isinstance(written, str):
        return written
    if not isinstance(written.get("name"), str):
        raise fault("no `name`", key=key, allowed="a method's name, or {name: NAME, its settings}")
    return str(written["name"])


def method_settings(model: type[S], written: Written, key: str) -> S:
    """The settings beside the name.

    Raises:
        FaultyInput: unknown or ill-typed settings, under the recipe's key.
    """
    given = {} if isinstance(written, str) else {k: v for k, v in written.items() if k != "name"}
    try:
        return validate(model, given, Source())
    except FaultyInput as error:
        faults = Faults()
        for one in error.faults:
            inner = f"{key}.{one.key}" if one.key else key
            faults.add(one.found, key=inner, allowed=one.allowed, cure=one.cure)
        raise FaultyInput(faults) from error
