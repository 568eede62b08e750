"""The maps of this benchmark in JAX, and what JAX users differentiate them with. Imported where jax is installed.

Weights, point and basis are arguments of the compiled functions: as constants XLA would fold what it can of them at
compile time, which no one can do for weights that change. Importing this file switches JAX to double precision, and
float32 products off TF32, for the whole process: it is imported only in the process that `jets` starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fisherflat._typing import Tensor
from fisherflat.lab.bench.maps import SIZES, Subject

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")

#: weights by name, and a flat output for a point of the chart
Weights = dict[str, Any]
Function = Callable[[Weights, Any], Any]


def _attention(w: Weights, prefix: str, heads: int, x: Any) -> Any:
    n, d = x.shape
    query, key, value = (
        (x @ w[f"{prefix}{name}.weight"].T).reshape(n, heads, d // heads).swapaxes(0, 1)
        for name in ("query", "key", "value")
    )
    pattern = jax.nn.softmax(query @ key.swapaxes(-1, -2) / np.sqrt(d // heads), axis=-1)
    gate = jax.nn.sigmoid(x @ w[f"{prefix}gate.projection.weight"].T)
    return ((pattern @ value).swapaxes(0, 1).reshape(n, d) * gate) @ w[f"{prefix}output.weight"].T


def _norm(w: Weights, prefix: str, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    normal = centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return normal * w[f"{prefix}weight"] + w[f"{prefix}bias"]


def _block(w: Weights, prefix: str, heads: int, x: Any) -> Any:
    x = x + _attention(w, f"{prefix}attention.", heads, _norm(w, f"{prefix}attention_norm.", x))
    y = _norm(w, f"{prefix}mlp_norm.", x)
    gate, up = (y @ w[f"{prefix}mlp.{name}.weight"].T for name in ("gate", "up"))
    return x + (gate * jax.nn.sigmoid(gate) * up) @ w[f"{prefix}mlp.down.weight"].T


def _function(subject: Subject) -> Function:
    """The map of `subject` on its chart: attention alone, or a stack of blocks."""
    dim = subject.chart.point.shape[-1]
    heads = SIZES[dim][1] if dim in SIZES else max(1, dim // 64)
    blocks = [] if subject.name.startswith("attention") else [f"{index}." for index in range(len(subject.module))]  # type: ignore[arg-type]

    def function(w: Weights, u: Any) -> Any:
        x = w["point"] + jnp.tensordot(u, w["basis"], 1)
        if not blocks:
            x = _attention(w, "", heads, x)
        for prefix in blocks:
            x = _block(w, prefix, heads, x)
        return x.reshape(-1)

    return function


def nested(f: Function, k: int) -> Function:
    """Nested forward mode; value and Jacobian come along with the Hessian, whose making passes them."""

    def first(w: Weights, u: Any) -> Any:
        value = f(w, u)
        jacobian = jax.jacfwd(f, 1)(w, u)
        return jacobian, (value, jacobian)

    def second(w: Weights, u: Any) -> Any:
        hessian, (value, jacobian) = jax.jacfwd(first, 1, has_aux=True)(w, u)
        return value, jacobian, hessian

    return second


def polarised(f: Function, k: int) -> Function:
    """`jax.experimental.jet` along each direction and each sum of two, and mixed derivatives from their differences."""
    from jax.experimental.jet import jet

    left, right = np.triu_indices(k)
    square = np.flatnonzero(left == right)
    directions = np.eye(k)[left] + np.eye(k)[right] * (left != right)[:, None]

    def second(w: Weights, u: Any) -> Any:
        def along(direction: Any) -> Any:
            value, (slope, bend) = jet(lambda v: f(w, v), (u,), ((direction, jnp.zeros_like(direction)),))
            return value, slope, bend

        value, slopes, bends = jax.vmap(along, out_axes=(None, 0, 0))(jnp.asarray(directions, u.dtype))
        pure = bends[square]
        mixed = (bends - pure[left] - pure[right]) / 2
        return value, slopes[square], jnp.where((left == right)[:, None], bends, mixed)

    return second


def laplacian(f: Function, k: int) -> Function:
    """`folx`: value, Jacobian and the sum of the pure second derivatives, by forward Laplacian."""
    import folx

    forward = folx.forward_laplacian

    def traced(w: Weights, u: Any) -> Any:
        found = forward(lambda v: f(w, v))(u)
        return found.x, found.jacobian.dense_array, found.laplacian

    return traced


def compiled(subject: Subject, how: Callable[[Function, int], Function], u: Tensor) -> Callable[[], Any]:
    """A call that gives what `how` finds at all points `u`, compiled, and waits for it.

    **Raises:** `RuntimeError` where JAX does not run on the device of the subject.
    """
    if jax.default_backend() != ("gpu" if subject.device.type == "cuda" else "cpu"):
        raise RuntimeError(f"this jax runs on {jax.default_backend()}, not on {subject.device.type}")
    tensors = {"point": subject.chart.point, "basis": subject.chart.basis, **subject.module.state_dict()}  # type: ignore[attr-defined]
    weights = {name: jnp.asarray(tensor.to("cpu", subject.dtype).numpy()) for name, tensor in tensors.items()}
    points = jnp.asarray(u.cpu().numpy())
    run = jax.jit(jax.vmap(how(_function(subject), subject.chart.k), in_axes=(None, 0)))
    return lambda: jax.block_until_ready(run(weights, points))
