"""The data of the studies: a folder like DATA_ROOT with at most 1 500 training texts a corpus; validation and test are whole.

    python scripts/studies/study_data.py DATA_ROOT OUTPUT [--texts 1500]

Which texts is drawn with seed 13, alike for every study; they keep their order.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from mtl_nlp.data.conll import read_conll

TEXTS, SEED = 1500, 13


def chosen(count: int, texts: int) -> list[int]:
    """The numbers of the texts that stay, ascending."""
    return sorted(random.Random(SEED).sample(range(count), min(texts, count)))


def small(path: Path, target: Path, texts: int) -> None:
    """Write a training file's part."""
    if path.suffix == ".jsonl":
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        target.write_text("".join(lines[i] + "\n" for i in chosen(len(lines), texts)), encoding="utf-8")
    elif path.suffix == ".conll":
        sentences = read_conll(path).sentences
        parts = [
            "".join("\t".join(word) + "\n" for word in zip(*sentences[i], strict=True))
            for i in chosen(len(sentences), texts)
        ]
        target.write_text("\n".join(parts), encoding="utf-8", newline="")
    else:
        raise SystemExit(f"{path}: a .jsonl or .conll file is expected")


def study_data(data_root: Path, output: Path, texts: int = TEXTS) -> Path:
    """Fill `output` (once) and return it."""
    for path in sorted(data_root.glob("*/*")):
        target = output / path.parent.name / path.name
        if target.exists() or path.stem not in ("train", "validation", "test"):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.stem == "train":
            small(path, target, texts)
        else:
            target.symlink_to(path.resolve())
    return output


def main() -> None:
    """Cut the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--texts", type=int, default=TEXTS)
    options = parser.parse_args()
    print(study_data(options.data_root, options.output, options.texts))


if __name__ == "__main__":
    main()
