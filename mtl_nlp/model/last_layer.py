"""The last layer for those tokens alone that a head reads.

A head on a text's first token needs one output of the last layer: all keys and values, but one query, one projection and one
feed-forward pass. So the layer is run twice: on all tokens up to attention, which answers and breaks it off, and on the wanted
tokens, for which attention hands out those answers and the projections before it are left out. What an architecture does before
attention (rotary positions, norms) and behind it remains its own code; whether the outcome is the same is tried when the encoder is
loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .trial import calls_of

# Of the real tokens; when more are wanted the layer is run as ever. A step of MiniLM with two classification tasks took 5 to 7 %
# less time in bf16 and 9 % in float32; one that wanted 70 % of the tokens took as long.
MOST = 0.5


class _BrokenOff(Exception):
    """Attention has answered; the rest of the layer is for the wanted tokens."""


class Answers:
    """What attention gives in the two runs of a layer.

    Args:
        wanted: [n] places among the N tokens.
    """

    def __init__(self, wanted: Tensor) -> None:
        self.wanted = wanted
        self.found: Tensor | None = None

    def of(self, attend: Callable[[], Tensor]) -> Tensor:
        """[1, n, h, d], in the second run; in the first, `attend` gives those of all tokens, [1, N, h, d].

        Raises:
            _BrokenOff: in the first run.
        """
        if self.found is None:
            self.found = attend().index_select(1, self.wanted)
            raise _BrokenOff
        return self.found


class LastLayer:
    """A layer that can be cut to some of its tokens.

    Args:
        layer: the module; called once in a pass, with the hidden states [1, N, H] first.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self._projections: list[nn.Module] | None = None  # linear layers before attention, once it has been run

    @contextmanager
    def cut_to(self, wanted: Tensor, use: Callable[[Answers | None], Any]) -> Iterator[None]:
        """The layer takes all tokens and returns the wanted ones, [1, n, H].

        Args:
            wanted: [n] their places.
            use: makes attention go by the answers; None: as ever.
        """
        whole = self.layer.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            states = args[0] if args else kwargs["hidden_states"]
            use(Answers(wanted))
            try:
                self._until_attention(whole, args, kwargs)
                cut = _cut((args, kwargs), wanted, states.shape[1])
                with _instead(self._projections or (), _nothing):
                    return whole(*cut[0], **cut[1])
            finally:
                use(None)

        with _instead([self.layer], lambda layer: forward):
            yield

    def _until_attention(self, whole: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        linear = () if self._projections is not None else [m for m in self.layer.modules() if isinstance(m, nn.Linear)]
        with calls_of(linear) as called:
            try:
                whole(*args, **kwargs)
            except _BrokenOff:
                self._projections = called if self._projections is None else self._projections
                return
        raise RuntimeError(f"{type(self.layer).__name__} has not asked for attention")


@contextmanager
def _instead(modules: Sequence[Any], make: Callable[[Any], Callable[..., Any]]) -> Iterator[None]:
    """Another forward pass for some modules."""
    before = [vars(module).get("forward") for module in modules]
    for module in modules:
        module.forward = make(module)
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            del module.forward
            if own is not None:
                module.forward = own


def _nothing(linear: Any) -> Callable[[Tensor], Tensor]:
    return lambda states: states.new_zeros(*states.shape[:-1], linear.out_features)


def _cut(given: Any, wanted: Tensor, count: int) -> Any:
    """What a layer is given for all tokens, [1, N, …], for the wanted ones."""
    if isinstance(given, Tensor):
        return given.index_select(1, wanted) if given.dim() > 1 and given.shape[:2] == (1, count) else given
    if isinstance(given, tuple | list):
        return type(given)(_cut(part, wanted, count) for part in given)
    if isinstance(given, dict):
        return {name: _cut(part, wanted, count) for name, part in given.items()}
    return given
