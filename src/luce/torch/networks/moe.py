"""A mixture of experts behind a small convolutional stem: softmax gates choose k of E dense networks for each picture.

Source: Shazeer et al. 2017, arXiv 1701.06538. In training the gates are noisy: of h = x W_g + N(0, 1) softplus(x W_n)
the k largest are kept and softmax is taken over them. Without anything against it few experts would get all pictures,
so the squared coefficients of variation of two sums over the batch are added to the loss: of the gates (importance),
and of the probabilities that an expert is among the chosen if the noise is drawn again (load). Gates are computed in
float32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from luce.arrays import not_negative
from luce.torch.margins import whole
from luce.torch.networks.parts import average, check_picture, conv_norm_relu, dense, scaled

LEAST = 4  # pixels: one is left behind the two pools


class Gate(nn.Module):
    """Noisy top-k gating. Both matrices begin at 0, so that the noise alone chooses at first.

    Attributes:
        load: (experts,) smooth counts of the pictures for which each expert is chosen, of the last forward in training.
        importance: (experts,) sums of the gates, likewise.
    """

    def __init__(self, n_features: int, experts: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.weight = nn.Parameter(torch.zeros(n_features, experts))
        self.noise_weight = nn.Parameter(torch.zeros(n_features, experts))
        self.load: Tensor | None = None
        self.importance: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Gates (N, experts), float32, of which k in a row are positive and sum to 1, of features (N, n_features)."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            clean = x @ self.weight
            if not self.training:
                return self._gates(clean)
            deviation = functional.softplus(x @ self.noise_weight) + 1e-2
            noisy = clean + torch.randn_like(clean) * deviation
            gates = self._gates(noisy)
            self.load = self._load(clean, noisy, deviation)
            self.importance = gates.sum(0)
            return gates

    def _gates(self, logits: Tensor) -> Tensor:
        best, chosen = logits.topk(self.k, 1)
        return torch.zeros_like(logits).scatter(1, chosen, best.softmax(1))

    def _load(self, clean: Tensor, noisy: Tensor, deviation: Tensor) -> Tensor:
        """How probably each expert beats the k-th best of the others, summed over the rows."""
        if self.k == clean.shape[1]:
            return torch.ones_like(clean).sum(0)
        best = noisy.topk(self.k + 1, 1).values
        inside, outside = best[:, self.k - 1 : self.k], best[:, self.k :]
        limit = torch.where(noisy > outside, outside, inside)
        return _below((clean - limit) / deviation).sum(0)

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to one batch: its graph can be neither copied nor saved."""
        return {**self.__dict__, "load": None, "importance": None}


def _below(x: Tensor) -> Tensor:
    """The normal distribution function."""
    return torch.erf(x / math.sqrt(2)) / 2 + 0.5


def squared_variation(x: Tensor) -> Tensor:
    """Variance of the entries of (experts,) over their squared mean: 0 for even use."""
    return x.var(unbiased=False) / (x.mean().square() + 1e-10)


class Experts(nn.Module):
    """Dense networks with one hidden layer and ReLU behind both layers, side by side."""

    def __init__(self, n_features: int, hidden: int, after: int, experts: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(
            nn.Sequential(dense(n_features, hidden), nn.ReLU(), dense(hidden, after), nn.ReLU()) for _ in range(experts)
        )

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Sum over the experts of gate times output, (N, after), of features (N, n_features) and gates (N, experts).

        In training an expert sees the rows that chose it; otherwise every expert sees every row, which gives the same
        and has no shapes that depend on data.
        """
        if not self.training:
            return torch.stack([network(x) * gates[:, i, None] for i, network in enumerate(self.networks)]).sum(0)
        parts, places = [], []
        for i, network in enumerate(self.networks):
            rows = gates[:, i].nonzero()[:, 0]
            parts.append(network(x[rows]) * gates[rows, i, None])
            places.append(rows)
        found = torch.cat(parts)
        return found.new_zeros(len(x), found.shape[1]).index_add(0, torch.cat(places), found)


class MixtureOfExperts(nn.Module):
    """Convolutions with pools, the average over the picture, and the experts of each picture behind it."""

    n_features: int

    def __init__(
        self, channels: int, experts: int, k: int, hidden: int, after: int, width_factor: float, balance: float
    ) -> None:
        super().__init__()
        a, b = (scaled("moe", "width_factor", width_factor, n) for n in (32, 64))
        self.stem = nn.Sequential(
            *(conv_norm_relu(channels, a, 3), nn.MaxPool2d(2), conv_norm_relu(a, b, 3), nn.MaxPool2d(2)),
            conv_norm_relu(b, b, 3),
        )
        self.gate = Gate(b, experts, k)
        self.experts = Experts(b, hidden, after, experts)
        self.balance = balance
        self.n_features = after

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, n_features) of pictures (N, C, H, W)."""
        seen = average(self.stem(x))
        result: Tensor = self.experts(seen, self.gate(seen))
        return result

    def auxiliary_loss(self) -> Tensor:
        """What the last forward in training adds to the loss: a number, 0 for even use of the experts.

        Raises:
            RuntimeError: there was none.
        """
        if self.gate.importance is None or self.gate.load is None:
            raise RuntimeError(
                "moe: auxiliary_loss speaks of the last batch in training; call train() and forward first"
            )
        return self.balance * (squared_variation(self.gate.importance) + squared_variation(self.gate.load))


def build(
    channels: int,
    height: int,
    width: int,
    *,
    experts: int = 8,
    k: int = 2,
    hidden: int = 128,
    n_features: int = 128,
    width_factor: float = 1.0,
    balance: float = 0.1,
) -> MixtureOfExperts:
    """A mixture of experts for pictures of any size from 4 x 4.

    Args:
        channels: of the pictures.
        height: of the pictures.
        width: of the pictures.
        experts: how many.
        k: how many of them a picture gets.
        hidden: units of the hidden layer of an expert.
        n_features: units of its output.
        width_factor: multiplies the channels of the convolutions, positive.
        balance: what the loss for uneven use is multiplied by, at least 0; the paper's value by default.

    Raises:
        TypeError, ValueError: the message names the argument.
    """
    check_picture("moe", channels, height, width, least=LEAST)
    for parameter, value in (("experts", experts), ("hidden", hidden), ("n_features", n_features)):
        whole("moe", parameter, value, 1)
    whole("moe", "k", k, 1, experts)
    not_negative("moe", "balance", balance)
    return MixtureOfExperts(channels, experts, k, hidden, n_features, width_factor, balance)
