"""Links' losses in torch's own operations: for any device, second derivatives, `torch.func` and whole graphs.

The same numbers as the native `loss_and_grad`, up to rounding, more slowly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from luce.links import Entmax, Link, Sigmoid, SMTaylor, SoftMargin, Softmax, Sparsemax, Taylor


def plain_losses(logits: Tensor, target: Tensor, link: Link) -> Tensor:
    """Loss (N,) of each row.

    Args:
        logits: (N, K), floating.
        target: (N,) int64 class ids or (N, K) distributions in the logits' dtype.
        link: whose loss it is; its margin counts.
    """
    q = target if target.ndim == 2 else functional.one_hot(target, logits.shape[1]).to(logits.dtype)
    match link:
        case Sigmoid(t):
            return -_expected(_log_sigmoid(logits / t), q) - _expected(_log_sigmoid(-logits / t), 1 - q)
        case SoftMargin(margin, t):
            return -_expected(_log(Softmax(), logits / t - margin * q), q)
        case SMTaylor(degree, margin, t):
            return -_expected(_log(Taylor(degree), logits / t - margin * q), q)
        case Entmax(alpha, t) if alpha > 1:
            return _fenchel_young(logits, q, link, alpha, t)
        case Sparsemax(t):
            return _fenchel_young(logits, q, link, 2.0, t)
        case Entmax(1, t):  # the same loss, whose entropy is Shannon's
            return torch.as_tensor(torch.special.xlogy(q, q)).sum(1) - _expected(_log(Softmax(t), logits), q)
    return -_expected(_log(link, logits), q)


def _log(link: Any, logits: Tensor) -> Tensor:
    log_p: Tensor = link.log_probabilities(logits)
    return log_p


def _log_sigmoid(x: Tensor) -> Tensor:
    return _log(Sigmoid(), x)


def _expected(log_p: Tensor, q: Tensor) -> Tensor:
    """Sum q log p of each row, with 0 log 0 = 0."""
    return (torch.where(q == 0, 0.0, log_p) * q).sum(1)


def _fenchel_young(logits: Tensor, q: Tensor, link: Any, alpha: float, temperature: float) -> Tensor:
    """H(p) - H(q) + (p - q).u with Tsallis' entropy H; see `luce.links.entmax`."""
    p: Tensor = replace(link, temperature=1.0).probabilities(logits / temperature)
    difference = p - q
    linear = (torch.where(difference == 0, 0.0, logits / temperature) * difference).sum(1)
    return _tsallis(p, alpha) - _tsallis(q, alpha) + linear


def _tsallis(p: Tensor, alpha: float) -> Tensor:
    return (p - p**alpha).sum(1) / (alpha * (alpha - 1))
