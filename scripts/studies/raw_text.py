"""Raw text against words: span F1 on the Broad Twitter Corpus' test sentences, given as their words and as raw text.

    python scripts/studies/raw_text.py CHECKPOINT DATA_ROOT [--task broad_twitter_corpus]

The raw text is the words joined by single spaces. A predicted entity counts as right if its characters and type are the reference's
(micro F1 over spans; for words this is the usual span F1). Prints one row a way of cutting words and writes
docs/results/raw_text.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mtl_nlp import Predictor
from mtl_nlp.data.conll import read_conll
from mtl_nlp.labels import tags_to_spans

ROOT = Path(__file__).resolve().parents[2]
Entities = set[tuple[int, int, int, str]]


def offsets(words: Sequence[str]) -> list[tuple[int, int]]:
    """Where the words stand in their joined text."""
    place, found = 0, []
    for word in words:
        found.append((place, place + len(word)))
        place += len(word) + 1
    return found


def f1(predicted: Entities, gold: Entities) -> float:
    """Micro F1 over spans."""
    right = len(predicted & gold)
    return 2 * right / max(len(predicted) + len(gold), 1)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--task", default="broad_twitter_corpus")
    options = parser.parse_args()
    sentences = read_conll(options.data_root / "btc" / "test.conll").sentences
    gold: Entities = set()
    for number, (words, tags) in enumerate(sentences):
        gold |= {(number, s.start, s.end, s.label) for s in tags_to_spans(tags, offsets(words))}
    inputs = {
        "words": ([words for words, _ in sentences], None),
        "raw text, given (default)": ([" ".join(words) for words, _ in sentences], None),
        "raw text, pretokenizer": ([" ".join(words) for words, _ in sentences], "pretokenizer"),
        "raw text, whitespace": ([" ".join(words) for words, _ in sentences], "whitespace"),
    }
    report = {"sentences": len(sentences), "entities": len(gold)}
    for name, (texts, splitter) in inputs.items():
        predictor = Predictor.from_pretrained(options.checkpoint, words=splitter)
        found: Entities = set()
        for number, answer in enumerate(predictor(texts, tasks=[options.task])):
            entities = answer["predictions"][options.task]["entities"]
            found |= {(number, e["start"], e["end"], e["entity_group"]) for e in entities}
        report[name] = round(f1(found, gold), 4)
        print(f"{name}: span F1 {report[name]:.4f}")
    (ROOT / "docs" / "results" / "raw_text.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
