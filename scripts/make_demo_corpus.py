"""Write the demo corpus: customer-service messages annotated with sentiment, intent and entities.

    python scripts/make_demo_corpus.py --seed 13 --output tasks/demo

The same seed gives the same bytes, given the same Faker: names, cities and companies come from its word lists,
which change between releases. The files that ship were written with Faker `FAKER_VERSION` and seed `SEED`; another
version gives another, equally valid corpus. Templates, slot values, noise and composition live in `demo_corpus/`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import faker
from demo_corpus.compose import Composer, Message
from demo_corpus.slots import SlotFiller, split_pools
from demo_corpus.templates import all_templates, partition
from demo_corpus.values import POOLS

FAKER_VERSION = "40.54.0"
SEED = 13
SIZES = {"train": 2600, "validation": 450, "test": 550}
TEMPLATE_SHARES = {"train": 0.64, "validation": 0.15, "test": 0.21}
# Annotations are taken away from the training split only, each with its own chance.
MISSING_SHARES = {"sentiment": 0.35, "entities": 0.45, "intent": 0.15}


def build(seed: int) -> dict[str, list[Message]]:
    """The whole corpus, split by split; no template and no text is in two splits."""
    rng = random.Random(seed)
    banks = partition(all_templates(), TEMPLATE_SHARES, rng)
    pools = {name: split_pools(values, TEMPLATE_SHARES, rng) for name, values in POOLS.items()}
    seen: set[str] = set()
    corpus: dict[str, list[Message]] = {}
    for position, (split, size) in enumerate(SIZES.items()):
        own = {name: by_split[split] for name, by_split in pools.items()}
        filler = SlotFiller(own, rng=rng, seed=seed * len(SIZES) + position)
        corpus[split] = Composer(banks[split], filler, rng).compose(size, seen)
    corpus["train"] = [drop_annotations(message, rng) for message in corpus["train"]]
    return corpus


def drop_annotations(message: Message, rng: random.Random) -> Message:
    """The message with some annotations missing (`None`), never all of them."""
    missing = [name for name, share in MISSING_SHARES.items() if rng.random() < share]
    if len(missing) == len(MISSING_SHARES):
        missing.remove(rng.choice(missing))
    return replace(
        message,
        sentiment=None if "sentiment" in missing else message.sentiment,
        intent=None if "intent" in missing else message.intent,
        entities=None if "entities" in missing else message.entities,
    )


def records(split: str, messages: list[Message]) -> list[dict[str, object]]:
    """The rows of one split as they stand in the file."""
    return [
        {
            "id": f"{split}-{number:05d}",
            "text": message.text,
            "sentiment": message.sentiment,
            "intent": message.intent,
            "entities": None if message.entities is None else [asdict(entity) for entity in message.entities],
        }
        for number, message in enumerate(messages, start=1)
    ]


def write(corpus: dict[str, list[Message]], folder: Path) -> None:
    """Write `train.jsonl`, `validation.jsonl` and `test.jsonl`: UTF-8, one object a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, messages in corpus.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in records(split, messages)]
        (folder / f"{split}.jsonl").write_bytes("".join(lines).encode())


def describe(corpus: dict[str, list[Message]]) -> str:
    """Sizes, labels and missing annotations of each split, for the person who ran the script."""
    lines = []
    for split, messages in corpus.items():
        names = {name for message in messages for name in message.templates}
        lines.append(f"{split}: {len(messages)} messages from {len(names)} templates")
        for field in ("sentiment", "intent"):
            counts = Counter(str(getattr(message, field)) for message in messages)
            lines.append(f"  {field}: " + ", ".join(f"{label} {count}" for label, count in counts.most_common()))
        kinds = Counter(entity.label for message in messages for entity in message.entities or ())
        bare = sum(message.entities is None for message in messages)
        lines.append("  entities: " + ", ".join(f"{label} {count}" for label, count in kinds.most_common()))
        lines.append(f"  without entity annotation: {bare}")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, build, write, describe."""
    parser = argparse.ArgumentParser(description="Write the demo corpus of mtl-nlp.")
    parser.add_argument("--seed", type=int, default=SEED, help="the same seed gives the same bytes")
    parser.add_argument("--output", type=Path, required=True, help="folder of the three files")
    options = parser.parse_args()
    if faker.VERSION != FAKER_VERSION:
        print(f"Faker {faker.VERSION} here, {FAKER_VERSION} for the shipped files: texts will differ.")
    corpus = build(options.seed)
    write(corpus, options.output)
    print(describe(corpus))


if __name__ == "__main__":
    main()
