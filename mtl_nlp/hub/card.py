"""The model card, written from the checkpoint's own facts: front matter that the Hub reads, and sections for people.

`write_card(folder)` makes or renews `README.md`; what a user wrote in it stays (see `sections`). No sentence here says more than
the files do: a licence that is not declared is called unknown, a task that was not scored has no score.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import listed
from ..model.files import CARD
from .facts import Facts, TaskFacts, facts_of
from .sections import merged_body, merged_front, split_front

# Head kind → the Hub's name of the task; kinds that the Hub has no name for are left out of the model-index.
HUB_TASKS = {
    "sequence_classification": "text-classification",
    "multi_label_classification": "text-classification",
    "regression": "text-classification",
    "token_classification": "token-classification",
    "question_answering": "question-answering",
    "multiple_choice": "multiple-choice",
    "masked_language_modeling": "fill-mask",
}
# Our metric → the Hub's name where it is another.
HUB_METRICS = {
    "span_f1": "f1",
    "span_precision": "precision",
    "span_recall": "recall",
    "f1_macro": "f1",
    "f1_micro": "f1",
    "qa_f1": "f1",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "matthews": "matthews_correlation",
}
EXAMPLE = {
    "text": "Anna flies to Paris tomorrow.",
    "pair": "Anna travels.",
    "question": "Where does Anna fly?",
    "context": "Anna flies to Paris tomorrow.",
    "choices": ["She packs.", "She sleeps."],
}


def write_card(folder: Path, *, repository: str | None = None, previous: str | None = None) -> None:
    """Make or renew the `README.md` of a checkpoint.

    Args:
        repository: where it is published; the code in the card loads it from there.
        previous: the earlier card; the one in the folder if absent.
    """
    path = folder / CARD
    if previous is None and path.is_file():
        previous = path.read_text(encoding="utf-8", errors="replace")
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(card_text(facts_of(folder), repository=repository, previous=previous), encoding="utf-8")
    os.replace(temporary, path)


def card_text(facts: Facts, *, repository: str | None = None, previous: str | None = None) -> str:
    """The card of these facts."""
    from huggingface_hub.repocard_data import CardData

    old_front, old_body = split_front(previous or "")
    name = (repository or "mtl-nlp-model").split("/")[-1]
    front: Any = merged_front(front_matter(facts, name), old_front)
    return f"---\n{CardData(**front).to_yaml()}\n---\n\n{merged_body(sections(facts, repository), old_body)}"


def front_matter(facts: Facts, name: str) -> dict[str, Any]:
    """What the Hub reads: library, base model, data sets, languages, tags, and the scores as `model-index`."""
    kinds = [HUB_TASKS[task.head] for task in facts.tasks if task.head in HUB_TASKS and not task.auxiliary]
    kinds = list(dict.fromkeys(kinds or [HUB_TASKS[t.head] for t in facts.tasks if t.head in HUB_TASKS]))
    languages = [task.language for task in facts.tasks]
    metrics = sorted({HUB_METRICS.get(metric, metric) for task in facts.tasks for metric in task.scores})
    front: dict[str, Any] = {
        "language": sorted({str(one) for one in languages}) if all(languages) and languages else None,
        "library_name": "mtl-nlp",
        "base_model": facts.encoder if facts.encoder_on_hub else None,
        "datasets": list(dict.fromkeys(str(task.source) for task in facts.tasks if task.on_hub)) or None,
        "pipeline_tag": kinds[0] if kinds else None,
        "tags": ["multi-task", "mtl-nlp", *kinds],
        "metrics": metrics or None,
        "model-index": model_index(facts, name) or None,
    }
    return {key: value for key, value in front.items() if value is not None}


def model_index(facts: Facts, name: str) -> list[dict[str, Any]]:
    """Per task its scores on validation, as the Hub's `model-index`."""
    from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

    results: list[Any] = []
    for task in facts.tasks:
        if task.head not in HUB_TASKS or not task.scores:
            continue
        one = [
            EvalResult(
                task_type=HUB_TASKS[task.head],
                task_name=task.name,
                dataset_type=(task.source if task.on_hub else None) or "local",
                dataset_name=task.source or "in memory",
                dataset_config=task.config,
                dataset_revision=task.revision,
                dataset_split="validation",
                metric_type=HUB_METRICS.get(metric, metric),
                metric_name=metric,
                metric_value=round(value, 6),
            )
            for metric, value in task.scores.items()
        ]
        # One call a task: the library would put two tasks of one data set into one entry.
        results += eval_results_to_model_index(name, one)[0]["results"]
    return [{"name": name, "results": results}] if results else []


def sections(facts: Facts, repository: str | None = None) -> dict[str, str]:
    """Section → Markdown, in the order of the card."""
    return {
        "about": _about(facts, repository),
        "tasks": _tasks(facts),
        "use": _use(facts, repository),
        "results": _results(facts),
        "data": _data(facts),
        "training": _training(facts),
        "limits": _limits(facts),
        "versions": _versions(facts),
    }


def _about(facts: Facts, repository: str | None) -> str:
    title = repository.split("/")[-1] if repository else "One encoder, several tasks"
    encoder = f"[{facts.encoder}](https://huggingface.co/{facts.encoder})" if facts.encoder_on_hub else facts.encoder
    names = listed((task.name for task in facts.tasks), 40)
    return (
        f"# {title}\n\nOne shared encoder ({encoder or 'local'}, {facts.architecture}) with "
        f"{len(facts.tasks)} task head{'s' if len(facts.tasks) > 1 else ''}: {names}. Trained together with "
        f"[mtl-nlp](https://github.com/mtl-nlp/mtl-nlp); one encoder pass answers all of them{_cost(facts)}.\n\n"
        f"{facts.parameters:,} parameters ({facts.encoder_parameters:,} in the encoder), {facts.dtype}, "
        f"{facts.bytes / 1e6:.1f} MB of safetensors."
    )


def _cost(facts: Facts) -> str:
    if facts.conditioning is None:
        return ""
    return (
        f", on {facts.rows_per_text} rows a text, because the encoder is conditioned on the task ({facts.conditioning})"
    )


def _tasks(facts: Facts) -> str:
    rows = [[t.name, t.head, _labels(t), t.description] for t in facts.tasks]
    return "## Tasks\n\n" + _table(["task", "head", "labels", "what it is"], rows)


def _labels(task: TaskFacts) -> str:
    return f"{len(task.labels)}: {listed(task.labels, 12)}" if task.labels else ""


def _use(facts: Facts, repository: str | None) -> str:
    where = repository or "."
    fields = list(dict.fromkeys(role for task in facts.tasks if not _is_mlm(task) for role in task.inputs)) or ["text"]
    example: Any = {role: EXAMPLE[role] for role in fields}
    row = repr(example["text"]) if fields == ["text"] else repr(example)
    note = "" if repository else "\n\n`.` is this folder."
    shell = f'\n\n```bash\nmtl-nlp predict {where} --text "{EXAMPLE["text"]}"\n```' if "text" in fields else ""
    return (
        "## Use\n\n```python\nfrom mtl_nlp import Predictor\n\n"
        f'predictor = Predictor.from_pretrained("{where}")\nprint(predictor([{row}]))\n```{shell}\n\n'
        "As a torch module, in transformers:\n\n```python\nimport mtl_nlp  # makes the class known\n"
        f'from transformers import AutoModel\n\nmodel = AutoModel.from_pretrained("{where}")\n```{note}'
    )


def _is_mlm(task: TaskFacts) -> bool:
    return task.head == "masked_language_modeling"


def _results(facts: Facts) -> str:
    rows = [[t.name, metric, f"{value:.4f}"] for t in facts.tasks for metric, value in t.scores.items()]
    unscored = [task.name for task in facts.tasks if not task.scores]
    text = "## Results\n\nOn the validation split.\n\n" + _table(["task", "metric", "value"], rows)
    if not rows:
        text = "## Results\n\nNo task was scored."
    elif unscored:
        text += f"\n\nNot scored: {listed(unscored, 40)}."
    return text + (f"\n\nMean of the primary metrics: {facts.mean:.4f}." if facts.mean is not None else "")


def _data(facts: Facts) -> str:
    corpora = facts.run.get("corpora") if isinstance(facts.run.get("corpora"), dict) else {}
    rows = [[t.name, _source(t), t.licence or "unknown", t.language or "", *_drawn(t, corpora)] for t in facts.tasks]
    return "## Data\n\n" + _table(["task", "source", "licence", "language", "training texts", "passes"], rows)


def _drawn(task: TaskFacts, corpora: Any) -> list[str]:
    for name, told in corpora.items():
        if task.name in name.split("+") and isinstance(told, dict):
            passes = told.get("passes")
            return [str(told.get("texts", "")), f"{passes:.2f}" if isinstance(passes, int | float) else ""]
    return ["", ""]


def _source(task: TaskFacts) -> str:
    if task.source is None:
        return "in memory"
    if not task.on_hub:
        return f"{task.source} (local)"
    more = ", ".join(part for part in (task.config, task.revision) if part)
    return f"[{task.source}](https://huggingface.co/datasets/{task.source})" + (f" ({more})" if more else "")


def _training(facts: Facts) -> str:
    recipe, run = facts.recipe, facts.run
    mixture, balancing = _settings(recipe.get("mixture")), _settings(recipe.get("balancing"))
    lines = ["## Training", ""]
    if isinstance(run.get("steps"), int):
        seconds = f" in {run['seconds']:.0f} seconds" if isinstance(run.get("seconds"), int | float) else ""
        lines += [f"{run['steps']} optimizer steps{seconds}. `recipe.resolved.yaml` repeats the run.", ""]
    rows = [
        ["encoder", _settings({k: v for k, v in _plain(recipe.get("encoder")).items() if k != "name"})],
        ["sampling (`mixture`)", mixture],
        ["balancing", balancing],
        ["loss weights", ", ".join(f"{t.name} {t.weight:g}" for t in facts.tasks if t.weight != 1.0) or "all 1"],
        ["training", _settings(recipe.get("training"))],
        ["stopping", _settings(recipe.get("stopping"))],
        ["seed", str(recipe.get("seed", ""))],
    ]
    extra = [key for key in recipe if key not in ("encoder", "mixture", "balancing", "training", "stopping", "seed")]
    rows += [[key, _settings(recipe[key])] for key in extra]
    return "\n".join(lines) + "\n" + _table(["", "settings"], [row for row in rows if row[1]])


def _plain(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _settings(value: Any) -> str:
    """`a: 1, b: {c: 2}` without what is not set; paths of this machine are cut to their last part."""
    if isinstance(value, dict):
        told = {key: inner for key, inner in value.items() if inner not in (None, {}, []) and "token" not in str(key)}
        return ", ".join(f"{key}: {_nested(inner)}" for key, inner in told.items())
    return "" if value is None else _nested(value)


def _nested(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{_settings(value)}}}"
    if isinstance(value, list):
        return f"[{', '.join(_nested(one) for one in value)}]"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.rstrip("/").split("/")[-1] if text.startswith("/") else text


def _limits(facts: Facts) -> str:
    lines = [
        "- It knows the labels of its training data and no others; every text gets an answer, also one of another kind."
    ]
    if facts.max_length:
        lines.append(
            f"- A row has {facts.max_length} tokens at most: tasks on words read longer texts in windows, tasks on the whole "
            "text read the beginning."
        )
    cut = facts.run.get("truncated")
    told = [f"{name} {count}" for name, count in cut.items() if count] if isinstance(cut, dict) else []
    if told:
        lines.append(f"- Training texts that were cut: {listed(told, 40)}.")
    if any(task.scores for task in facts.tasks):
        lines.append("- The scores are on validation, which may have chosen the checkpoint; expect less on other text.")
    unknown = [task.name for task in facts.tasks if not task.licence]
    if unknown:
        lines.append(f"- The licence of the data is not known here for {listed(unknown, 40)}: look it up before use.")
    if not all(task.language for task in facts.tasks):
        lines.append("- The languages of the data are not all declared.")
    lines.append("- It repeats what its data and its encoder are biased to; nothing was measured about that.")
    return "## Limits\n\n" + "\n".join(lines)


def _versions(facts: Facts) -> str:
    made = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in facts.versions.items() if value)
    return f"Made with {made}. `checksums.json` vouches for the files; loading compares it."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in lines)


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
