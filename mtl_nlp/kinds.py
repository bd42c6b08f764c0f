"""Head kinds, the half that needs no torch: what a kind asks of the data and how it is scored.

A `HeadKind` names its annotation (the form of a label, see `ANNOTATIONS`), its default metrics and where its torch half lives
(`module:attribute`, imported when a model is built). The registry `HEADS` knows the ones that ship, those that packages announce
as entry points of the group `mtl_nlp.heads`, and those registered with `register_head`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from .errors import UserError, listed
from .registry import Registry, resolve

Annotation = Literal["label", "labels", "value", "tags", "answer", "choice", "relevance", "match", "none"]
Input = Literal["text", "question", "choices", "candidates", "passages"]


@dataclass(frozen=True)
class AnnotationForm:
    """The form of one text's annotation.

    Attributes:
        columns: alternatives; each a set of column roles of which all are needed.
        has_labels: whether a label list belongs to it.
        metrics: default metrics, the first is the primary one.
    """

    columns: tuple[frozenset[str], ...]
    has_labels: bool
    metrics: tuple[str, ...]


ANNOTATIONS: dict[str, AnnotationForm] = {
    "label": AnnotationForm((frozenset({"label"}),), True, ("accuracy", "f1_macro")),
    "labels": AnnotationForm((frozenset({"labels"}),), True, ("f1_macro", "f1_micro", "subset_accuracy")),
    "value": AnnotationForm((frozenset({"label"}),), False, ("pearson", "spearman")),
    "tags": AnnotationForm(
        (frozenset({"labels"}), frozenset({"spans"}), frozenset({"bracketed"})),
        True,
        ("span_f1", "span_precision", "span_recall"),
    ),
    "answer": AnnotationForm((frozenset({"answers"}),), False, ("qa_f1", "exact_match")),
    "choice": AnnotationForm((frozenset({"label"}),), False, ("accuracy",)),
    "relevance": AnnotationForm((frozenset({"relevance"}),), False, ("ndcg", "mrr", "map")),
    "match": AnnotationForm((frozenset({"positive"}),), False, ("mrr@10", "recall@1", "recall@5", "ndcg@10")),
    "none": AnnotationForm((frozenset(),), False, ()),
}

INPUT_COLUMNS: dict[str, tuple[frozenset[str], ...]] = {
    "text": (frozenset({"text"}), frozenset({"tokens"}), frozenset({"bracketed"})),
    "question": (frozenset({"question", "context"}),),
    "choices": (frozenset({"context", "choices"}), frozenset({"context", "choice_columns"})),
    "candidates": (frozenset({"query", "candidates"}), frozenset({"query", "candidate"})),
    "passages": (frozenset({"query", "positive"}),),
}


@dataclass(frozen=True)
class HeadKind:
    """One kind of head.

    Attributes:
        name: as a task file writes it under `head`.
        annotation: the form of its annotations, a key of `ANNOTATIONS`.
        module: its torch half, a subclass of `mtl_nlp.model.heads.Head` or `"module:attribute"`.
        input: what it reads: a `text` (or pair, or words), a `question` with its context, `choices`, a query's
            `candidates`, or a query and the `passages` that answer it or do not.
        description: one line for `tasks list` and messages.
        own_rows: it changes its input (masked LM), so it cannot share a corpus' rows.
        metrics: default metrics where they are not the annotation's.
        loss_options: keys of a task's `loss` that the head heeds, beside `weight`.
        chain: tags depend on their neighbours: scores begin with transitions (`mtl_nlp.model.crf`), a text's rows are joined.
    """

    name: str
    annotation: Annotation
    module: Any
    input: Input = "text"
    description: str = ""
    own_rows: bool = False
    metrics: tuple[str, ...] = ()
    loss_options: tuple[str, ...] = ()
    chain: bool = False

    @property
    def form(self) -> AnnotationForm:
        """The annotation's form."""
        return ANNOTATIONS[self.annotation]

    @property
    def default_metrics(self) -> tuple[str, ...]:
        """Metrics when the task names none; empty for an auxiliary kind."""
        return self.metrics or self.form.metrics

    def torch_half(self) -> Any:
        """The `Head` class (imports torch)."""
        return resolve(self.module) if isinstance(self.module, str) else self.module


_HEADS = "mtl_nlp.model.heads"

_CLASSES = ("class_weights", "focal", "smoothing")

SEQUENCE_CLASSIFICATION = HeadKind(
    "sequence_classification",
    "label",
    f"{_HEADS}:SequenceClassification",
    description="one label a text or pair",
    loss_options=_CLASSES,
)
MULTI_LABEL_CLASSIFICATION = HeadKind(
    "multi_label_classification",
    "labels",
    f"{_HEADS}:MultiLabelClassification",
    description="any number of labels",
    loss_options=("pos_weight", "focal", "smoothing"),
)
REGRESSION = HeadKind("regression", "value", f"{_HEADS}:Regression", description="one number a text or pair")
TOKEN_CLASSIFICATION = HeadKind(
    "token_classification",
    "tags",
    f"{_HEADS}:TokenClassification",
    description="one tag a word: entities, slots",
    loss_options=_CLASSES,
)
TOKEN_CLASSIFICATION_CRF = HeadKind(
    "token_classification_crf",
    "tags",
    "mtl_nlp.model.crf:TokenClassificationCRF",
    description="one tag a word, with learned transitions between neighbours",
    chain=True,
)
QUESTION_ANSWERING = HeadKind(
    "question_answering",
    "answer",
    f"{_HEADS}:QuestionAnswering",
    input="question",
    description="a span of the context that answers the question",
)
MULTIPLE_CHOICE = HeadKind(
    "multiple_choice", "choice", f"{_HEADS}:MultipleChoice", input="choices", description="one of several endings"
)
RANKING = HeadKind(
    "ranking",
    "relevance",
    "mtl_nlp.model.ranking:Ranking",
    input="candidates",
    description="an order of the candidates of a query",
    loss_options=("objective",),
)
RETRIEVAL = HeadKind(
    "retrieval",
    "match",
    "mtl_nlp.model.retrieval:Retrieval",
    input="passages",
    description="the passage of a knowledge base that answers a query",
    loss_options=("scale", "symmetric"),
)
MASKED_LANGUAGE_MODELING = HeadKind(
    "masked_language_modeling",
    "none",
    f"{_HEADS}:MaskedLanguageModeling",
    own_rows=True,
    description="auxiliary: predict masked tokens of unlabelled text",
)

_BUILTIN = (
    SEQUENCE_CLASSIFICATION,
    MULTI_LABEL_CLASSIFICATION,
    REGRESSION,
    TOKEN_CLASSIFICATION,
    TOKEN_CLASSIFICATION_CRF,
    QUESTION_ANSWERING,
    MULTIPLE_CHOICE,
    RANKING,
    RETRIEVAL,
    MASKED_LANGUAGE_MODELING,
)

HEADS = Registry("head", "mtl_nlp.heads", {kind.name: f"{__name__}:{kind.name.upper()}" for kind in _BUILTIN})

C = TypeVar("C", bound=type)


def head_kind(name: str) -> HeadKind:
    """The kind called `name`.

    Raises:
        UserError: unknown, or its entry point holds something else.
    """
    kind = HEADS.get(name)
    if not isinstance(kind, HeadKind):
        raise UserError(f'head "{name}" has to be a mtl_nlp.HeadKind, not a {type(kind).__name__}')
    return kind


def register_head(
    name: str,
    *,
    annotation: Annotation,
    input: Input = "text",
    metrics: tuple[str, ...] = (),
    description: str = "",
    loss_options: tuple[str, ...] = (),
) -> Callable[[C], C]:
    """Decorator: register a torch `Head` class as the kind `name`; the arguments are those of `HeadKind`.

    Raises:
        UserError: the name is taken or the annotation unknown.
    """
    if annotation not in ANNOTATIONS:
        raise UserError(f'annotation "{annotation}" is unknown; allowed: {listed(ANNOTATIONS)}')

    def enter(cls: C) -> C:
        kind = HeadKind(name, annotation, cls, input, description, metrics=metrics, loss_options=loss_options)
        HEADS.add(name, kind)
        return cls

    return enter
