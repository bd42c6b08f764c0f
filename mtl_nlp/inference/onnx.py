"""A checkpoint as one ONNX graph, run by onnxruntime behind the same `Predictor`.

The graph takes `input_ids`, `attention_mask` (and `token_type_ids`) of [rows, tokens], runs the encoder once and gives the logits
of every task over all rows. What decoding needs is in the graph's metadata under `mtl_nlp`, so the file explains itself.
`onnx_export` writes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError, fault
from ..hub.checkpoint import CHECKSUMS
from ..model.config import FORMAT_VERSION
from ..model.heads import Head, make_head
from ..model.losses import padded_choices
from ..model.multitask import MultiTaskOutput
from ..schema import Source, validate
from ..task import Task
from .onnx_threads import QuickerSession

GRAPH = "model.onnx"
KEY = "mtl_nlp"
EXTRA = 'onnxruntime is missing: pip install "mtl-nlp[onnx]"'
# Kinds of annotation whose logits have one row of scores a token.
ON_TOKENS = ("tags", "answer", "none")
# Up to so many tokens an int8 graph is answered by one thread or by several, whichever is quicker (`onnx_threads`); graphs of up to
# so many bytes are held twice for it.
FEW_TOKENS = 64
HELD_TWICE = 1 << 26


@dataclass(frozen=True)
class GraphInfo:
    """A graph's metadata.

    Attributes:
        tasks: as `config.json` keeps them; those of the graph, in order.
        outputs: task → the name of its logits.
        max_length: most tokens a row; `stride` those that neighbouring windows share.
        precision: `float32` or `int8`.
        encoder: the architecture.
        weights: SHA-256 of the checkpoint's weights, so that a graph beside a checkpoint can be told to be its own.
        kept: with int8, the products that stayed in float32.
    """

    tasks: list[dict[str, Any]]
    outputs: dict[str, str]
    max_length: int
    stride: int
    precision: str
    encoder: str
    format_version: int = FORMAT_VERSION
    weights: str = ""
    kept: list[str] = field(default_factory=list)

    def dumped(self) -> str:
        """As the metadata holds it."""
        return json.dumps(self.__dict__, ensure_ascii=False)

    @classmethod
    def parsed(cls, text: str | None, where: str) -> GraphInfo:
        """From the metadata.

        Raises:
            UserError: absent, not readable, or of a later version.
        """
        if text is None:
            raise fault(
                "its metadata does not say what it answers", where=where, allowed="`mtl-nlp export --format onnx`"
            )
        try:
            data = json.loads(text)
            version = data["format_version"]
            if version != FORMAT_VERSION:
                raise fault(
                    f"format_version {version}", where=where, allowed=str(FORMAT_VERSION), cure="upgrade mtl-nlp"
                )
            info = cls(**data)
        except (ValueError, TypeError, KeyError) as error:
            raise fault(f"its metadata cannot be read: {error}", where=where, cure="export it again") from error
        if not isinstance(info.max_length, int) or not isinstance(info.stride, int) or not isinstance(info.tasks, list):
            raise fault("its metadata is damaged", where=where, cure="export it again")
        return info


class OnnxModel:
    """An ONNX graph in the place of a `MultiTaskModel`: called alike, it gives the same logits.

    Args:
        path: the graph's file.
        device: `cpu`, or `cuda` with onnxruntime-gpu.
        threads: of onnxruntime; as many as torch uses if absent.

    Raises:
        UserError: onnxruntime is missing, or the file is not a graph of ours.
    """

    def __init__(self, path: Path, *, device: torch.device | None = None, threads: int | None = None) -> None:
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            raise UserError(EXTRA) from error
        self.path = path
        self.session = open_session(path, device, threads)
        self.info = GraphInfo.parsed(self.session.get_modelmeta().custom_metadata_map.get(KEY), str(path))
        several = (threads or torch.get_num_threads()) > 1 and (device is None or device.type == "cpu")
        self.quicker: QuickerSession | None = None
        if several and self.info.precision == "int8":
            keep = path.stat().st_size <= HELD_TWICE
            self.quicker = QuickerSession(self.session, lambda: open_session(path, threads=1), keep=keep)
        self.inputs = [one.name for one in self.session.get_inputs()]
        known = {one.name for one in self.session.get_outputs()}
        lacking = sorted(set(self.info.outputs.values()) - known)
        if lacking:
            raise fault(f"no output {lacking}", where=str(path), cure="export it again")
        source = Source(path.name)
        self.tasks: list[Task] = [validate(Task, task, source, ("tasks", i)) for i, task in enumerate(self.info.tasks)]
        self.kinds: dict[str, Head] = {task.name: make_head(task) for task in self.tasks}
        encoder = SimpleNamespace(model_type=self.info.encoder, max_position_embeddings=self.info.max_length)
        self.config = SimpleNamespace(tasks=self.info.tasks, encoder_config=encoder)

    is_sharded = False

    def use_fast_paths(self) -> None:
        """Nothing: a graph has its own paths."""

    def to(self, device: Any) -> OnnxModel:
        """Itself: onnxruntime decides where it runs."""
        return self

    def eval(self) -> OnnxModel:
        """Itself: a graph does not train."""
        return self

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        tasks: Mapping[str, Mapping[str, Tensor]] | None = None,
        tokens: int | None = None,
    ) -> MultiTaskOutput:
        """As `MultiTaskModel.forward`: name → the task's logits over its rows."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        given = {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": types}
        fed = {name: given[name].cpu().numpy() for name in self.inputs}
        if tasks is None:
            tasks = {name: {"rows": torch.arange(len(input_ids))} for name in self.kinds}
        names = list(tasks)
        found = self.run([self.info.outputs[name] for name in names], fed)
        logits = {
            name: self._of_task(name, torch.from_numpy(values), tasks[name])
            for name, values in zip(names, found, strict=True)
        }
        return MultiTaskOutput(logits=logits)

    def run(self, names: Sequence[str], fed: dict[str, Any]) -> list[Any]:
        """The outputs of these names as arrays."""
        tokens = fed["input_ids"].size
        if self.quicker is not None and tokens <= FEW_TOKENS:
            return self.quicker.run(names, fed, tokens)
        return list(self.session.run(list(names), fed))

    def _of_task(self, name: str, logits: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        """The task's rows of the whole batch's logits, cut to their longest; choices gathered to their texts."""
        chosen = logits if logits.shape[0] == rows["rows"].shape[0] == 1 else logits[rows["rows"].cpu()]
        kind = self.kinds[name].task.kind
        if kind.input in ("choices", "candidates"):
            return padded_choices(chosen, rows["sizes"].cpu())
        if kind.annotation not in ON_TOKENS or "width" not in rows:
            return chosen
        # A chain's transitions, start and end stand before its tokens.
        before = self.kinds[name].outputs + 2 if kind.chain else 0
        return chosen[:, : before + int(rows["width"])]


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """torch computes with one thread meanwhile.

    Its threads go on spinning after the little that decoding gives them, on the cores where onnxruntime's should run: that made a
    single text three times as slow on two cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def open_session(path: Path, device: torch.device | None = None, threads: int | None = None) -> Any:
    """An onnxruntime session of a file.

    Raises:
        UserError: a device that this onnxruntime has not, or a file that it cannot load.
    """
    import onnxruntime

    place = device or torch.device("cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if place.type == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise fault('"cuda" cannot be used by this onnxruntime', key="device", cure="pip install onnxruntime-gpu")
        providers.insert(0, "CUDAExecutionProvider")
    elif place.type != "cpu":
        raise fault(f'"{place}" cannot be used by onnxruntime here', key="device", allowed="cpu or cuda")
    # The fused kernel takes five times as long on a CPU as the two that it replaces.
    slow = [] if place.type == "cuda" else ["SkipLayerNormFusion"]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers, disabled_optimizers=slow)
    except Exception as error:  # onnxruntime's own classes have no other base in common
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise fault(f"onnxruntime cannot load it: {line}", where=str(path), cure="export it again") from error


def is_onnx(folder: str | Path) -> bool:
    """Whether a folder holds a graph and no weights of a checkpoint."""
    path = Path(folder)
    return (path / GRAPH).is_file() and not any(path.glob("*.safetensors"))


def check_graph(folder: Path) -> Path:
    """The graph's file, if its checksum is right.

    Raises:
        UserError: damaged, or no checksum.
    """
    try:
        expected = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))[GRAPH]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise fault(f"{CHECKSUMS} does not vouch for {GRAPH}", where=str(folder), cure="export it again") from error
    if digest(folder / GRAPH) != expected:
        raise fault(
            "damaged: its checksum is another", where=str(folder / GRAPH), cure="copy it again, or export it again"
        )
    return folder / GRAPH


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()
