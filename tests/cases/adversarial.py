"""Maps that try to get past the recorder: what leaves torch, what hides, what jumps, what is written through views.

`FUNCTIONS` are functions of their input: each engine is right about them, or refuses them. `NO_FUNCTIONS` are not, or
decide by values: they are refused, whatever they do with the refusal.
"""

from __future__ import annotations

import copy
import ctypes
import io
import itertools
import math
import pickle
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

D = torch.float64
A = torch.randn(5, 4, dtype=D, generator=torch.Generator().manual_seed(1))
B = torch.randn(4, 4, dtype=D, generator=torch.Generator().manual_seed(2))

Map = Callable[[Tensor], Tensor]
FUNCTIONS: dict[str, Map] = {}
NO_FUNCTIONS: dict[str, Callable[[], Map]] = {}


def function(f: Map) -> Map:
    FUNCTIONS[f.__name__] = f
    return f


def no_function(make: Callable[[], Map]) -> Callable[[], Map]:
    NO_FUNCTIONS[make.__name__] = make
    return make


# -- what leaves torch -------------------------------------------------------------------------------------------------

LEAVING: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda x: torch.from_numpy(np.sin(x.numpy())).sum(),
    "detached_numpy": lambda x: torch.as_tensor(x.detach().cpu().numpy() ** 2).sum(),
    "forced_numpy": lambda x: torch.as_tensor(np.cos(x.numpy(force=True))).sum(),
    "asarray": lambda x: float((np.asarray(x) ** 2).sum()),
    "numpy_function": lambda x: torch.as_tensor(np.sin(x)).sum(),
    "numpy_of_a_view": lambda x: torch.from_numpy(x[1:3].numpy() ** 2).sum(),
    "numpy_of_what_was_written": lambda x: torch.from_numpy(torch.zeros(4, dtype=D).copy_(x).numpy() ** 2).sum(),
    "dlpack": lambda x: float((np.from_dlpack(x) ** 2).sum()),
    "dlpack_capsule": lambda x: torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x)).square().sum(),
    "lists": lambda x: sum(v * v for v in x.tolist()),
    "items": lambda x: x[0].item() * x[1].item(),
    "floats": lambda x: math.sin(x[0]) * float(x[1]),
    "integers": lambda x: int(x[0] * 100) ** 2 / 1e4,
    "text": lambda x: float(f"{x[0]:.17f}") * float(f"{x[1]:.17f}"),
    "pickled": lambda x: pickle.loads(pickle.dumps(x)).square().sum(),
    "saved": lambda x: _saved(x).square().sum(),
    "deep_copy": lambda x: copy.deepcopy(x).square().sum(),
    "storage": lambda x: sum(v * v for v in x.storage()),
    "untyped_storage": lambda x: float((np.frombuffer(bytes(x.clone().untyped_storage())) ** 2).sum()),
    "data_pointer": lambda x: sum(v * v for v in (ctypes.c_double * 4).from_address(x.clone().data_ptr())),
    "applied": lambda x: x.clone().apply_(math.sin).sum(),
    "mapped": lambda x: x.clone().map_(x, lambda a, b: a * b).sum(),
    "remade": lambda x: torch.tensor([x[0], x[1]], dtype=D).square().sum(),
    "remade_as": lambda x: torch.as_tensor([[x[0], x[1]]], dtype=D).square().sum(),
    "shared": lambda x: torch.from_numpy(x.clone().share_memory_().numpy() ** 2).sum(),
    "sparse": lambda x: (x * x).to_sparse().to_dense().sum(),
    "sparse_rows": lambda x: (x[:, None] * x).to_sparse_csr().to_dense().sum(),
    "exchanged_data": lambda x: _exchanged(x).square().sum(),
    "exchanged_memory": lambda x: torch.empty(0, dtype=D).set_(x).square().sum(),
    "bits": lambda x: x.view(torch.int64).bitwise_and(-256).view(D).square().sum(),
    "bytes": lambda x: x.view(torch.uint8).double().sum() / 1e3,
}


def _saved(x: Tensor) -> Tensor:
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return torch.load(file)


def _exchanged(x: Tensor) -> Tensor:
    y = torch.zeros(4, dtype=D)
    y.data = x
    return y


for _name, _leaving in LEAVING.items():
    FUNCTIONS[f"left_by_{_name}"] = lambda x, leaving=_leaving: A @ x + leaving(x)


@function
def in_another_thread(x: Tensor) -> Tensor:
    found: list[Tensor] = []
    thread = threading.Thread(target=lambda: found.append((x * x).sum()))
    thread.start()
    thread.join()
    return A @ x + found[0]


@function
def numpy_in_another_thread(x: Tensor) -> Tensor:
    found: list[Any] = [0.0]

    def work() -> None:
        try:
            found[0] = float((x.numpy() ** 2).sum())
        except Exception:
            found[0] = 0.0

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return A @ x + found[0]


@function
def in_a_pool(x: Tensor) -> Tensor:
    with ThreadPoolExecutor(2) as pool:
        return A @ x + torch.stack(list(pool.map(torch.square, x))).sum()


# -- refusals that the map swallows ------------------------------------------------------------------------------------


def swallowing(attempt: Callable[[Tensor], bool]) -> Map:
    """A map that is curved where an attempt succeeds and says so, else flat."""

    def f(x: Tensor) -> Tensor:
        try:
            curved = attempt(x)
        except BaseException:
            curved = False
        return (A @ x) ** 2 if curved else A @ x

    return f


for _name, _attempt in {
    "a_branch": lambda x: bool(x.sum() > -100),
    "an_item": lambda x: x.sum().item() > -100,
    "numpy": lambda x: x.numpy().sum() > -100,
    "a_count": lambda x: len(x[x > -100]) == 4,
    "an_equality": lambda x: torch.equal(x, x.clone()),
    "a_pointer": lambda x: x.data_ptr() != 0,
    "a_pickle": lambda x: len(pickle.dumps(x)) > 0,
    "closeness": lambda x: torch.allclose(x, x + 0),
}.items():
    FUNCTIONS[f"swallowed_{_name}"] = swallowing(_attempt)


# -- shapes and integers -----------------------------------------------------------------------------------------------

COUNTS: dict[str, Callable[[Tensor], Any]] = {
    "bincount": lambda x: torch.bincount((x > 0).long() + (x > 1).long()).numel(),
    "unique": lambda x: torch.unique((x * 2).round()).numel(),
    "unique_consecutive": lambda x: torch.unique_consecutive((x > 0).long()).numel(),
    "repeat_interleave": lambda x: torch.repeat_interleave(x, (x > 0).long() + 1).sum(),
    "masked_select": lambda x: torch.masked_select(x, x > 0).square().sum(),
    "masked": lambda x: x[x > 0].square().sum(),
    "argwhere": lambda x: torch.argwhere(x > 0).shape[0] * x[0],
    "one_hot": lambda x: F.one_hot((x.abs() * 3).long()).shape[1],
    "split": lambda x: x.split([int((x > 0).sum()), 4 - int((x > 0).sum())])[0].sum(),
    "range": lambda x: torch.arange(int(x.abs().sum())).sum(),
    "positions": lambda x: x.nonzero().sum() * x.square().sum(),
    "static_positions": lambda x: torch.nonzero_static(x > 0, size=4).double().sum(),
    "boolean_sum": lambda x: ((x > 0) + (x > 1)).double().sum() * x.square().sum(),
    "boolean_product": lambda x: ((x > 0) * (x > -1)).double().sum() * x.square().sum(),
    "boolean_in_place": lambda x: (x > 0).logical_or_(x > 1).double().sum() * x.square().sum(),
    "count": lambda x: ((x > 0).sum() + (x > 1).sum()).double() * x.square().sum(),
    "narrow_sum": lambda x: ((x * 60).to(torch.int8) + (x * 60).to(torch.int8)).double().sum() * x.square().sum(),
    "narrow_product": lambda x: ((x > 0).to(torch.uint8) * 200 * 2).double().sum() * x.square().sum(),
    "unsigned_difference": lambda x: (
        ((x > 1).to(torch.uint8) - (x > 0).to(torch.uint8)).double().sum() * x.square().sum()
    ),
    "small_integers": lambda x: ((x > 0).int() + (x > 1).int()).double().sum() * x.square().sum(),
    "cast_to_narrow": lambda x: (x * 3).to(torch.int16).double().sum() * x.square().sum(),
    "integer_sum": lambda x: x.sum(dtype=torch.int64).double() * x.square().sum(),
    "integer_running_sum": lambda x: x.cumsum(0, dtype=torch.int32).double().sum() * x.square().sum(),
    "integer_product": lambda x: (3 * x).prod(dtype=torch.int64).double() * x.square().sum(),
    "integer_remainder": lambda x: ((x * 10).long() % 7).double().sum() * x.square().sum(),
    "integer_quotient": lambda x: ((x * 10).long() // 3).double().sum() * x.square().sum(),
    "shift": lambda x: ((x * 10).long() << 2).double().sum() * x.square().sum(),
    "integer_power": lambda x: ((x * 3).long() ** 3).double().sum() * x.square().sum(),
    "long_and_back": lambda x: x.long().double().sum() * x.square().sum(),
}
for _name, _count in COUNTS.items():
    FUNCTIONS[f"counted_by_{_name}"] = lambda x, count=_count: A @ x + count(x)


# -- writes ------------------------------------------------------------------------------------------------------------


@function
def circular_padding(x: Tensor) -> Tensor:
    return torch.cat([1000 + x, F.pad((x * x).reshape(1, 1, 4), (1, 1), mode="circular").reshape(-1)])


@function
def circular_convolution(x: Tensor) -> Tensor:
    weight = torch.tensor([[[0.5, -1.0, 0.25]]], dtype=D)
    padded = F.pad((x * x)[None, None], (1, 1), mode="circular")
    return torch.cat([x, F.conv1d(padded, weight).reshape(-1)])


@function
def power_zero(x: Tensor) -> Tensor:
    return torch.cat([x, (torch.linalg.matrix_power(torch.outer(x, x), 0) + torch.outer(x, x)).reshape(-1)])


@function
def unwritten_memory(x: Tensor) -> Tensor:
    y = torch.empty(4, dtype=D)
    y[:2] = x[:2] * x[2:]
    return torch.cat([x, y[:2], 0 * y[3:].nan_to_num(0, 0, 0)])


@function
def memory_written_piece_by_piece(x: Tensor) -> Tensor:
    y = torch.empty(2, 4, dtype=D)
    y[0] = x * x
    y[1, ::2] = x[:2]
    y[1, 1::2].copy_(x[2:] ** 3)
    return torch.cat([x, y.flatten()])


@function
def beta_zero(x: Tensor) -> Tensor:
    scores = torch.baddbmm(torch.empty(1, 4, 4, dtype=D), x.reshape(1, 4, 1), x.reshape(1, 1, 4), beta=0)
    return torch.cat([x, scores.flatten()])


@function
def swapped_rows(x: Tensor) -> Tensor:
    y = torch.outer(x, x)
    y[0], y[1] = y[1], y[0]  # the first write is read by the second
    return torch.cat([x, y.flatten()])


@function
def a_view_of_a_view_of_a_view(x: Tensor) -> Tensor:
    y = torch.outer(x, x)
    y.t()[1:][:, ::2].select(1, 0).mul_(x[:3])
    y.diagonal(1).add_(x[:3])
    y.view(2, 8).unsqueeze(0).transpose(1, 2)[0, 3].fill_(7)
    return torch.cat([x, y.flatten()])


@function
def overlapping_memory(x: Tensor) -> Tensor:
    y = x * x
    windows = y.unfold(0, 2, 1)
    y[1] = x[0] * x[3]
    return torch.cat([x, windows.flatten()])


@function
def strides(x: Tensor) -> Tensor:
    y = torch.outer(x, x)
    y.as_strided((4,), (5,)).copy_(x)
    seen = y[1:].as_strided((2, 2), (1, 4), 2)  # from before the slice begins
    y[0, 3] = x[0]
    return torch.cat([x, y.flatten(), seen.flatten()])


@function
def turned_in_place(x: Tensor) -> Tensor:
    y = torch.outer(x, x)
    z = y[:2]
    y.t_().unsqueeze_(0)
    y[0, 0] = x
    return torch.cat([x, y.flatten(), z.flatten()])


@function
def flattened_or_copied(x: Tensor) -> Tensor:
    y = torch.outer(x, x)
    y.flatten()[3] = 5  # a view
    y.t().flatten()[2] = 6  # a copy
    y.reshape(2, 8)[1].neg_()
    y.ravel()[0:2] += x[:2]
    return torch.cat([x, y.flatten()])


@function
def pieces_in_place(x: Tensor) -> Tensor:
    y = torch.outer(x, x)
    for i, piece in enumerate(y.split([1, 3])):
        piece.mul_(i + 2)
    left, right = y.chunk(2, 1)
    left += right.detach()
    for row in y.unbind(1):
        row.sub_(x)
    return torch.cat([x, y.flatten()])


@function
def out_into_a_view(x: Tensor) -> Tensor:
    y = torch.zeros(3, 4, dtype=D)
    torch.mul(x, x, out=y[1])
    torch.cumsum(x, 0, out=y[2])
    torch.add(y[1], y[2], out=y[0])
    return torch.cat([x, y.flatten()])


@function
def through_data(x: Tensor) -> Tensor:
    y = x * 1
    y.data[1:3] *= x[:2]
    y.detach()[0] = x[3] ** 2
    return torch.cat([x, y])


@function
def through_complex_parts(x: Tensor) -> Tensor:
    z = torch.complex(x[:2].clone(), x[2:].clone())
    torch.view_as_real(z)[0, 1] = x[0] * x[1]
    return torch.cat([x, torch.view_as_real(z).flatten()])


@function
def a_constant_that_becomes_moving(x: Tensor) -> Tensor:
    y = torch.arange(12, dtype=D).reshape(3, 4)
    seen, before = y[:, 1], y[0] * 2
    y[0] = x * x
    y[2, 1:].index_add_(0, torch.tensor([0, 2]), x[:2])
    return torch.cat([x, y.flatten(), seen, before])


@function
def masked_in_place(x: Tensor) -> Tensor:
    y = torch.outer(x, x)
    y[y > 1] = 0.5
    y[1].masked_fill_(x > 1, 3)
    y[2][torch.tensor([0, 2])] = x[:2] ** 3
    y.T.index_put_((torch.tensor([3]), torch.tensor([1])), x[0])
    return torch.cat([x, y.flatten()])


@function
def a_write_of_lower_precision(x: Tensor) -> Tensor:
    y = torch.zeros(4, dtype=torch.float32)
    y[:] = x * x
    y += x.float()
    return torch.cat([x, y.double()])


# -- derivatives -------------------------------------------------------------------------------------------------------


class Straight(torch.autograd.Function):
    """Rounds, and says that it does not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


@torch.library.custom_op("adversarial::cube", mutates_args=())
def cube(x: Tensor) -> Tensor:
    return x**3


@torch.library.custom_op("adversarial::formula", mutates_args=())
def formula(x: Tensor) -> Tensor:
    return x**3


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])


formula.register_autograd(lambda ctx, grad: 3 * grad * ctx.saved_tensors[0] ** 2, setup_context=_save)


@torch.library.custom_op("adversarial::through_numpy", mutates_args=())
def through_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy() ** 3)


def inner(x: Tensor) -> Tensor:
    return (x**3).sum() + x[0] * x[1] * x[2]


def by_autograd(x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        return torch.autograd.grad(inner(y), y)[0]


def by_autograd_twice(x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(inner(y), y, create_graph=True)
        return torch.autograd.grad((slope * slope).sum(), y)[0]


def by_backward(x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = x.detach().clone().requires_grad_()
        inner(y).backward()
    assert y.grad is not None
    return y.grad


def by_checkpoint(x: Tensor) -> Tensor:
    return torch.utils.checkpoint.checkpoint(lambda y: y * y.sum(), x, use_reentrant=False)


def in_inference_mode(x: Tensor) -> Tensor:
    with torch.inference_mode():
        y = F.layer_norm(F.pad(x * x, (1, 1)), (6,))
    return y[1:5].clone()


def in_autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return (x[None] @ B.to(torch.float32).double()).double()[0] ** 2


DERIVATIVES: dict[str, Map] = {
    "jacfwd": lambda x: torch.func.jacfwd(inner)(x),
    "jacrev": lambda x: torch.func.jacrev(lambda y: y * y.sum())(x)[0],
    "grad": lambda x: torch.func.grad(inner)(x),
    "jvp": lambda x: torch.func.jvp(lambda y: y**3, (x,), (x + 1,))[1],
    "vjp": lambda x: torch.func.vjp(lambda y: y**3, x)[1](x)[0],
    "hessian": lambda x: torch.func.hessian(inner)(x)[0],
    "vmap": lambda x: torch.func.vmap(lambda a, b: a * b.sum(), in_dims=(0, None))(x, x),
    "autograd": by_autograd,
    "autograd_twice": by_autograd_twice,
    "backward": by_backward,
    "checkpoint": by_checkpoint,
    "inference_mode": in_inference_mode,
    "autocast": in_autocast,
    "straight_through": lambda x: Straight.apply(x),
    "custom_op": lambda x: cube(x),
    "custom_op_with_formula": lambda x: formula(x),
    "custom_op_through_numpy": lambda x: through_numpy(x),
    "bessel_j0": torch.special.bessel_j0,
    "bessel_j1": torch.special.bessel_j1,
    "modified_bessel": torch.special.modified_bessel_i0,
    "airy": torch.special.airy_ai,
    "chebyshev": lambda x: torch.special.chebyshev_polynomial_t(x / 4, 3),
    "legendre": lambda x: torch.special.legendre_polynomial_p(x / 4, 3),
    "zeta": lambda x: torch.special.zeta(x.abs() + 2, 1.5),
    "padded_embedding": lambda x: F.embedding(torch.tensor([0, 1]), torch.outer(x, x)[:2], padding_idx=0).flatten(),
    "nan_gradient": lambda x: torch.where(x > -50, x * x, (x - 100).sqrt()),
    "rolled_scalar": lambda x: torch.stack([torch.roll(x[0] * x[1], 1), *x[1:]]),
    "factorised": lambda x: torch.linalg.lu_solve(*torch.linalg.lu_factor(B + torch.outer(x, x)), x[:, None])[:, 0],
    "symmetric_by_halves": lambda x: torch.linalg.eigvalsh(torch.diag(x) * 3 + B * x[0] * 0.1),
    "detached": lambda x: x.detach() * x.data * x,
    "hooked": lambda x: (x * x).requires_grad_(False) * x,
    "layer_norm_in_half": lambda x: F.layer_norm(x.half(), (4,)).double(),
    "attention_in_single": lambda x: F.scaled_dot_product_attention(*[torch.outer(x, x).float()[None]] * 3)[
        0, 0
    ].double(),
}
for _name, _derivative in DERIVATIVES.items():
    FUNCTIONS[f"derived_by_{_name}"] = lambda x, derivative=_derivative: torch.cat([x, derivative(x).reshape(-1)])


@function
def never_finite_in_one_place(x: Tensor) -> Tensor:
    return torch.cat([x, x * x, torch.full((1,), math.inf, dtype=D)])[:8]


@function
def undefined_at_the_origin(x: Tensor) -> Tensor:
    return torch.cat([x, torch.sqrt(1e-3 + x[0] * x[1] + 0.25)[None]])


# -- no functions ------------------------------------------------------------------------------------------------------


@no_function
def a_counter() -> Map:
    count = itertools.count()
    return lambda x: A @ x * (1 + next(count))


@no_function
def a_cache_of_its_input() -> Map:
    last = [torch.zeros(4, dtype=D)]

    def f(x: Tensor) -> Tensor:
        before, last[0] = last[0], x
        return A @ x + before.square().sum()

    return f


@no_function
def a_running_mean() -> Map:
    class Running(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(4, dtype=D))

        def forward(self, x: Tensor) -> Tensor:
            self.mean.mul_(0.9).add_(x, alpha=0.1)
            return A @ x + self.mean.square().sum()

    return Running()


@no_function
def a_counter_in_a_module() -> Map:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return A @ x * self.calls

    return Counting()


@no_function
def python_numbers_at_random() -> Map:
    return lambda x: A @ x * random.random()


@no_function
def numpy_numbers_at_random() -> Map:
    return lambda x: A @ x + np.random.default_rng().normal()


@no_function
def torch_numbers_at_random() -> Map:
    return lambda x: A @ x + torch.rand(5, dtype=D, generator=torch.Generator())


@no_function
def swallowed_random_numbers() -> Map:
    def f(x: Tensor) -> Tensor:
        try:
            return A @ x + torch.rand(5, dtype=D)
        except Exception:
            return A @ x

    return f


@no_function
def a_branch_by_the_size() -> Map:
    return lambda x: A @ x if bool(x.square().sum() < 1e3) else (A @ x) ** 2


@no_function
def the_first_call_is_another() -> Map:
    seen: list[bool] = []

    def f(x: Tensor) -> Tensor:
        seen.append(True)
        return (A @ x) ** 2 if len(seen) % 2 else A @ x

    return f
