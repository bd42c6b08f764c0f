"""The model card of one exported task: what it is, code that runs it, and where its answers can differ from ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import listed
from ..schema import dump_yaml
from ..task import Task

if TYPE_CHECKING:
    from .single_task import Export

# The stock pipelines of transformers 5; those for question answering were removed from it, multiple choice never had one.
PIPELINES = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForMaskedLM": "fill-mask",
}
HUB_TAGS = {"answer": "question-answering", "choice": "multiple-choice"}
SAID = {
    "label": "one label a text: the most probable one",
    "labels": "any number of labels a text: those whose score is above 0.5",
    "value": "one number a text",
    "tags": "tags of words; only a word's first token was trained, so `aggregation_strategy` has to be `first`",
    "answer": "the first and last token of the answer in the context",
    "choice": "a score for each choice; the highest is the answer",
    "relevance": "a score for a query and a candidate, read as a pair; the best candidate has the highest",
    "match": "a vector for a query and one for a passage; the nearest passage is the answer",
    "none": "the masked tokens of a text",
}


@dataclass
class Measured:
    """Validation scores of one exported task.

    Attributes:
        ours: metric → value by this package's decoding.
        stock: the same by the stock pipeline on the exported folder.
        texts: how many texts were scored.
        why_not: why there are no scores.
    """

    ours: dict[str, float] = field(default_factory=dict)
    stock: dict[str, float] = field(default_factory=dict)
    texts: int = 0
    why_not: str = ""


def task_card(task: Task, export: Export, *, encoder: str | None) -> str:
    """`README.md` of an exported task."""
    front: dict[str, object] = {"library_name": "transformers"}
    tag = export.pipeline or HUB_TAGS.get(task.kind.annotation)
    if tag:
        front["pipeline_tag"] = tag
    if encoder:
        front["base_model"] = encoder
    front["tags"] = ["mtl-nlp", task.head]
    description = f" {task.description}" if task.description else ""
    lines = ["---", dump_yaml(front).strip(), "---", "", f"# {task.name}", ""]
    lines += [
        f"The task `{task.name}` of a multi-task checkpoint, as a plain `{export.model_class}`:"
        f"{description} {SAID[task.kind.annotation]}.",
        "",
        *_usage(task, export),
        "",
    ]
    if task.labels:
        lines += [f"Labels, in order: {listed([f'`{label}`' for label in task.labels], 200)}.", ""]
    lines += ["## Against the checkpoint", "", *_differences(task, export), ""]
    return "\n".join(lines)


def _usage(task: Task, export: Export) -> list[str]:
    if export.pipeline is None:
        cls = {"answer": "AutoModelForQuestionAnswering", "choice": "AutoModelForMultipleChoice"}
        name = cls.get(task.kind.annotation, export.model_class)
        return [
            "```python",
            f"from transformers import {name}, AutoTokenizer",
            "",
            f'model, tokenizer = {name}.from_pretrained("FOLDER"), AutoTokenizer.from_pretrained("FOLDER")',
            "```",
        ]
    options = {"tags": ', aggregation_strategy="first"', "labels": ", top_k=None"}.get(task.kind.annotation, "")
    if task.kind.annotation in ("value", "relevance"):
        options = ', function_to_apply="none"'
    text = '"a text"'
    if export.pipeline == "fill-mask":
        text = 'f"a {pipe.tokenizer.mask_token}"'
    elif task.kind.annotation == "relevance":
        text = '{"text": "a query", "text_pair": "a candidate"}'
    elif "pair" in task.data.columns.roles():
        text = '{"text": "a text", "text_pair": "another"}'
    return [
        "```python",
        "from transformers import pipeline",
        "",
        f'pipe = pipeline("{export.pipeline}", model="FOLDER"{options})',
        f"print(pipe({text}))",
        "```",
    ]


def _differences(task: Task, export: Export) -> list[str]:
    lines = [
        "- The logits are the checkpoint's, bit for bit (compared when this was written: float32, eager attention)."
    ]
    if export.folded:
        told = listed(export.folded)
        lines.append(
            f"- Folded into the last layer's weights: {told}, as calibrated on validation. The logits above are those before it."
        )
    if "thresholds" in export.folded:
        lines.append("- A label's score is shifted so that 0.5 stands for its own threshold.")
    if export.left:
        lines.append(f"- Not in this folder: {'; '.join(export.left)}.")
    return lines + _scores(export)


def _scores(export: Export) -> list[str]:
    measured = export.measured
    if measured is None:
        return ["- Scores by both decodings were not asked for."] if export.left else []
    if measured.why_not:
        return [f"- Scores by both decodings were not measured: {measured.why_not}."]
    rows = [[name, f"{value:.4f}", f"{measured.stock[name]:.4f}"] for name, value in measured.ours.items()]
    return [
        f"- Scores on {measured.texts} validation texts, by the checkpoint's own decoding and by the stock pipeline:",
        "",
        *_table(["metric", "mtl-nlp", "stock pipeline"], rows),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]
