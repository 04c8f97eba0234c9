"""Functions around the family: plain normalisation, activations, derivatives of softmax, choices made with it."""

from luce.functions.activations import relu, tanh
from luce.functions.boltzmann import boltzmann, boltzmann_mean, boltzmann_sample
from luce.functions.covariance import softmax_covariance, softmax_vjp
from luce.functions.gumbel import gumbel_softmax
from luce.functions.mellowmax import mellowmax
from luce.functions.normalize import normalize

__all__ = [
    "boltzmann",
    "boltzmann_mean",
    "boltzmann_sample",
    "gumbel_softmax",
    "mellowmax",
    "normalize",
    "relu",
    "softmax_covariance",
    "softmax_vjp",
    "tanh",
]
