"""Every *Raises* of the reference, word for word: a call for each reason that a docstring gives.

Run as a program, since the tests check annotations, which would refuse much of it first.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the table of public names is

from public import NAMES

import fisherflat as ff
from fisherflat import families, layers, memories, moves, plot, readings, scale, statistics, symmetry, training

Calls = dict[str, Callable[[], Any]]

IDS = [1, 2, 3, 4]
ZERO = [0.0, 0.0]


def bowl(x: Tensor) -> Tensor:
    return torch.stack([x[0], x[1], x[0] ** 2 + x[1] ** 2])


def flat(x: Tensor) -> Tensor:
    """Of rank 1 everywhere."""
    return torch.stack([x[0], x[0], 2 * x[0]])


def pair(x: Tensor) -> Any:
    return x, x


def fails(x: Tensor) -> Tensor:
    raise RuntimeError("on purpose")


def drawn(x: Tensor) -> Tensor:
    return x + torch.rand(2)


def infinite(x: Tensor) -> Tensor:
    return torch.stack([x[0], x[1], 1 / (x[0] - 1)])


class Stack(nn.Module):
    """A model of two blocks."""

    def __init__(self, block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.table, self.blocks = nn.Embedding(9, 4), nn.ModuleList([block(), block()])

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.table(input_ids)
        for block in self.blocks:
            x = block(x)
        return x


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.output((self.query(x) @ self.key(x).mT).softmax(-1) @ self.value(x))
        return mixed if float(mixed.sum()) > 1e6 else -mixed


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(4), Attending()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.norm(x))


class Scaled(nn.Module):
    """It has a weight that no module of torch has."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x + (x * self.factor).tanh()


class Sample:
    """Things to call, made when they are first asked for."""

    @cached_property
    def model(self) -> ff.Model:
        return ff.load("python-llama")

    @cached_property
    def block(self) -> ff.Block:
        return self.model.blocks(IDS)[0]

    @cached_property
    def encoded(self) -> Any:
        return self.model.encode(IDS)

    @cached_property
    def states(self) -> Tensor:
        return self.block.input

    @cached_property
    def bare(self) -> ff.Block:
        """One in which neither attention nor MLP is found."""
        return ff.load(Stack(lambda: nn.LayerNorm(4))).blocks(IDS)[0]

    @cached_property
    def branching(self) -> ff.Block:
        """One whose attention branches on values, so that it has no graph."""
        return ff.load(Stack(Branching)).blocks(IDS)[0]

    @cached_property
    def chart(self) -> ff.charts.Chart:
        return ff.charts.identity(2)

    @cached_property
    def manifold(self) -> ff.StatisticalManifold:
        return ff.StatisticalManifold(bowl, self.chart)

    @cached_property
    def curve(self) -> ff.StatisticalManifold:
        return ff.StatisticalManifold(lambda x: torch.stack([x[0], x[0] ** 2]), ff.charts.identity(1))

    @cached_property
    def half(self) -> ff.StatisticalManifold:
        """One whose metric ends."""
        return ff.StatisticalManifold(lambda u: torch.stack([u[0], u[1].sqrt(), u[1]]), self.chart)

    @cached_property
    def taped(self) -> ff.StatisticalManifold:
        """One with gradients."""
        return ff.StatisticalManifold(bowl, self.chart, differentiable=True)

    @cached_property
    def space(self) -> ff.StatisticalManifold:
        return ff.StatisticalManifold(lambda x: torch.cat([x, x[:1] ** 2]), ff.charts.identity(3))

    @cached_property
    def gated(self) -> ff.layers.GatedMLP:
        return ff.layers.GatedMLP(3, 4).double()

    @cached_property
    def analysis(self) -> ff.Analysis:
        return ff.analyze(self.model, IDS, layers=[0], parts=["mlp"], points=2, progress=False)

    @cached_property
    def wider(self) -> ff.Analysis:
        """The same in three directions."""
        return ff.analyze(self.model, IDS, dim=3, layers=[0], parts=["mlp"], points=2, progress=False)

    @cached_property
    def elsewhere(self) -> ff.Analysis:
        """The same on another prompt."""
        return ff.analyze(self.model, IDS[:3], layers=[0], parts=["mlp"], points=2, progress=False)

    @cached_property
    def budget(self) -> Any:
        return ff.curvature_budget([bowl, lambda x: x + x.sum() ** 2], self.chart, torch.zeros(2), by="role")

    @cached_property
    def certificate(self) -> ff.Certificate:
        return ff.certify(bowl, self.chart, at=ZERO)

    @cached_property
    def proof(self) -> Any:
        return symmetry.certify(self.gated)

    @cached_property
    def folder(self) -> Path:
        return Path(tempfile.mkdtemp())

    @cached_property
    def file(self) -> Path:
        """A file, in the place of a folder."""
        path = self.folder / "file"
        path.write_text("{}")
        return path

    @cached_property
    def held(self) -> Path:
        """A folder that holds a finished analysis of something else."""
        ff.analyze(self.model, IDS, layers=[0], parts=["mlp"], points=1, progress=False, folder=self.folder / "held")
        return self.folder / "held"


S = Sample()

SAVED: Calls = {
    "where the folder cannot be made or written to": lambda: S.analysis.save(S.file / "below"),
    "another run writes to it": lambda: while_held(lambda: S.analysis.save(S.folder / "busy"), S.folder / "busy"),
    "there is no such format": lambda: S.analysis.save(S.folder / "saved", formats="nonsense"),
}
NOT_WHOLE: dict[str, Callable[[Any], Callable[[], Any]]] = {
    "its files are not there": lambda kind: lambda: kind.load(S.folder / "nothing"),
    "not whole": lambda kind: lambda: kind.load(damaged(kind)),
}


def a_run(name: str, *checkpoints: str) -> Path:
    """A folder of a training run with damaged checkpoints."""
    for one in checkpoints:
        (S.folder / name / one).mkdir(parents=True, exist_ok=True)
    return S.folder / name


def held_by_a_track() -> Path:
    """A folder that holds a finished track."""
    found = ff.track("python-llama", IDS, points=1, layers=[0], parts=["mlp"], progress=False)
    found.save(S.folder / "tracked")
    return S.folder / "tracked"


def a_track() -> pd.DataFrame:
    row = {"run": "a", "layer": 0, "part": "mlp", "reading": "live", "mean": 1.0, "low": 0.5, "high": 1.5}
    return pd.DataFrame([row | {"step": 1}, row | {"step": 2}])


def while_held(call: Callable[[], Any], folder: Path) -> Any:
    """Call while another thread holds a folder."""
    from concurrent.futures import ThreadPoolExecutor

    from fisherflat._files import claimed

    with claimed(folder), ThreadPoolExecutor(1) as other:
        return other.submit(call).result()


def damaged(kind: Any) -> Path:
    """A folder with the document of a result, cut off."""
    place = S.folder / f"damaged-{kind.__name__}"
    place.mkdir(exist_ok=True)
    (place / kind.document).write_text('{"model": ')
    return place


def broken_proof() -> Path:
    """A study of symmetries, with a proof that was edited."""
    place = S.folder / "proofs"
    files = symmetry.study(S.model, IDS, progress=False).save(place)
    proof = next(file for file in files if file.parent.name == "certificates")
    proof.write_text(proof.read_text().replace("weights", "weighs", 1))
    return place


def edited() -> Path:
    """A certificate in which a word is another."""
    path = S.folder / "certificate.json"
    S.certificate.save(path)
    path.write_text(path.read_text().replace("curved", "flat", 1))
    return path


def wrong_mlp(call: Callable[[Any], Any]) -> Calls:
    return {"as `gated_units`": lambda: call(nn.Linear(3, 3))}


def shaped(cls: Callable[..., Any], *right: Any, wrong: Any) -> Calls:
    return {
        "for an unknown activation": lambda: cls(*right, activation="nonsense"),
        "a size that is not positive": lambda: cls(*wrong),
    }


def missing_column(call: Callable[[Any], Any], otherwise: str) -> Calls:
    import pandas as pd

    columns = ["layer", "part", "gate", "mean", "low", "high", "reading", "prompt", "position", "point", "verdict"]
    empty = pd.DataFrame(columns=[*columns, "scalar_curvature", "strength", "positive", "negative"])
    return {"where a column is missing": lambda: call(pd.DataFrame({"a": [1]})), otherwise: lambda: call(empty)}


class Drawn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if float(x.sum()) > 0 else -self.linear(x)


class Dying:
    """Work in which a process ends."""

    def measure(self, task: Any) -> Any:
        os._exit(9)


class Narrow(nn.Module):
    """A gated MLP whose output is of another width."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.gate(x)) * self.up(x))


def without(package: str, call: Callable[[], Any]) -> Any:
    """Call where a package is not installed."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == package}
    sys.modules[package] = None  # type: ignore[assignment]  # as Python marks what cannot be imported
    try:
        return call()
    finally:
        del sys.modules[package]
        sys.modules.update(kept)


def of_family(family: Any, outputs: int) -> ff.StatisticalManifold:
    """Outputs of so many numbers as parameters of a family."""
    return ff.StatisticalManifold(
        lambda x: torch.cat([x, x, x])[:outputs], ff.charts.identity(min(2, outputs)), family=family
    )


def bilinear(activation: str = "identity") -> ff.layers.BilinearAttention:
    ones = torch.ones(2, 1, 3)
    return layers.BilinearAttention(ones, ones, torch.ones(2, 3), activation)


def surrogate() -> Any:
    return symmetry.bilinear_surrogate(S.gated, torch.randn(5, 3, dtype=torch.float64))


def pickled() -> Path:
    path = S.folder / "pickled.npy"
    np.save(path, np.array([{}, {}]), allow_pickle=True)
    return path


def axes(count: int) -> Any:
    from matplotlib.figure import Figure

    return list(Figure().subplots(1, count, squeeze=False)[0])


def field() -> ff.CurvatureField:
    return ff.curvature_field(S.manifold, (-1, 1, -1, 1), resolution=2)


MEMORY = layers.KeyValueMemory(torch.eye(3), torch.eye(3))
NETWORK = layers.BilinearAttentionNetwork(2, 3, 2, 2, 2)
WORDS = moves.Words(("one two", "three four"))
BOUND = layers.SelfAttention(4, heads=2)

WEIGHTS = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5)).double()
PLANE = ff.charts.affine(torch.zeros(4), torch.eye(4)[:2])


def taped() -> ff.StatisticalManifold:
    return ff.StatisticalManifold(WEIGHTS, PLANE, differentiable=True)


def of_rank_one() -> ff.StatisticalManifold:
    narrow = nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 5)).double()
    return ff.StatisticalManifold(narrow, PLANE, differentiable=True)


#: no callable, of a type that a checker does not look into
THREE: Any = 3
CASES: dict[str, Calls] = {
    "Analysis.to_xarray": {
        "where xarray is not installed": lambda: without("xarray", S.analysis.to_xarray),
        "two rows stand at one place": lambda: ff.Analysis(
            [*S.analysis.rows, S.analysis.rows[0]], model="m", settings=S.analysis.settings, complete=True
        ).to_xarray(),
    },
    "Analysis.of_parts": {
        "its parts do not have as many": lambda: ff.Analysis.of_parts(S.folder / "no parts", {"rows": 1})
    },
    "Analysis.by_reading": {"for what is no number of the table": lambda: S.analysis.by_reading("token")},
    "Analysis.load": {words: make(ff.Analysis) for words, make in NOT_WHOLE.items()},
    "Analysis.plot": {"for a name that is none of a figure": lambda: S.analysis.plot("nonsense")},
    "Analysis.along": {"for one that is not among `moves`": lambda: S.analysis.along("nonsense")},
    "Analysis.profiles": {
        "for something else": lambda: S.analysis.profiles("nonsense"),
        "where a row lacks a place that others have": lambda: ff.Analysis(
            [*S.analysis.rows, {**S.analysis.rows[0], "prompt": 1, "layer": 9}], model="", settings={}, complete=True
        ).profiles(),
    },
    "Analysis.report": {"where it cannot be written": lambda: S.analysis.report(S.file / "below.html")},
    "Analysis.save": SAVED,
    "Block.attention": {"where the block has none": lambda: S.bare.attention},
    "Block.mlp": {"where the block has none": lambda: S.bare.mlp},
    "Block.halves": {"where the block cannot be traced": lambda: S.branching.halves},
    "Block.heads": {
        "where the block has no attention": lambda: S.bare.heads,
        "no heads are found in it": lambda: ff.load("python-qwen3-next").blocks(IDS)[0].heads,
        "where it cannot be traced": lambda: S.branching.heads,
    },
    "Certificate.load": {
        "where the file is malformed": lambda: ff.Certificate.load(S.file),
        "was edited; the message names the field": lambda: ff.Certificate.load(edited()),
    },
    "Certificate.save": {"where the file cannot be written": lambda: S.certificate.save(S.file / "below")},
    "Comparison.load": {words: make(ff.Comparison) for words, make in NOT_WHOLE.items()},
    "Track.load": {words: make(ff.Track) for words, make in NOT_WHOLE.items()},
    "Track.save": {
        "where a folder cannot be made or written to": lambda: ff.track(
            "python-llama", IDS, points=1, layers=[0], parts=["mlp"], progress=False
        ).save(S.file / "below")
    },
    "Comparison.save": {
        "where a folder cannot be made or written to": lambda: ff.compare(S.analysis, S.analysis, progress=False).save(
            S.file / "below"
        )
    },
    "CurvatureBudget.by": {"where this budget does not tell them apart": lambda: S.budget.by("layer")},
    "CurvatureBudget.error": {
        "for another name": lambda: S.budget.error("nonsense"),
        "for a budget that was made without": lambda: replace(S.budget, again=None).error(),
    },
    "DepthProfile.with_covariance": {
        "where the covariance of some depth is no number": lambda: ff.depth_profile(
            [lambda x: x + x**2], S.chart, torch.zeros(2), family=ff.Gaussian([1.0, 2.0])
        ).with_covariance(1.0),
        "`covariance` is not positive": lambda: ff.depth_profile([bowl], S.chart, torch.zeros(2)).with_covariance(0.0),
    },
    "DepthStudy.load": {words: make(ff.DepthStudy) for words, make in NOT_WHOLE.items()},
    "Gaussian": {
        "where it is not positive definite (to rounding, so that a singular matrix is not taken for a regular one)": (
            lambda: ff.Gaussian([[1.0, 1.0], [1.0, 1.0]])
        ),
        "not symmetric": lambda: ff.Gaussian([[1.0, 0.5], [0.0, 1.0]]),
        "not finite": lambda: ff.Gaussian(float("inf")),
    },
    "Gaussian.calibrated": {
        "for fewer than two outputs": lambda: ff.Gaussian.calibrated([[1.0, 2.0]]),
        "outputs that do not vary": lambda: ff.Gaussian.calibrated([[1.0, 2.0], [1.0, 2.0]]),
    },
    "Gaussian.check": {
        "where the covariance does not fit outputs of `ambient_dim` numbers": lambda: ff.Gaussian([1.0, 2.0]).check(3)
    },
    "Gaussian.root": {
        "for a covariance that is a number or a diagonal, whose root is that of each entry": lambda: (
            ff.Gaussian().root()
        )
    },
    "Geometry": {
        "where the Jacobian has rank below k (singular values, its columns scaled, under `8 sqrt(D) eps` of the "
        "largest)": lambda: ff.Geometry(ff.StatisticalManifold(flat, S.chart).jet(torch.zeros(2))),
        'where the jet is not finite, both only under `"raise"`': lambda: ff.Geometry(
            ff.StatisticalManifold(infinite, S.chart, degenerate="nan").jet(torch.ones(2))
        ),
    },
    "Geometry.efron_curvature": {
        "for k > 1, where there is no single number": lambda: ff.Geometry(S.manifold.jet(ZERO)).efron_curvature
    },
    "Geometry.error": {
        "for another name": lambda: ff.Geometry(S.manifold.jet(ZERO)).error("nonsense"),
        "where this geometry was made of a jet alone": lambda: ff.Geometry(S.manifold.jet(ZERO)).error(
            "scalar_curvature"
        ),
    },
    "Geometry.sectional_curvature": {
        "where `x` and `y` are parallel": lambda: ff.Geometry(S.manifold.jet(ZERO)).sectional_curvature(
            torch.ones(2), -torch.ones(2)
        ),
        "zero, as they always are for k = 1": lambda: ff.Geometry(S.curve.jet([0.0])).sectional_curvature(
            torch.ones(1), torch.zeros(1)
        ),
    },
    "Inspection.load": {"where the file holds none": lambda: ff.Inspection.load(S.file)},
    "Inspection.save": {"where it cannot be written": lambda: ff.inspect(S.model, IDS).save(S.file / "below")},
    "Model.blocks": {
        "as `encode`": lambda: S.model.blocks([]),
        "where no list of blocks is found": lambda: ff.load(nn.Embedding(9, 3)).blocks(IDS),
    },
    "Model.encode": {
        "for an empty prompt": lambda: S.model.encode(" "),
        "one longer than the context": lambda: S.model.encode([1] * 100_000),
        "ids that the model does not have": lambda: S.model.encode([10**6]),
        "for text where there is no tokenizer": lambda: ff.load(S.model.module).encode("text"),
    },
    "Model.readout": {
        "where the model has no such head, saying what to pass": lambda: ff.load(Stack(Branching)).readout(
            "next-token", IDS
        )
    },
    "StatisticalManifold": {
        "where the map fails on the chart's point": lambda: ff.StatisticalManifold(fails, S.chart),
        "returns no single tensor": lambda: ff.StatisticalManifold(pair, S.chart),
        "where k > D": lambda: ff.StatisticalManifold(lambda x: x[:1], S.chart),
        "an argument is unknown": lambda: ff.StatisticalManifold(bowl, S.chart, engine="nonsense"),
        "where the covariance does not fit": lambda: ff.StatisticalManifold(bowl, S.chart, ff.Gaussian([1.0, 2.0])),
    },
    "StatisticalManifold.distance": {
        "where no geodesic was found that is no longer than the straight line in coordinates, unless `degenerate` is "
        '`"nan"`': lambda: S.half.distance([0.0, 1.0], [0.0, -1.0]),
        "where a gradient is recorded and two points are one, at which a distance has none": lambda: S.taped.distance(
            ZERO, torch.zeros(2, dtype=torch.float64, requires_grad=True)
        ),
    },
    "StatisticalManifold.efron_curvature": {"for k > 1": lambda: S.manifold.efron_curvature(ZERO)},
    "StatisticalManifold.geodesic": {
        "where none was found within the chart": lambda: S.half.geodesic([0.0, 1.0], [0.0, -1.0]),
        "for fewer than two points": lambda: S.manifold.geodesic(ZERO, [1.0, 0.0], points=1),
    },
    "StatisticalManifold.log": {
        'where none was found within the chart, unless `degenerate` is `"nan"`': lambda: S.half.log(
            [0.0, 1.0], [0.0, -1.0]
        )
    },
    "StatisticalManifold.measure": {
        "for a name that is none of them; the message lists those that are": lambda: S.manifold.measure(ZERO, ["a"])
    },
    "StatisticalManifold.sampled_scalar_curvature": {
        "for k = 1, where there is no plane": lambda: S.curve.sampled_scalar_curvature([0.0]),
        "for an error that no number of planes can reach in the working precision": lambda: (
            S.manifold.sampled_scalar_curvature(ZERO, 1e-17)
        ),
        "for a budget below two planes": lambda: S.manifold.sampled_scalar_curvature(ZERO, budget=1),
        "for a family whose frames follow the directions": lambda: ff.StatisticalManifold(
            bowl, S.chart, families.NextToken(torch.eye(9)[:, :3])
        ).sampled_scalar_curvature(ZERO),
        "where the Jacobian does not fit into memory": lambda: ff.StatisticalManifold(
            bowl, S.chart, memory=100
        ).sampled_scalar_curvature(ZERO),
        "where its rank is below k, with the effective dimension of what is left": lambda: ff.StatisticalManifold(
            flat, S.chart
        ).sampled_scalar_curvature(ZERO),
        'where the map is not finite, both unless `degenerate` is `"nan"`': lambda: ff.StatisticalManifold(
            infinite, S.chart
        ).sampled_scalar_curvature([1.0, 0.0]),
    },
    "StatisticalManifold.sectional_curvature": {
        "where they are parallel": lambda: S.manifold.sectional_curvature(ZERO, [1.0, 1.0], [2.0, 2.0]),
        "do not end in an axis of length k": lambda: S.manifold.sectional_curvature(ZERO, [1.0], [2.0, 1.0]),
    },
    "StatisticalManifold.to_geomstats": {
        "where geomstats is not installed (the extra `bench` brings it)": lambda: without(
            "geomstats", S.manifold.to_geomstats
        )
    },
    "analyze": {
        "for a model that cannot be read": lambda: ff.analyze(S.folder / "nothing", IDS),
        "for a covariance that is none": lambda: ff.analyze(S.model, IDS, covariance=-1.0),
        "for prompts": lambda: ff.analyze(S.model, []),
        "arguments that cannot be used": lambda: ff.analyze(S.model, IDS, points=0),
        "a folder with other results": lambda: ff.analyze(S.model, IDS, folder=S.held),
        "one that another run works in, before anything is measured": lambda: while_held(
            lambda: ff.analyze(S.model, IDS, folder=S.folder / "busy"), S.folder / "busy"
        ),
    },
    "attribution": {
        "for an unknown `by`": lambda: ff.attribution(S.model, IDS, by="nonsense"),
        "what `curvature_budget` raises": lambda: ff.attribution(S.model, []),
    },
    "certify": {
        "for a bad argument": lambda: ff.certify(bowl, S.chart, radius=-1.0),
        "what `StatisticalManifold` and `trace` raise": lambda: ff.certify(fails, S.chart),
    },
    "certify_layer": {
        "for a layer": lambda: ff.certify_layer(S.model, 99, prompt=IDS),
        "part": lambda: ff.certify_layer(S.model, 0, "nonsense", prompt=IDS),
        "position that is not there": lambda: ff.certify_layer(S.model, 0, prompt=IDS, position=99),
        "a reading": lambda: ff.certify_layer(S.model, 0, prompt=IDS, reading="nonsense"),
        "movement that is none": lambda: ff.certify_layer(S.model, 0, prompt=IDS, moves="nonsense"),
        "for a covariance that is none": lambda: ff.certify_layer(S.model, 0, prompt=IDS, covariance=-1.0),
        "a family in which nothing can be proved": lambda: ff.certify_layer(
            S.model, 0, "block", prompt=IDS, family="direction"
        ),
        "the model has no head for the family": lambda: ff.certify_layer(
            S.model, 0, "block", prompt=IDS, family="class"
        ),
    },
    "compare": {
        "for fewer than two": lambda: ff.compare(S.analysis, progress=False),
        "unequal prompts": lambda: ff.compare(S.analysis, S.elsewhere, progress=False),
        "analyses in different numbers of directions": lambda: ff.compare(S.analysis, S.wider, progress=False),
        "what `analyze` raises": lambda: ff.compare(S.folder / "nothing", S.model, prompts=IDS, progress=False),
    },
    "geometry_between": {
        "where the states are the same": lambda: ff.geometry_between("python-llama", IDS, IDS, layer=0),
        "there is no such layer": lambda: ff.geometry_between("python-llama", IDS, [5, 6, 7, 8], layer=9),
        "what `fisherflat.load` and `Model.readout` raise": lambda: ff.geometry_between(
            S.folder / "nothing", IDS, [5, 6, 7, 8], layer=0
        ),
    },
    "families.Bernoulli.together": {
        "where they are not what the family's parameters are made of": lambda: families.Bernoulli().together(
            [torch.ones(2), torch.ones(2, 3)]
        )
    },
    "training.CurvaturePenalty": {
        "for an unknown quantity": lambda: training.CurvaturePenalty(WEIGHTS, PLANE, "nonsense"),
        "a target that is none": lambda: training.CurvaturePenalty(WEIGHTS, PLANE, target=float("nan")),
        "a curvature of one direction": lambda: training.CurvaturePenalty(WEIGHTS, PLANE, directions=1),
        "where no gradient can reach the part's weights": lambda: training.CurvaturePenalty(
            ff.trace(WEIGHTS, torch.zeros(4)), PLANE
        ),
    },
    "training.CurvaturePenalty.__call__": {
        "where `at` does not fit the chart": lambda: training.CurvaturePenalty(WEIGHTS, PLANE)(torch.zeros(3, 5))
    },
    "training.Watch": {"where neither parts nor a prompt are given": lambda: training.Watch()},
    "training.attributed": {
        "for another manifold": lambda: training.attributed(S.manifold, ZERO),
        "at points without geometry": lambda: training.attributed(of_rank_one(), ZERO),
    },
    "training.find_curvature": {
        "where `M` is not differentiable": lambda: training.find_curvature(S.manifold),
        "the goal is unknown": lambda: training.find_curvature(taped(), "nonsense"),
        "the ball is empty": lambda: training.find_curvature(taped(), radius=0.0),
        "the quantity has several numbers": lambda: training.find_curvature(taped(), quantity="metric", steps=0),
        "no start has a geometry": lambda: training.find_curvature(of_rank_one()),
    },
    "track": {
        "where there is no such folder": lambda: ff.track(S.folder / "nothing", IDS, progress=False),
        "no checkpoint in it that can be read": lambda: ff.track(a_run("empty", ""), IDS, progress=False),
        "two are of one step": lambda: ff.track(a_run("twice", "step-1", "step-01"), IDS, progress=False),
        "the folder holds other results": lambda: ff.track(
            "python-llama", IDS, folder=held_by_a_track(), points=1, layers=[0], parts=["mlp"], progress=False
        ),
        "where none can be used": lambda: ff.track("python-llama", IDS, load={"blocks": "nonsense"}, progress=False),
        "what `analyze` raises for prompts and options": lambda: ff.track("python-llama", IDS, dim=1, progress=False),
    },
    "plan": {
        "for a model that cannot be read": lambda: ff.plan(S.folder / "nothing", IDS),
        "for prompts": lambda: ff.plan(S.model, []),
        "options that are wrong": lambda: ff.plan(S.model, IDS, points=0),
    },
    "control": {
        "for an unknown kind": lambda: ff.control(S.model, "nonsense"),
        "for a model whose weights stay on disk": lambda: ff.control(ff.load("python-llama", lazy=True)),
        "for a weight of which nobody says how it is initialised": lambda: ff.control(ff.load(Stack(Scaled))),
    },
    "curvature_budget": {
        "for an unknown `by`": lambda: ff.curvature_budget([bowl], S.chart, torch.zeros(2), by="nonsense"),
        "what `depth_profile` raises": lambda: ff.curvature_budget([fails], S.chart, torch.zeros(2)),
    },
    "curvature_field": {
        "where the chart is not two-dimensional": lambda: ff.curvature_field(S.curve, (-1, 1, -1, 1)),
        "the rectangle is empty": lambda: ff.curvature_field(S.manifold, (1, 1, -1, 1)),
        "not finite": lambda: ff.curvature_field(S.manifold, (-1, float("inf"), -1, 1)),
        "`resolution` is below 2": lambda: ff.curvature_field(S.manifold, (-1, 1, -1, 1), resolution=1),
    },
    "curvature_fields": {
        "for a chart that is not two-dimensional": lambda: ff.curvature_fields(
            [lambda x: torch.cat([x, x**2])], ff.charts.identity(1), (-1, 1, -1, 1), resolution=2
        ),
        "a rectangle that is empty": lambda: ff.curvature_fields([bowl], S.chart, (1, 1, -1, 1)),
        "not finite": lambda: ff.curvature_fields([bowl], S.chart, (-1, 1, -1, float("nan"))),
        "a `resolution` below 2": lambda: ff.curvature_fields([bowl], S.chart, (-1, 1, -1, 1), resolution=1),
        "`CovarianceError`": lambda: ff.curvature_fields(
            [bowl], S.chart, (-1, 1, -1, 1), resolution=2, family=ff.Gaussian([1.0])
        ),
    },
    "depth_profile": {
        "`InputError`": lambda: ff.depth_profile([], S.chart, torch.zeros(2)),
        "`MapError`": lambda: ff.depth_profile([fails], S.chart, torch.zeros(2)),
        "`TraceError`": lambda: ff.depth_profile([drawn], S.chart, torch.zeros(2)),
        "`DegenerateImmersionError`": lambda: ff.depth_profile([flat], S.chart, torch.zeros(2)),
        "`CovarianceError`": lambda: ff.depth_profile([bowl], S.chart, torch.zeros(2), family=ff.Gaussian([1.0])),
        "for a model `CheckpointError`": lambda: ff.depth_profile(S.folder / "nothing", prompt=IDS),
    },
    "freeze": {
        "for an unknown role": lambda: ff.freeze(BOUND, torch.eye(4), ["nonsense"]),
        "what `trace` raises": lambda: ff.freeze(fails, torch.ones(2)),
    },
    "freeze_stack": {"what `fisherflat.freeze` raises": lambda: ff.freeze_stack([fails], torch.ones(2))},
    "growth": {"for fewer than three depths": lambda: ff.growth(torch.ones(2, 3))},
    "inspect": {"what `load` and `Model.blocks` raise": lambda: ff.inspect(S.folder / "nothing")},
    "load": {
        "`CheckpointError`": lambda: ff.load(S.folder / "nothing"),
        "`InputError`, saying what is wrong, where, and what to do": lambda: ff.load(3),
    },
    "study_depth": {
        "for a model that cannot be read": lambda: ff.study_depth(S.folder / "nothing", IDS),
        "for a prompt": lambda: ff.study_depth(S.model, []),
        "arguments that cannot be used": lambda: ff.study_depth(S.model, IDS, points=0, progress=False),
        "for a covariance that is none": lambda: ff.study_depth(S.model, IDS, covariance=-1.0, progress=False),
        "fits no states": lambda: ff.study_depth(S.model, IDS, covariance=ff.Gaussian([1.0, 2.0]), progress=False),
        "for blocks that cannot be traced": lambda: ff.study_depth(
            nn.Sequential(Drawn(), Drawn()), torch.randn(3, 4), progress=False
        ),
    },
    "trace": {
        "`TraceError`": lambda: ff.trace(drawn, torch.ones(2)),
        "where the call itself fails": lambda: ff.trace(fails, torch.ones(2)),
        "for a bad `at`": lambda: ff.trace(bowl, "nonsense"),
    },
    "verify": {
        "where a chart is missing": lambda: ff.verify(S.certificate, bowl),
        "is given for symmetries": lambda: ff.verify(S.proof, S.gated, S.chart),
    },
    "StatisticalManifold.exp": {
        "where there is no geometry at `u`": lambda: ff.StatisticalManifold(flat, ff.charts.identity(2)).exp(
            ZERO, ZERO
        ),
        "where a gradient would be recorded: what this integrates has none, see `log`": lambda: S.taped.exp(
            ZERO, torch.ones(2, dtype=torch.float64, requires_grad=True)
        ),
    },
    "verify_layer": {
        "where the certificate does not say which layer it is about": lambda: ff.verify_layer(S.certificate, S.model),
        "it takes a `prompt` that was not given": lambda: ff.verify_layer(
            symmetry.study(S.model, S.states, progress=False).certificates[0], S.model
        ),
        "an `among` that was not given": lambda: ff.verify_layer(
            ff.certify_layer(S.model, 0, prompt=IDS, among=[S.states], reading="frozen pattern"), S.model
        ),
    },
    "charts.Chart": {
        "where the shapes do not fit": lambda: ff.charts.Chart(torch.zeros(3), torch.eye(2)),
        "a number is not finite": lambda: ff.charts.Chart(torch.zeros(2) / 0, torch.eye(2)),
    },
    "charts.Chart.__call__": {
        "where `u` does not end in an axis of length k": lambda: S.chart(torch.zeros(3)),
        "does not hold floating-point numbers": lambda: S.chart(torch.tensor([True, False])),
    },
    "charts.Chart.coordinates": {
        "where it does not end in an axis of length k": lambda: S.chart.coordinates([0.0, 0.0, 0.0]),
        "is not finite": lambda: S.chart.coordinates([0.0, float("nan")]),
    },
    "charts.affine": {
        "where the shapes do not fit": lambda: ff.charts.affine(torch.zeros(3), torch.eye(2)),
        "a number is not finite": lambda: ff.charts.affine(torch.zeros(2), torch.eye(2) / 0),
    },
    "charts.attention_weights": {
        "where `values` are not at least two rows": lambda: ff.charts.attention_weights([[1.0, 2.0]])
    },
    "charts.identity": {"for fewer than one": lambda: ff.charts.identity(0)},
    "charts.principal": {
        "where the states span fewer than k directions": lambda: ff.charts.principal(torch.ones(4, 3), -1, 2)
    },
    "charts.principal_directions": {
        "where the states span fewer than k directions": lambda: ff.charts.principal_directions(torch.ones(4, 3), 2)
    },
    "charts.simplex": {"for fewer than two corners": lambda: ff.charts.simplex([[1.0, 2.0]])},
    "charts.token": {
        "where the shapes do not fit": lambda: ff.charts.token(torch.eye(4), 0, torch.eye(3)),
        "there is no such token": lambda: ff.charts.token(torch.eye(4), 4, torch.eye(4)[:2]),
    },
    "families.Categorical": {
        "when a manifold is made, for fewer than two classes": lambda: of_family(families.Categorical(), 1)
    },
    "families.DiagonalGaussian": {
        "when a manifold is made, where the last axis is of odd length": lambda: of_family(
            families.DiagonalGaussian(), 3
        )
    },
    "families.ExponentialFamily": {
        "where it is no callable": lambda: families.ExponentialFamily(THREE),
        "where it fails or returns no tensor of real numbers": lambda: of_family(
            families.ExponentialFamily(lambda theta: "no tensor"), 3
        ).metric(ZERO),
        'and where it is not finite or not strictly convex at a point, which is NaN under `degenerate="nan"`': (
            lambda: of_family(families.ExponentialFamily(lambda theta: -(theta**2).sum()), 3).metric(ZERO)
        ),
    },
    "families.Family.check": {
        "where the family does not fit outputs of `ambient_dim` numbers": lambda: ff.Gaussian([1.0, 2.0]).check(3)
    },
    "families.FullGaussian": {
        "for a `dim` below 1": lambda: families.FullGaussian(0),
        "where the outputs are not that many": lambda: of_family(families.FullGaussian(2), 3),
    },
    "families.IsotropicGaussian": {
        "when a manifold is made, for fewer than two outputs": lambda: of_family(families.IsotropicGaussian(), 1)
    },
    "families.NextToken": {
        "for a weight that is no matrix of at least two rows": lambda: families.NextToken(torch.ones(1, 3)),
        "a bias": lambda: families.NextToken(torch.ones(2, 3), bias=torch.ones(3)),
        "scale": lambda: families.NextToken(torch.ones(2, 3), scale=float("nan")),
        "softcap that does not fit": lambda: families.NextToken(torch.ones(2, 3), softcap=-1.0),
        "when a manifold is made, for outputs that are not of width d": lambda: of_family(
            families.NextToken(torch.eye(4)), 3
        ),
    },
    "families.ParametricFamily.ambient_dim": {
        "where outputs of this shape cannot be the family's parameters": lambda: (
            families.DiagonalGaussian().ambient_dim((3,))
        )
    },
    "families.VonMisesFisher": {
        "for a concentration that is not positive": lambda: families.VonMisesFisher(0.0),
        "above 10,000": lambda: families.VonMisesFisher(10_001.0),
        "for fewer than two outputs": lambda: of_family(families.VonMisesFisher(), 1),
        'where a moving one is above that, which is NaN under `degenerate="nan"`': lambda: of_family(
            families.VonMisesFisher(), 3
        ).metric([1e5, 1e5]),
    },
    "families.VonMisesFisher.of_radius": {
        "where no concentration up to 10,000 has it": lambda: families.VonMisesFisher.of_radius(1e9, 3)
    },
    "layers.BilinearAttention": {
        "where the shapes do not fit": lambda: layers.BilinearAttention(
            torch.ones(2, 1, 3), torch.ones(2, 1, 4), torch.ones(2, 3)
        ),
        "the tensors are not of one floating dtype": lambda: layers.BilinearAttention(
            torch.ones(2, 1, 3), torch.ones(2, 1, 3).double(), torch.ones(2, 3)
        ),
    },
    "layers.BilinearAttention.forward": {
        "where the last axis of `x` is not of the layer's width": lambda: bilinear()(torch.ones(4))
    },
    "layers.BilinearAttention.rank_one": {
        "for another sense": lambda: bilinear().rank_one("nonsense"),
        "where there is an activation, so that `W_i` does not act": lambda: bilinear("relu").rank_one(),
    },
    "layers.BilinearAttentionNetwork": shaped(layers.BilinearAttentionNetwork, 2, 3, 2, 2, 2, wrong=(2, 0, 2, 2, 2)),
    "layers.BilinearAttentionNetwork.forward": {
        "where x or y has another shape": lambda: NETWORK(torch.ones(2, 2), torch.ones(2, 2))
    },
    "layers.BilinearAttentionNetwork.pattern": {
        "where x or y has another shape": lambda: NETWORK.pattern(torch.ones(2, 2), torch.ones(2, 2))
    },
    "layers.BilinearAttentionNetwork.pooled": {
        "where x or y has another shape": lambda: NETWORK.pooled(
            torch.ones(1, 2, 2), torch.ones(2, 2), torch.ones(2, 2)
        )
    },
    "layers.Gate": {
        "for an unknown name": lambda: layers.Gate("nonsense"),
        "for a headwise gate after the output projection, where the channels no longer belong to heads": (
            lambda: layers.Gate(granularity="headwise", position="after")
        ),
    },
    "layers.Gate.forward": {
        "where this is a specification that no layer has bound": lambda: layers.Gate()(torch.ones(2, 4))
    },
    "layers.GatedConv1d": shaped(layers.GatedConv1d, 2, 3, wrong=(2, 0)),
    "layers.GatedConv1d.forward": {"where `x` has another shape": lambda: layers.GatedConv1d(2, 3)(torch.ones(4, 3))},
    "layers.GatedMLP": shaped(layers.GatedMLP, 2, 3, wrong=(0, 2)),
    "layers.GatedMLP.forward": {"where the last axis of `x` is not of that width": lambda: S.gated(torch.ones(4))},
    "layers.Joined": {
        "where no shape is given": lambda: layers.Joined(NETWORK),
        "one holds no numbers": lambda: layers.Joined(NETWORK, (2, 2), (0, 3)),
    },
    "layers.Joined.forward": {
        "where the vector is not of the length of all inputs together": lambda: layers.Joined(NETWORK, (2, 2), (2, 3))(
            torch.ones(9)
        )
    },
    "layers.Joined.join": {
        "where their shapes are not those of the layer's inputs": lambda: layers.Joined(NETWORK, (2, 2), (2, 3)).join(
            torch.ones(2, 2), torch.ones(3, 3)
        ),
        "all are `None`": lambda: layers.Joined(NETWORK, (2, 2), (2, 3)).join(None, None),
    },
    "layers.KeyValueMemory": {
        "where the shapes do not fit": lambda: layers.KeyValueMemory(torch.ones(2, 3), torch.ones(3, 3)),
        "the tensors are not of one floating dtype": lambda: layers.KeyValueMemory(torch.eye(3), torch.eye(3).double()),
    },
    "layers.KeyValueMemory.coefficients": {
        "where the last axis of `x` is not of the keys' width": lambda: MEMORY.coefficients(torch.ones(4))
    },
    "layers.LowRankBilinearPooling": shaped(layers.LowRankBilinearPooling, 2, 3, 2, 2, wrong=(2, 3, 0, 2)),
    "layers.LowRankBilinearPooling.forward": {
        "where one of them is of another width": lambda: layers.LowRankBilinearPooling(2, 3, 2, 2)(
            torch.ones(2), torch.ones(2)
        )
    },
    "layers.SelfAttention": {
        "where `heads` does not divide `dim`": lambda: layers.SelfAttention(4, heads=3),
        "either is not positive": lambda: layers.SelfAttention(0),
    },
    "layers.SelfAttention.forward": {"where `x` has another shape": lambda: BOUND(torch.ones(2, 3))},
    "layers.SelfAttention.pattern": {"where `x` has another shape": lambda: BOUND.pattern(torch.ones(2, 3))},
    "memories.coefficients": {
        "where the inputs are not of the memory's width": lambda: memories.coefficients(MEMORY, torch.ones(4))
    },
    "memories.extract": {
        "where the MLP is neither": lambda: memories.extract(nn.Linear(3, 3), torch.ones(2, 3)),
        "what `fisherflat.trace` raises": lambda: memories.extract(fails, torch.ones(2, 3)),
    },
    "memories.triggers": {
        "where there is no such layer": lambda: memories.triggers(S.model, IDS, 99),
        "no token left": lambda: memories.triggers(S.model, replace(S.encoded, special=[True] * 4), 0),
        "what `Model.blocks` and `extract` raise": lambda: memories.triggers(S.model, [10**6], 0),
    },
    "memories.unembedding": {
        "where there is none, as in encoders without a language head, or where it was not loaded": (
            lambda: memories.unembedding(ff.load(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))))
        )
    },
    "memories.value_tokens": {
        "where the unembedding does not fit the values": lambda: memories.value_tokens(MEMORY, torch.ones(5, 4))
    },
    "moves.Moves.fit": {"where that spans too little": lambda: moves.Principal(2).fit([torch.ones(4, 3)], [S.encoded])},
    "moves.Moves.place": {"where there is none": lambda: moves.Principal(2).place(S.model, S.encoded, 99)},
    "moves.Moves.positions": {"where there are none": lambda: moves.Principal(2).positions(S.model, S.encoded, [99])},
    "moves.Moves.variants": {"where they cannot be made": lambda: WORDS.variants(S.model, S.encoded, 0)},
    "moves.Principal.fit": {
        "where the words span fewer than k": lambda: moves.Principal(2).fit([torch.ones(4, 3)], [S.encoded])
    },
    "moves.Random.fit": {
        "where the width is below k": lambda: moves.Random(4, 0).fit([torch.eye(4)[:, :3]], [S.encoded]),
        "the words do not differ": lambda: moves.Random(2, 0).fit([torch.ones(4, 3)], [S.encoded]),
    },
    "moves.Vectors.fit": {
        "where their width is not that of the states": lambda: moves.vectors(np.eye(4)[:2]).fit(
            [torch.eye(4)[:, :3]], [S.encoded]
        )
    },
    "moves.Words": {
        "for fewer than two words": lambda: moves.Words(("one",)),
        "two that are the same": lambda: moves.Words(("one", "one")),
    },
    "moves.Words.positions": {
        "where there is none": lambda: WORDS.positions(S.model, S.model.encode("def f(values):")),
        'for `"together"`': lambda: WORDS.positions(S.model, S.encoded, "together"),
    },
    "moves.Words.variants": {
        "where a word is not a single token there": lambda: WORDS.variants(S.model, S.encoded, 0),
        "two are the same": lambda: moves.Words((5, 6, "<same>")).variants(S.model, S.encoded, 0),
    },
    "moves.few": {
        "where `parse` does": lambda: moves.few("nonsense"),
        "where all directions move": lambda: moves.few("principal", "full"),
    },
    "moves.parse": {"for anything else": lambda: moves.parse("nonsense")},
    "moves.for_each": {
        "for a dictionary": lambda: moves.for_each({0: 1}, 1),
        "for lists of another number than there are prompts": lambda: moves.for_each([[0], [1]], 3),
    },
    "moves.parsed": {
        "for a dictionary": lambda: moves.parsed({0: 1}),
        "a set, which have no order": lambda: moves.parsed({1, 2}),
        "what is none of these": lambda: moves.parsed(0.5),
    },
    "moves.positions": {
        "where there are none": lambda: moves.positions(S.encoded, []),
        "where nothing is known of the tokens' classes": lambda: moves.positions(
            ff.load(S.model.module).encode(IDS), "function word"
        ),
    },
    "moves.vectors": {
        "for a file that cannot be read": lambda: moves.vectors(S.folder / "nothing.npy"),
        "would have to be unpickled": lambda: moves.vectors(pickled()),
        "for vectors that are not finite": lambda: moves.vectors(np.full((2, 3), np.nan)),
        "not of that shape": lambda: moves.vectors(np.ones((1, 2, 3))),
        "not independent": lambda: moves.vectors(np.ones((2, 3))),
    },
    "runners.Ray": {"as `fisherflat.runners.ray`": lambda: ff.runners.Ray(cpus=0)},
    "runners.processes": {
        "for fewer than one": lambda: ff.runners.processes(0),
        "when run, for work that cannot be pickled, such as a module with functions defined on the spot": lambda: list(
            ff.runners.processes(1)(lambda: 0, [1])
        ),
        "when a process was killed": lambda: list(ff.runners.processes(1)(Dying(), [1])),
    },
    "runners.ray": {
        "for an address": lambda: ff.runners.ray(""),
        "numbers that are none": lambda: ff.runners.ray(cpus=0),
        "where Ray is not installed": lambda: without("ray", ff.runners.ray),
    },
    "plot.broken_strength": missing_column(plot.broken_strength, "the table is empty"),
    "plot.unit_forms": missing_column(plot.unit_forms, "the table is empty"),
    "plot.gaps": missing_column(plot.gaps, "no finite number is left"),
    "plot.layers": missing_column(plot.layers, "no finite number is left"),
    "plot.heads": missing_column(plot.heads, "there are no heads in that reading"),
    "plot.patterns": {
        "there is nothing to draw": lambda: plot.patterns({}, ["a"]),
        "shapes do not fit": lambda: plot.patterns({"head 0": [[1.0]]}, ["a", "b"]),
    },
    "plot.heads_by_reading": {
        "as `heads`": lambda: plot.heads_by_reading(S.analysis.table, ["live"], axes=axes(1)),
        "for axes that are not as many as readings": lambda: plot.heads_by_reading(
            ff.analyze(S.model, IDS, layers=[0], parts=[], heads=[0], points=1, progress=False).table,
            ["live"],
            axes=axes(2),
        ),
    },
    "plot.of_reading": {"for what is no reading": lambda: plot.of_reading("nonsense")},
    "plot.layers_by_part": {
        "as `layers`": missing_column(plot.layers_by_part, "")["where a column is missing"],
        "for axes that are not as many as parts": lambda: plot.layers_by_part(S.analysis.table, axes=axes(3)),
    },
    "plot.budget_by_layer": {"for another budget": lambda: plot.budget_by_layer(S.budget)},
    "plot.transport": {"for another budget": lambda: plot.transport(S.budget)},
    "plot.compared": {
        "for a table without rows": lambda: plot.compared(
            ff.compare(S.analysis, S.analysis, progress=False).table[:0], first="a"
        ),
        "axes that do not fit it": lambda: plot.compared(
            ff.compare(S.analysis, S.analysis, names=["a", "b"], progress=False).table.query("reading == 'live'"),
            first="a",
            axes=np.array([axes(3)]),
        ),
    },
    "plot.tracks": {
        "for a table without rows": lambda: plot.tracks(a_track()[:0]),
        "axes that do not fit it": lambda: plot.tracks(a_track(), axes=np.array([axes(3)])),
    },
    "plot.curvature_map": {
        "for a chart that is not two-dimensional": lambda: plot.curvature_map(S.curve, (-1, 1, -1, 1)),
        "an argument out of range": lambda: plot.curvature_map(S.manifold, (-1, 1, -1, 1), resolution=2, limit=-1.0),
    },
    "plot.depth_maps": {"for axes that are not as many as maps": lambda: plot.depth_maps({"a": field()}, axes=axes(2))},
    "plot.fields": {"for an argument out of range": lambda: plot.fields([field()], axes(1), scale="nonsense")},
    "plot.profiles": {
        "for no profile": lambda: plot.profiles({}),
        "an unknown quantity": lambda: plot.profiles(
            {"a": ff.depth_profile([bowl], S.chart, torch.zeros(1, 2))}, quantity="nonsense"
        ),
    },
    "readings.canonical": {"as `roles`": lambda: readings.canonical("nonsense")},
    "readings.held": {
        "for an unknown reading": lambda: readings.held(BOUND, torch.eye(4), "nonsense"),
        "what `fisherflat.freeze` raises": lambda: readings.held(fails, torch.ones(2), "frozen pattern"),
    },
    "readings.name": {
        "for what is no role": lambda: readings.name(["nonsense"]),
        "one that cannot be held": lambda: readings.name(["other"]),
    },
    "readings.roles": {"for a word that is none of these": lambda: readings.roles("nonsense")},
    "scale.less_curved": {
        "for what is no finite number (NaN is let pass)": lambda: scale.less_curved(float("inf"), "mlp"),
        "no reading": lambda: scale.less_curved(0.1, "mlp", "nonsense"),
        "a width below 1": lambda: scale.less_curved(0.1, "mlp", width=0),
    },
    "scale.of": {
        "for numbers that are out of range, infinite ones among them": lambda: scale.of(float("inf")),
        "for what is no reading": lambda: scale.of(0.1, reading="nonsense"),
    },
    "scale.radius": {
        "for a curvature that is no finite number (NaN is let pass)": lambda: scale.radius(float("inf")),
        "a k below 2": lambda: scale.radius(0.1, k=1),
    },
    "scale.triangle_side": {"for a number that is out of range": lambda: scale.triangle_side(0.1, degrees=-1.0)},
    "statistics.agreement": {
        "where the lengths differ": lambda: statistics.agreement([1.0, 2.0], [1.0], [0, 1]),
        "arguments are out of range": lambda: statistics.agreement([1.0, 2.0], [1.0, 2.0], [0, 1], confidence=2.0),
    },
    "statistics.noise_floor": {"as `estimate`": lambda: statistics.noise_floor([1.0, 2.0], prompt=[1])},
    "statistics.by_group": {
        "for a column that is not there": lambda: statistics.by_group(S.analysis.table, ["nonsense"])
    },
    "statistics.differences": {
        "for a column": lambda: statistics.differences(S.analysis.table, "live", "live", column="nonsense"),
        "a reading that is not there": lambda: statistics.differences(S.analysis.table, "live", "nonsense"),
    },
    "statistics.holm": {"for what is no list of p values": lambda: statistics.holm([2.0])},
    "statistics.pair_test": {
        "for profiles that are no numbers": lambda: statistics.pair_test([["a"], ["b"]], [(0, 1)]),
        "pairs that are none of them": lambda: statistics.pair_test(np.eye(4), [(0, 9)]),
    },
    "statistics.estimate": {
        "where the lengths differ": lambda: statistics.estimate([1.0, 2.0], prompt=[1]),
        "arguments are out of range": lambda: statistics.estimate([1.0, 2.0], confidence=2.0),
    },
    "symmetry.GatedUnits.as_bilinear_attention": {
        "where the output is not of the width of the input": lambda: symmetry.gated_units(
            Narrow(), torch.ones(2, 3)
        ).as_bilinear_attention()
    },
    "symmetry.GatedUnits.inputs": {
        "where the last axis is not of the MLP's width": lambda: symmetry.gated_units(S.gated).inputs(torch.ones(4))
    },
    "symmetry.Surrogate.scalar_curvature_errors": {
        "as in `scalar_curvatures`": lambda: surrogate().scalar_curvature_errors(torch.eye(4)[:2])
    },
    "symmetry.Surrogate.curvature_error": {
        "as in `scalar_curvatures`": lambda: surrogate().curvature_error(torch.eye(4)[:2])
    },
    "symmetry.Surrogate.scalar_curvatures": {
        "where the directions are not of the inputs' width": lambda: surrogate().scalar_curvatures(torch.eye(4)[:2])
    },
    "symmetry.SymmetryStudy.load": {
        **{words: make(symmetry.SymmetryStudy) for words, make in NOT_WHOLE.items()},
        "for a damaged proof": lambda: symmetry.SymmetryStudy.load(broken_proof()),
    },
    "symmetry.bilinear_surrogate": {
        "where the inputs do not fit": lambda: symmetry.bilinear_surrogate(S.gated, torch.ones(2, 4)),
        "for another `how`": lambda: symmetry.bilinear_surrogate(S.gated, torch.randn(5, 3), how="nonsense"),
    },
    "symmetry.broken_scaling": wrong_mlp(lambda mlp: symmetry.broken_scaling(mlp, torch.ones(2, 3))),
    "symmetry.conserved_charges": wrong_mlp(lambda mlp: symmetry.conserved_charges(mlp, torch.ones(2, 3))),
    "symmetry.exchange_defect": wrong_mlp(lambda mlp: symmetry.exchange_defect(mlp, torch.ones(2, 3))),
    "symmetry.generator_metric": wrong_mlp(lambda mlp: symmetry.generator_metric(mlp, torch.ones(2, 3))),
    "symmetry.certify": wrong_mlp(lambda mlp: symmetry.certify(mlp, torch.ones(2, 3)))
    | {"for a precision out of range": lambda: symmetry.certify(S.gated, precision=0)},
    "symmetry.inverse_scaling_defect": wrong_mlp(
        lambda mlp: symmetry.inverse_scaling_defect(mlp, torch.ones(2, 3), 2.0)
    )
    | {"for a factor that is not positive": lambda: symmetry.inverse_scaling_defect(S.gated, torch.ones(2, 3), -1.0)},
    "symmetry.null_directions": wrong_mlp(lambda mlp: symmetry.null_directions(mlp, torch.ones(2, 3)))
    | {
        "for an MLP with more than 16,384 gate and up weights, for which `broken_scaling` and `generator_metric` are "
        "made": lambda: symmetry.null_directions(layers.GatedMLP(100, 100).double(), torch.ones(2, 100))
    },
    "symmetry.eigenfeatures": {"as `interaction_matrix`": lambda: symmetry.eigenfeatures(S.gated, torch.ones(3))},
    "symmetry.interaction_matrix": {
        "where the MLP has an activation": lambda: symmetry.interaction_matrix(S.gated, torch.ones(3)),
        "c is not of the width of the output": lambda: symmetry.interaction_matrix(
            layers.GatedMLP(3, 4, "identity").double(), torch.ones(4)
        ),
    },
    "symmetry.gated_units": {
        "where the MLP is not gated": lambda: symmetry.gated_units(nn.Linear(3, 3), torch.ones(2, 3)),
        "is not of the form `b + Σ_i v_i φ(g_i·x) (u_i·x)`": lambda: symmetry.gated_units(
            lambda x: x.sin() * x.cos(), torch.ones(2, 3)
        ),
        "what `fisherflat.trace` raises": lambda: symmetry.gated_units(fails, torch.ones(2, 3)),
    },
    "symmetry.homogeneity": {
        "for an unknown name": lambda: symmetry.homogeneity("nonsense"),
        "a callable that cannot be tested": lambda: symmetry.homogeneity(fails),
    },
    "symmetry.homogeneity_evidence": {
        "for an unknown name": lambda: symmetry.homogeneity_evidence("nonsense"),
        "for a callable that fails": lambda: symmetry.homogeneity_evidence(fails),
        "does not keep the shape": lambda: symmetry.homogeneity_evidence(torch.sum),
        "is zero everywhere": lambda: symmetry.homogeneity_evidence(torch.zeros_like),
    },
    "symmetry.study": {
        "`CheckpointError`": lambda: symmetry.study(S.folder / "nothing", IDS, progress=False),
        "for a model": lambda: symmetry.study(3, IDS, progress=False),
        "prompts that cannot be used. An MLP that is not gated, or cannot be read, is a note": lambda: symmetry.study(
            S.model, [], progress=False
        ),
    },
    "symmetry.weight_geometry": {
        "as `weight_jet`": lambda: symmetry.weight_geometry(S.gated, ff.charts.identity(4), torch.zeros(4)),
        "where the metric is singular": lambda: symmetry.weight_geometry(
            layers.GatedMLP(3, 1, "identity").double(), ff.charts.identity(3), torch.zeros(3)
        ),
    },
    "symmetry.weight_jet": {
        "where MLP and chart do not fit": lambda: symmetry.weight_jet(S.gated, ff.charts.identity(4), torch.zeros(4))
    },
    "zoo.checkpoint": {"for another name": lambda: ff.zoo.checkpoint("nonsense")},
}

#: the errors of Python's own that may be meant, of which there are finer ones
BUILT_IN = {"ImportError"}
#: what stands between the reasons of a docstring
CONNECTIVES = re.compile(r"`\w+Error`|\b(?:where|for|or|and|both)\b|[\s.,;]")


def members(name: str, thing: Any) -> Iterator[tuple[str, Any]]:
    """A public name and, of a class, what it has that is public, as functions."""
    yield name, thing
    for member in dir(thing) if inspect.isclass(thing) else ():
        owner = next(cls for cls in thing.__mro__ if member in cls.__dict__) if member != "__class__" else object
        if (member[0] == "_" and member != "__call__") or not owner.__module__.startswith("fisherflat"):
            continue
        found = inspect.getattr_static(thing, member)
        kinds = ("__func__", "fget", "func")
        yield f"{name}.{member}", next((getattr(found, kind) for kind in kinds if hasattr(found, kind)), found)


@cache
def documented() -> dict[str, str]:
    """By name, each docstring's *Raises*, those of inherited methods once."""
    found: dict[str, str] = {}
    seen = set()
    for public, thing in NAMES.items():
        for name, member in members(public, thing):
            text = (inspect.getdoc(member) or "") if callable(member) and id(member) not in seen else ""
            seen.add(id(member))
            if "**Raises:**" in text:
                said = text.split("**Raises:**")[1].split("\n\n")[0].split("**")[0]
                found[name] = " ".join(said.split())
    return found


def errors_of(name: str, words: str) -> set[str]:
    """The errors that a docstring names for these words: the last one before or in them, or those of another name."""
    if re.match(r"(?:as|as in|what) `", words):
        return _further(name, words)
    text = documented()[name]
    return {*re.findall(r"`(\w+Error)`", text[: text.index(words) + len(words)])[-1:]}


def _further(name: str, text: str) -> set[str]:
    """The errors of what a text refers to."""
    found = set()
    for words in re.findall(r"\b(?:as in|as|what) (`[\w.]+`(?: and `[\w.]+`)?)", text):
        for other in re.findall(r"`(?:fisherflat\.)?([\w.]+)`", words):
            near = (f"{name.rpartition('.')[0]}.{other}", other)
            full = next(candidate for candidate in near if candidate in documented())
            found |= {*re.findall(r"`(\w+Error)`", documented()[full])} | _further(full, documented()[full])
    return found


def wrong() -> list[str]:
    """Reasons without a call, calls without a reason, and calls that raise something else."""
    found = [f"{name}: it has no *Raises*" for name in CASES.keys() - documented().keys()]
    for name, text in documented().items():
        left = text
        for words, call in CASES.get(name, {}).items():
            if words not in left:
                found.append(f"{name}: it does not say {words!r}")
                continue
            left = left.replace(words, " ", 1)
            expected = errors_of(name, words)
            try:
                call()
            except Exception as error:
                named = {kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"}
                if not {type(error).__name__, *(named if expected <= BUILT_IN else ())} & expected:
                    found.append(f"{name}, {words}: {error!r} is not {' or '.join(sorted(expected))}")
            else:
                found.append(f"{name}, {words}: nothing was raised")
        if left := CONNECTIVES.sub(" ", left).strip():
            found.append(f"{name}: nothing shows {' '.join(left.split())!r}")
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    said = wrong()
    reasons = sum(map(len, CASES.values()))
    print("\n".join([*said, f"{reasons} reasons of {len(documented())} names, {len(said)} wrong"]))
    sys.exit(len(said) > 0)
