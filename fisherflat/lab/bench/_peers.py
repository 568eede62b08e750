"""What else computes the scalar curvature of a map: what a user would write, what an expert would, and two packages.

Those named "Gauss" end in the Gauss equation written plainly; the others differentiate the Christoffel symbols of an
autodiff metric, which takes third derivatives. All of them take points in batches, by `vmap`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.func import jacfwd, jacrev, jvp, vjp, vmap

from fisherflat._typing import Float, Tensor
from fisherflat.lab.bench.geomstats import Worker
from fisherflat.lab.bench.maps import LastToken, Subject

#: R^k -> R^D, of one point
Map = Callable[[Tensor], Tensor]
#: points [P, k] -> scalar curvature [P]
Curvature = Callable[[Tensor], Tensor]

#: bytes of cotangents in one piece of a reverse pass; on a CPU the fastest of 2^20 to 2^27
PIECE = {"cpu": 2**21, "cuda": 2**30}
#: operations that one point may take in a reverse pass for each output
BEARABLE = {"cpu": 1.5e11, "cuda": 1.5e13}


@dataclass(frozen=True)
class Peer:
    """A competitor.

    **Attributes:** `build`: subject to curvature function; `expert`: whether it takes knowing which nestings of torch's
    transforms go wrong, or where; `by_output`: whether it makes a reverse pass for each output; `applies`: whether it
    is another one than those before it on this map, and can be asked at all.
    """

    name: str
    build: Callable[[Subject], Curvature]
    expert: bool = False
    by_output: bool = False
    applies: Callable[[Subject], bool] = lambda subject: True


def embedding(subject: Subject, function: Callable[[Tensor], Tensor]) -> Map:
    """`function` in the coordinates of the chart, `[k]` to `[D]`."""
    point, basis = (tensor.to(subject.dtype) for tensor in (subject.chart.point, subject.chart.basis))

    def f(u: Tensor) -> Tensor:
        return function(point + torch.tensordot(u, basis, dims=1)).reshape(-1)

    return f


def gauss(jacobian: Float[Tensor, "D k"], hessian: Float[Tensor, "D k k"]) -> Float[Tensor, ""]:
    """The scalar curvature by the Gauss equation as it stands in the textbooks."""
    inverse = torch.linalg.inv(jacobian.T @ jacobian)
    christoffel = torch.einsum("ml,al,aij->mij", inverse, jacobian, hessian)
    second = hessian - torch.einsum("am,mij->aij", jacobian, christoffel)
    riemann = torch.einsum("aim,ajl->ijlm", second, second) - torch.einsum("ail,ajm->ijlm", second, second)
    return torch.einsum("im,jl,ijlm->", inverse, inverse, riemann)


def forward_over_reverse(subject: Subject) -> Curvature:
    """`jacfwd(jacrev(f))`: right everywhere; the D outputs are differentiated one by one, in pieces that fit."""
    f = embedding(subject, subject.plain)
    cotangent = 8 * subject.chart.point.numel() * (1 + subject.chart.k)
    reverse = jacrev(f, chunk_size=max(1, PIECE[subject.device.type] // cotangent))
    return vmap(lambda u: gauss(reverse(u), jacfwd(reverse)(u)))


def _nested_forward(f: Map) -> Curvature:
    forward = jacfwd(f)
    return vmap(lambda u: gauss(forward(u), jacfwd(forward)(u)))


def forward_over_forward(subject: Subject) -> Curvature:
    """`jacfwd(jacfwd(f))`: wrong through fused norms, without a warning."""
    return _nested_forward(embedding(subject, subject.plain))


def forward_over_forward_written(subject: Subject) -> Curvature:
    """The same with the norms in plain arithmetic, which makes it right."""
    return _nested_forward(embedding(subject, subject.written_out))


def _transposed_twice(f: Map, u: Tensor, direction: Tensor) -> Tensor:
    """`J v` by reverse mode alone: the pullback is linear, and its transpose is the pushforward."""
    value, pull, *_ = vjp(f, u)
    _, push, *_ = vjp(pull, torch.zeros_like(value))
    return push((direction,))[0]


def forward_over_double_reverse(subject: Subject) -> Curvature:
    """One forward derivative of a double transpose for each pair of directions: no cost that grows with D.

    Norms are in plain arithmetic, since the fused one cannot be differentiated twice in reverse under `vmap`.
    """
    f, k = embedding(subject, subject.written_out), subject.chart.k
    left, right = torch.triu_indices(k, k, device=subject.device)
    place = torch.empty(k, k, dtype=torch.long, device=subject.device)
    place[left, right] = place[right, left] = torch.arange(len(left), device=subject.device)
    eye = torch.eye(k, dtype=subject.dtype, device=subject.device)

    def second(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return jvp(lambda moved: _transposed_twice(f, moved, v), (u,), (w,))[1]

    def at(u: Tensor) -> Tensor:
        jacobian = vmap(lambda v: _transposed_twice(f, u, v), out_dims=1)(eye)
        upper = vmap(lambda v, w: second(u, v, w), out_dims=1)(eye[left], eye[right])
        return gauss(jacobian, upper[:, place])

    return vmap(at)


def textbook(subject: Subject) -> Curvature:
    """Metric, Christoffel symbols, Riemann tensor: each the forward derivative of the one before."""
    forward = jacfwd(embedding(subject, subject.plain))

    def metric(u: Tensor) -> Tensor:
        jacobian = forward(u)
        return jacobian.T @ jacobian

    def christoffel(u: Tensor) -> Tensor:
        slopes = jacfwd(metric)(u)  # [i, j, l] = d_l g_ij
        lower = slopes.permute(0, 2, 1) + slopes - slopes.permute(2, 0, 1)
        return 0.5 * torch.einsum("ml,lij->mij", torch.linalg.inv(metric(u)), lower)

    def at(u: Tensor) -> Tensor:
        symbols, slopes = christoffel(u), jacfwd(christoffel)(u)  # [m, i, j], [m, i, j, l]
        # Ric_jl = d_m G^m_lj - d_l G^m_mj + G^m_mi G^i_lj - G^m_li G^i_mj
        ricci = torch.einsum("mljm->jl", slopes) - torch.einsum("mmjl->jl", slopes)
        ricci = ricci + torch.einsum("mmi,ilj->jl", symbols, symbols) - torch.einsum("mli,imj->jl", symbols, symbols)
        return torch.einsum("jl,jl->", torch.linalg.inv(metric(u)), ricci)

    return vmap(at)


def omnibias(subject: Subject) -> Curvature:
    """`omnibias-geometry`: the textbook route, in forward mode, on its pullback metric."""
    from omnibias.geometry import ChartSpec, ManifoldSpec
    from omnibias.geometry.torch import ops

    f, k = embedding(subject, subject.plain), subject.chart.k
    dim = f(torch.zeros(k, dtype=subject.dtype, device=subject.device)).numel()
    metric = ops.metric_spec_from_chart(ChartSpec(phi=f, domain_dim=k, ambient_dim=dim))
    return lambda u: ops.scalar_curvature(u, ManifoldSpec("map", k, metric))


def bearable(subject: Subject) -> bool:
    """Whether D reverse passes with 1 + k tangents take seconds, not minutes."""
    outputs = subject.module(subject.inputs(1)[0]).numel()
    return subject.work * outputs * (1 + subject.chart.k) <= BEARABLE[subject.device.type]


def _small(subject: Subject) -> bool:
    # measured: 1 s at D = 4, 3 s at D = 8, minutes at D = 64, for one point and k = 2
    small = subject.name == "attention-8" and isinstance(subject.module, LastToken) and subject.chart.k == 2
    return small and subject.dtype == torch.float64 and subject.device.type == "cpu"


def peers() -> list[Peer]:
    """The competitors that are installed."""
    found = [
        Peer("jacfwd(jacrev) + Gauss", forward_over_reverse, by_output=True),
        Peer("textbook", textbook),
        Peer("jacfwd(jacfwd) + Gauss", forward_over_forward, expert=True),
        Peer(
            "the same, norms written out",
            forward_over_forward_written,
            expert=True,
            applies=lambda subject: subject.has_norms,
        ),
        Peer("jvp of double vjp + Gauss", forward_over_double_reverse, expert=True),
    ]
    if importlib.util.find_spec("omnibias") and importlib.util.find_spec("omnibias.geometry"):
        found.append(Peer("omnibias-geometry", omnibias))
    if importlib.util.find_spec("geomstats") and importlib.util.find_spec("autograd"):
        found.append(Peer("geomstats", Worker, applies=_small))
    return found
