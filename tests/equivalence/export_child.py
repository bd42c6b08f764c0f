"""Runs in a process where `mtl_nlp` cannot be imported: every exported folder's logits, by the stock pipeline where there is one.

python export_child.py FOLDER_OF_EXPORTS OUTPUT      FOLDER/NAME/{config.json, …, batch.safetensors}
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.modules["mtl_nlp"] = None  # type: ignore[assignment]

import torch
import transformers
from safetensors.torch import load_file, save_file

TEXTS = ["anna is in london", "the staff was very good and the food great", "late", "where is my parcel ?"]
PIPELINES = {"SequenceClassification": "text-classification", "TokenClassification": "token-classification"}
EAGER = {"attn_implementation": "eager"}


def by_pipeline(folder: Path, name: str) -> torch.Tensor:
    """The logits that the stock pipeline works with, for one padded batch of texts."""
    pipe = transformers.pipeline(name, model=str(folder), device="cpu", dtype=torch.float32, model_kwargs=dict(EAGER))
    seen: list[torch.Tensor] = []
    pipe.model.register_forward_hook(lambda module, args, output: seen.append(output.logits))
    pipe(TEXTS, batch_size=len(TEXTS))
    assert len(seen) == 1
    return seen[0]


def by_auto_class(folder: Path, cls: str) -> torch.Tensor:
    """The logits of an `AutoModelFor…`, for the batch that lies beside it."""
    model: Any = getattr(transformers, f"AutoModelFor{cls}").from_pretrained(folder, dtype=torch.float32, **EAGER)
    batch = load_file(folder / "batch.safetensors")
    with torch.inference_mode():
        output = model.eval()(**batch)
    if cls != "QuestionAnswering":
        return output.logits
    pair = torch.stack([output.start_logits, output.end_logits], -1)
    return pair.masked_fill(~batch["attention_mask"].bool()[..., None], float("-inf"))


def main() -> None:
    """Write one tensor a folder."""
    found = {}
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        config = transformers.AutoConfig.from_pretrained(folder)
        cls = config.architectures[0].partition("For")[2]
        pipeline = PIPELINES.get(cls)
        logits = by_pipeline(folder, pipeline) if pipeline else by_auto_class(folder, cls)
        found[folder.name] = logits.clone().contiguous()
    save_file(found, sys.argv[2])


if __name__ == "__main__":
    main()
