"""More maps that leave torch, write through views, keep modules of their own, or differentiate on their way.

`test_adversarial` asks that engines and proofs are right about them or refuse.
"""

from __future__ import annotations

import asyncio
import copy
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from cases.adversarial import A
from cases.integers import NUMBERS

D = torch.float64
Map = Callable[[Tensor], Tensor]
FUNCTIONS: dict[str, Map] = {}


def function(f: Map) -> Map:
    FUNCTIONS[f.__name__] = f
    return f


def beside(x: Tensor, found: Any) -> Tensor:
    return torch.cat([A @ x, torch.as_tensor(found).double().reshape(-1)])


def layer() -> nn.Linear:
    """A layer whose weights were not drawn."""
    made = nn.utils.skip_init(nn.Linear, 4, 4, bias=False, dtype=D)
    made.weight.data = torch.full((4, 4), 0.3, dtype=D)
    return made


# -- writes ------------------------------------------------------------------------------------------------------------


@function
def transpose_write_in_place(x: Tensor) -> Tensor:
    y = torch.outer(x, x)
    y.T[0] += x
    y.mT.mul_(2)
    return torch.cat([x, y.flatten()])


@function
def expand_write_in_place(x: Tensor) -> Tensor:
    y = (x * x)[:1].expand(1)
    y += x[:1]
    return torch.cat([x, y])


@function
def expand_read_after_in_place(x: Tensor) -> Tensor:
    b = x * x
    y = b.expand(3, 4)
    b[0] = 7 * x[1]
    return torch.cat([x, y.flatten()])


@function
def reshape_alias_in_place(x: Tensor) -> Tensor:
    b = torch.outer(x, x)
    y = b.reshape(16)
    b[1, 2] = x[0]
    return torch.cat([x, y])


@function
def contiguous_alias_in_place(x: Tensor) -> Tensor:
    b = torch.outer(x, x)
    y = b.contiguous()
    z = b.T.contiguous()
    b[1, 2] = x[0]
    return torch.cat([x, y.flatten(), z.flatten()])


@function
def to_alias_in_place(x: Tensor) -> Tensor:
    b = x * x
    y = b.to(D)
    z = b.double()
    w = b.type(D)
    b[1] = x[0]
    return torch.cat([x, y, z, w])


@function
def detach_alias_in_place(x: Tensor) -> Tensor:
    b = x * x
    y = b.detach()
    b.mul_(x)
    return torch.cat([x, y])


@function
def real_alias_in_place(x: Tensor) -> Tensor:
    z = torch.complex(x, x * x)
    z.real.mul_(2)
    z.imag[0] = x[1]
    return torch.cat([x, z.real, z.imag])


@function
def conj_alias_in_place(x: Tensor) -> Tensor:
    z = torch.complex(x, x * x)
    c = z.conj()
    z.mul_(1j)
    return torch.cat([x, c.real, c.imag])


@function
def conj_write_in_place(x: Tensor) -> Tensor:
    z = torch.complex(x, x * x)
    z.conj().mul_(torch.complex(x, x))
    return torch.cat([x, z.real, z.imag])


@function
def neg_view_in_place(x: Tensor) -> Tensor:
    z = torch.complex(x, x * x)
    n = z.conj().imag
    n.add_(x)
    return torch.cat([x, z.imag, n])


@function
def unfold_write_in_place(x: Tensor) -> Tensor:
    y = x * x
    y.unfold(0, 2, 2).mul_(torch.tensor([1.0, 3.0], dtype=D))
    return torch.cat([x, y])


@function
def diag_fill_in_place(x: Tensor) -> Tensor:
    y = torch.outer(x, x)
    y.fill_diagonal_(0.0)
    y.diagonal().copy_(x**3)
    return torch.cat([x, y.flatten()])


@function
def zero_in_place(x: Tensor) -> Tensor:
    y = x * x
    z = y * 1
    y.zero_()
    return torch.cat([x, y, z])


@function
def swap_views_in_place(x: Tensor) -> Tensor:
    y = x * x
    a, b = y[:2], y[2:]
    t = a.clone()
    a.copy_(b)
    b.copy_(t)
    return torch.cat([x, y])


@function
def overlap_copy_in_place(x: Tensor) -> Tensor:
    y = torch.cat([x * x, x])
    y[1:5] = y[0:4].clone()
    return torch.cat([x, y])


@function
def foreach_in_place(x: Tensor) -> Tensor:
    pair = [x * x, x + 1]
    torch._foreach_mul_(pair, 2.0)
    torch._foreach_add_(pair, [x, x])
    return torch.cat([x, *pair])


@function
def foreach_func_in_place(x: Tensor) -> Tensor:
    return torch.cat([x, *torch._foreach_exp([x, x * x])])


@function
def index_put_acc_in_place(x: Tensor) -> Tensor:
    y = torch.zeros(4, dtype=D)
    y.index_put_((torch.tensor([0, 0, 1]),), x[:3] ** 2, accumulate=True)
    return torch.cat([x, y])


@function
def index_put_dup_in_place(x: Tensor) -> Tensor:
    y = torch.zeros(4, dtype=D)
    y[torch.tensor([0, 1, 1])] = x[:3] ** 2
    return torch.cat([x, y])


@function
def scatter_in_place(x: Tensor) -> Tensor:
    y = x * x
    y.scatter_(0, torch.tensor([1, 3]), x[:2])
    y.scatter_add_(0, torch.tensor([0, 0]), x[2:])
    y.scatter_reduce_(0, torch.tensor([2]), x[:1], "prod")
    return torch.cat([x, y])


@function
def masked_scatter_in_place(x: Tensor) -> Tensor:
    y = x * x
    y.masked_scatter_(torch.tensor([True, False, True, False]), x**3)
    return torch.cat([x, y])


@function
def masked_scatter_moving_in_place(x: Tensor) -> Tensor:
    y = x * x
    y.masked_scatter_(x > 0, x**3)
    return torch.cat([x, y])


@function
def put_take_in_place(x: Tensor) -> Tensor:
    y = x * x
    y.put_(torch.tensor([0, 3]), x[:2])
    return torch.cat([x, y.take(torch.tensor([3, 0]))])


@function
def lerp_out_in_place(x: Tensor) -> Tensor:
    y = torch.empty(4, dtype=D)
    torch.lerp(x, x * x, 0.3, out=y)
    return torch.cat([x, y])


@function
def out_resized_in_place(x: Tensor) -> Tensor:
    y = torch.empty(0, dtype=D)
    torch.mul(x, x, out=y)
    return torch.cat([x, y])


@function
def out_input_in_place(x: Tensor) -> Tensor:
    y = x * 1
    torch.mul(y, y, out=y)
    torch.cumsum(y, 0, out=y)
    return torch.cat([x, y])


@function
def out_two_in_place(x: Tensor) -> Tensor:
    v_ = torch.empty(4, dtype=D)
    i = torch.empty(4, dtype=torch.long)
    torch.sort(x, out=(v_, i))
    return torch.cat([x, v_ * x, i.double()])


@function
def add_out_view_T_in_place(x: Tensor) -> Tensor:
    y = torch.zeros(4, 4, dtype=D)
    torch.mm(x[:, None], x[None], out=y.T)
    return torch.cat([x, y.flatten()])


@function
def input_write_in_place(x: Tensor) -> Tensor:
    x.mul_(x)
    return torch.cat([x, x + 1])


@function
def iadd_bcast_in_place(x: Tensor) -> Tensor:
    y = torch.outer(x, x)
    y += x
    y *= x[:, None]
    y -= 1
    y /= 2
    y **= 2
    return torch.cat([x, y.flatten()])


@function
def requires_grad_write_in_place(x: Tensor) -> Tensor:
    y = (x * x).requires_grad_()
    y.data.add_(x)
    return torch.cat([x, y.detach()])


@function
def weight_norm_in_place(x: Tensor) -> Tensor:
    return torch.cat([x, torch._weight_norm(torch.outer(x, x), x[:, None], 0).flatten()])


@function
def clone_channels_last_in_place(x: Tensor) -> Tensor:
    y = torch.outer(x, x)[None, None].contiguous(memory_format=torch.channels_last)
    y.view(16)[3] = x[0]
    return torch.cat([x, y.flatten()])


@function
def view_dtype_complex_in_place(x: Tensor) -> Tensor:
    z = torch.view_as_complex((x * x).reshape(2, 2))
    z.mul_(1j)
    return torch.cat([x, torch.view_as_real(z).flatten()])


@function
def storage_offset_in_place(x: Tensor) -> Tensor:
    y = torch.cat([x, x * x])
    z = y[4:].as_strided((2,), (1,), 0)
    return torch.cat([x, z * x[:2]])


@function
def split_with_view_in_place(x: Tensor) -> Tensor:
    y = torch.cat([x, x * x])
    a, b = torch.tensor_split(y, 2)
    a.mul_(b)
    c, d = y.hsplit(2)
    d.add_(c)
    return torch.cat([x, y])


@function
def renorm_in_place(x: Tensor) -> Tensor:
    y = torch.outer(x, x)
    y.renorm_(2, 0, 1.0)
    return torch.cat([x, y.flatten()])


@function
def clamp_in_place(x: Tensor) -> Tensor:
    y = x * x
    y.clamp_(max=x + 1)
    y.clamp_(0.1, 3.0)
    return torch.cat([x, y])


@function
def bernoulli_in_place(x: Tensor) -> Tensor:
    y = x * x
    y.bernoulli_(1.0)
    return torch.cat([x, y])


@function
def normal_swallow_in_place(x: Tensor) -> Tensor:
    try:
        z = torch.zeros(4, dtype=D).normal_()
    except Exception:
        z = 0.0
    return torch.cat([A @ x, z * x * x])


@function
def seeded_in_place(x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return torch.cat([A @ x, torch.randn(4, dtype=D) * x * x])


@function
def truths_in_place(x: Tensor) -> Tensor:
    m = x > 0
    m &= x > 1
    m |= x > 2
    m ^= x > -1
    return torch.cat([A @ x, m.double() * x * x])


# -- modules and derivatives -------------------------------------------------------------------------------------------


@function
def hyper_write(x: Tensor) -> Tensor:
    made = layer()
    made.weight.data = torch.outer(x, x)
    return torch.cat([x, made(x)])


@function
def hyper_copy(x: Tensor) -> Tensor:
    made = layer()
    with torch.no_grad():
        made.weight.copy_(torch.outer(x, x))
    return torch.cat([x, made(x)])


@function
def hyper_setattr(x: Tensor) -> Tensor:
    made = layer()
    del made.weight
    made.weight = torch.outer(x, x)
    return torch.cat([x, made(x)])


def trained(x: Tensor, optimiser: Any) -> Tensor:
    with torch.enable_grad():
        w = nn.Parameter(x.clone().detach())
        opt = optimiser([w], lr=0.1)
        for _ in range(2):
            opt.zero_grad()
            ((w - 1) ** 2 * w).sum().backward()
            opt.step()
    return torch.cat([x, w.detach()])


@function
def inner_sgd(x: Tensor) -> Tensor:
    return trained(x, torch.optim.SGD)


@function
def inner_adam(x: Tensor) -> Tensor:
    return trained(x, torch.optim.Adam)


@function
def hook_forward(x: Tensor) -> Tensor:
    made = layer()
    made.register_forward_hook(lambda m, i, o: o * o)
    return torch.cat([x, made(x)])


@function
def grad_hook(x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        z = y * y
        z.register_hook(lambda g: g * g)
        (z**2).sum().backward()
        return torch.cat([x, y.grad])


@function
def functional_jacobian(x: Tensor) -> Tensor:
    return torch.cat([x, torch.autograd.functional.jacobian(lambda y: y**3, x).diagonal()])


@function
def functional_hessian(x: Tensor) -> Tensor:
    return torch.cat([x, torch.autograd.functional.hessian(lambda y: (y**4).sum(), x).diagonal()])


@function
def functional_hvp(x: Tensor) -> Tensor:
    return torch.cat([x, torch.autograd.functional.hvp(lambda y: (y**4).sum(), x, x)[1]])


@function
def linearize(x: Tensor) -> Tensor:
    _, j = torch.func.linearize(lambda y: y**3, x)
    return torch.cat([x, j(x)])


@function
def batched_grads(x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        z = y**3 * y.sum()
        (J,) = torch.autograd.grad(z, y, torch.eye(4, dtype=D), is_grads_batched=True)
        return torch.cat([x, J.sum(0)])


@function
def vmap_grad(x: Tensor) -> Tensor:
    return torch.cat([x, torch.vmap(torch.func.grad(lambda y: y**3))(x)])


@function
def vmap_chunk(x: Tensor) -> Tensor:
    return torch.cat([x, torch.vmap(lambda y: y * x.sum(), chunk_size=2)(x)])


@function
def vmap_nested(x: Tensor) -> Tensor:
    return torch.cat([x, torch.vmap(lambda p: torch.vmap(lambda q: p * q)(x))(x).flatten()])


@function
def vmap_roll(x: Tensor) -> Tensor:
    return torch.cat([x, torch.vmap(lambda p: torch.roll(p * p, 1))(x)])


@function
def jacfwd_jacfwd_ln(x: Tensor) -> Tensor:
    return torch.cat([x, torch.func.jacfwd(torch.func.jacfwd(lambda y: F.layer_norm(y, (4,))))(x)[0].flatten()])


@function
def jacrev_chunk(x: Tensor) -> Tensor:
    return torch.cat([x, torch.func.jacrev(lambda y: y**3, chunk_size=1)(x).diagonal()])


@function
def grad_and_value(x: Tensor) -> Tensor:
    g, v = torch.func.grad_and_value(lambda y: (y**3).sum())(x)
    return torch.cat([x, g * v])


# -- ops and functions of one's own ------------------------------------------------------------------------------------


class Separate(torch.autograd.Function):
    """Two outputs, and derivatives that are not theirs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Any:
        return x**3, x.sum()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, slope: Tensor, other: Tensor) -> Tensor:
        return slope * 7


class Dirty(torch.autograd.Function):
    """Writes into its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.mul_(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope


@torch.library.custom_op("detours::squared", mutates_args={"x"})
def squared(x: Tensor) -> None:
    x.mul_(x.clone())


@torch.library.custom_op("detours::branching", mutates_args=())
def branching(x: Tensor) -> Tensor:
    return x * x if x.sum() > 0 else x.clone()


calls = [0]


@torch.library.custom_op("detours::counting", mutates_args=())
def counting(x: Tensor) -> Tensor:
    calls[0] += 1
    return x * calls[0]


@torch.library.custom_op("detours::two", mutates_args=())
def two(x: Tensor) -> tuple[Tensor, Tensor]:
    return x * x, x.sum().reshape(1)


@torch.library.custom_op("detours::number", mutates_args=())
def number(x: Tensor) -> float:
    return float(x.sum())


@torch.library.custom_op("detours::nearly", mutates_args=())
def nearly(x: Tensor) -> Tensor:
    return x**3


nearly.register_autograd(
    lambda ctx, slope: 3.0001 * slope * ctx.saved_tensors[0] ** 2,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


@torch.library.custom_op("detours::lists", mutates_args=())
def lists(x: list[Tensor]) -> list[Tensor]:
    return [y * y for y in x]


@function
def separate(x: Tensor) -> Tensor:
    a, b = Separate.apply(x)
    return torch.cat([A @ x, a * b])


@function
def dirty(x: Tensor) -> Tensor:
    return torch.cat([A @ x, Dirty.apply(x.clone())])


@function
def squared_by_an_op(x: Tensor) -> Tensor:
    y = x.clone()
    squared(y)
    return torch.cat([A @ x, y])


@function
def two_outputs(x: Tensor) -> Tensor:
    a, b = two(x)
    return torch.cat([A @ x, a * b])


@function
def lists_of_outputs(x: Tensor) -> Tensor:
    return torch.cat([A @ x, *lists([x, x[:2]])])


for _op in (branching, counting, nearly):
    FUNCTIONS[f"op_{_op._name}"] = lambda x, op=_op: torch.cat([A @ x, op(x)])
FUNCTIONS["op_number"] = lambda x: torch.cat([A @ x, x * number(x)])


# -- what leaves torch, or comes from elsewhere ------------------------------------------------------------------------


async def awaited(x: Tensor) -> Tensor:
    await asyncio.sleep(0)
    return x * x


compiled = torch.compile(lambda x: x * x.sum(), backend="eager")

W = torch.randn(2, 8, dtype=D, generator=torch.Generator().manual_seed(5))
CAUSAL = create_block_mask(lambda b, h, i, j: i >= j, None, None, 4, 4, device="cpu")


def flexible(x: Tensor, **options: Any) -> Any:
    """Attention with modified scores."""
    h = torch.outer(x, W[0]).reshape(1, 1, 4, 8) + torch.outer(x * x, W[1]).reshape(1, 1, 4, 8)
    return flex_attention(h, h * 0.5 + 1, h * h, **options)


LEAVING: dict[str, Callable[[Tensor], Any]] = {
    "np_array": lambda x: torch.tensor(np.array(x) ** 2).sum(),
    "dunder_array": lambda x: torch.from_numpy(x.__array__() ** 2).sum(),
    "memoryview": lambda x: sum(v * v for v in memoryview(x.numpy())),
    "dunder_dlpack": lambda x: torch.from_dlpack(x.detach()).square().sum(),
    "repr": lambda x: len(repr(x)) + x.square().sum(),
    "repr_parse": lambda x: float(repr(x[0]).split("(")[1].split(",")[0]) ** 2,
    "python_max": lambda x: max(x) * min(x),
    "python_sorted": lambda x: sorted(x)[0] * x[1],
    "python_sum": lambda x: sum(x) ** 2,
    "python_abs": lambda x: abs(x) * x,
    "in_list": lambda x: float(x[0] in [x[1]]) + x.prod(),
    "index": lambda x: torch.arange(10.0)[int(x[2])],
    "round_": lambda x: round(float(x[2]), 3) ** 2,
    "tensor_tensor": lambda x: torch.tensor(x) ** 2,
    "new_tensor": lambda x: x.new_tensor(x) ** 2,
    "as_subclass": lambda x: x.as_subclass(torch.Tensor) ** 2,
    "as_parameter": lambda x: nn.Parameter(x) ** 2,
    "make_subclass": lambda x: torch.Tensor._make_subclass(nn.Parameter, x.detach()) ** 2,
    "copy_copy": lambda x: copy.copy(x) ** 2,
    "nested": lambda x: torch.nested.nested_tensor([x, x]).to_padded_tensor(0.0) ** 2,
    "nested_jagged": lambda x: torch.nested.nested_tensor([x, x * x], layout=torch.jagged).values(),
    "meta": lambda x: x.to("meta").shape[0] * x * x,
    "weakref_": lambda x: weakref.ref(x)() ** 2,
    "hash_": lambda x: (hash(x) * 0 + 1) * x * x,
    "functional_call": lambda x: torch.func.functional_call(layer(), {"weight": torch.outer(x, x)}, (x,)),
    "asyncio": lambda x: asyncio.run(awaited(x)),
    "compiled": compiled,
    "associative_scan": lambda x: torch._higher_order_ops.associative_scan(torch.mul, x, 0, combine_mode="generic"),
    "cond": lambda x: torch.cond(x.sum() > 0, torch.square, torch.neg, (x,)),
    "flex": flexible,
    "flex_mask": lambda x: flexible(x, block_mask=CAUSAL),
    "flex_causal": lambda x: flexible(x, score_mod=lambda s, b, h, i, j: torch.where(i >= j, s, -torch.inf)),
    "flex_alibi": lambda x: flexible(x, score_mod=lambda s, b, h, i, j: s - 0.3 * (i - j).abs()),
    "flex_capped": lambda x: flexible(x, score_mod=lambda s, b, h, i, j: 5 * torch.tanh(s / 5)),
    "flex_moving": lambda x: flexible(x, score_mod=lambda s, b, h, i, j: s + (x * x)[i] * x[j]),
    "flex_lse": lambda x: flexible(x, return_lse=True)[1],
    "jit_fork": lambda x: torch.jit.wait(torch.jit.fork(lambda y: y * y, x)),
    "storage_tolist": lambda x: sum(v * v for v in x.storage().tolist()),
    "np_ufunc_out": lambda x: torch.as_tensor(np.multiply(x, x)),
    "np_matmul": lambda x: torch.as_tensor(np.ones((2, 4)) @ x.numpy()),
    "np_scalar_times": lambda x: np.float64(2.0) * x * x,
    "np_array_times": lambda x: torch.as_tensor(np.arange(4.0)) * x * x,
    "np_index": lambda x: x[np.array([0, 2])] * x[np.array([True, False, True, False])],
    "vector_norm": lambda x: torch.linalg.vector_norm(x),
    "is_nonzero": lambda x: x * x if torch.is_nonzero(x[0]) else x,
    "any_": lambda x: x * x if (x > 100).any() else x * x.sum(),
    "assert_": lambda x: (torch._assert(x.sum() > -100, "no"), x * x)[1],
    "assert_async": lambda x: (torch._assert_async(x.sum() > -100), x * x)[1],
    "isnan_any": lambda x: x if torch.isnan(x).any().item() else x * x,
}
for _name, _leaving in LEAVING.items():
    FUNCTIONS[f"beside_{_name}"] = lambda x, leaving=_leaving: beside(x, leaving(x))
for _name, _number in NUMBERS.items():
    FUNCTIONS[f"times_{_name}"] = lambda x, number=_number: beside(x, number(x))
