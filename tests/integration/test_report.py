"""`mtl-nlp report`: real runs and folders become a page that is whole, safe and small."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.errors import UserError
from mtl_nlp.report.write import write_report
from tests.balancing_runs import recipe_of, still_encoder, write_data
from tests.report_data import HOSTILE, write_comparison, write_run

TASKS = [
    {"name": "mood", "head": "sequence_classification", "labels": ["bad", "good"], "metrics": ["accuracy"]},
    {"name": "people", "head": "token_classification", "labels": ["LOC", "PER"], "metrics": ["span_f1"]},
    {"name": "tone", "head": "multi_label_classification", "labels": ["calm", "loud"], "metrics": ["f1_macro"]},
    {"name": "likeness", "head": "regression", "metrics": ["pearson"]},
]
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Well-formedness, ids, addresses and text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.named: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.handlers: list[str] = []
        self.feed(source)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "srcset", "action", "data", "xlink:href"):
                self.addresses.append(value)
            if name in ("aria-labelledby",):
                self.named += value.split()
            if name.startswith("on"):
                self.handlers.append(name)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}>"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def checked(source: str) -> Page:
    """The page parsed; nothing in it is loaded from elsewhere."""
    page = Page(source)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.named) <= set(page.ids)
    assert all(address.startswith(("#", "data:")) for address in page.addresses), page.addresses
    targets = [address[1:] for address in page.addresses if address.startswith("#")]
    assert set(targets) <= set(page.ids)
    style = source[source.index("<style>") : source.index("</style>")]
    assert not re.search(r"url\(|@import", style)
    assert "fetch(" not in source
    assert not page.handlers
    assert page.tags.count("script") == 1
    return page


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run: three tasks, uncertainty weighting, cosines, an evaluation."""
    from mtl_nlp.training.finetune import finetune

    folder = tmp_path_factory.mktemp("trained")
    still_encoder(folder / "encoder")
    recipe = recipe_of(
        folder / "encoder",
        write_data(folder / "data"),
        folder / "run",
        {"weighting": "uncertainty", "cosine_steps": 2},
        eval_strategy="steps",
        eval_steps=2,
    )
    return finetune(recipe).folder


def test_a_real_run_becomes_a_page(trained: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mtl_nlp", "report", str(trained), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "report.html" in done.stdout
    source = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    shown = " ".join(checked(source).words)
    titles = ["Effective share", "Loss weights", "Training loss", "Confusion matrix", "Entity errors", "Calibration"]
    titles += ["Worst mistakes", "Gradient cosines", "Gradient cosines by layer", "Recipe", "Validation accuracy"]
    assert [title for title in titles if title not in shown] == []
    assert str(trained) not in source
    scores = json.loads((trained / "metrics.json").read_text())["validation"]
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    for task, values in scores.items():
        value = f"{next(iter(values.values())):.4f}"
        assert value in shown, task
        assert value in text, task
    # The file of predictions says the same as the metric.
    lines = [json.loads(line) for line in (trained / "predictions" / "validation-mood.jsonl").read_text().splitlines()]
    right = sum(line["gold"] == line["predicted"] for line in lines)
    assert right / len(lines) == pytest.approx(scores["mood"]["accuracy"])
    assert f"{right} of {len(lines)} texts are right" in shown


def test_what_a_run_logged_is_kept(trained: Path) -> None:
    found = json.loads((trained / "history.json").read_text())
    assert found["format_version"] == 1
    assert {"python", "torch", "transformers", "cpu_cores"} <= found["environment"].keys()
    steps = [line["step"] for line in found["log"] if "share_mood" in line]
    assert steps == [1, 2, 3, 4]
    assert [line["step"] for line in found["log"] if "eval_mood_accuracy" in line] == [2, 4]


def test_a_run_without_predictions_or_history_says_what_is_missing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", TASKS)
    shutil.rmtree(run / "predictions")
    (run / "history.json").unlink()
    found = write_report([run], tmp_path / "out", predict=False)
    notes = " ".join(found.report.runs[0].notes)
    assert "no history of the training" in notes
    assert "Without predictions on validation: mood, people, tone, likeness" in notes
    assert "--data-root" in html.unescape(found.page.read_text(encoding="utf-8"))


def test_the_log_of_an_older_run_is_in_its_checkpoint(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", TASKS)
    log = json.loads((run / "history.json").read_text())["log"]
    (run / "history.json").unlink()
    for step, lines in ((10, log[:5]), (30, log)):
        (run / f"checkpoint-{step}").mkdir()
        (run / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps({"log_history": lines}))
    found = write_report([run], tmp_path / "out").report.runs[0]
    assert len(found.tasks[0].loss) == 30
    assert found.tasks[0].score == [(10.0, 10 / 15), (20.0, 20 / 25), (30.0, 30 / 35)]


def test_a_comparison_is_told_as_its_file_has_it(tmp_path: Path) -> None:
    found = write_report([write_comparison(tmp_path / "cmp")], tmp_path / "out")
    source = found.page.read_text(encoding="utf-8")
    shown = " ".join(" ".join(checked(source).words).split())
    assert (
        "joint (chosen on validation): of 2 tasks it helps on 1, harms on 1. Mean difference over 2 tasks: +0.50 points."
        in shown
    )
    assert "+4.00 [+3.00, +5.00]" in shown
    assert "−3.00 [−4.00, −2.00]" in shown
    assert "▲ helps" in shown
    assert "▼ harms" in shown
    assert "0.8100 ± 0.0141" in shown
    assert "0.50 ×" in shown  # half the parameters of two models
    assert "2.00 ×" in shown
    assert "anna" not in source
    assert [(s.variant, s.seed, s.value) for s in found.report.comparisons[0].scores if s.task == "mood"] == [
        ("single", 13, 0.80),
        ("single", 14, 0.82),
        ("joint", 13, 0.84),
        ("joint", 14, 0.86),
    ]
    text = found.text.read_text(encoding="utf-8")
    assert "| mood | accuracy | 0.8100 ± 0.0141 | 0.8500 ± 0.0141 | +4.00 |" in text


def test_the_chosen_variants_run_is_shown_with_its_comparison(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "cmp")
    run = write_run(folder / "runs" / "joint-13", TASKS)
    (run / "model.safetensors").unlink()  # weights may have been deleted
    (found,) = write_report([folder], tmp_path / "out").report.runs
    assert found.name == "cmp: joint-13"
    assert found.tasks[0].answers is not None


def test_hostile_names_and_texts_are_text(tmp_path: Path) -> None:
    tasks = [{**task, "labels": [f"{HOSTILE}{i}" for i in range(2)]} if task.get("labels") else task for task in TASKS]
    run = write_run(tmp_path / "run", tasks, text=f"{HOSTILE} and javascript:alert(1) ](x)")
    (run / "recipe.resolved.yaml").write_text(f"note: |\n  {HOSTILE}\n  ```\nseed: 1\n", encoding="utf-8")
    found = write_report([run, write_comparison(tmp_path / "cmp", variant=HOSTILE)], tmp_path / "out")
    source = found.page.read_text(encoding="utf-8")
    page = checked(source)
    assert "img" not in page.tags
    assert HOSTILE in " ".join(page.words)
    assert "{{7*7}}" in source
    text = found.text.read_text(encoding="utf-8")
    outside = re.sub(r"^````yaml$.*?^````$", "", text, flags=re.S | re.M)
    assert not re.search(r"(?<!\\)<", outside)


def test_a_large_run_is_a_page_under_5_mb(tmp_path: Path) -> None:
    many = [f"label number {i}" for i in range(20)]
    kinds = [
        {"head": "sequence_classification", "labels": many, "metrics": ["accuracy"]},
        {"head": "token_classification", "labels": many[:12], "metrics": ["span_f1"]},
        {"head": "sequence_classification", "labels": [f"intent {i}" for i in range(150)], "metrics": ["accuracy"]},
        {"head": "multi_label_classification", "labels": many, "metrics": ["f1_macro"]},
        {"head": "regression", "metrics": ["pearson"]},
    ]
    tasks = [{"name": f"task_{i}", **kinds[i % 5]} for i in range(100)]
    run = write_run(tmp_path / "run", tasks, steps=300, rows=100, text="a few words of a text " * 8)
    for path in (run / "predictions").iterdir():  # 100 000 examples
        path.write_text(path.read_text(encoding="utf-8") * 10, encoding="utf-8")
    found = write_report([run], tmp_path / "out")
    assert sum(task.answers.texts for task in found.report.runs[0].tasks if task.answers) == 100_000
    assert found.page.stat().st_size < 5_000_000
    checked(found.page.read_text(encoding="utf-8"))


def test_folders_of_another_kind_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "halfway" / "checkpoint-10").mkdir(parents=True)
    with pytest.raises(UserError) as error:
        write_report([tmp_path / "empty", tmp_path / "none", tmp_path / "halfway"], tmp_path / "out")
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "neither a run, nor a comparison" in lines[0]
    assert "no such folder" in lines[1]
    assert "not finished" in lines[2]


def test_damaged_files_are_faults_with_their_place(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", TASKS)
    path = run / "predictions" / "validation-mood.jsonl"
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(UserError, match=r"validation-mood\.jsonl:41: not JSON"):
        write_report([run], tmp_path / "out")
    folder = write_comparison(tmp_path / "cmp")
    (folder / "comparison.json").write_text('{"format_version": 9}')
    with pytest.raises(UserError, match="format_version 9 → format_version 1"):
        write_report([folder], tmp_path / "out")
    (folder / "comparison.json").write_text('{"format_version": 1, "tasks": 3}')
    with pytest.raises(UserError, match="cannot be understood"):
        write_report([folder], tmp_path / "out")


def test_an_interference_measurement_is_drawn(tmp_path: Path) -> None:
    table = [[1.0, 0.02], [-0.01, 1.0]]
    found = {
        "tasks": ["a", "b"],
        "groups": ["embeddings", "layer 0"],
        "steps": 20,
        "seconds": 3.0,
        "affinity": table,
        "error": [[0.0, 0.001], [None, 0.0]],
        "by_layer": {"embeddings": table, "layer 0": table},
        "cosines": {"all": table, "embeddings": table, "layer 0": table},
        "advice": {
            "groups": [["a", "b"]],
            "share_until": "layer 0",
            "pairs": [
                {"tasks": ["a", "b"], "affinity": 0.005, "error": 0.001, "verdict": "together", "share_until": None}
            ],
        },
        "points": [{}, {}],
    }
    folder = tmp_path / "interference"
    folder.mkdir()
    (folder / "interference.json").write_text(json.dumps(found))
    made = write_report([folder], tmp_path / "out")
    (measured,) = made.report.interferences
    assert measured.affinity.values == [[100.0, 2.0], [-1.0, 100.0]]
    assert measured.by_layer.values == [[pytest.approx(0.5), pytest.approx(0.5)]]
    shown = " ".join(checked(made.page.read_text(encoding="utf-8")).words)
    assert "Affinity by layer" in shown


def test_task_vectors_that_lie_close_are_found(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from mtl_nlp.report.vectors import task_vectors

    run = write_run(tmp_path / "run", TASKS[:2])
    assert task_vectors(run) is None
    vectors = {
        f"conditioning.tasks.{t}.vector": np.array(v, dtype=np.float32)
        for t, v in (("mood", [1, 0]), ("people", [1, 1]))
    }
    save_file(vectors, run / "model.safetensors")
    found = task_vectors(run)
    assert found is not None
    assert found.values[0][1] == pytest.approx(0.5**0.5, abs=1e-6)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MEASURE = """<!doctype html><body style="margin:0"><iframe id="page" style="width:{width}px;height:900px;border:0"></iframe>
<script>
const frame = document.getElementById("page");
frame.srcdoc = {source};
frame.onload = () => setTimeout(() => {{
  const page = frame.contentDocument, root = page.documentElement;
  page.querySelectorAll("details").forEach((one) => {{ one.open = true; }});
  root.dataset.theme = "{theme}";
  const wide = [...page.querySelectorAll(".card, .task, .mistakes")].filter((one) => one.scrollWidth > one.clientWidth + 1);
  const ground = frame.contentWindow.getComputedStyle(page.body).backgroundColor;
  document.body.innerHTML = "<pre>" + JSON.stringify([root.scrollWidth, root.clientWidth, wide.length, ground]) + "</pre>";
}}, 300);
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_scrolls_sideways(width: int, theme: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run_with_a_rather_long_name", TASKS, text=f"{HOSTILE} " + "long" * 60)
    found = write_report([run, write_comparison(tmp_path / "cmp")], tmp_path / "out")
    source = json.dumps(found.page.read_text(encoding="utf-8")).replace("</", "<\\/")
    (tmp_path / "measure.html").write_text(MEASURE.format(width=width, source=source, theme=theme), encoding="utf-8")
    assert CHROMIUM is not None
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=8000",
        f"--user-data-dir={tmp_path / 'p'}",
    ]
    command = [
        CHROMIUM,
        *flags,
        f"--window-size={max(width, 500)},900",
        "--dump-dom",
        f"file://{tmp_path / 'measure.html'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    match = re.search(r"<pre>(.*?)</pre>", done.stdout)
    assert match, done.stderr[-500:]
    scrolled, inner, wide, ground = json.loads(html.unescape(match.group(1)))
    assert scrolled <= inner <= width
    assert wide == 0
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 20, 25)"}[theme]
    shot = tmp_path / "shot.png"
    picture = [*command[:-2], f"--screenshot={shot}", f"file://{found.page}?theme={theme}"]
    subprocess.run(picture, capture_output=True, timeout=100, check=True)
    assert shot.stat().st_size > 10_000
