"""Links: logits to probabilities, one file per member of the family.

`LINKS` is what the laws, the command line, the documents and the benchmarks read: adding a link is one file and one
line here.
"""

from __future__ import annotations

from luce.links.entmax import Entmax, Sparsemax, entmax, entmax15, entmax_slope, sparsemax
from luce.links.link import Link
from luce.links.parse import parse_link
from luce.links.pseudo import PseudoSoftmax, pseudo_softmax
from luce.links.sigmoid import Sigmoid, log_sigmoid, sigmoid
from luce.links.sm_taylor import SMTaylor, sm_taylor_softmax
from luce.links.soft_margin import SoftMargin, soft_margin_softmax
from luce.links.softmax import Softmax, log_softmax, logsumexp, softmax
from luce.links.spherical import Spherical, spherical_softmax
from luce.links.taylor import Taylor, taylor_softmax

LINKS: dict[str, type[Link]] = {
    "softmax": Softmax,
    "taylor": Taylor,
    "soft_margin": SoftMargin,
    "sm_taylor": SMTaylor,
    "spherical": Spherical,
    "sparsemax": Sparsemax,
    "entmax": Entmax,
    "sigmoid": Sigmoid,
    "pseudo": PseudoSoftmax,
}

__all__ = [
    "LINKS",
    "Entmax",
    "Link",
    "PseudoSoftmax",
    "SMTaylor",
    "Sigmoid",
    "SoftMargin",
    "Softmax",
    "Sparsemax",
    "Spherical",
    "Taylor",
    "entmax",
    "entmax15",
    "entmax_slope",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "parse_link",
    "pseudo_softmax",
    "sigmoid",
    "sm_taylor_softmax",
    "soft_margin_softmax",
    "softmax",
    "sparsemax",
    "spherical_softmax",
    "taylor_softmax",
]
