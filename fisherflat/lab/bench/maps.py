"""What is measured: gated attention, pre-norm blocks with a gated MLP, and stacks of them, each with a chart."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.layers import Gate, GatedMLP, SelfAttention
from fisherflat.spaces.charts import Chart, affine

#: width -> (tokens, heads) of the named maps
SIZES = {64: (16, 1), 256: (64, 4), 768: (64, 12)}
NAMES = [f"{kind}-{dim}" for kind in ("attention", "block") for dim in SIZES]
TOKENS = 16
NORMS = (nn.LayerNorm, nn.RMSNorm)
MOVING = ("all", "token")
READOUTS = ("all", "token")


@dataclass(frozen=True)
class Subject:
    """A map on a chart, in one dtype on one device.

    **Attributes:** `module`, `[n, d]` to `[n, d]` (or to `[d]`), as the engines take it; `forward`, the same with batch
    axes; `plain`, the same function with silu written out, whose fused backward torch cannot differentiate in forward
    mode; `written_out`, with the norms written out as well; `chart`.
    """

    name: str
    module: Callable[[Tensor], Tensor]
    forward: Callable[[Tensor], Tensor]
    plain: Callable[[Tensor], Tensor]
    written_out: Callable[[Tensor], Tensor]
    chart: Chart
    dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.chart.point.device

    @property
    def has_norms(self) -> bool:
        """Whether nested forward mode is wrong about it as it is."""
        return self.written_out is not self.plain

    @cached_property
    def work(self) -> int:
        """Floating-point operations of one forward pass, as torch counts them; at least 1."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.forward(self.inputs(1))
        return max(1, counter.get_total_flops())

    def points(self, count: int) -> Float[Tensor, "P k"]:
        """The same `count` points of the chart on every call."""
        generator = torch.Generator().manual_seed(1)
        u = 0.3 * torch.randn(count, self.chart.k, generator=generator, dtype=torch.float64)
        return u.to(self.device, self.dtype)

    def inputs(self, count: int) -> Float[Tensor, "B n d"]:
        """`count` inputs of the map, for plain forward passes."""
        return self.chart(self.points(count).double()).to(self.dtype)


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


class Llama(nn.Module):
    """A block of the shape of Llama's: RMSNorm, causal attention without a gate, a gated MLP of width about 8 d / 3.

    That is 11008 for d = 4096. Without rotary positions, which are no more than another constant of the scores.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)
        self.attention = SelfAttention(dim, heads, causal=True)
        self.mlp = GatedMLP(dim, 256 * math.ceil(8 * dim / 3 / 256))

    forward = Block.forward


class LastToken(nn.Module):
    """A map read out at its last token."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """`[*batch, n, d]` to `[*batch, d]`."""
        return self.inner(x)[..., -1, :]


class _WrittenNorm(nn.Module):
    def __init__(self, norm: nn.LayerNorm | nn.RMSNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        eps = torch.finfo(x.dtype).eps if self.norm.eps is None else self.norm.eps
        centred = x - x.mean(-1, keepdim=True) if isinstance(self.norm, nn.LayerNorm) else x
        normal = centred * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + eps)
        weighted = normal if self.norm.weight is None else normal * self.norm.weight
        bias = getattr(self.norm, "bias", None)
        return weighted if bias is None else weighted + bias


def _written_silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def written_out(module: nn.Module, norms: bool) -> nn.Module:
    """A copy with silu, and the norms if told to, in plain arithmetic; the weights are shared."""
    written = copy.deepcopy(module, {id(weight): weight for weight in (*module.parameters(), *module.buffers())})
    for part in list(written.modules()):
        if isinstance(part, GatedMLP) and part.activation == "silu":
            part._activation = _written_silu
        for name, child in part.named_children():
            if norms and isinstance(child, NORMS):
                setattr(part, name, _WrittenNorm(child))
    return written


def _build(kind: str, dim: int, heads: int, depth: int) -> nn.Module:
    if kind == "llama":
        return nn.Sequential(*(Llama(dim, max(1, dim // 128)) for _ in range(depth)))
    if kind == "norm":
        return nn.Sequential(nn.LayerNorm(dim, eps=0.0, elementwise_affine=False))
    if kind == "attention":
        return SelfAttention(dim, heads, gate=Gate())
    return nn.Sequential(*(Block(dim, heads) for _ in range(depth)))


def subject(
    name: str,
    k: int,
    *,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    moving: str = "all",
    readout: str = "all",
    tokens: int | None = None,
) -> Subject:
    """The map called `name` with random weights (the same on every call) on a random chart of dimension `k`.

    **Args:** `name`: `attention-D`, `block-D`, `block-DxL` (a stack of L blocks), `llama-D` (likewise) or `norm-D`,
    with width D; `moving`: `"all"` tokens move, or only the last `"token"`; `readout`: the output is `"all"` tokens, or
    the last `"token"`; `tokens`: their number, if not that of the named sizes (16 for D = 64, 64 for D = 256 and 768;
    otherwise 16).

    **Raises:** `InputError` for an unknown name or choice.
    """
    found = re.fullmatch(r"(attention|block|llama|norm)-(\d+)(?:x(\d+))?", name)
    if found is None or (found[1] not in ("block", "llama") and found[3]):
        raise InputError(f"unknown map {name!r}; known are {', '.join(NAMES)} and stacks such as block-64x4")
    if moving not in MOVING or readout not in READOUTS:
        raise InputError(f"moving and readout are 'all' or 'token', got {moving!r} and {readout!r}")
    dim, depth = int(found[2]), int(found[3] or 1)
    named_tokens, heads = SIZES.get(dim, (TOKENS, max(1, dim // 64)))
    tokens = named_tokens if tokens is None else tokens
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = _build(found[1], dim, heads, depth)
        point = torch.randn(tokens, dim, dtype=torch.float64)
        basis = torch.randn(k, tokens, dim, dtype=torch.float64) / k**0.5
    if moving == "token":
        basis[:, :-1] = 0
    if readout == "token":
        module = LastToken(module)
    module = module.to(device=device, dtype=dtype).eval().requires_grad_(False)
    written = written_out(module, norms=True) if any(isinstance(m, NORMS) for m in module.modules()) else None
    plain = written_out(module, norms=False)
    chart = affine(point.to(device), basis.to(device))
    return Subject(name, module, module, plain, written or plain, chart, dtype)
