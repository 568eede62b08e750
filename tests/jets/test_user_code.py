"""What people write in modules: in-place ops, views, casts, branches; each traced rightly or refused with its line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases.closeness import assert_same
from cases.differences import dyadic, dyadic_series, taylor_jet, torch_jet
from cases.rules import c
from torch import Tensor, nn

from fisherflat.errors import FisherflatError, MapError, TraceError, UnsupportedOpError
from fisherflat.parts import trace

INDEX = torch.tensor([2, 0])
MASK = torch.tensor([[True, False, True, False], [False, False, True, True], [True, True, True, True]])


def set_row(x: Tensor) -> Tensor:
    y = x * 2
    y[1] = x[0] * x[2]
    return y


def set_slice_of_zeros(x: Tensor) -> Tensor:
    y = torch.zeros(4, 4, dtype=x.dtype)
    y[1:, ::2] = x[:, :2]
    y[0] += x[1]
    y[..., -1] = 5
    return y


def set_by_index(x: Tensor) -> Tensor:
    y = x.clone()
    y[INDEX] = x[:2] * x[1:]
    y[:, [0, 3]] -= 1
    return y


def set_by_mask(x: Tensor) -> Tensor:
    y = x + 0
    y[MASK] = 0
    y[x > 1] = 1
    y[x[:, 0] < 0] = x[0]
    return y


def set_negative_entries(x: Tensor) -> Tensor:
    y = x * x - 1
    y[y < 0] = 0
    return y


def add_(x: Tensor) -> Tensor:
    y = x * 1
    y.add_(x, alpha=2).mul_(x).sub_(1).div_(4).neg_()
    y += y
    return y


def fill_(x: Tensor) -> Tensor:
    y = x * x
    y.masked_fill_(MASK, 3)
    y[0].fill_(2)
    y[:, 1].zero_()
    y.clamp_(-1, 5).relu_()
    return y


def index_add_(x: Tensor) -> Tensor:
    y = torch.zeros(3, 4, dtype=x.dtype)
    y.index_add_(0, INDEX, x[:2] * x[0])
    y.scatter_add_(1, torch.zeros(3, 2, dtype=torch.long), x[:, 2:])
    y.index_copy_(0, torch.tensor([1]), x[1:2])
    return y


def copy_(x: Tensor) -> Tensor:
    y = torch.empty(3, 4, dtype=x.dtype)
    y.copy_(x)
    y[:, :2].copy_(x[:, 2:])
    y.t()[0].copy_(x[:, 1] * x[:, 2])
    return y


def views(x: Tensor) -> Tensor:
    y = x * 1
    left, right = y.chunk(2, -1)
    left *= right
    y.view(-1)[3:5] = 7
    y.transpose(0, 1)[1] += x[:, 0]
    y.unsqueeze(0).squeeze(0).diagonal().mul_(2)
    return y


def accumulated(x: Tensor) -> Tensor:
    total = torch.zeros(4, dtype=x.dtype)
    for row in x:
        total = total + row * row
        total += row
    return total


def out_argument(x: Tensor) -> Tensor:
    y = torch.empty(3, 4, dtype=x.dtype)
    torch.mul(x, x, out=y)
    return y


def written_into_its_input(x: Tensor) -> Tensor:
    x[0] = x[1] * x[2]
    return x


def copied_before_it_is_written(x: Tensor) -> Tensor:
    """As `pad(mode="circular")` does: its corners are copied before they hold anything, and written over."""
    y, z = torch.empty(5, 6, dtype=x.dtype), torch.full((5, 6), 3.0, dtype=x.dtype)
    y[1:4, 1:5] = x * x
    y[:, 0], y[:, 5] = y[:, 4], y[:, 1]
    z.copy_(y)
    z[0], z[4], y[::4] = y[3], y[1], 0.0
    return y * z + torch.nn.functional.pad((x * x)[None, None], (1, 1, 1, 1), mode="circular")[0, 0]


def detached(x: Tensor) -> Tensor:
    return x - x.detach().amax(-1, keepdim=True) * x.data


def dropout(x: Tensor) -> Tensor:
    return torch.dropout(x * x, 0.5, False) + torch.nn.functional.dropout(x, training=False)


def numpy_like(x: Tensor) -> Tensor:
    return torch.as_tensor(x).type_as(x).contiguous().to("cpu") * len(x) * x.shape[-1] * x.dim()


USER_CODE = [
    set_row,
    set_slice_of_zeros,
    set_by_index,
    set_by_mask,
    set_negative_entries,
    add_,
    fill_,
    index_add_,
    copy_,
    views,
    accumulated,
    out_argument,
    written_into_its_input,
    copied_before_it_is_written,
    detached,
    dropout,
    numpy_like,
]


@pytest.mark.parametrize("f", USER_CODE)
def test_code_as_people_write_it(f: Callable[[Tensor], Tensor]) -> None:
    at = dyadic((3, 4), 0, 2.0**-9)
    before = at.clone()
    graph = trace(f, at)
    assert torch.equal(at, before)
    x = dyadic_series((3, 4), 1, 2, 2, seed=1)

    def fresh(y: Tensor) -> Tensor:
        return f(y.clone())

    want = torch_jet(fresh, x, 2)
    assert (taylor_jet(graph, x, 2) - want).abs().max() <= 1e-8 * max(1, want.abs().max())
    assert_same(graph(x[0, 1]), fresh(x[0, 1]))


class Lowering(nn.Module):
    """Casts down and up as norms and attention of checkpoints do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(c(4))
        self.register_buffer("table", c(3, 4).to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = (y / 3).to(torch.bfloat16) * self.weight.half()
        y = torch.softmax(y, -1, dtype=torch.float32).type(torch.float16)
        scale = torch.tensor(1 / 3, dtype=torch.float32)
        with torch.autocast("cpu", enabled=False):
            return y.to(x.dtype) * self.table + torch.rsqrt(y.float().pow(2).mean(-1, keepdim=True) + 1e-6) * x * scale


def test_casts_to_a_lower_precision_are_dropped() -> None:
    """Constants that a module in double makes on its way are made in double, too; its table is exact in bfloat16."""
    module = Lowering().double()
    x = dyadic((3, 4), 1, 2.0**-9)
    got = trace(module, x)(x)
    y = torch.softmax(x / 3 * c(4), -1)
    want = y * c(3, 4) + torch.rsqrt((y * y).mean(-1, keepdim=True) + 1e-6) * x / 3
    torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-14)


def branch(x: Tensor) -> Tensor:
    if x.sum() > 0:  # the line
        return x
    return -x


def item(x: Tensor) -> Tensor:
    return x * x.max().item()  # the line


def listed(x: Tensor) -> Tensor:
    return x * x[0, 0].tolist()  # the line


def counted(x: Tensor) -> Tensor:
    return x[: int((x > 0).sum())]  # the line


def selected(x: Tensor) -> Tensor:
    return x[x > 0]  # the line


def positions(x: Tensor) -> Tensor:
    return x * x.nonzero()[0, 0]  # the line


def where_alone(x: Tensor) -> Tensor:
    return x * torch.where(x > 0)[0].sum()  # the line


def equal(x: Tensor) -> Tensor:
    return x if torch.equal(x, x * 2) else x * 3  # the line


def random(x: Tensor) -> Tensor:
    return x + torch.randn(4)  # the line


def random_like(x: Tensor) -> Tensor:
    return x * torch.rand_like(x)  # the line


def bernoulli(x: Tensor) -> Tensor:
    return torch.nn.functional.dropout(x, 0.5, training=True)  # the line


def by_shape_of_values(x: Tensor) -> Tensor:
    return x * torch.unique(x).sum()  # the line


def unwritten(x: Tensor) -> Tensor:
    y, z = torch.empty(4, dtype=x.dtype), torch.zeros(4, dtype=x.dtype)
    y[:2] = x[0, :2]
    z.copy_(y)
    return x * z  # the line


def line_of(f: Callable[..., Any]) -> str:
    lines, start = inspect.getsourcelines(f)
    return f"test_user_code.py:{start + next(i for i, line in enumerate(lines) if '# the line' in line)}"


@pytest.mark.parametrize(
    "f",
    [
        branch,
        unwritten,
        item,
        listed,
        counted,
        selected,
        positions,
        where_alone,
        equal,
        random,
        random_like,
        bernoulli,
        by_shape_of_values,
    ],
)
def test_what_no_graph_can_hold_is_refused_with_its_line(f: Callable[[Tensor], Tensor]) -> None:
    x = dyadic_series((3, 4), 1, 2, 2, seed=1)
    with pytest.raises(TraceError) as caught:
        taylor_jet(trace(f, x[0, 0]), x, 2)
    assert line_of(f) in str(caught.value)
    assert not isinstance(caught.value, UnsupportedOpError) or f is by_shape_of_values


@pytest.mark.parametrize(
    ("f", "error", "says"),
    [
        (lambda x: c(3, 4), TraceError, "does not depend on its input"),
        (lambda x: torch.tensor(x.numpy() * 2), TraceError, "numpy takes values of the map out of torch"),
        (lambda x: torch.zeros_like(x).normal_(), TraceError, "random"),
        (lambda x: (x, x * 2), MapError, "one tensor"),
        (lambda x: {"y": x}, MapError, "one tensor"),
        (lambda x: None, MapError, "one tensor"),
        (lambda x: x > 0, MapError, "floating-point"),
        (lambda x: x.argmax(0), MapError, "floating-point"),
        (lambda x: torch.view_as_complex(x.reshape(3, 2, 2)), MapError, "floating-point"),
        (lambda x: x @ c(3, 3), MapError, "failed on the chart's point"),
        (lambda x: torch.linalg.eigvals(x[:, :3]).abs(), TraceError, "complex"),
    ],
)
def test_maps_that_cannot_be_a_mean_are_refused(f: Any, error: type[FisherflatError], says: str) -> None:
    with pytest.raises(error, match=says):
        trace(f, dyadic((3, 4), 0, 2.0**-9))


def test_random_ops_on_constants_are_refused_too() -> None:
    with pytest.raises(TraceError, match="random"):
        trace(lambda x: x * torch.rand(()).item(), c(3, 4))


def test_training_mode_does_not_matter() -> None:
    module = nn.Sequential(
        nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Dropout1d(0.5), nn.AlphaDropout(0.1)
    ).double()
    x = c(3, 4)
    graph = trace(module.train(), x)
    assert module.training and all(m.training for m in module)
    torch.testing.assert_close(graph(x), module.eval()(x), rtol=1e-14, atol=1e-14)


def test_a_mask_of_minus_infinity_leaves_exact_zeros() -> None:
    causal = torch.full((3, 3), -math.inf, dtype=torch.float64).triu(1)
    x = dyadic_series((3, 4), 1, 2, 2)
    for f in (
        lambda x: (x @ x.T + causal).softmax(-1),
        lambda x: (x @ x.T).masked_fill(causal < 0, -math.inf).softmax(-1),
        lambda x: (x @ x.T).masked_fill(causal < 0, torch.finfo(torch.float64).min).softmax(-1),
    ):
        jet = taylor_jet(trace(f, x[0, 0]), x, 2).unflatten(-1, (3, 3))
        assert jet.isfinite().all()
        assert (jet[..., causal < 0] == 0).all()
        kept = taylor_jet(trace(lambda x: (x[:2] @ x[:2].T)[1].softmax(-1), x[0, 0]), x, 2)
        torch.testing.assert_close(jet[..., 1, :2], kept, rtol=1e-12, atol=1e-12)


def test_rows_masked_out_altogether() -> None:
    keep = torch.tensor([True, False, True])
    x = dyadic_series((3, 4), 1, 2, 1)
    safe = lambda x: torch.nn.functional.scaled_dot_product_attention(  # noqa: E731
        x[None], x[None], x[None], attn_mask=keep[:, None].expand(3, 3)[None]
    )[0]
    jet = taylor_jet(trace(safe, x[0, 0]), x, 2).unflatten(-1, (3, 4))
    assert jet.isfinite().all()
    assert (jet[..., 1, :] == 0).all()
    plain = taylor_jet(trace(lambda x: (x @ x.T / 2).softmax(-1) @ x, x[0, 0]), x, 2).unflatten(-1, (3, 4))
    torch.testing.assert_close(jet[..., keep, :], plain[..., keep, :], rtol=1e-12, atol=1e-12)


def test_a_constant_that_is_written_into_keeps_its_value_where_it_was_read() -> None:
    count = torch.zeros(3, 4, dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        count.zero_()
        y = x + count
        count.add_(2)
        return y * count

    x = c(3, 4)
    torch.testing.assert_close(trace(f, x)(x), 2 * x, rtol=0, atol=0)


def test_a_state_that_takes_up_the_input_is_refused() -> None:
    cache = torch.zeros(3, 4, dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        cache[1] = x[0]
        return cache * x

    with pytest.raises(TraceError):
        trace(f, c(3, 4))
