"""Everything between annotations and tag ids, in plain Python (decoding alone imports numpy, when it runs).

* `names`: the ordered label set of a task.
* `schemes`: tag schemes (IOB1, IOB2, BIOES, none) and their conversion.
* `spans`: character spans ↔ word tags, entity records, bracketed annotation.
* `decoding`: the transitions that a scheme allows and exact decoding under them.
"""

from __future__ import annotations

from mtl_nlp.labels.chain import Chain, best_scores, best_tags, tag_probabilities
from mtl_nlp.labels.decoding import transition_mask, viterbi
from mtl_nlp.labels.names import LabelSet, choice_names
from mtl_nlp.labels.schemes import (
    OUTSIDE,
    SCHEMES,
    TagError,
    chunks,
    from_iob2,
    tag_names,
    to_iob2,
    types_in,
    types_in_order,
)
from mtl_nlp.labels.spans import (
    Entity,
    Span,
    SpanProblem,
    entities,
    parse_bracketed,
    spans_to_tags,
    tags_to_spans,
    text_words,
    whitespace_words,
)

__all__ = [
    "OUTSIDE",
    "SCHEMES",
    "Chain",
    "Entity",
    "LabelSet",
    "Span",
    "SpanProblem",
    "TagError",
    "best_scores",
    "best_tags",
    "choice_names",
    "chunks",
    "entities",
    "from_iob2",
    "parse_bracketed",
    "spans_to_tags",
    "tag_names",
    "tag_probabilities",
    "tags_to_spans",
    "text_words",
    "to_iob2",
    "transition_mask",
    "types_in",
    "types_in_order",
    "viterbi",
    "whitespace_words",
]
