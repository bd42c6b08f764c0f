"""Names to code: head kinds, sampling strategies and what users add.

A `Registry` maps a name to an object or to `"module:attribute"`, which is imported when it is first asked for; so a recipe is
checked without importing torch. Users add names with the decorator or with an entry point of the registry's group.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from .errors import UserError, closest, listed

T = TypeVar("T")


class Registry:
    """A table of names.

    Args:
        kind: what the names stand for, used in messages (`"head"`).
        group: the entry-point group in which packages announce names of their own (`"mtl_nlp.heads"`).
        builtin: names that ship, each `"module:attribute"`.
    """

    def __init__(self, kind: str, group: str | None = None, builtin: dict[str, str] | None = None) -> None:
        self.kind = kind
        self.group = group
        self._builtin = frozenset(builtin or ())
        self._entries: dict[str, Any] = dict(builtin or {})
        self._plugins_read = group is None
        self._loading: set[str] = set()

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: enter an object under `name`; a name that is taken is refused."""

        def enter(item: T) -> T:
            self.add(name, item)
            return item

        return enter

    def add(self, name: str, item: object) -> None:
        """Enter an object or a `"module:attribute"` under `name`.

        Raises:
            UserError: the name is taken by something else.
        """
        # The module behind an entry point may enter its object by the decorator while it is imported.
        if name in self._entries and self._entries[name] is not item and name not in self._loading:
            raise UserError(f'{self.kind} "{name}" is registered already; choose another name')
        self._entries[name] = item

    def get(self, name: str) -> Any:
        """The object behind a name, imported if need be.

        Raises:
            UserError: no such name; the message lists the known ones and the nearest.
        """
        if name not in self._entries:
            self._read_plugins()
        if name not in self._entries:
            own = [n for n in self.names() if n not in self._builtin]
            yours = f"; your own: {listed(own)}" if own else ""
            known = sorted(self._builtin) if self._builtin else self.names()
            raise UserError(f'no {self.kind} "{name}".{closest(name, self.names())} Known: {listed(known, 40)}{yours}')
        entry = self._entries[name]
        return self._loaded(name, entry) if isinstance(entry, str) else entry

    def _loaded(self, name: str, path: str) -> Any:
        self._loading.add(name)
        try:
            found = resolve(path)
        finally:
            self._loading.discard(name)
        if self._entries[name] == path:
            self._entries[name] = found
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, sorted, those of installed packages included."""
        self._read_plugins()
        return sorted(self._entries)

    def builtin(self) -> list[str]:
        """The names that ship, sorted."""
        return sorted(self._builtin)

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        self._plugins_read = True
        for point in entry_points(group=self.group or ""):
            known = self._entries.get(point.name, point.value)
            if point.name in self._builtin or (isinstance(known, str) and known != point.value):
                raise UserError(
                    f'{self.kind} "{point.name}" of the installed package {point.dist.name if point.dist else point.value} '
                    f"is registered already; rename it there, or remove the package"
                )
            # What was registered in this process, perhaps by the very module that the entry point names, stays.
            self._entries.setdefault(point.name, point.value)


def resolve(path: str) -> Any:
    """The object that `"module:attribute"` names.

    Raises:
        UserError: the module or the attribute does not exist.
    """
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f'cannot load "{path}": {error}; is its package installed?') from error
