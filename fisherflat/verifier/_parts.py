"""What a held node has to be, decided anew and strictly, from what the words mean.

- A *pattern* is a function of products of queries and keys, normalised or not, that weighs values in a product over the
  token axis. So on each way back from it there are, before any such product, the scores `q_i . k_t`: sums over features
  of two rows that move (or one that moves and one that the map made of another input). On some way forward from it
  there is a product that sums over tokens, with values that move or were made of another input.
- A *norm* is an inverse root of a sum or mean of squares over features, and scales what moves.
- A *gate* is a factor of what moves, entry by entry; one of attention, of what goes into or comes out of a sum over
  tokens.
- An *activation* is a function of single entries, in the place of which its tangent stands.

Which axes of a node number tokens is followed from the input, whose last axis but one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import Graph, Node, mapped_leaves
from fisherflat.verifier._affinity import words
from fisherflat.verifier._held import Comparison

_MATMULS = ("mm", "bmm", "matmul", "addmm")
_MOVES = words(
    "reshape permute expand select slice cat stack index index_select gather flip roll repeat tril triu diagonal "
    "diag_embed constant_pad_nd slice_scatter select_scatter diagonal_scatter index_put index_copy index_fill scatter "
    "where masked_fill unfold getitem embedding"
)
_ENTRY = words(
    "abs add sub rsub mul div neg clamp clamp_min clamp_max elu exp expm1 gelu leaky_relu log log1p log_sigmoid pow "
    "reciprocal relu rsqrt sigmoid silu softplus sqrt tanh maximum minimum erf sin cos atan _to_copy sinh cosh"
)
#: what moves in jumps alone
_STEPS = words(
    "lt le gt ge eq ne logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not "
    "isnan isinf argmax argmin argsort floor ceil round trunc sign sgn any all"
)
_ROOTS = frozenset(("rsqrt", "sqrt", "pow"))
_SUMS = ("sum", "mean")
_REDUCTIONS = ("sum", "mean", "amax", "amin", "logsumexp", "max", "prod", "cumsum", "_softmax", "_log_softmax")


def parts_that_are_none(found: Comparison) -> Iterator[str]:
    """What is held without being what its role says."""
    parts = _Parts(found.graph)
    asked: dict[str, Callable[[Node], bool]] = {
        "pattern": parts.is_pattern,
        "norm": parts.is_norm,
        "attention_gate": lambda node: parts.is_gate(node) and parts.is_of_attention(node),
        "mlp_gate": parts.is_gate,
        "activation": lambda node: found.roots[node] is not node,
    }
    for role, is_one in asked.items():
        for node in found.nodes(role):
            if not is_one(node):
                yield f"{node.op} at {node.source} (node %{node.index}) is held as {role}, which it is not"


class _Parts:
    """The parts of a live graph.

    **Attributes:** `moving`: the nodes that move, and not in jumps alone; `tokens`: node -> the axes that number
    tokens, empty for others.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph, self.users = graph, graph.users()
        self.moving = {graph.input}
        for node in graph.nodes[1:]:
            index = (
                _name(node) == "getitem" and node.args[1] > 0 and _name(node.args[0]) in ("topk", "sort", "max", "min")
            )
            if not index and _name(node) not in _STEPS and any(source in self.moving for source in node.inputs):
                self.moving.add(node)
        rank = len(graph.input.shape)
        self.tokens: dict[Node, frozenset[int]] = {graph.input: frozenset((rank - 2,) if rank > 1 else ())}
        for node in graph.nodes[1:]:
            self.tokens[node] = self._axes(node) if node in self.moving else frozenset()

    # -- which axes number tokens --------------------------------------------------------------------------------------

    def _axes(self, node: Node) -> frozenset[int]:
        name = _name(node)
        if node.shape and isinstance(node.shape[0], tuple):
            return self.tokens[node.inputs[0]]  # several outputs, as of a sort: each like what is sorted
        sources = [source for source in dict.fromkeys(node.inputs) if source in self.moving]
        rank = len(node.shape)
        if name == "getitem":
            return frozenset(axis for axis in self.tokens[sources[0]] if axis < rank)
        if name in _MATMULS:
            return self._of_matmul(node)
        if name in _MOVES - {"where", "masked_fill"}:
            return self._moved(node, sources)
        if name in ("sum", "mean", "amax", "amin", "logsumexp", "prod"):
            over = _reduced(node)
            kept = len(node.shape) == len(sources[0].shape)
            return frozenset(
                axis if kept else axis - sum(gone < axis for gone in over)
                for axis in self.tokens[sources[0]]
                if axis not in over
            )
        if name == "convolution":
            spatial = frozenset(axis for axis in self.tokens[sources[0]] if axis != 1)
            return spatial or frozenset(axis for axis in range(2, rank) if node.shape[axis] > 1)
        # by entries, or of unknown kind but the same shape: aligned from the last axis on
        shift = {source: rank - len(source.shape) for source in sources}
        return frozenset(
            axis + shift[source]
            for source in sources
            for axis in self.tokens[source]
            if shift[source] >= 0 and node.shape[axis + shift[source]] == source.shape[axis]
        )

    def _of_matmul(self, node: Node) -> frozenset[int]:
        left, right = node.args[-2:]
        rank, found = len(node.shape), set()
        for side, summed, kept in ((left, -1, -2), (right, -2, -1)):
            if isinstance(side, Node):
                own = len(side.shape)
                for axis in self.tokens[side]:
                    place = axis - own
                    if place != summed:
                        found.add(rank + (kept if place == kept else place))
        numbered = {axis for axis in found if axis >= 0}
        moving = [side for side in (left, right) if isinstance(side, Node) and side in self.moving]
        if not numbered and len(moving) == 1 and rank > 1:  # the same weights for each of its rows
            rows = rank + (-2 if moving[0] is left else -1)
            numbered = {rows} if node.shape[rows] > 1 else set()
        return frozenset(numbered)

    def _moved(self, node: Node, sources: list[Node]) -> frozenset[int]:
        """The axes along which an op that moves entries leaves the numbers of the tokens."""
        found: set[int] = set()
        for axis in frozenset().union(*(self.tokens[source] for source in sources)):

            def entry(leaf: Any, axis: int = axis) -> Any:
                if isinstance(leaf, Node):
                    blank = torch.zeros(leaf.shape, dtype=torch.float64)
                    if axis not in self.tokens[leaf]:
                        return blank
                    numbers = torch.arange(1, leaf.shape[axis] + 1, dtype=torch.float64)
                    return blank + numbers.reshape(-1, *[1] * (blank.dim() - axis - 1))
                floating = isinstance(leaf, Tensor) and leaf.is_floating_point()
                return torch.zeros_like(leaf, dtype=torch.float64) if floating else leaf

            try:
                out = node.target(*mapped_leaves(entry, node.args), **mapped_leaves(entry, node.kwargs))
            except (RuntimeError, IndexError, TypeError):
                return frozenset()  # a mask or an index that moves
            if out.numel():
                low = torch.where(out == 0, torch.inf, out)  # zeros are no tokens
                found |= {i for i in range(out.dim()) if bool((low.amin(i) < out.amax(i)).any())}
        return frozenset(found)

    # -- what a node is ------------------------------------------------------------------------------------------------

    def is_pattern(self, node: Node) -> bool:
        """A function of products of queries and keys that weighs values over the token axis."""
        return self._scored(node) and self._weighs(node)

    def _scored(self, node: Node) -> bool:
        """Whether the ways back lead to scores, and not to a product over the token axis before."""
        pending, seen, scores = [node], {node}, 0
        while pending:
            here = pending.pop()
            kind = self._product(here)
            if kind == "score":
                scores += 1
                continue
            if kind == "weighing":
                return False
            if kind == "projection" or here is self.graph.input:
                continue  # what scales scores, or is added to them
            for source in here.inputs:
                if source in self.moving and source not in seen:
                    seen.add(source)
                    pending.append(source)
        return scores > 0

    def _product(self, node: Node) -> str | None:
        """What kind of product of rows a node is: of queries and keys, a weighing, or with constants alone."""
        name, numbered = _name(node), len(self.tokens[node]) > 0
        sides = [side for side in node.args[-2:] if isinstance(side, Node) and side in self.moving]
        if name == "mul" and len(set(sides)) == 2:  # term by term, to be summed over features
            sums = [user for user in self.users[node] if _name(user) == "sum"]
            terms = sums and not any(_reduced(user) & self.tokens[node] for user in sums)
            return "score" if terms and len(sums) == len(self.users[node]) else None
        if name not in _MATMULS:
            return "projection" if name == "convolution" else None
        over = self._over_tokens(node)
        if len(sides) == 2:
            if not over:
                return "score" if numbered else "weighing"
            return None if all(len(self.tokens[side]) > 1 for side in sides) else "weighing"
        constant = next(side for side in node.args[-2:] if side not in sides)
        if over:
            return None if len(self.tokens[sides[0]]) > 1 else "weighing"
        return "score" if self._is_made(constant) else "projection"

    def _over_tokens(self, node: Node) -> bool:
        """Whether a matrix product sums over an axis that numbers tokens."""
        left, right = node.args[-2:]
        return any(
            isinstance(side, Node) and len(side.shape) + axis in self.tokens[side]
            for side, axis in ((left, -1), (right, -2))
        )

    def _is_made(self, constant: Any) -> bool:
        """Whether a constant was made by the map, as the keys and values of another input are, and is no weight."""
        return isinstance(constant, Tensor) and id(constant) not in self.graph.names

    def _weighs(self, node: Node) -> bool:
        """Whether some way forward leads to a sum over tokens of values times it, or scales such a sum."""
        pending, seen = [node], {node}
        while pending:
            here = pending.pop()
            for user in self.users[here]:
                sides = user.args[-2:]
                other = next((side for side in sides if side is not here), None)
                name = _name(user)
                if name in _MATMULS:
                    at = len(here.shape) + (-1 if sides[0] is here else -2)
                    values = (isinstance(other, Node) and other in self.moving) or self._is_made(other)
                    made_keys = self._is_made(other) and len(self.tokens[here]) == 1
                    if values and (at in self.tokens[here] or made_keys):
                        return True
                    continue
                if name == "mul" and isinstance(other, Node) and other in self.moving:
                    if any(_name(u) == "sum" and _reduced(u) & self.tokens[user] for u in self.users[user]):
                        return True
                    if self._comes_from_mixing(other):
                        return True
                if name in _MOVES | _ENTRY | set(_REDUCTIONS) and user not in seen:
                    seen.add(user)
                    pending.append(user)
        return False

    def is_norm(self, node: Node) -> bool:
        """An inverse root of a sum of squares over features, which scales what moves."""
        here, rooted = node, False
        while _name(here) in _MOVES | _ENTRY:
            sources = [source for source in dict.fromkeys(here.inputs) if source in self.moving]
            if len(sources) != 1:
                return False
            rooted |= _name(here) in _ROOTS and (_name(here) != "pow" or here.args[1] in (0.5, -0.5))
            (here,) = sources
        if not rooted or _name(here) not in _SUMS or _reduced(here) & self.tokens[here.inputs[0]]:
            return False
        square = here.inputs[0]
        while _name(square) in _MOVES and len(set(square.inputs)) == 1:
            square = square.inputs[0]
        squared = (_name(square) == "mul" and square.args[0] is square.args[1]) or (
            _name(square) == "pow" and square.args[1] == 2
        )
        return squared and self.is_gate(node)

    def is_gate(self, node: Node) -> bool:
        """A factor, entry by entry, of what moves."""
        return any(True for _ in self._scaled(node))

    def _scaled(self, node: Node) -> Iterator[tuple[Node, Node]]:
        """The products that a node enters as a factor, and what it is a factor of there."""
        pending, seen = [node], {node}
        while pending:
            here = pending.pop()
            for user in self.users[here]:
                others = [s for s in user.args[:2] if isinstance(s, Node) and s is not here and s in self.moving]
                if _name(user) in ("mul", "div") and others:
                    yield user, others[0]
                elif user not in seen and _name(user) in _MOVES | _ENTRY:
                    seen.add(user)
                    pending.append(user)

    def is_of_attention(self, node: Node) -> bool:
        """Whether what it is a factor of comes out of, or goes into, a sum over tokens."""
        return any(
            self._comes_from_mixing(other) or self._comes_from_mixing(user, forward=True)
            for user, other in self._scaled(node)
        )

    def _comes_from_mixing(self, node: Node, forward: bool = False) -> bool:
        pending, seen = [node], {node}
        while pending:
            here = pending.pop()
            if self._mixes(here):
                return True
            for near in self.users[here] if forward else here.inputs:
                if near in self.moving and near not in seen:
                    seen.add(near)
                    pending.append(near)
        return False

    def _mixes(self, node: Node) -> bool:
        name = _name(node)
        if name in _MATMULS:
            made = any(self._is_made(side) for side in node.args[-2:])  # another input's keys and values
            return made or self._over_tokens(node) or len(self.tokens[node]) > 1
        if name in ("convolution", "cumsum", "linalg_solve_triangular"):
            return True
        if name in _SUMS:
            return bool(_reduced(node) & self.tokens[node.inputs[0]])
        # a token that is picked out, or tokens that are shifted, to meet others
        along = node.args[1] if len(node.args) > 1 else 0
        if name in ("select", "slice"):
            return isinstance(along, int) and along % len(node.inputs[0].shape) in self.tokens[node.inputs[0]]
        return name in ("constant_pad_nd", "roll", "slice_scatter", "select_scatter")


def _name(node: Node) -> str:
    return node.op.removeprefix("aten.")


def _reduced(node: Node) -> frozenset[int]:
    """The axes that a reduction sums over."""
    rank = len(node.inputs[0].shape)
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    if dims is None or dims == []:
        return frozenset(range(rank))
    return frozenset(d % max(rank, 1) for d in (dims if isinstance(dims, (list, tuple)) else [dims]))
