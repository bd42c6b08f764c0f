"""`comparison.json` → Markdown, for people; the command line shows the same tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Table = tuple[list[str], list[list[str]]]


def result_table(data: Mapping[str, Any], variant: str) -> Table:
    """One variant against the models of the tasks alone."""
    head = ["task", "metric", variant, "one model a task", "difference", "95 % interval", "p (Holm)", "verdict"]
    rows = []
    for one in data["results"]:
        if one["variant"] == variant:
            scores = [spread(one["mean"], one["deviation"]), spread(one["single_mean"], one["single_deviation"])]
            rows.append([one["task"], one["metric"], *scores, *_judged(one)])
    for one in data["overall"]:
        if one["variant"] == variant and len(rows) > 1:
            means = [mean_of(data, variant, key) for key in ("mean", "single_mean")]
            rows.append(["mean", "", *(f"{mean:.4f}" for mean in means), *_judged(one)])
    return head, rows


def _judged(one: Mapping[str, Any]) -> list[str]:
    interval = f"{one['low']:+.4f} … {one['high']:+.4f}"
    return [f"{one['difference']:+.4f}", interval, p_value(one["p_holm"]), one["verdict"]]


def mean_of(data: Mapping[str, Any], variant: str, key: str) -> float:
    """Of a column of `results`, over the tasks."""
    values = [one[key] for one in data["results"] if one["variant"] == variant]
    return float(sum(values) / len(values))


def variants_table(data: Mapping[str, Any]) -> Table:
    """Test means of all variants, validation mean and choice beside them."""
    names = list(data["tasks"])
    head = ["variant", "validation mean", *names, "mean", "verdict"]
    rows = []
    verdicts = {one["variant"]: one["summary"] for one in data["overall"]}
    for variant in data["variants"]:
        single, name = variant["kind"] == "single", variant["name"]
        key, of = ("single_mean", data["results"][0]["variant"]) if single else ("mean", name)
        found = {one["task"]: one[key] for one in data["results"] if one["variant"] == of}
        label = "one model a task" if single else f"{name} (chosen)" if variant["chosen"] else name
        scores = [f"{found[task]:.4f}" for task in names]
        mean = sum(found.values()) / len(found)
        rows.append([label, f"{variant['validation_mean']:.4f}", *scores, f"{mean:.4f}", verdicts.get(name, "")])
    return head, rows


def cost_table(data: Mapping[str, Any]) -> Table:
    """What each variant costs, all its models together."""
    head = [
        "variant",
        "models",
        "encoder tokens",
        "minutes",
        "parameters",
        "MB",
        "texts a second",
        "time a text ÷ separate",
    ]
    rows = []
    for name, cost in data["costs"].items():
        speed = "" if cost["texts_per_second"] is None else f"{cost['texts_per_second']:.1f}"
        ratio = "" if cost["inference_ratio"] is None else f"{cost['inference_ratio']:.2f}"
        counts = [
            f"{cost['encoder_tokens']:,}",
            f"{cost['minutes']:.1f}",
            f"{cost['parameters']:,}",
            f"{cost['bytes'] / 1e6:.1f}",
        ]
        rows.append([name, str(cost["models"]), *(count.replace(",", " ") for count in counts), speed, ratio])
    return head, rows


def group_table(data: Mapping[str, Any], variant: str) -> Table:
    """The groups of examples that changed."""
    head = ["task", "by", "group", "examples", "one model a task", variant, "difference", "p (Holm)"]
    rows = []
    for one in data["results"]:
        for group in one["groups"] if one["variant"] == variant else ():
            if group["changed"]:
                numbers = [f"{group['single']:.4f}", f"{group['variant']:.4f}", f"{group['difference']:+.4f}"]
                row = [one["task"], group["by"], group["value"], str(group["rows"]), *numbers]
                rows.append([*row, p_value(group["p_holm"])])
    return head, rows


def noise_table(data: Mapping[str, Any], variant: str) -> Table:
    """What chance says, seeds and examples apart, and what could have been found."""
    head = ["task", "p, seeds", "p, examples", "p, both", "would be found (80 %)"]
    rows = []
    for one in data["results"]:
        if one["variant"] == variant:
            values = [p_value(one[key]) for key in ("p_seeds", "p_examples", "p")]
            # A 0 is what earlier versions wrote where nothing varied.
            found = f"{one['detectable']:.4f}" if one["detectable"] else "— (the scores do not vary)"
            rows.append([one["task"], *values, found])
    return head, rows


def markdown(data: Mapping[str, Any]) -> str:
    """`comparison.md`."""
    chosen = next(one["name"] for one in data["variants"] if one["chosen"])
    order = [chosen, *(one["name"] for one in data["variants"] if one["name"] != chosen and one["kind"] != "single")]
    seeds = ", ".join(str(seed) for seed in data["seeds"])
    sizes = "; ".join(
        f"{name} {t['train_rows']} / {t['validation_rows']} / {t['test_rows']}" for name, t in data["tasks"].items()
    )
    parts = [
        "# Comparison",
        f"Seeds {seeds}. Mean ± standard deviation over seeds on the test split; the variant was chosen on validation. "
        "Every model of one task saw its texts as often as the joint one. "
        f"Texts (training / validation / test): {sizes}.",
    ]
    for name in order:
        title = f"## {name}" + (" (chosen on validation)" if name == chosen else "")
        summary = next(one["summary"] for one in data["overall"] if one["variant"] == name)
        parts += [title, f"Verdict: {summary}.", table(*result_table(data, name))]
    if len(order) > 1:
        parts += ["## Variants", table(*variants_table(data))]
    parts += ["## Cost", "Of one seed, all models of a variant together.", table(*cost_table(data))]
    head, rows = group_table(data, chosen)
    found = table(head, rows) if rows else "No group of examples changed by more than chance."
    parts += ["## Groups that changed", found, "## Chance", table(*noise_table(data, chosen))]
    where = data["environment"]
    machine = f"{where['cpu']}, {where['cores']} cores, {where['threads']} threads, {where['device']}"
    parts.append(
        f"mtl-nlp {where['mtl_nlp']}, torch {where['torch']}, transformers {where['transformers']}; {machine}."
    )
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows])


def spread(mean: float, deviation: float) -> str:
    """Mean ± standard deviation."""
    return f"{mean:.4f} ± {deviation:.4f}"


def p_value(value: float) -> str:
    """Three digits, and no 0."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
