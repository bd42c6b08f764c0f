"""`Explainer`: texts in, for every decision of every task the words that made it.

    explainer = Explainer.from_pretrained("runs/assistant")
    explainer(["the staff was great"])
    # [{"text": …, "explanations": {"sentiment": [{"target": "positive", "words": [{"word": "great", "attribution": 2.1, …}], …}]}}]

A word's contribution is the sum of its tokens'; special tokens are kept in the baseline, so that they contribute nothing to
integrated gradients, and what they get by gradient × input is told as `rest`. Attributions are computed in float32, on one row at
a time without padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.windows import TextRows
from ..errors import UserError, fault, listed
from ..inference.ensemble import EnsemblePredictor
from ..inference.inputs import Item, Piece, as_item, pieces_of, rows_of
from ..inference.knowledge import KnowledgeBase
from ..inference.onnx import is_onnx
from ..inference.predictor import Predictor
from ..task import Task
from .attribution import FEWEST, METHODS, MOST, Attribution, attribute, captum_methods
from .explained_rows import EmbeddedRow, TracedEncoder, TracedRow, baseline_token, embedded_row, input_words
from .targets import Target, targets_of

EXPLANATIONS = "explanations"
GIVEN = "given"


@dataclass(frozen=True)
class Decision:
    """One decision of one task on one text, ready to be explained.

    Attributes:
        task: the task.
        target: the number that stands for the decision.
        row: what the task read.
    """

    task: Task
    target: Target
    row: EmbeddedRow


class Explainer:
    """Explains what the tasks of one checkpoint decide.

    Args:
        predictor: of a checkpoint (no ONNX graph, which has no gradients).
        method: `integrated_gradients`, `gradient_x_input` or `occlusion`.
        baseline: what stands for "no word": `mask`, `pad` or `zero`; the mask token where the tokenizer has one if absent.
        batch_size: most rows a pass.
        fewest: steps of integrated gradients to begin with; they are doubled up to `most` until the sum is right within 1 %.

    Raises:
        UserError: an unknown method or baseline, captum is missing, or the model has no gradients.
    """

    def __init__(
        self,
        predictor: Predictor,
        method: str = METHODS[0],
        baseline: str | None = None,
        *,
        batch_size: int = 32,
        fewest: int = FEWEST,
        most: int = MOST,
    ) -> None:
        if method not in METHODS:
            raise fault(f'found "{method}"', key="--method", allowed=listed(METHODS))
        if batch_size < 1 or not 1 <= fewest <= most:
            raise fault("found a size below 1, or fewest above most", key="explain", allowed="1 ≤ fewest ≤ most")
        captum_methods()
        if isinstance(predictor, EnsemblePredictor):
            # Its `model` is that of the first member alone.
            raise UserError(
                "what an ensemble decides has no gradients of one model; give a member, which explains itself"
            )
        if not hasattr(predictor.model, "encoder"):
            raise UserError(
                "an ONNX graph has no gradients to explain it by; give the checkpoint that it was made from"
            )
        self.predictor, self.method = predictor, method
        predictor.model.float()
        self.baseline, self._token = baseline_token(predictor.tokenizer, baseline)
        self.batch_size, self.fewest, self.most = batch_size, fewest, most
        self._checked: set[str] = set()

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str | None = None, *, knowledge: KnowledgeBase | None = None, **options: Any
    ) -> Explainer:
        """The explainer of a checkpoint; `options` are those of the class, `knowledge` is what retrieval tasks answer from.

        Raises:
            UserError: no checkpoint, an ONNX folder, or as the class.
        """
        captum_methods()
        if is_onnx(folder):
            raise fault(
                "an ONNX graph has no gradients to explain it by",
                where=str(folder),
                cure="give the checkpoint it is from",
            )
        return cls(Predictor.from_pretrained(folder, device, knowledge=knowledge), **options)

    def __call__(
        self, rows: Any, tasks: Sequence[str] | str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """One record a row: its fields and `explanations`, task → one explanation a decision.

        Args:
            rows: as `Predictor` takes them.
            tasks: names; every task that a row can feed if absent.
            labels: task → the label to explain in place of the predicted one.

        Raises:
            UserError: as `Predictor`, or an encoder that cannot run from word embeddings.
        """
        return list(self.stream(rows, tasks, labels))

    def stream(
        self, rows: Iterable[Any], tasks: Sequence[str] | str | None = None, labels: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """As a call, one record after the other."""
        chosen = self.predictor.chosen(tasks)
        for name in labels or ():
            if name not in {task.name for task in chosen}:
                raise fault(f'no task "{name}"', key="--label", allowed=listed(task.name for task in chosen))
        for number, row in enumerate(rows_of(rows), 1):
            item = as_item(row, f"row {number}")
            found: dict[str, list[dict[str, Any]]] = {}
            for decision in self.decisions(item, chosen, named=tasks is not None, labels=labels, found=found):
                found[decision.task.name].append(self.told(decision, self.attribution(decision)))
            order = [task.name for task in chosen if task.name in found]
            yield {**item.fields, EXPLANATIONS: {name: found[name] for name in order}}

    def decisions(
        self,
        item: Item,
        tasks: Sequence[Task],
        *,
        named: bool = True,
        labels: Mapping[str, str] | None = None,
        found: dict[str, list[dict[str, Any]]] | None = None,
    ) -> Iterator[Decision]:
        """What the tasks decide on a row; `found` gets an empty list for each task that reads it."""
        names = [task.name for task in tasks]
        answers = self.predictor([item], names if named else None, self.batch_size, scores=True)[0]["predictions"]
        for piece in pieces_of(item, 0, tasks, named=named):
            for task in (task for task in tasks if task.name in piece.tasks):
                if found is not None:
                    found[task.name] = []
                rows = self._rows(piece, task)
                traced = [row for row in rows.rows if isinstance(row, TracedRow)]
                offsets = piece.word_offsets if piece.form == "tokens" else rows.words
                label = (labels or {}).get(task.name)
                for target in targets_of(task, answers[task.name], traced, offsets, label):
                    if task.kind.annotation == "match":
                        entry = self.predictor.knowledge[task.name].vector(target.name)
                        target = replace(target, entry=entry)
                    choice = target.row if piece.form == "choices" else 0
                    shown = input_words(piece, rows, choice)
                    row = embedded_row(
                        self.predictor.model, traced[target.row], shown, self._token, self.predictor.device
                    )
                    if task.name not in self._checked:
                        row.check(task.name)
                        self._checked.add(task.name)
                    yield Decision(task, target, row)

    def _rows(self, piece: Piece, task: Task) -> TextRows:
        """The piece's rows as the task read them."""
        tags = task.kind.annotation == "tags"
        predictor = self.predictor
        encoder = TracedEncoder(
            predictor.tokenizer,
            piece.form,
            max_length=predictor.max_length,
            stride=predictor.stride,
            splitter=(predictor.words or task.word_splitter) if tags else GIVEN,
            with_words=tags,
            row_tasks=not tags,
        )
        columns = {name: [value] for name, value in piece.fields.items()}
        with predictor.encoding:
            return next(encoder.encode(columns))

    def attribution(self, decision: Decision, method: str | None = None) -> Attribution:
        """The tokens' contributions to one decision, by the explainer's method or another."""
        row, target = decision.row, decision.target
        return attribute(
            method or self.method,
            lambda embeddings: target.number(row.logits(decision.task.name, embeddings)),
            row.inputs,
            row.baselines,
            row.words,
            batch=self.batch_size,
            fewest=self.fewest,
            most=self.most,
        )

    def told(self, decision: Decision, found: Attribution) -> dict[str, Any]:
        """An explanation as plain data."""
        words, rest = word_attributions(decision.row, found)
        read = set(decision.row.words.tolist())
        return {
            "target": decision.target.name,
            **decision.target.told,
            "method": self.method,
            "baseline": self.baseline,
            "logit": found.value,
            "baseline_logit": found.baseline,
            "steps": found.steps,
            "delta": found.delta,
            "complete": found.complete,
            "rest": rest,
            "words": [
                {
                    "field": word.field,
                    "word": word.word,
                    "start": word.start,
                    "end": word.end,
                    "attribution": float(words[number]),
                    # What is beyond the row's end was not read.
                    **({} if number in read else {"read": False}),
                }
                for number, word in enumerate(decision.row.shown.words)
            ],
        }


def word_attributions(row: EmbeddedRow, found: Attribution) -> tuple[NDArray[np.float64], float]:
    """([words], the sums over each word's tokens; what is left on tokens of no word)."""
    numbers = row.words.cpu().numpy()
    words = np.zeros(len(row.shown.words))
    np.add.at(words, numbers[numbers >= 0], found.tokens[numbers >= 0])
    return words, float(found.tokens[numbers < 0].sum())
