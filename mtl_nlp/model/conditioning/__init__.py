"""A shared encoder that is told which task a row is for.

A row of a conditioned encoder is a (text, task) pair: the texts of a batch are laid out task by task, pass through the encoder
together, and each task's condition acts on its own rows. So M tasks of a text cost M rows.
"""

from __future__ import annotations

from .conditions import Conditioning, Encoded
from .fit import agrees_without_padding, condition
from .folding import fold, why_not_folded

__all__ = ["Conditioning", "Encoded", "agrees_without_padding", "condition", "fold", "why_not_folded"]
