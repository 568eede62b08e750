"""The `torch.func` engine: for any callable, and the oracle that the other engines are tested against.

Hessians are `jacfwd(jacrev(f))`. The other nestings are not an option: `jacfwd(jacfwd(f))` and `jacrev(jacfwd(f))`
return wrong second derivatives through fused norms without saying so (PyTorch issues 196700, 196699, 198017).
The cost grows with the number D of outputs, which are differentiated one by one in reverse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.func import jacfwd, jacrev, vmap
from torch.overrides import TorchFunctionMode

from fisherflat._typing import Float, Tensor
from fisherflat.charts import Chart
from fisherflat.errors import UnsupportedOpError
from fisherflat.jets.jet import pairs, size
from fisherflat.jets.mapping import Mapping


class AutodiffEngine:
    """2-jets of `mean(chart(u))` by nested transforms of `torch.func`.

    **Args:** `mapping`, the map in its working precision; `chart`, on the device to run on; `dim`, the number D of
    outputs.
    """

    def __init__(self, mapping: Mapping, chart: Chart, dim: int) -> None:
        self._mapping, self._chart, self._dim = mapping, chart, dim
        self._activations: int | None = None

    @property
    def bytes_per_point(self) -> int:
        """An estimate: the activations kept for one reverse pass, times outputs, times values and tangents."""
        if self._activations is None:
            kept = 0

            def count(tensor: Tensor) -> Tensor:
                nonlocal kept
                kept += tensor.numel() * tensor.element_size()
                return tensor

            point = self._chart.point.to(self._mapping.dtype).requires_grad_()
            with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                self._mapping(point)
            self._activations = max(kept, point.numel() * point.element_size())
        return self._activations * (1 + self._chart.dim) * (1 + self._dim)

    def jet(self, u: Float[Tensor, "P k"]) -> Float[Tensor, "P S D"]:
        """The coefficients of the 2-jets at the points `u`."""
        k = self._chart.dim

        def f(v: Tensor) -> Tensor:
            return self._mapping(self._chart(v)).reshape(-1)

        try:
            with _Differentiable():
                value, jacobian, hessian = vmap(_two_jet(f))(u)
        except NotImplementedError as error:
            raise UnsupportedOpError(
                f'torch has no second derivative of an op of this map ({error}); use engine="taylor"'
            ) from error
        out = u.new_empty(u.shape[0], size(k), self._dim)
        out[:, 0] = value
        out[:, 1 : 1 + k] = jacobian.transpose(1, 2)
        for position, (i, j) in enumerate(pairs(k)):
            out[:, 1 + k + position] = hessian[..., i, j]
        return out


def _silu(x: Tensor, inplace: bool = False) -> Tensor:
    return x * torch.sigmoid(x)


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    a, b = x.chunk(2, dim)
    return a * torch.sigmoid(b)


class _Differentiable(TorchFunctionMode):
    """Writes out the functions whose backward formula has no forward derivative (measured on torch 2.13)."""

    _WRITTEN_OUT: dict[Any, Callable[..., Tensor]] = {  # noqa: RUF012
        torch.nn.functional.silu: _silu,
        torch._C._nn.silu: _silu,
        torch.nn.functional.glu: _glu,
        torch._C._nn.glu: _glu,
    }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._WRITTEN_OUT.get(func, func)(*args, **(kwargs or {}))


def _two_jet(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    def with_value(v: Tensor) -> tuple[Tensor, Tensor]:
        y = f(v)
        return y, y

    def first(v: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        jacobian, value = jacrev(with_value, has_aux=True)(v)
        return jacobian, (value, jacobian)

    def both(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hessian, (value, jacobian) = jacfwd(first, has_aux=True)(v)
        return value, jacobian, hessian

    return both
