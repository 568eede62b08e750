"""The multiplicative gate of an attention layer."""

from __future__ import annotations

from torch import nn

from fisherflat._arrays import choice
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.layers._activations import GATE_ACTIVATIONS, named
from fisherflat.layers._linear import linear

GRANULARITIES = ("elementwise", "headwise")
#: where a gate of an attention layer sits -> what it multiplies (G1 to G5 of Qiu et al.)
GATE_POSITIONS = {
    "output": "the heads' outputs, before the output projection (G1)",
    "value": "the projected values (G2)",
    "key": "the projected keys (G3)",
    "query": "the projected queries (G4)",
    "projection": "the result of the output projection (G5)",
}


class Gate(nn.Module):
    """The factor `a(x W_g)` that multiplies one of the tensors inside an attention layer.

    What a user writes is a specification without sizes, `Gate("silu", position="value")`. `SelfAttention` makes a gate
    of its own from it by `bind`, so that one specification may be given to many layers and none of them share weights.
    A bound gate has its weights in `projection`, an `nn.Linear`; in a specification `projection` is None.

    The positions are those of Qiu et al., *Gated Attention for Large Language Models* (arXiv 2505.06708, G1 to G5):

    | position | gated |
    |---|---|
    | `"output"` | the heads' outputs, before the output projection (G1) |
    | `"value"`, `"key"`, `"query"` | the projected values, keys, queries (G2, G3, G4) |
    | `"projection"` | the result of the output projection (G5) |

    The factor of a token is made from that token's own input; an elementwise gate has one number a channel, a headwise
    gate one number a head.

    **Args:**

    - `activation`: `"identity"` (the bilinear gate), `"sigmoid"`, `"silu"`, `"gelu"` (exact), `"tanh"`, `"relu"` or
      `"softplus"`.
    - `granularity`: `"elementwise"` or `"headwise"`.
    - `position`: one of the table above.

    **Raises:** `InputError` for an unknown name, or for a headwise gate after the output projection, where the
    channels no longer belong to heads.

    >>> import fisherflat as ff
    >>> ff.layers.Gate("silu", position="value")
    Gate('silu', 'elementwise', position='value')
    """

    def __init__(self, activation: str = "sigmoid", granularity: str = "elementwise", position: str = "output") -> None:
        super().__init__()
        choice(granularity, "granularity", GRANULARITIES)
        choice(position, "position", GATE_POSITIONS)
        if granularity == "headwise" and position == "projection":
            raise InputError(
                "a headwise gate cannot sit after the output projection, which has mixed the heads; "
                "use position='output', or granularity='elementwise'"
            )
        self._activation = named(activation, GATE_ACTIVATIONS)
        self.activation = activation
        self.granularity = granularity
        self.position = position
        self.projection: nn.Linear | None = None
        self._head_width = 1

    def bind(self, width: int, heads: int, bias: bool = False) -> Gate:
        """A new gate after this specification for a layer of that width, with freshly initialised weights."""
        gate = Gate(self.activation, self.granularity, self.position)
        headwise = self.granularity == "headwise"
        gate.projection = linear(width, heads if headwise else width, bias)
        gate._head_width = width // heads if headwise else 1
        return gate

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The factor for inputs `x`; a headwise one is repeated over the channels of each head.

        **Raises:** `InputError` where this is a specification that no layer has bound.
        """
        if self.projection is None:
            raise InputError("this Gate is a specification without weights; give it to SelfAttention(..., gate=...)")
        factor = self._activation(self.projection(x))
        if self._head_width == 1:
            return factor
        return factor.unsqueeze(-1).expand(*factor.shape, self._head_width).flatten(-2)

    def extra_repr(self) -> str:
        """The specification, for `print`."""
        return f"{self.activation!r}, {self.granularity!r}, position={self.position!r}"
