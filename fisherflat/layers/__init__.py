"""Small reference layers, written to be read: gated and ungated attention, gated MLP, bilinear attention."""

from fisherflat.layers.attention import SelfAttention
from fisherflat.layers.bilinear import BilinearAttention
from fisherflat.layers.gate import Gate
from fisherflat.layers.mlp import GatedMLP
from fisherflat.layers.rank_one import RankOne

__all__ = ["BilinearAttention", "Gate", "GatedMLP", "RankOne", "SelfAttention"]
