"""The table of ops: one row says what is known of an op, and all else is derived from it.

Ops that are not here are composite: `fisherflat.jets.recording.decompositions` writes them in ops that are. How
tensors and balls do what goes beyond arithmetic is said in their rooms. The verifier has a list of its own, on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fisherflat.jets.ops._op import Kind, Op
from fisherflat.jets.rules import (
    FUNCTIONS,
    Rule,
    cast,
    choices,
    elementwise,
    exponentials,
    factors,
    linear,
    matrices,
    power,
    products,
)

aten = torch.ops.aten

#: ATen op (without overload) -> its row
OPS: dict[Any, Op] = {}


def _row(kind: Kind, rule: Rule | None, names: str, **facts: Any) -> None:
    """The same row for several ops; names that the installed torch does not know are left out."""
    facts.setdefault("analytic", kind not in ("choice", "constant"))
    for name in names.split():
        if hasattr(aten, name):
            OPS[getattr(aten, name)] = Op(name, kind, rule, **facts)


_row("structural", linear, "reshape permute expand select slice", sign="same")
_row("structural", linear, "cat stack flip roll rot90 repeat unfold diagonal diag_embed")
_row("structural", linear, "tril triu", in_place=True)
_row("structural", linear, "where", in_place=True, places=0)
_row("structural", linear, "masked_fill", in_place=True, places=1)
_row("structural", linear, "slice_scatter select_scatter diagonal_scatter")
_row("structural", linear, "index_put embedding", places=1)
_row("structural", linear, "index_copy index_fill", places=2)
_row("structural", linear, "reflection_pad1d reflection_pad2d reflection_pad3d")
_row("structural", linear, "replication_pad1d replication_pad2d replication_pad3d")
_row("structural", linear, "constant_pad_nd pixel_shuffle pixel_unshuffle channel_shuffle im2col")
_row("structural", linear, "index", chooses=True, places=1)
_row("structural", linear, "index_select gather scatter", chooses=True, places=2)

_row("linear", linear, "neg cumsum trace col2im")
_row("linear", linear, "scatter_add index_add", places=2)
_row("linear", linear, "sum mean", reduces=True, sign="same")
_row("linear", linear, "avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d")
_row("linear", linear, "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d")
_row("linear", linear, "_upsample_bilinear2d_aa _upsample_bicubic2d_aa")

_row("sum", products.add, "add")
_row("sum", products.sub, "sub")
_row("sum", products.rsub, "rsub")

_row("product", products.mul, "mul", factors=(0, 1))
_row("product", products.matmul, "mm bmm", factors=(0, 1), matrix=True, projects=True)
_row("product", products.addmm, "addmm", factors=(1, 2), matrix=True, projects=True)
_row("product", products.convolution, "convolution", factors=(0, 1), projects=True)
_row("quotient", products.div, "div", divisors=(1,), domain="nonzero")

_row("smooth", matrices.triangular_system, "linalg_solve_triangular", divisors=(0,), matrix=True, domain="other")
_row("smooth", matrices.system, "_linalg_solve_ex", divisors=(0,), domain="other")
_row("smooth", matrices.inverse, "linalg_inv_ex", domain="other")
_row("smooth", matrices.determinant, "_linalg_det")
_row("smooth", matrices.log_determinant, "_linalg_slogdet", domain="other")
_row("smooth", matrices.exponential, "linalg_matrix_exp")
_row("smooth", factors.cholesky, "linalg_cholesky_ex", domain="other")
_row("smooth", factors.qr, "linalg_qr", domain="other")
_row("smooth", factors.lu, "linalg_lu", analytic=False)
_row("smooth", factors.lu_packed, "linalg_lu_factor_ex", analytic=False)
_row("smooth", factors.eigen, "_linalg_eigh", analytic=False)
_row("smooth", factors.singular, "_linalg_svd", analytic=False)

_row("smooth", power, "pow")
_row("smooth", exponentials.softmax, "_softmax", sign="nonnegative")
_row("smooth", exponentials.logsumexp, "logsumexp", reduces=True)
_row("smooth", exponentials.log_softmax, "_log_softmax")
_row("smooth", cast, "_to_copy", analytic=False)

for _name, _function in FUNCTIONS.items():
    _facts: dict[str, Any] = {"analytic": not _function.kinked, "domain": _function.domain, "sign": _function.sign}
    _facts["pieces"] = "affine" if _function.affine else ""
    _row("function", elementwise(_function), _name, function=_function, **_facts)

_row("choice", choices.ranked, "topk sort", chooses=True, indexed=True, largest=True, pieces="rank")
_row("choice", choices.ranked, "cummax cummin", indexed=True, pieces="rank")
_row("choice", choices.extreme, "max", indexed=True, largest=True, pieces="rank")
_row("choice", choices.extreme, "min", indexed=True, pieces="rank")
_row("choice", choices.extreme_over, "amax amin", reduces=True, pieces="rank")
_row("choice", choices.max_pool, "max_pool2d_with_indices max_pool3d_with_indices", indexed=True)
_row("choice", choices.max_pool, "fractional_max_pool2d fractional_max_pool3d", indexed=True)
_row("choice", choices.max_pool, "adaptive_max_pool2d adaptive_max_pool3d", indexed=True)

_row("constant", None, "eq ne lt le gt ge sign sgn heaviside", pieces="side")
_row("constant", None, "logical_and logical_or logical_xor logical_not", pieces="logic")
_row("constant", None, "bitwise_and bitwise_or bitwise_xor bitwise_not", pieces="logic")
_row("constant", None, "isnan isinf isposinf isneginf any all signbit floor ceil round trunc floor_divide")
_row("constant", None, "count_nonzero searchsorted bucketize")
_row("constant", None, "argmin", pieces="rank")
_row("constant", None, "argmax", largest=True, pieces="rank")
_row("constant", None, "detach", stands=True)
_row("constant", None, "zeros_like ones_like full_like empty_like", shape_only=True)
_row("constant", None, "new_zeros new_ones new_full new_empty new_empty_strided", shape_only=True)


def having(fact: Callable[[Op], bool]) -> frozenset[Any]:
    """The ops that something is true of."""
    return frozenset(packet for packet, op in OPS.items() if fact(op))


STRUCTURAL = having(lambda op: op.kind == "structural")
LINEAR = having(lambda op: op.kind in ("structural", "linear"))
PIECEWISE_CONSTANT = having(lambda op: op.kind == "constant")
#: structural ops that leave entries at their places, or fill others
IN_PLACE = having(lambda op: op.in_place)
#: ops that make one entry of all along the axes that their second argument names
REDUCTIONS = having(lambda op: op.reduces)
SUMS = having(lambda op: op.kind == "sum")
#: products of two matrices, which may both move, also with a summand
MATRIX_PRODUCTS = having(lambda op: op.kind == "product" and op.matrix)
#: ops by which weights enter a layer
PROJECTIONS = having(lambda op: op.projects)
#: ops that mix entries along an axis, by another thing that moves
MIXING = having(lambda op: op.matrix)
#: ops by which something does not move, whatever it is made of
STANDING = having(lambda op: op.stands)
UNARY = having(lambda op: op.function is not None)
CLAMPS = having(lambda op: op.name.startswith("clamp"))
#: ops that read entries from places that an index or their size says
SELECTIONS = having(lambda op: op.chooses)
#: ops whose second output says where the first one came from
INDEXED = having(lambda op: op.indexed)
#: ops that say which entries are the largest
RANKING = having(lambda op: op.largest)
#: ops of one entry that are affine by scaling and shifting it, where the other argument is constant
SCALING = SUMS | having(lambda op: op.name in ("mul", "div", "neg"))
