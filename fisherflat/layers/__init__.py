"""Small reference layers, written to be read: attention, gated MLPs, and the systems that the idea leans on."""

from __future__ import annotations

from fisherflat.layers._activations import MLP_ACTIVATIONS, Activation, identity
from fisherflat.layers._attention import SelfAttention
from fisherflat.layers._bilinear import BilinearAttention, RankOne
from fisherflat.layers._bilinear_network import BilinearAttentionNetwork
from fisherflat.layers._convolution import GatedConv1d
from fisherflat.layers._gate import GATE_POSITIONS, Gate
from fisherflat.layers._joined import Joined
from fisherflat.layers._memory import KeyValueMemory
from fisherflat.layers._mlp import GatedMLP
from fisherflat.layers._pooling import LowRankBilinearPooling

__all__ = [
    "GATE_POSITIONS",
    "MLP_ACTIVATIONS",
    "Activation",
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
    "identity",
]
