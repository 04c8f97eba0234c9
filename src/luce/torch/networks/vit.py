"""Vision transformer for small pictures: patches as tokens, blocks of attention and a dense part, norms in front.

Sources: Dosovitskiy et al. 2021, arXiv 2010.11929. Attention is softmax's (Vaswani et al. 2017, arXiv 1706.03762), with
n^2 products for n tokens, or linear attention (Katharopoulos et al. 2020, arXiv 2006.16236): exp(q.k) is replaced by
phi(q).phi(k), phi(t) = elu(t) + 1, so that the sums over the keys can be taken once for all queries:
out_i = phi(q_i)^T (sum_j phi(k_j) v_j^T) / (phi(q_i)^T sum_j phi(k_j)), with n products for n tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from luce.torch.margins import whole
from luce.torch.networks.parts import LARGEST_SMALL, check_picture

Attention = Literal["softmax", "linear"]
Pool = Literal["mean", "class"]
SMALL_PATCH, LARGE_PATCH = 4, 16  # pixels, by default


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention whose weights are phi(q).phi(k) / sum over the keys, phi(t) = elu(t) + 1; linear in the tokens.

    Args:
        query: (..., n, d), floating.
        key: (..., m, d).
        value: (..., m, e).

    Returns:
        (..., n, e). Where the weights of a query underflow, which takes entries below about -40, it is 0.
    """
    q, k = _feature_map(query), _feature_map(key)
    summed = torch.matmul(k.transpose(-2, -1), value)
    total = torch.matmul(q, k.sum(-2).unsqueeze(-1))
    return torch.matmul(q, summed) / total.clamp(min=torch.finfo(total.dtype).tiny)


def _feature_map(x: Tensor) -> Tensor:
    """elu(x) + 1, as exp(x) below 0, where the sum would round to 0."""
    return torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))


class SelfAttention(nn.Module):
    """Every token asks all others, in several heads."""

    def __init__(self, n_channels: int, heads: int, attention: Attention) -> None:
        super().__init__()
        self.heads = heads
        self.attention = attention
        self.query_key_value = _linear(n_channels, 3 * n_channels)
        self.out = _linear(n_channels, n_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, n, n_channels) of tokens."""
        parts = self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        if self.attention == "softmax":
            mixed = functional.scaled_dot_product_attention(query, key, value)
        else:
            mixed = linear_attention(query, key, value)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class Block(nn.Module):
    """Attention and a dense part of twice the channels, each behind a norm and added to what came."""

    def __init__(self, n_channels: int, heads: int, attention: Attention) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.LayerNorm(n_channels), SelfAttention(n_channels, heads, attention))
        hidden = 2 * n_channels
        self.dense = nn.Sequential(
            nn.LayerNorm(n_channels), _linear(n_channels, hidden), nn.GELU(), _linear(hidden, n_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, n, n_channels) of tokens."""
        x = x + self.mix(x)
        result: Tensor = x + self.dense(x)
        return result


class ViT(nn.Module):
    """Patches, positions, blocks, a norm, then the mean of the tokens or the class token.

    The positions are learned for one size: pictures must have the size that the network was built for.
    """

    n_features: int

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        patch: int,
        n_channels: int,
        depth: int,
        heads: int,
        attention: Attention,
        pool: Pool,
    ) -> None:
        super().__init__()
        rows, columns = (-(-n // patch) for n in size)
        self.edge = nn.ZeroPad2d((0, columns * patch - size[1], 0, rows * patch - size[0]))
        self.patches = nn.Conv2d(channels, n_channels, patch, patch)
        nn.init.xavier_uniform_(self.patches.weight.view(n_channels, -1))
        nn.init.zeros_(_bias(self.patches))
        self.class_token = nn.Parameter(torch.zeros(1, 1, n_channels)) if pool == "class" else None
        self.positions = nn.Parameter(torch.empty(1, rows * columns + (pool == "class"), n_channels))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.Sequential(*(Block(n_channels, heads, attention) for _ in range(depth)))
        self.norm = nn.LayerNorm(n_channels)
        self.n_features = n_channels

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, n_features) of pictures (N, C, H, W)."""
        tokens: Tensor = self.patches(self.edge(x)).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            tokens = torch.cat((self.class_token.expand(x.shape[0], -1, -1), tokens), 1)
        tokens = self.norm(self.blocks(tokens + self.positions))
        return tokens.mean(1) if self.class_token is None else tokens[:, 0]


def _linear(before: int, after: int) -> nn.Linear:
    layer = nn.Linear(before, after)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def build(
    channels: int,
    height: int,
    width: int,
    *,
    patch: int | None = None,
    n_channels: int = 128,
    depth: int = 6,
    heads: int = 4,
    attention: Attention = "softmax",
    pool: Pool = "mean",
) -> ViT:
    """A vision transformer for pictures of one size, at least one patch; what is left at the edges is filled up.

    Args:
        channels: of the pictures.
        height: of the pictures.
        width: of the pictures.
        patch: height and width of a patch; None: 4 pixels for pictures up to 64 x 64, else 16.
        n_channels: of a token, a multiple of `heads`.
        depth: how many blocks.
        heads: of the attention.
        attention: "softmax" or "linear", see the module.
        pool: "mean" of the tokens, or a "class" token.

    Raises:
        TypeError, ValueError: the message names the argument.
    """
    if patch is None:
        patch = SMALL_PATCH if max(height, width) <= LARGEST_SMALL else LARGE_PATCH
    check_picture("vit", channels, height, width, least=whole("vit", "patch", patch, 1))
    for parameter, value in (("n_channels", n_channels), ("depth", depth), ("heads", heads)):
        whole("vit", parameter, value, 1)
    if n_channels % heads:
        raise ValueError(f"vit: n_channels must be a multiple of heads, got {n_channels} and {heads}")
    if attention not in ("softmax", "linear"):
        raise ValueError(f"vit: attention must be 'softmax' or 'linear', got {attention!r}")
    if pool not in ("mean", "class"):
        raise ValueError(f"vit: pool must be 'mean' or 'class', got {pool!r}")
    return ViT(channels, (height, width), patch, n_channels, depth, heads, attention, pool)
