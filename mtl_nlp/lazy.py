"""What `import mtl_nlp` makes known to transformers, at the moment when transformers needs it.

`AutoConfig` and `pipeline` have to know this package's classes, but importing those takes seconds. So a finder waits for the
modules of transformers that keep the tables and has ours imported right after them; those that are loaded already are served
at once.
(`AutoModel` learns of the model class when a `MultiTaskConfig` is made, which it does first.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

# A module of transformers → the module of ours that registers with it when it is imported.
AFTER = {
    "transformers.models.auto.configuration_auto": "mtl_nlp.model.config",
    "transformers.pipelines": "mtl_nlp.inference.pipeline",
}


class _AfterLoader(Loader):
    """Loads a module as its own loader does, then imports ours."""

    def __init__(self, loader: Loader, then: str) -> None:
        self.loader, self.then = loader, then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the module's own loader; then the module that registers."""
        self.loader.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        import_module(self.then)


class _AfterFinder(MetaPathFinder):
    """Finds the modules of `AFTER`, each once."""

    def __init__(self) -> None:
        self.waiting = dict(AFTER)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec with our loader around its own; None for every other module."""
        then = self.waiting.pop(fullname, None)
        if then is None:
            return None
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _AfterLoader(spec.loader, then)
        return spec


def watch() -> None:
    """Have our classes registered when transformers is ready for them; now, where it is already."""
    if any(isinstance(finder, _AfterFinder) for finder in sys.meta_path):
        return
    finder = _AfterFinder()
    sys.meta_path.insert(0, finder)
    for name in AFTER:
        if name in sys.modules:
            del finder.waiting[name]
            import_module(AFTER[name])
