"""Which symmetries a gated MLP has, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fisherflat.provers._symmetry import certify_symmetry

if TYPE_CHECKING:
    import pandas as pd


def symmetries(mlp: Any, at: Any = None) -> pd.DataFrame:
    """The symmetries of the units of a gated MLP as a table, a row each: what they do, whether they hold, the evidence.

    `kind` says how firm the evidence is:

    - `"identity"`: holds for every activation, whatever the weights; the identity is checked symbolically with an
      undefined function φ.
    - `"proof"`: follows from a proved property of the activation; the resulting identity is checked symbolically.
    - `"exact"`: besides that, checked on weights of this MLP in exact rational arithmetic (φ a polynomial).
    - `"ball"`: a counterexample whose two sides lie in disjoint balls of arbitrary-precision arithmetic, for a unit of
      this MLP at stated inputs.
    - `"number"`: a counterexample in double precision, for an activation without a ball rule.
    - `"test"`: the symmetry was tested at points and not refuted; that proves nothing.

    It is the table of the certificate that `fisherflat.symmetry.certify` makes, which can be saved and verified.

    **Args:** as `gated_units`, and **Raises** as there.

    >>> import fisherflat as ff
    >>> table = ff.symmetry.symmetries(ff.layers.GatedMLP(4, 6, "relu").double())
    >>> list(table.loc[table["preserved"], "symmetry"])
    ['output scaling', 'output sign', 'permutation', 'inverse scaling']
    """
    import pandas as pd

    return pd.DataFrame(certify_symmetry(mlp, at).rows())
