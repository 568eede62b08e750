"""Small layers of which it is known by construction what the parts are.

A layer is written once, as a function of its input and of `keep`, and passes everything that a role holds through it:
`keep("pattern", a)`. What is handed to the library is the layer with a `keep` that does nothing; what it must agree
with when a role is frozen is the same layer with a `keep` that returns the values at the base point: a layer with
those tensors, and no others, held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv1d, gelu, normalize, pad, silu, softplus

Keep = Callable[[str, Tensor], Tensor]
Layer = Callable[[Tensor, Keep], Tensor]

N, D = 5, 4


def weight(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Q, K, V, P, G, U, W, C = (weight(D, D, seed=seed) * 0.7 for seed in range(8))
Q2, K2, DECAY = weight(D, D, seed=8), weight(D, D, seed=9), -weight(D, seed=10).abs()
X, OTHER = weight(N, D, seed=100), weight(7, D, seed=11)
BIAS, MASK = weight(N, N, seed=12), torch.ones(N, N, dtype=torch.bool).tril()
PLACES = torch.arange(N)
MIX, AFTER = weight(2, 2, seed=20), weight(2, 2, seed=21)
SHORT = weight(3, D, 1, 3, seed=30)
BASIS = weight(2, N * D, seed=40)
LOW, RANK = weight(D, 2, seed=50), weight(2, D, seed=51)
STORED, SLOTS = weight(7, D, seed=60), weight(D, N, seed=61)


class Base:
    """What stays: every tensor that was kept at the base point, in order."""

    def __init__(self, layer: Layer, at: Tensor, roles: tuple[str, ...]) -> None:
        self.layer, self.roles, self.values, self.seen = layer, roles, [], set()
        self.recording = True
        layer(at, self)
        self.recording = False

    def __call__(self, role: str, tensor: Tensor) -> Tensor:
        """The tensor, or its value at the base point."""
        self.seen.add(role)
        if self.recording:
            self.values.append(tensor)
            return tensor
        value = next(self.queue)
        return value if role in self.roles else tensor

    def held(self, x: Tensor) -> Tensor:
        """The layer with those roles held."""
        self.queue = iter(self.values)
        return self.layer(x, self)


def nothing(role: str, tensor: Tensor) -> Tensor:
    """Hold nothing."""
    return tensor


def activated(keep: Keep, function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """A function of single entries, or its tangent: slope and intercept are what is kept."""
    if isinstance(keep, Base):
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            value = function(leaf)
            slope = torch.autograd.grad(value.sum(), leaf)[0]
        slope = keep("activation", slope.detach())
        intercept = keep("activation", (value.detach() - slope * z).detach())
        if "activation" in keep.roles:
            return slope * z + intercept
    return function(z)


def scores(x: Tensor, q: Tensor = Q, k: Tensor = K) -> Tensor:
    return (x @ q) @ (x @ k).T / D**0.5


def plain(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", scores(x).softmax(-1)) @ (x @ V) @ P


def heads(x: Tensor, w: Tensor) -> Tensor:
    return (x @ w).reshape(N, 2, D // 2).transpose(0, 1)


def joined(x: Tensor) -> Tensor:
    return x.transpose(0, 1).reshape(N, D)


def rotated(x: Tensor) -> Tensor:
    """Rotary position codes."""
    angle = PLACES[:, None] * torch.tensor([1.0, 0.1], dtype=x.dtype).repeat(2)
    return x * angle.cos() + torch.cat([-x[..., D // 2 :], x[..., : D // 2]], -1) * angle.sin()


def length(x: Tensor) -> Tensor:
    return x.square().sum(-1, keepdim=True).sqrt()


def sparsemax(s: Tensor) -> Tensor:
    ordered = s.sort(-1, descending=True).values
    total, count = ordered.cumsum(-1) - 1, torch.arange(1, s.shape[-1] + 1)
    size = (ordered * count > total).sum(-1, keepdim=True)
    return (s - total.gather(-1, size - 1) / size).clamp_min(0)


# -- patterns ----------------------------------------------------------------------------------------------------------


def causal(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", scores(x).masked_fill(~MASK, -torch.inf).softmax(-1)) @ (x @ V) @ P


def multi_head(x: Tensor, keep: Keep) -> Tensor:
    a = keep("pattern", (heads(x, Q) @ heads(x, K).mT).softmax(-1))
    return joined(a @ heads(x, V)) @ P


def einsum_heads(x: Tensor, keep: Keep) -> Tensor:
    q, k, v = (torch.einsum("nd,dhe->nhe", x, w.reshape(D, 2, D // 2)) for w in (Q, K, V))
    a = keep("pattern", torch.einsum("ihe,the->hit", q, k).softmax(-1))
    return torch.einsum("hit,the,hed->id", a, v, P.reshape(2, D // 2, D))


def shared_keys(x: Tensor, keep: Keep) -> Tensor:
    k, v = (x @ w[:, : D // 2] for w in (K, V))
    return joined(keep("pattern", (heads(x, Q) @ k.T).softmax(-1)) @ v) @ P


def squared_relu(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", torch.relu(scores(x)) ** 2) @ (x @ V)


def sigmoid_attention(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", torch.sigmoid(scores(x) - 1)) @ (x @ V) @ P


def quadratic(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", scores(x)) @ (x @ V)


def retention(x: Tensor, keep: Keep) -> Tensor:
    decay = (0.9 ** (PLACES[:, None] - PLACES)).tril()
    return keep("pattern", scores(x) * decay) @ (x @ V)


def kernel(x: Tensor, keep: Keep) -> Tensor:
    a = (torch.exp(x @ Q) @ torch.exp(x @ K).T) * MASK
    return keep("pattern", a / a.sum(-1, keepdim=True)) @ (x @ V)


def cosine(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", (5 * normalize(x @ Q, dim=-1) @ normalize(x @ K, dim=-1).T).softmax(-1)) @ (x @ V)


def cosine_of_scores(x: Tensor, keep: Keep) -> Tensor:
    q, k = x @ Q, x @ K
    return keep("pattern", (q @ k.T / length(q) / length(k).T).softmax(-1)) @ (x @ V)


def talking_heads(x: Tensor, keep: Keep) -> Tensor:
    a = torch.einsum("hit,hg->git", heads(x, Q) @ heads(x, K).mT, MIX).softmax(-1)
    return joined(keep("pattern", torch.einsum("hit,hg->git", a, AFTER)) @ heads(x, V)) @ P


def alibi(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", (scores(x) - 0.5 * (PLACES[:, None] - PLACES).abs()).softmax(-1)) @ (x @ V)


def sink_column(x: Tensor, keep: Keep) -> Tensor:
    sink = torch.full((N, 1), 0.3, dtype=x.dtype)
    return keep("pattern", torch.cat([scores(x), sink], -1).softmax(-1)[:, :-1]) @ (x @ V)


def sink_of_one(x: Tensor, keep: Keep) -> Tensor:
    e = scores(x).exp()
    return keep("pattern", e / (1 + e.sum(-1, keepdim=True))) @ (x @ V)


def sink_as_factor(x: Tensor, keep: Keep) -> Tensor:
    s = scores(x)
    seen = keep("pattern", torch.sigmoid(s.logsumexp(-1, keepdim=True) - 0.3))
    return keep("pattern", s.softmax(-1)) @ (x @ V) * seen


def sparse(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", sparsemax(scores(x))) @ (x @ V) @ P


def over_queries(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", scores(x).softmax(-2)) @ (x @ V)


def product_pattern(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", scores(x).softmax(-1) * torch.sigmoid(scores(x, Q2, K2))) @ (x @ V) @ P


def product_of_scores(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", (scores(x) * scores(x, Q2, K2)).softmax(-1)) @ (x @ V)


def composed_pattern(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", scores(x).softmax(-1) @ scores(x, Q2, K2).softmax(-1)) @ (x @ V)


def differential(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", scores(x).softmax(-1) - 0.4 * scores(x, Q2, K2).softmax(-1)) @ (x @ V)


def rotary(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", (rotated(x @ Q) @ rotated(x @ K).T).softmax(-1)) @ (x @ V)


def capped(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", (torch.tanh(scores(x) / 5) * 5).softmax(-1)) @ (x @ V) @ P


def with_bias_of_keys(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", (scores(x) + softplus(x @ G[:, :1]).T + BIAS).softmax(-1)) @ (x @ V)


def disentangled(x: Tensor, keep: Keep) -> Tensor:
    places = OTHER[:N] @ K2
    index = (PLACES[:, None] - PLACES).abs()
    s = scores(x) + ((x @ Q) @ places.T).gather(-1, index) + ((x @ K) @ places.T).gather(-1, index).T
    return keep("pattern", s.softmax(-1)) @ (x @ V)


def by_entries(x: Tensor, keep: Keep) -> Tensor:
    """Scores and weighing without a matrix product."""
    s = ((x @ Q)[:, None] * (x @ K)[None]).sum(-1)
    return (keep("pattern", s.softmax(-1))[..., None] * (x @ V)[None]).sum(1)


def columns(x: Tensor, keep: Keep) -> Tensor:
    """Tokens along the last axis, all products the other way around."""
    a = keep("pattern", ((K.T @ x.T).T @ (Q.T @ x.T)).softmax(0))
    return (V.T @ x.T) @ a


def bare(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", (x @ x.T).softmax(-1)) @ x


def glimpses(x: Tensor, keep: Keep) -> Tensor:
    """A new axis of heads comes from constants, and the weights sum to one over all pairs of tokens."""
    s = (x @ Q * MIX.repeat(1, 2)[:, None]) @ (x @ K).T
    a = keep("pattern", s.flatten(1).softmax(-1).view_as(s))
    return (a @ (x @ V)).sum(0)


def sink_that_moves(x: Tensor, keep: Keep) -> Tensor:
    s = torch.cat([scores(x), x @ G[:, :1]], -1)
    return keep("pattern", s.softmax(-1)[:, :-1]) @ (x @ V)


def written_in_place(x: Tensor, keep: Keep) -> Tensor:
    """Keys and scores put together in fresh tensors, beside pieces without entries."""
    k = x.new_zeros(N, D)
    k[:, :2], k[:, 2:] = (x @ K)[:, :2], (x @ K2)[:, 2:]
    s = x.new_zeros(N, N)
    s[:, :3], s[:, 3:] = (x @ Q @ k.T)[:, :3], (x @ Q @ k.T)[:, 3:]
    return keep("pattern", torch.cat([s, x[:, :0]], -1).softmax(-1)) @ (x @ V)


def last_query(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", ((x[-1:] @ Q) @ (x @ K).T).softmax(-1)) @ (x @ V) @ P


def the_token_that_moves_asks(u: Tensor, keep: Keep) -> Tensor:
    """Coordinates become one token beside others that stand still, and it alone is read."""
    x = torch.cat([(u @ BASIS[:, :D])[None], X[1:]])
    return keep("pattern", ((x[:1] @ Q) @ (x @ K).T).softmax(-1)) @ (x @ V) @ P


def a_vector_asks(u: Tensor, keep: Keep) -> Tensor:
    """The query is the first token as a vector, in two heads."""
    x = torch.cat([(u @ BASIS[:, :D])[None], X[1:]])
    q, k, v = (x[0] @ Q).view(2, 1, 2), (x @ K).view(N, 2, 2).movedim(0, 2), (x @ V).view(N, 2, 2).movedim(0, 1)
    return (keep("pattern", (q @ k).softmax(-1)) @ v).flatten()


def tokens_of_one_row(u: Tensor, keep: Keep) -> Tensor:
    """A single row of features becomes the tokens."""
    return plain((u[None] @ BASIS).view(N, D), keep)


def token_by_token(x: Tensor, keep: Keep) -> Tensor:
    """Each query in turn, over the tokens up to its own."""
    rows = [x[:1] @ V]
    for i in range(1, N):
        s = (x[i : i + 1] @ Q) @ (x[: i + 1] @ K).T
        rows.append(keep("pattern", s.softmax(-1)) @ (x[: i + 1] @ V))
    return torch.cat(rows) @ P


def windows(x: Tensor, keep: Keep) -> Tensor:
    """Each token over itself and the two before it."""
    k, v = (pad(x @ w, (0, 0, 2, 0)).unfold(0, 3, 1) for w in (K, V))  # [N, D, 3]
    s = (x @ Q)[:, None] @ k
    return (keep("pattern", s.softmax(-1)) @ v.mT)[:, 0]


def convolved(x: Tensor, keep: Keep) -> Tensor:
    """Short convolutions before queries, keys and values."""
    q, k, v = (
        conv1d(pad((x @ w).T[None], (2, 0)), short, groups=D)[0].T for w, short in zip((Q, K, V), SHORT, strict=True)
    )
    return keep("pattern", (q @ k.T).softmax(-1)) @ v


def cross(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", ((x @ Q) @ (OTHER @ K).T).softmax(-1)) @ (OTHER @ V) @ P


def cross_with_bare_values(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", ((x @ Q) @ (OTHER @ K).T).softmax(-1)) @ OTHER


def queries_of_another_input(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", ((OTHER @ Q) @ (x @ K).T).softmax(-1)) @ (x @ V)


def values_of_another_input(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", scores(x).softmax(-1)) @ (OTHER[:N] @ V)


def self_and_cross(x: Tensor, keep: Keep) -> Tensor:
    return cross(x + plain(x, keep), keep)


def three_inputs(x: Tensor, keep: Keep) -> Tensor:
    """Separate inputs for queries, keys and values."""
    return keep("pattern", ((x[0] @ Q) @ (x[1] @ K).T).softmax(-1)) @ (x[2] @ V) @ P


def flattened(x: Tensor, keep: Keep) -> Tensor:
    return plain(x.reshape(N, D), keep)


def from_coordinates(u: Tensor, keep: Keep) -> Tensor:
    return plain(X + (u @ BASIS).reshape(N, D), keep)


def batched(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", ((x @ Q) @ (x @ K).mT).softmax(-1)) @ (x @ V) @ P


def channels_first(x: Tensor, keep: Keep) -> Tensor:
    q, k, v = (conv1d(x[None], w[..., None])[0] for w in (Q, K, V))
    return v @ keep("pattern", (q.T @ k).softmax(-1)).T


def two_layers(x: Tensor, keep: Keep) -> Tensor:
    h = x + plain(x, keep)
    return h + keep("pattern", scores(h, Q2, K2).softmax(-1)) @ (h @ V)


def tanh_behind(x: Tensor, keep: Keep) -> Tensor:
    return x + activated(keep, torch.tanh, keep("pattern", scores(x).softmax(-1)) @ (x @ V)) @ P


def relu_behind_projection(x: Tensor, keep: Keep) -> Tensor:
    return activated(keep, torch.sigmoid, plain(x, keep)) @ W


def softmax_behind(x: Tensor, keep: Keep) -> Tensor:
    """Attention output through a memory whose softmax is no pattern."""
    return (plain(x, keep) @ G).softmax(-1) @ W


def normed_values(x: Tensor, keep: Keep) -> Tensor:
    v = x @ V
    v = v * keep("norm", torch.rsqrt(v.square().mean(-1, keepdim=True) + 1e-6))
    return keep("pattern", scores(x).softmax(-1)) @ v @ P


def parallel(x: Tensor, keep: Keep) -> Tensor:
    h = x * keep("norm", torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))
    return x + plain(h, keep) + keep("mlp_gate", silu(h @ U)) * (h @ W) @ C


# -- attention with gates ----------------------------------------------------------------------------------------------


def output_gate(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", scores(x).softmax(-1)) @ (x @ V) * keep("attention_gate", torch.sigmoid(x @ G)) @ P


def linear_output_gate(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", scores(x).softmax(-1)) @ (x @ V) * keep("attention_gate", x @ G) @ P


def value_gate(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", scores(x).softmax(-1)) @ (x @ V * keep("attention_gate", torch.sigmoid(x @ G))) @ P


def projected_gate(x: Tensor, keep: Keep) -> Tensor:
    return plain(x, keep) * keep("attention_gate", torch.sigmoid(x @ G))


def gate_of_queries(x: Tensor, keep: Keep) -> Tensor:
    """Written on the pattern itself, one number a row."""
    gate = keep("attention_gate", torch.sigmoid(x @ G[:, :1]))
    return (keep("pattern", scores(x).softmax(-1)) * gate) @ (x @ V)


def gate_of_keys(x: Tensor, keep: Keep) -> Tensor:
    gate = keep("attention_gate", torch.sigmoid(x @ G[:, :1]).T)
    return (keep("pattern", scores(x).softmax(-1)) * gate) @ (x @ V)


def gated_attention_unit(x: Tensor, keep: Keep) -> Tensor:
    z = silu(x @ W)
    a = keep("pattern", torch.relu((z * BIAS[0, :D]) @ (z * BIAS[1, :D]).T / N) ** 2)
    v = activated(keep, silu, x @ V)
    return keep("attention_gate", silu(x @ U)) * (a @ v) @ P


def cross_gate(x: Tensor, keep: Keep) -> Tensor:
    a = keep("pattern", ((x @ Q) @ (OTHER @ K).T).softmax(-1))
    return a @ (OTHER @ V) * keep("attention_gate", torch.sigmoid(x @ G)) @ P


def low_rank_gate(x: Tensor, keep: Keep) -> Tensor:
    return keep("pattern", scores(x).softmax(-1)) @ (x @ V) * keep("attention_gate", torch.sigmoid(x @ (LOW @ RANK)))


def linear_attention(x: Tensor, keep: Keep) -> Tensor:
    return activated(keep, torch.exp, x @ Q) @ (activated(keep, torch.exp, x @ K).T @ (x @ V))


def gated_linear_attention(x: Tensor, keep: Keep) -> Tensor:
    return (x @ Q) @ ((x @ K).T @ (x @ V)) * keep("attention_gate", torch.sigmoid(x @ G)) @ P


def receptance(x: Tensor, keep: Keep) -> Tensor:
    """RWKV's time mixing, as a recurrence over tokens."""
    before = pad(x, (0, 0, 1, -1))
    mixed = [x * m + before * (1 - m) for m in (0.3, 0.5, 0.8)]
    k, v, r = (m @ w for m, w in zip(mixed, (K, V, G), strict=True))
    gate = keep("attention_gate", torch.sigmoid(r))
    top = below = torch.zeros(D, dtype=x.dtype)
    rows = []
    for t in range(N):
        e = keep("attention_gate", torch.exp(k[t] * 0.3))
        top, below = top * DECAY.exp() + e * v[t], below * DECAY.exp() + e
        rows.append(top / below)
    return gate * torch.stack(rows) @ P


def gated_recurrence(x: Tensor, keep: Keep) -> Tensor:
    """A state with a forget gate, an input gate and an output gate."""
    forget, enter = torch.sigmoid(x @ U), torch.sigmoid(x @ W)
    v, state, rows = x @ V, torch.zeros(D, dtype=x.dtype), []
    for t in range(N):
        fed = keep("attention_gate", enter[t]) * v[t]
        state = fed if t == 0 else keep("attention_gate", forget[t]) * state + fed
        rows.append(state)
    return torch.stack(rows) * keep("attention_gate", torch.sigmoid(x @ G)) @ P


def state_space(x: Tensor, keep: Keep) -> Tensor:
    """Mamba's selective scan, without its convolution."""
    u, z = x @ U, keep("attention_gate", silu(x @ G))
    step = keep("attention_gate", softplus(x @ W))
    state, rows = torch.zeros(D, 3, dtype=x.dtype), []
    b, c = x @ K[:, :3], x @ C[:, :3]
    for t in range(N):
        decay = torch.exp(step[t][:, None] * DECAY[:3])
        fed = step[t][:, None] * b[t] * keep("attention_gate", u[t][:, None])
        state = fed if t == 0 else keep("attention_gate", decay) * state + fed
        rows.append(state @ c[t])
    return torch.stack(rows) * z @ P


# -- nothing is held ---------------------------------------------------------------------------------------------------


def efficient_attention(x: Tensor, keep: Keep) -> Tensor:
    return (x @ Q).softmax(-1) @ ((x @ K).softmax(0).T @ (x @ V))


def memory(x: Tensor, keep: Keep) -> Tensor:
    return (x @ OTHER.T).softmax(-1) @ STORED


def memory_with_queries(x: Tensor, keep: Keep) -> Tensor:
    return (x @ Q @ OTHER.T).softmax(-1) @ STORED @ P


def tied_memory(x: Tensor, keep: Keep) -> Tensor:
    return (x @ OTHER.T).softmax(-1) @ OTHER


def channel_attention(x: Tensor, keep: Keep) -> Tensor:
    """Cross-covariance attention: features weigh features."""
    return (x @ V) @ ((x @ Q).T @ (x @ K)).softmax(-1)


def synthesizer(x: Tensor, keep: Keep) -> Tensor:
    """Weights over tokens that no key has a part in."""
    return (x @ SLOTS).softmax(-1) @ (x @ V)


def additive(x: Tensor, keep: Keep) -> Tensor:
    """Scores that are no product of queries and keys."""
    s = activated(keep, torch.cos, (x @ Q)[:, None] + (x @ K)[None]) @ DECAY
    return s.softmax(-1) @ (x @ V)


def pooling(x: Tensor, keep: Keep) -> Tensor:
    """A learned query alone: a projection."""
    return (x @ Q[:, :1]).softmax(0).T @ (x @ V)


def dispatched(x: Tensor, keep: Keep) -> Tensor:
    """Tokens to the slots of soft experts."""
    return (x @ normalize(OTHER.T, dim=0)).softmax(0).T @ x


def mixture(x: Tensor, keep: Keep) -> Tensor:
    """A router's softmax weighs experts, not tokens."""
    experts = torch.stack([x @ U, x @ W, x @ C], 1)
    return ((x @ G[:, :3]).softmax(-1)[:, None] @ experts)[:, 0]


def constant_pattern(x: Tensor, keep: Keep) -> Tensor:
    return BIAS.softmax(-1) @ x


def projected_pattern(x: Tensor, keep: Keep) -> Tensor:
    """Rows of a pattern, read by a projection."""
    return scores(x).softmax(-1) @ BIAS


def data_dependent_decay(x: Tensor, keep: Keep) -> Tensor:
    total = torch.cumsum(-softplus(x @ G[:, 0]), 0)
    decay = torch.exp(total[:, None] - total[None]) * MASK
    return (keep("attention_gate", decay) * scores(x)) @ (x @ V)


# -- MLPs and norms ----------------------------------------------------------------------------------------------------


def gated_mlp(x: Tensor, keep: Keep) -> Tensor:
    return keep("mlp_gate", silu(x @ U)) * (x @ W) @ P


def gate_second(x: Tensor, keep: Keep) -> Tensor:
    return (x @ W) * keep("mlp_gate", gelu(x @ U)) @ P


def bilinear(x: Tensor, keep: Keep) -> Tensor:
    return keep("mlp_gate", x @ U) * (x @ W) @ P


def halves(x: Tensor, keep: Keep) -> Tensor:
    a, b = (x @ U).chunk(2, -1)
    return keep("mlp_gate", torch.sigmoid(a)) * b


def channel_mixing(x: Tensor, keep: Keep) -> Tensor:
    """RWKV's, whose receptance is a gate of an MLP."""
    before = pad(x, (0, 0, 1, -1))
    k, r = x * 0.3 + before * 0.7, x * 0.6 + before * 0.4
    return keep("mlp_gate", torch.sigmoid(r @ G)) * (activated(keep, lambda z: torch.relu(z) ** 2, k @ K) @ V)


def squeeze_excite(x: Tensor, keep: Keep) -> Tensor:
    return x * keep("mlp_gate", torch.sigmoid(x.mean(0) @ U))


def gated_convolution(x: Tensor, keep: Keep) -> Tensor:
    mixed = conv1d(pad((x @ V).T[None], (2, 0)), SHORT[0], groups=D)[0].T
    return keep("mlp_gate", torch.sigmoid(x @ G)) * mixed


def plain_mlp(x: Tensor, keep: Keep) -> Tensor:
    return activated(keep, gelu, x @ U) @ W


def written_out(x: Tensor, keep: Keep) -> Tensor:
    return activated(keep, lambda z: 0.5 * z * (1 + torch.tanh(0.8 * (z + 0.04 * z**3))), x @ U) @ W


def squared_relu_mlp(x: Tensor, keep: Keep) -> Tensor:
    return activated(keep, lambda z: torch.relu(z).square(), x @ U) @ W


def two_activations(x: Tensor, keep: Keep) -> Tensor:
    return activated(keep, torch.tanh, activated(keep, silu, x @ U) @ W)


def token_mixing(x: Tensor, keep: Keep) -> Tensor:
    return BIAS @ activated(keep, gelu, BIAS.T @ x)


def layer_norm(x: Tensor, keep: Keep) -> Tensor:
    y = x - x.mean(-1, keepdim=True)
    return y * keep("norm", torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5)) * DECAY + 0.1


def rms_norm(x: Tensor, keep: Keep) -> Tensor:
    return x * keep("norm", torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


def unit_length(x: Tensor, keep: Keep) -> Tensor:
    return x / keep("norm", length(x)) @ W


def normed_block(x: Tensor, keep: Keep) -> Tensor:
    h = x + plain(rms_norm(x, keep), keep)
    return h + activated(keep, gelu, layer_norm(h, keep) @ U) @ W


#: name -> layer, the base point
INPUTS: dict[str, Any] = {
    "three_inputs": weight(3, N, D, seed=101),
    "flattened": X.reshape(-1),
    "from_coordinates": weight(2, seed=102) / 3,
    "the_token_that_moves_asks": weight(2, seed=102) / 3,
    "a_vector_asks": weight(2, seed=102) / 3,
    "tokens_of_one_row": weight(2, seed=102) / 3,
    "batched": weight(2, N, D, seed=103),
    "channels_first": X.T.clone(),
}
LAYERS: dict[str, Layer] = {
    layer.__name__: layer
    for layer in (
        plain, causal, multi_head, einsum_heads, shared_keys, squared_relu, sigmoid_attention, quadratic, retention,
        kernel, cosine, cosine_of_scores, talking_heads, alibi, sink_column, sink_of_one, sink_as_factor, sparse,
        over_queries, product_pattern, product_of_scores, composed_pattern, differential, rotary, capped,
        with_bias_of_keys, disentangled, by_entries, columns, bare, glimpses,
        sink_that_moves, written_in_place, last_query, the_token_that_moves_asks, a_vector_asks, tokens_of_one_row,
        token_by_token, windows, convolved,
        cross, cross_with_bare_values, queries_of_another_input, values_of_another_input, self_and_cross, three_inputs,
        flattened, from_coordinates, batched, channels_first, two_layers, tanh_behind, relu_behind_projection,
        softmax_behind, normed_values, parallel, output_gate, linear_output_gate, value_gate, projected_gate,
        gate_of_queries, gate_of_keys, gated_attention_unit, cross_gate, low_rank_gate, linear_attention,
        gated_linear_attention, receptance, gated_recurrence, state_space, efficient_attention, memory,
        memory_with_queries, tied_memory,
        channel_attention, synthesizer, additive, pooling, dispatched, mixture, constant_pattern, projected_pattern,
        data_dependent_decay, gated_mlp, gate_second, bilinear, halves, channel_mixing, squeeze_excite,
        gated_convolution, plain_mlp, written_out, squared_relu_mlp, two_activations, token_mixing, layer_norm,
        rms_norm, unit_length, normed_block,
    )
}  # fmt: skip


def point(name: str) -> Tensor:
    """Where a layer is traced and frozen."""
    return INPUTS.get(name, X)
