"""More layers of which it is known by construction what the parts are, as they are written in models.

Parallel residuals, caches of keys, sinks, latent attention, decays, mixtures, linear attention, shifts of tokens, and
products of things of which one is made of the other. How they are written: `roles`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv1d, elu, gelu, log_softmax, logsigmoid, pad, silu, softplus

from cases.roles import (
    BIAS,
    K2,
    LOW,
    MASK,
    OTHER,
    PLACES,
    Q2,
    RANK,
    SHORT,
    C,
    D,
    G,
    K,
    Keep,
    Layer,
    N,
    P,
    Q,
    U,
    V,
    W,
    activated,
    plain,
    rotated,
    scores,
    weight,
)

NARROW = weight(D, 1, seed=300)
LAYERS: dict[str, Layer] = {}


def layer(f: Layer) -> Layer:
    LAYERS[f.__name__] = f
    return f


def rms(x: Tensor, keep: Keep) -> Tensor:
    return x * keep("norm", torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


def inverse_size(x: Tensor) -> Tensor:
    return torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def attended(x: Tensor, keep: Keep, values: Tensor) -> Tensor:
    return keep("pattern", scores(x).softmax(-1)) @ values


def before(x: Tensor) -> Tensor:
    """The token before each."""
    return pad(x, (0, 0, 1, -1))


# -- attention ---------------------------------------------------------------------------------------------------------


@layer
def parallel_residual(x: Tensor, keep: Keep) -> Tensor:
    h = rms(x, keep)
    return x + attended(h, keep, h @ V) @ P + activated(keep, gelu, h @ U) @ W


@layer
def kv_cache(x: Tensor, keep: Keep) -> Tensor:
    k, v = torch.cat([OTHER @ K, x @ K]), torch.cat([OTHER @ V, x @ V])
    return keep("pattern", (x @ Q @ k.T).softmax(-1)) @ v @ P


@layer
def kv_cache_written(x: Tensor, keep: Keep) -> Tensor:
    k, v = torch.zeros(2, 7 + N, D, dtype=x.dtype).unbind()
    k[:7], v[:7] = OTHER @ K, OTHER @ V
    k[7:], v[7:] = x @ K, x @ V
    return keep("pattern", (x @ Q @ k.T).softmax(-1)) @ v @ P


@layer
def sink_token(x: Tensor, keep: Keep) -> Tensor:
    k, v = torch.cat([BIAS[:1, :D], x @ K]), torch.cat([BIAS[1:2, :D], x @ V])
    return keep("pattern", (x @ Q @ k.T).softmax(-1)) @ v @ P


@layer
def sink_without_value(x: Tensor, keep: Keep) -> Tensor:
    k, v = torch.cat([BIAS[:1, :D], x @ K]), torch.cat([torch.zeros(1, D, dtype=x.dtype), x @ V])
    return keep("pattern", (x @ Q @ k.T).softmax(-1)) @ v @ P


@layer
def latent(x: Tensor, keep: Keep) -> Tensor:
    """Keys and values of a narrow vector, and rotary codes beside it."""
    c = rms(x @ LOW, keep)
    q, k = torch.cat([x @ Q, rotated(x @ Q2)], -1), torch.cat([c @ RANK, rotated(x @ K2)], -1)
    return keep("pattern", (q @ k.T / 8**0.5).softmax(-1)) @ (c @ RANK) @ P


@layer
def latent_absorbed(x: Tensor, keep: Keep) -> Tensor:
    c = rms(x @ LOW, keep)
    return keep("pattern", (x @ Q @ RANK.T @ c.T).softmax(-1)) @ c @ RANK @ P


@layer
def normed_queries(x: Tensor, keep: Keep) -> Tensor:
    q, k = x @ Q, x @ K
    return keep("pattern", (q * inverse_size(q) @ (k * inverse_size(k)).T).softmax(-1)) @ (x @ V) @ P


@layer
def gated_queries(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", ((x @ Q * torch.sigmoid(x @ G)) @ (x @ K).T).softmax(-1)) @ (x @ V)


@layer
def forgetting(x: Tensor, keep: Keep) -> Tensor:
    f = torch.cumsum(logsigmoid(x @ G[:, 0]), 0)
    s = (scores(x) + f[:, None] - f[None]).masked_fill(~MASK, -torch.inf)
    return keep("pattern", s.softmax(-1)) @ (x @ V)


@layer
def normalised_relu(x: Tensor, keep: Keep) -> Tensor:
    a = torch.relu(scores(x))
    return keep("pattern", a / (a.sum(-1, keepdim=True) + 1)) @ (x @ V)


@layer
def temperature_of_tokens(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", (scores(x) * softplus(x @ G[:, :1])).softmax(-1)) @ (x @ V)


@layer
def near_the_largest(x: Tensor, keep: Keep) -> Tensor:
    s = scores(x)
    return keep("pattern", torch.relu(s - s.amax(-1, keepdim=True) + 1) ** 2) @ (x @ V)


@layer
def largest_alone(x: Tensor, keep: Keep) -> Tensor:
    s = scores(x)
    least = s.topk(3, -1).values[:, -1:]
    return keep("pattern", s.masked_fill(s < least, -torch.inf).softmax(-1)) @ (x @ V)


@layer
def activated_values(x: Tensor, keep: Keep) -> Tensor:
    return attended(x, keep, activated(keep, silu, x @ V)) @ P


@layer
def gated_values(x: Tensor, keep: Keep) -> Tensor:
    return attended(x, keep, (x @ V) * keep("attention_gate", silu(x @ U))) @ P


@layer
def activated_output(x: Tensor, keep: Keep) -> Tensor:
    return activated(keep, torch.tanh, attended(x, keep, x @ V))


@layer
def normed_output(x: Tensor, keep: Keep) -> Tensor:
    return rms(attended(x, keep, x @ V), keep) @ P


@layer
def normed_and_gated_output(x: Tensor, keep: Keep) -> Tensor:
    return rms(attended(x, keep, x @ V), keep) * keep("attention_gate", silu(x @ G)) @ P


@layer
def softmax_of_output(x: Tensor, keep: Keep) -> Tensor:
    return attended(x, keep, x @ V).softmax(-1) @ P


@layer
def attention_times_mlp(x: Tensor, keep: Keep) -> Tensor:
    return plain(x, keep) * keep("attention_gate", silu(x @ U) @ W)


@layer
def pattern_of_pattern(x: Tensor, keep: Keep) -> Tensor:
    a = keep("pattern", scores(x).softmax(-1))
    return a @ (x @ V) + a @ (a @ (x @ W))


@layer
def pattern_as_factor(x: Tensor, keep: Keep) -> Tensor:
    a = keep("pattern", scores(x).softmax(-1))
    return a @ (x @ V) * torch.sigmoid(a.amax(-1, keepdim=True))


@layer
def one_projection(x: Tensor, keep: Keep) -> Tensor:
    h = x @ Q
    return keep("pattern", (h @ h.T).softmax(-1)) @ h


@layer
def perceiver(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", (OTHER @ Q @ (x @ K).T).softmax(-1)) @ (x @ V) @ P


@layer
def gated_unit(x: Tensor, keep: Keep) -> Tensor:
    a = keep("pattern", torch.relu(scores(x) / N) ** 2)
    return keep("attention_gate", silu(x @ U)) * (a @ (x @ V)) @ P


@layer
def gated_retention(x: Tensor, keep: Keep) -> Tensor:
    y = keep("pattern", scores(x) * (0.9 ** (PLACES[:, None] - PLACES)).tril()) @ (x @ V)
    return rms(y, keep) * keep("attention_gate", silu(x @ G)) @ P


# -- without a pattern -------------------------------------------------------------------------------------------------


@layer
def normalised_linear(x: Tensor, keep: Keep) -> Tensor:
    q, k = (activated(keep, lambda z: elu(z) + 1, x @ w) for w in (Q, K))
    return (q @ (k.T @ (x @ V))) / (q @ k.sum(0)[:, None])


@layer
def causal_linear(x: Tensor, keep: Keep) -> Tensor:
    """Sums of outer products, which are no products by entries."""
    q, k = (activated(keep, torch.exp, x @ w) for w in (Q, K))
    return (q[:, None] @ (k[:, :, None] * (x @ V)[:, None]).cumsum(0))[:, 0]


@layer
def attention_free(x: Tensor, keep: Keep) -> Tensor:
    return keep("attention_gate", torch.sigmoid(x @ Q)) * ((x @ K).softmax(0) * (x @ V)).sum(0)


@layer
def attention_free_in_parts(x: Tensor, keep: Keep) -> Tensor:
    e = keep("attention_gate", torch.exp(x @ K))
    return keep("attention_gate", torch.sigmoid(x @ Q)) * ((e * (x @ V)).sum(0) / e.sum(0))


@layer
def state_space_dual(x: Tensor, keep: Keep) -> Tensor:
    a = torch.cumsum(-softplus(x @ G[:, 0]), 0)
    return (keep("attention_gate", torch.exp(a[:, None] - a[None]) * MASK) * (x @ Q @ (x @ K).T)) @ (x @ V)


@layer
def recurrent(x: Tensor, keep: Keep) -> Tensor:
    rows = [x[0] @ V]
    for t in range(1, N):
        rows.append(keep("attention_gate", torch.sigmoid(x[t] @ G)) * rows[-1] + x[t] @ W)
    return torch.stack(rows) @ P


@layer
def token_mixer(x: Tensor, keep: Keep) -> Tensor:
    return x + BIAS @ activated(keep, gelu, x @ U)


@layer
def logits(x: Tensor, keep: Keep) -> Tensor:
    return log_softmax(rms(x, keep) @ OTHER.T, -1)


# -- MLPs --------------------------------------------------------------------------------------------------------------


@layer
def soft_mixture(x: Tensor, keep: Keep) -> Tensor:
    experts = torch.stack([activated(keep, silu, x @ U) @ W, activated(keep, silu, x @ G) @ C])
    return (experts * (x @ G[:, :2]).softmax(-1).T[..., None]).sum(0)


@layer
def routed_mixture(x: Tensor, keep: Keep) -> Tensor:
    routes = (x @ G[:, :2]).softmax(-1)
    weights, index = routes.topk(1, -1)
    chosen = torch.zeros_like(routes).scatter(-1, index, weights).T
    experts = [keep("mlp_gate", silu(x @ a)) * (x @ W) @ b for a, b in ((U, C), (G, P))]
    return (torch.stack(experts) * chosen[..., None]).sum(0)


@layer
def gated_shared_expert(x: Tensor, keep: Keep) -> Tensor:
    return keep("mlp_gate", torch.sigmoid(x @ NARROW)) * (activated(keep, silu, x @ U) @ W)


@layer
def shifted_gate(x: Tensor, keep: Keep) -> Tensor:
    """Of the token before: no recurrence, as nothing is carried on."""
    return x * keep("mlp_gate", torch.sigmoid(before(x) @ G)) @ P


@layer
def shifted_gates(x: Tensor, keep: Keep) -> Tensor:
    h = x + x * keep("mlp_gate", torch.sigmoid(before(x) @ G))
    return h + h * keep("mlp_gate", torch.sigmoid(before(h) @ W))


@layer
def shifted_projections(x: Tensor, keep: Keep) -> Tensor:
    return (x @ U) * keep("mlp_gate", silu(before(x) @ G)) @ P


@layer
def long_convolution(x: Tensor, keep: Keep) -> Tensor:
    mixed = conv1d(pad((x @ V).T[None], (2, 0)), SHORT[0], groups=D)[0].T
    return keep("mlp_gate", x @ Q) * mixed


@layer
def one_more_than_linear(x: Tensor, keep: Keep) -> Tensor:
    return keep("mlp_gate", gelu(x @ U)) * (x @ W + 1) @ P


@layer
def gate_of_the_input(x: Tensor, keep: Keep) -> Tensor:
    return x * keep("mlp_gate", torch.sigmoid(x @ U))


@layer
def input_times_its_projection(x: Tensor, keep: Keep) -> Tensor:
    """The input is part of the other factor, and cannot be held without it."""
    return x * keep("mlp_gate", x @ U)


@layer
def product_with_a_part(x: Tensor, keep: Keep) -> Tensor:
    h = x @ W
    return keep("mlp_gate", h @ U) * h @ P


@layer
def activation_times_its_projection(x: Tensor, keep: Keep) -> Tensor:
    h = activated(keep, silu, x @ W)
    return h * keep("mlp_gate", h @ U) @ P
