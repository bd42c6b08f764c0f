"""What `check` says of a retrieval's questions and passages: how many are different, for those are each other's negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset


def passage_note(train: Dataset) -> str:
    """One line on a training split: its questions, the different passages that answer them, and hard negatives."""
    answers: dict[str, set[str]] = {}
    hard = 0
    for query, passages in zip(train["query"], train["passages"], strict=True):
        answers.setdefault(query, set()).add(passages[0])
        hard += len(passages) - 1
    different = {passage for found in answers.values() for passage in found}
    several = sum(len(found) > 1 for found in answers.values())
    told = f"{len(train)} questions, {len(different)} different answers"
    told += f", {several} questions with more than one" if several else ""
    told += f", {hard} hard negatives" if hard else ""
    return f"{told}; the negatives of a question are the other answers of its micro-batch"
