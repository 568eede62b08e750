"""Small reference layers, written to be read: attention, gated MLPs, and the systems that the idea leans on."""

from fisherflat.layers.attention import SelfAttention
from fisherflat.layers.bilinear import BilinearAttention
from fisherflat.layers.bilinear_network import BilinearAttentionNetwork
from fisherflat.layers.convolution import GatedConv1d
from fisherflat.layers.gate import Gate
from fisherflat.layers.joined import Joined
from fisherflat.layers.memory import KeyValueMemory
from fisherflat.layers.mlp import GatedMLP
from fisherflat.layers.pooling import LowRankBilinearPooling
from fisherflat.layers.rank_one import RankOne

__all__ = [
    "BilinearAttention",
    "BilinearAttentionNetwork",
    "Gate",
    "GatedConv1d",
    "GatedMLP",
    "Joined",
    "KeyValueMemory",
    "LowRankBilinearPooling",
    "RankOne",
    "SelfAttention",
]
