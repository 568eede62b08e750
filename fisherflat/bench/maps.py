"""What is measured: gated attention, pre-norm blocks with a gated MLP, and stacks of them, each with a chart."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from fisherflat._typing import Float, Tensor
from fisherflat.charts import Chart, affine
from fisherflat.errors import InputError
from fisherflat.layers import Gate, GatedMLP, SelfAttention

#: width -> (tokens, heads) of the named maps
SIZES = {64: (16, 1), 256: (64, 4), 768: (64, 12)}
NAMES = [f"{kind}-{dim}" for kind in ("attention", "block") for dim in SIZES]
MOVING = ("all", "token")
READOUTS = ("all", "token")


@dataclass(frozen=True)
class Subject:
    """A map on a chart, in one dtype on one device.

    **Attributes:** `module`: `[*batch, n, d]` to `[*batch, D...]`; `plain`: the same function, written so that torch can
    differentiate it twice in every nesting; `chart`; `work`: floating-point operations of one forward pass.
    """

    name: str
    module: Callable[[Tensor], Tensor]
    plain: Callable[[Tensor], Tensor]
    chart: Chart
    dtype: torch.dtype
    work: float

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.chart.point.device

    def points(self, count: int) -> Float[Tensor, "P k"]:
        """The same `count` points of the chart on every call."""
        generator = torch.Generator().manual_seed(1)
        return 0.3 * torch.randn(count, self.chart.dim, generator=generator, dtype=torch.float64).to(self.device)

    def inputs(self, count: int) -> Float[Tensor, "B n d"]:
        """`count` inputs of the map, for plain forward passes."""
        return self.chart(self.points(count)).to(self.dtype)


class Block(nn.Module):
    """A pre-norm block: `x + attention(norm(x))`, then `x + mlp(norm(x))`."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads, gate=Gate())
        self.mlp = GatedMLP(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[*batch, n, d]` to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class _LastToken(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[..., -1, :]


def _plain_silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _plain(module: nn.Module) -> nn.Module:
    """The module with silu written out: torch has no forward derivative of its fused backward."""
    written = copy.deepcopy(module)
    for part in written.modules():
        if isinstance(part, GatedMLP) and part.activation == "silu":
            part._activation = _plain_silu
    return written


def attention_work(tokens: int, dim: int) -> float:
    """Operations of one pass of gated attention: five projections and two products with the pattern."""
    return 2.0 * tokens * dim * dim * 5 + 4.0 * tokens * tokens * dim


def _built(kind: str, dim: int, tokens: int, heads: int, depth: int) -> tuple[nn.Module, float]:
    if kind == "attention":
        return SelfAttention(dim, heads, gate=Gate()), attention_work(tokens, dim)
    work = attention_work(tokens, dim) + 2.0 * tokens * dim * 4 * dim * 3
    return nn.Sequential(*(Block(dim, heads) for _ in range(depth))), depth * work


def subject(
    name: str,
    k: int,
    *,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    moving: str = "all",
    readout: str = "all",
) -> Subject:
    """The map called `name` with random weights (the same on every call) on a random chart of dimension `k`.

    **Args:** `name`: `attention-D` or `block-D` with width D (64, 256, 768; other widths have 16 tokens and heads of
    width 64 at most), or `block-DxL`, a stack of L blocks; `moving`: `"all"` tokens move, or only the last `"token"`;
    `readout`: the output is `"all"` tokens, or the last `"token"`.

    **Raises:** `InputError` for an unknown name or choice.
    """
    found = re.fullmatch(r"(attention|block)-(\d+)(?:x(\d+))?", name)
    if found is None or (found[1] == "attention" and found[3]):
        raise InputError(f"unknown map {name!r}; known are {', '.join(NAMES)} and stacks such as block-64x4")
    if moving not in MOVING or readout not in READOUTS:
        raise InputError(f"moving and readout are 'all' or 'token', got {moving!r} and {readout!r}")
    dim, depth = int(found[2]), int(found[3] or 1)
    tokens, heads = SIZES.get(dim, (16, max(1, dim // 64)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, work = _built(found[1], dim, tokens, heads, depth)
        point = torch.randn(tokens, dim, dtype=torch.float64)
        basis = torch.randn(k, tokens, dim, dtype=torch.float64) / k**0.5
    if moving == "token":
        basis[:, :-1] = 0
    if readout == "token":
        module = _LastToken(module)
    module = module.to(device=device, dtype=dtype).eval().requires_grad_(False)
    return Subject(name, module, _plain(module), affine(point.to(device), basis.to(device)), dtype, work)
