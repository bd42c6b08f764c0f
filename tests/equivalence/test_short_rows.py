"""The kernels for short rows, interpreted on a CPU where Triton is installed (on a GPU: `test_on_a_gpu`)."""

from __future__ import annotations

import os

import pytest
import torch

from mtl_nlp.model.varlen import TRIED, mask_gap

LENGTHS = [7, 3, 12, 1, 0, 24, 40, 16, 17, 64]

if torch.cuda.is_available():
    pytest.skip("compiled kernels are tried on a GPU", allow_module_level=True)
os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
pytest.importorskip("triton", reason="Triton is not installed (torch for CPUs comes without it)")

from mtl_nlp.model import short_rows  # noqa: E402
from mtl_nlp.model.short_rows import short_rows_attention  # noqa: E402


def states(width: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ends = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    return list(torch.randn(4, sum(LENGTHS), 2, width, generator=generator).unbind(0)), ends


def row_by_row(parts: list[torch.Tensor], causal: bool, window: int | None) -> torch.Tensor:
    found, begin = [], 0
    for length in LENGTHS:
        q, k, v = (part[begin : begin + length].transpose(0, 1) for part in parts)
        apart = torch.arange(length)[:, None] - torch.arange(length)
        seen = torch.ones_like(apart, dtype=torch.bool) if window is None else apart.abs() < window
        seen = seen & (apart >= 0) if causal else seen
        scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(~seen, float("-inf"))
        found.append((scores.softmax(-1) @ v).transpose(0, 1))
        begin += length
    return torch.cat(found)


@pytest.mark.parametrize("many", [0, 10**9])  # every row has the smallest tile that holds it, or all the largest
@pytest.mark.parametrize("width", [32, 40])
@pytest.mark.parametrize(("causal", "window"), TRIED)
def test_outputs_and_gradients_are_those_of_attention_row_by_row(
    causal: bool, window: int | None, width: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_rows, "MANY", many)
    (*parts, weight), ends = states(width)
    own, known = ([part.clone().requires_grad_() for part in parts] for _ in range(2))
    one = short_rows_attention(own, ends, max(LENGTHS), 0.0, None, causal, window)
    other = row_by_row(known, causal, window)
    assert torch.allclose(one, other, atol=1e-5)
    pairs = (torch.autograd.grad((out * weight).sum(), leaves) for out, leaves in ((one, own), (other, known)))
    for found, expected in zip(*pairs, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_states_may_lie_apart_in_memory() -> None:
    ends = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    whole = torch.randn(sum(LENGTHS), 3, 2, 32, generator=torch.Generator().manual_seed(1))
    parts = list(whole.unbind(1))
    assert torch.allclose(short_rows_attention(parts, ends, max(LENGTHS)), row_by_row(parts, False, None), atol=1e-5)


@pytest.mark.parametrize("many", [0, 10**9])
def test_what_the_forward_pass_drops_the_backward_pass_drops(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_rows, "MANY", many)
    parts, ends = states(32)
    assert mask_gap(short_rows_attention, torch.stack(parts), ends) <= 1e-5


def test_as_many_weights_are_dropped_as_asked_and_no_two_rows_share_a_mask() -> None:
    """Even weights over values that are one-hot show the mask itself."""
    length, rows = 32, 40
    ends = torch.arange(0, (rows + 1) * length, length, dtype=torch.int32)
    nothing = torch.zeros(rows * length, 1, length)
    values = torch.eye(length).repeat(rows, 1)[:, None]
    torch.manual_seed(0)
    out = short_rows_attention([nothing, nothing, values], ends, length, 0.25).view(rows, length, length)
    kept = out != 0
    assert torch.allclose(out[kept], torch.tensor(1 / length / 0.75))
    # 40 960 draws: three standard deviations.
    assert abs(float(kept.float().mean()) - 0.75) <= 3 * (0.25 * 0.75 / kept.numel()) ** 0.5
    assert len(torch.unique(kept.view(rows, -1), dim=0)) == rows


def test_masks_follow_torchs_generator() -> None:
    parts, ends = states(32)

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return short_rows_attention(parts[:3], ends, max(LENGTHS), 0.3)

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))
