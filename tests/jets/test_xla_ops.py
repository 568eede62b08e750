"""Each op that XLA is told of, as torch computes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest
import torch
from torch import Tensor

from fisherflat.jets.xla import Program
from fisherflat.jets.xla._ops import OPS
from fisherflat.jets.xla._views import VIEWS

aten = torch.ops.aten
#: between 0 and 1, without equal entries
X = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
#: of both signs
Y = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
BROKEN = torch.tensor([[1.0, torch.nan, -torch.inf], [torch.inf, 0.0, -2.0]], dtype=torch.float64)
ORDER, FLAGS = torch.tensor([[[2], [0], [1]], [[1], [1], [3]]]), Y > 0
LOWER = torch.eye(4, dtype=torch.float64) + 0.3 * torch.randn(4, 4, dtype=torch.float64).tril(-1)

UNARY = (
    "abs acos asin asinh atan atanh ceil cos cosh digamma erf erfc erfinv exp exp2 expm1 floor isfinite isinf isnan "
    "lgamma log log10 log1p log2 neg reciprocal relu round rsqrt sigmoid sign signbit sin sinc sinh sqrt square tan "
    "tanh trunc"
)
BINARY = "add atan2 copysign div eq ge gt le lt maximum minimum mul ne pow remainder rsub sub floor_divide special_zeta"
LOGICAL = "bitwise_and bitwise_or bitwise_xor logical_and logical_or logical_xor"

Call = Callable[[Tensor, Tensor], Any]


def called(name: str, *others: Any, of: Callable[[Tensor, Tensor], tuple[Tensor, ...]] = lambda x, y: (y,)) -> Call:
    """The op on some of two tensors, with further arguments."""
    return lambda x, y: getattr(aten, name)(*of(x, y), *others)


#: op -> calls of two tensors, between 0 and 1 and of both signs
CALLS: dict[str, list[Call]] = {
    **{name: [called(name, of=lambda x, y: (x,))] for name in UNARY.split()},
    **{name: [called(name, of=lambda x, y: (x, y))] for name in BINARY.split()},
    **{name: [called(name, of=lambda x, y: (x > 0.5, y > 0))] for name in LOGICAL.split()},
    "abs": [lambda x, y: aten.abs(y)],
    "acosh": [lambda x, y: aten.acosh(x + 1)],
    "add": [lambda x, y: x + y, lambda x, y: torch.add(x, y, alpha=3), lambda x, y: x + 2],
    "sub": [lambda x, y: x - y, lambda x, y: torch.sub(x, y, alpha=3)],
    "rsub": [lambda x, y: aten.rsub(x, y, alpha=3), lambda x, y: aten.rsub(x, 2)],
    "addcmul": [lambda x, y: torch.addcmul(x, x, y, value=3), lambda x, y: torch.addcmul(x, x, y)],
    "pow": [lambda x, y: x**y, lambda x, y: y**3, lambda x, y: 2**y],
    "div": [
        lambda x, y: x / y, lambda x, y: torch.div(y, x, rounding_mode="floor"),
        lambda x, y: torch.div(y, x, rounding_mode="trunc"),
    ],
    "floor_divide": [lambda x, y: aten.floor_divide(y, x)],
    "special_zeta": [lambda x, y: aten.special_zeta(torch.full_like(x, 2), x)],
    "bitwise_not": [lambda x, y: ~(y > 0)],
    "logical_not": [lambda x, y: torch.logical_not(y > 0)],
    "where": [lambda x, y: torch.where(y > 0, x, y)],
    "clamp": [lambda x, y: y.clamp(-0.5, 0.5), lambda x, y: y.clamp(None, 0.2)],
    "clamp_max": [lambda x, y: y.clamp_max(0.3)],
    "clamp_min": [lambda x, y: y.clamp_min(0.3)],
    "nan_to_num": [lambda x, y: (x[:, :, :3].sum(0)[:2] * 0 + BROKEN).nan_to_num(0.5, 9.0, -9.0)],
    "masked_fill": [lambda x, y: y.masked_fill(y > 0, 7.0)],
    "mm": [lambda x, y: x[0] @ y[0].T],
    "mv": [lambda x, y: aten.mv(x[0], y[0, 0])],
    "dot": [lambda x, y: aten.dot(x[0, 0], y[0, 0])],
    "bmm": [lambda x, y: torch.bmm(x, y.mT)],
    "matmul": [lambda x, y: x @ y.mT],
    "addmm": [lambda x, y: torch.addmm(x[0, :, :3], x[0], y[0].T, beta=0.5, alpha=2)],
    "baddbmm": [lambda x, y: torch.baddbmm(x[:, :, :3], x, y.mT), lambda x, y: torch.baddbmm(x, x, y.mT @ y, beta=0)],
    "convolution": [
        lambda x, y: torch.conv1d(x, y[:, :, :2], x[:, 0, 0], stride=1, padding=1),
        lambda x, y: torch.conv1d(x.view(1, 6, 4), y[..., :2].reshape(6, 1, 2), groups=6, dilation=2),
    ],
    "linalg_solve_triangular": [
        lambda x, y: torch.linalg.solve_triangular(LOWER + 0 * x[0, 0], y.mT, upper=False),
        lambda x, y: torch.linalg.solve_triangular(LOWER.T + 0 * x[0, 0], y, upper=True, left=False),
        lambda x, y: torch.linalg.solve_triangular(LOWER + 0 * x[0, 0], y.mT, upper=False, unitriangular=True),
    ],
    **{
        name: [called(name, dim) for dim in ([0], [1, 2], [-1])]
        for name in ("amax", "amin", "mean", "sum")
    },
    **{name: [called(name, 1, True, of=lambda x, y: (y > 0,))] for name in ("all", "any")},
    "prod": [lambda x, y: y.prod(1), lambda x, y: y.prod()],
    **{
        name: [called(name, 0, True), called(name, 2), called(name, 1, of=lambda x, y: (y.round(),)), called(name)]
        for name in ("argmax", "argmin")
    },
    **{
        name: [called(name, dim, False) for dim in (0, -1)]
        for name in ("_softmax", "_log_softmax")
    },
    **{name: [called(name, dim) for dim in (0, -1)] for name in ("cumsum", "cumprod")},
    "_to_copy": [lambda x, y: x.to(torch.float32)],
    "clone": [lambda x, y: x.clone().mul_(2) + x],
    "lift_fresh_copy": [lambda x, y: aten.lift_fresh_copy(x)],
    "cat": [lambda x, y: torch.cat([x, y], 1)],
    "stack": [lambda x, y: torch.stack([x, y], -1)],
    "constant_pad_nd": [called("constant_pad_nd", [1, 2, 0, 1], 3.0), called("constant_pad_nd", [-1, 1])],
    "diagonal": [lambda x, y: x.diagonal(1, 1, 2) * 1],
    "embedding": [lambda x, y: torch.nn.functional.embedding(torch.tensor([[2, 0]]), y[0])],
    "flip": [lambda x, y: y.flip([0, 2])],
    "roll": [lambda x, y: y.roll(1, 2), lambda x, y: y.roll(2)],
    "repeat": [lambda x, y: y.repeat(2, 1, 3)],
    "tril": [lambda x, y: y.tril(-1)],
    "triu": [lambda x, y: y.triu(1)],
    "gather": [lambda x, y: y.gather(2, ORDER)],
    "index": [lambda x, y: y[:, torch.tensor([2, 0])]],
    "index_select": [lambda x, y: y.index_select(1, torch.tensor([2, 0]))],
    "index_add": [lambda x, y: y.index_add(1, torch.tensor([2, 0, 2]), x, alpha=2)],
    "index_put": [
        lambda x, y: y.index_put((torch.tensor([1, 0]),), x), lambda x, y: y.index_put((torch.tensor([1, 1]),), x, True)
    ],
    "scatter": [lambda x, y: y.scatter(2, ORDER, x), lambda x, y: y.scatter(2, ORDER, 5.0)],
    "scatter_add": [lambda x, y: y.scatter_add(2, ORDER.expand(2, 3, 2), x)],
    "sort": [lambda x, y: y.sort(1), lambda x, y: y.sort(dim=2, descending=True, stable=True)],
    "topk": [lambda x, y: y.topk(2, 1), lambda x, y: y.topk(2, largest=False)],
}  # fmt: skip

#: views, through which something is read and, where it can be, written
SEEN: dict[str, Callable[[Tensor], Any]] = {
    "alias": aten.alias, "detach": lambda x: x.detach(), "expand": lambda x: x[:, :1].expand(2, 3, 4),
    "permute": lambda x: x.permute(2, 0, 1), "select": lambda x: x.select(1, -1), "slice": lambda x: x[:, 1:, ::2],
    "split": lambda x: x.split(2, -1), "split_with_sizes": lambda x: x.split([1, 3], 2),
    "squeeze": lambda x: x[:1].squeeze(0),
    "t": lambda x: x[0].t(), "transpose": lambda x: x.transpose(0, 2), "unbind": lambda x: x.unbind(1),
    "unsqueeze": lambda x: x.unsqueeze(1), "view": lambda x: x.view(3, 8),
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def check(function: Callable[..., Any], *given: Tensor) -> None:
    def parts(*given: Tensor) -> tuple[Tensor, ...]:
        found = function(*given)
        return (found,) if isinstance(found, Tensor) else tuple(found)

    for got, want in zip(Program(parts, given, (2,))(*given), parts(*given), strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        assert torch.allclose(
            got, want, rtol=1e-12 if want.dtype == torch.float64 else 1e-6, atol=1e-14, equal_nan=True
        )


def test_there_is_a_call_of_each() -> None:
    assert set(CALLS) == set(OPS)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_an_op(name: str) -> None:
    for call in CALLS[name]:
        check(call, X, Y)


@pytest.mark.parametrize("name", sorted(SEEN))
def test_a_view_is_read_and_written_through(name: str) -> None:
    def read(x: Tensor) -> Any:
        found = SEEN[name](x)
        return (found * 2,) if isinstance(found, Tensor) else [part * 2 for part in found]

    def written(x: Tensor) -> Tensor:
        base = torch.empty_like(x).copy_(x)
        found = SEEN[name](base)
        (found if isinstance(found, Tensor) else found[-1]).mul_(3)
        return base

    check(read, X)
    if name not in ("expand", "detach"):  # which no rule writes through
        check(written, X)
    assert name in VIEWS


def test_rows_that_are_written_one_by_one() -> None:
    def filled(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        out = x.new_empty(2, 3, 4)
        out[0] = x[0].exp()
        torch.mul(x[1], y[1], out=out[1])
        turned = out.transpose(0, 1) @ y[0, :, :, None]
        return out, out.view(6, 4) @ y[0].T, turned, out.sum(0), out.sum(-1), out[:, 1:] + y[:, 1:]

    check(filled, X, Y)
