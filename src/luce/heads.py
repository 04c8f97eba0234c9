"""The end of a model file: from the scores of the last layer to logits and probabilities, for each link.

A head holds a link as it is at test time, with temperature 1: margins do not count there, and the temperature of the
training is in the weights. What the logits are, and what becomes of them once they are divided by the fitted
temperature:

- softmax: the scores; softmax.
- Taylor, spherical: the logarithms of the link's probabilities; softmax, which at temperature 1 gives these
  probabilities back, and powers of them at others.
- sparsemax, entmax: the scores; the link itself, since a probability of 0 has no logarithm.

Logarithms and sparse links are computed in float64, in plain operators of ONNX, without loops.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import factorial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.links import (
    LINKS,
    Entmax,
    Link,
    PseudoSoftmax,
    Sigmoid,
    SMTaylor,
    SoftMargin,
    Softmax,
    Sparsemax,
    Spherical,
    Taylor,
)

if TYPE_CHECKING:
    from onnx import NodeProto

WEIGHT, BIAS, SHIFT, TEMPERATURE = "head.weight", "head.bias", "head.shift", "head.temperature"
_MOST = 1e30  # what lies beyond it counts as it: its 10th power is still a float64
_LARGEST = 1e300
_SOFTMAX = 1 + 1e-8  # entmax with an alpha below is softmax within 3e-9
_HALVINGS = 50  # of the range 1 to K: the last step is still a few roundings of numbers in it


def at_test_time(link: Link) -> tuple[Link, float]:
    """The link that a head holds, and what scores are multiplied by for it to give the probabilities of `link`.

    Raises:
        ValueError: `link` gives no distribution over the classes.
    """
    match link:
        case Softmax(t) | SoftMargin(temperature=t):
            return Softmax(), 1 / t
        case PseudoSoftmax(t):
            return Softmax(), float(np.log(2)) / t
        case Taylor(degree, t) | SMTaylor(degree=degree, temperature=t):
            return Taylor(degree), 1 / t
        case Spherical(eps, t):
            return Spherical(eps), 1 / t
        case Sparsemax(t):
            return Sparsemax(), 1 / t
        case Entmax(alpha, t):
            return (Softmax() if alpha < _SOFTMAX else Entmax(alpha)), 1 / t
        case Sigmoid():
            raise ValueError(
                "link: sigmoid gives each class a probability of its own, and a model file holds one distribution over "
                "the classes; luce.torch.trainer.train_network trains with any link"
            )
    raise ValueError(f"link: a model file does not hold {link!r}; it holds the links of luce.links.LINKS")


def is_sparse(link: Link) -> bool:
    """Whether its probabilities can be exactly 0."""
    return isinstance(link, Sparsemax | Entmax)


def takes_shift(link: Link) -> bool:
    """Whether its head adds `SHIFT` to the logarithms of the probabilities; softmax has the bias for it."""
    return isinstance(link, Taylor | Spherical)


def on_logits(link: Link) -> Link:
    """What turns a head's logits, divided by its temperature, into its probabilities."""
    return link if is_sparse(link) else Softmax()


def describe(link: Link) -> dict[str, Any]:
    """A head's link as JSON's kinds of values: its name and parameters."""
    parameters = asdict(cast(Any, link))
    del parameters["temperature"]
    return {"name": cast(Any, link).name, **parameters}


def written(link: Link) -> str:
    """A head's link as `luce.links.parse_link` reads it, such as "taylor:degree=2"."""
    name, *parameters = (value if key == "name" else f"{key}={value:g}" for key, value in describe(link).items())
    return f"{name}:{','.join(parameters)}" if parameters else str(name)


def parse(described: Mapping[str, Any]) -> Link:
    """The link that `describe` wrote.

    Raises:
        TypeError, ValueError: it is unknown, no head's, or has parameters that are unknown or out of range.
    """
    parameters = dict(described)
    name = parameters.pop("name")
    if name not in LINKS:
        raise ValueError(f"it has the link {reprlib.repr(name)}, which this Luce does not know")
    link: Link = cast(Any, LINKS[name])(temperature=1.0, **parameters)
    if at_test_time(link) != (link, 1.0):
        raise ValueError(f"no model file holds {link!r} as it is")
    return link


def head_nodes(link: Link, n_classes: int) -> tuple[list[NodeProto], dict[str, NDArray[Any]]]:
    """The nodes from `features` to `logits` and `probabilities`, and their constants.

    `WEIGHT`, `BIAS`, `TEMPERATURE` and, for Taylor and spherical, `SHIFT`, which is added to the logarithms, are
    theirs to find.
    """
    from onnx import TensorProto

    graph = _Graph()
    scores = "head.scores" if takes_shift(link) else "logits"
    features = graph.node("Cast", "features", to=TensorProto.FLOAT, output="head.input")
    graph.node("Gemm", features, WEIGHT, BIAS, output=scores)
    if takes_shift(link):
        weights = _weights(graph, link, graph.node("Cast", scores, to=TensorProto.DOUBLE))
        shifted = graph.node("Add", graph.node("Log", weights), SHIFT)
        graph.node("Cast", graph.node("LogSoftmax", shifted, axis=-1), to=TensorProto.FLOAT, output="logits")
    scaled = graph.node("Div", "logits", TEMPERATURE, output="head.scaled")
    if is_sparse(link):
        p = _sparse(graph, link, graph.node("Cast", scaled, to=TensorProto.DOUBLE), n_classes)
        graph.node("Cast", p, to=TensorProto.FLOAT, output="probabilities")
    else:
        graph.node("Softmax", scaled, axis=-1, output="probabilities")
    return graph.nodes, graph.constants


@dataclass(frozen=True, slots=True)
class _Graph:
    """The nodes written so far, and their constants. What has no name gets a number."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def node(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node and return the name of its (first) output."""
        from onnx import helper

        output = output or f"head.{len(self.nodes)}"
        outputs = [output, f"{output}.places"] if op == "TopK" else [output]
        self.nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        return output

    def constant(self, value: ArrayLike) -> str:
        """The name of a constant, float64 unless it is of integers."""
        name = f"head.c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def top(self, values: str, n: int) -> str:
        """The n largest of each row, the largest first."""
        return self.node("TopK", values, self.constant([n]), axis=-1)


def _weights(graph: _Graph, link: Link, scores: str) -> str:
    """What each class counts under Taylor, by Horner's rule, or spherical softmax."""
    z = graph.node("Clip", scores, graph.constant(-_MOST), graph.constant(_MOST))
    match link:
        case Taylor(degree):
            total = graph.node("Mul", z, graph.constant(1 / factorial(int(degree))))
            for i in range(int(degree) - 1, 0, -1):
                total = graph.node("Mul", graph.node("Add", total, graph.constant(1 / factorial(i))), z)
            return graph.node("Add", total, graph.constant(1.0))
        case Spherical(eps):
            return graph.node("Add", graph.node("Mul", z, z), graph.constant(float(eps)))
    raise ValueError(f"no weights are known of {link!r}")


def _sparse(graph: _Graph, link: Link, scores: str, n_classes: int) -> str:
    """Probabilities under sparsemax or entmax, from how far each score lies below the largest, -u."""
    u = graph.node("Sub", scores, graph.top(scores, 1))
    match link:
        case Sparsemax() | Entmax(alpha=2):
            return _sparsemax(graph, u, n_classes)
        case Entmax(alpha=1.5):
            return _entmax15(graph, u, n_classes)
        case Entmax(alpha):
            return _entmax(graph, u, n_classes, float(alpha))
    raise ValueError(f"{link!r} is not sparse")


def _sparsemax(graph: _Graph, u: str, n_classes: int) -> str:
    """max(u - tau, 0), where tau is the largest of (the sum of the k largest - 1) / k."""
    total = graph.node("CumSum", graph.top(u, n_classes), graph.constant(-1))
    less = graph.node("Sub", total, graph.constant(1.0))
    tau = graph.top(graph.node("Div", less, graph.constant(np.arange(1.0, n_classes + 1))), 1)
    return graph.node("Relu", graph.node("Sub", u, tau))


def _entmax15(graph: _Graph, u: str, n_classes: int) -> str:
    """max(u / 2 - tau, 0)^2; of the k largest u / 2, tau is the mean less sqrt(1 / k - variance), if not above them."""
    count, last = graph.constant(np.arange(1.0, n_classes + 1)), graph.constant(-1)
    half = graph.node("Mul", u, graph.constant(0.5))
    ordered = graph.top(half, n_classes)
    mean = graph.node("Div", graph.node("CumSum", ordered, last), count)
    square = graph.node("Div", graph.node("CumSum", graph.node("Mul", ordered, ordered), last), count)
    variance = graph.node("Sub", square, graph.node("Mul", mean, mean))
    rest = graph.node("Relu", graph.node("Sub", graph.constant(1 / np.arange(1.0, n_classes + 1)), variance))
    taus = graph.node("Sub", mean, graph.node("Sqrt", rest))
    inside = graph.node("LessOrEqual", taus, ordered)
    tau = graph.top(graph.node("Where", inside, taus, graph.constant(-1.0)), 1)
    root = graph.node("Relu", graph.node("Sub", half, tau))
    return graph.node("Mul", root, root)


def _entmax(graph: _Graph, u: str, n_classes: int, alpha: float) -> str:
    """Shares of t = max(1 + (alpha - 1) u r^(alpha - 1), 0)^(1 / (alpha - 1)), where 1 / r is the largest probability.

    r, from 1 to K, is the sum of t. That falls with r, so r is found by halving. Where alpha is large, t can fall from
    0.1 to 0 between neighbouring numbers r: the last step is divided so that the sum is r all the same.
    """
    one, a, inverse = graph.constant(1.0), graph.constant(alpha - 1), graph.constant(1 / (alpha - 1))
    largest, smallest, last = graph.constant(_LARGEST), graph.constant(1 / _LARGEST), graph.constant([-1])
    slope = graph.node("Mul", u, a)

    def weights(r: str) -> tuple[str, str]:
        power = graph.node("Min", graph.node("Pow", r, a), largest)  # infinity times 0 would be no number
        t = graph.node("Pow", graph.node("Relu", graph.node("Add", graph.node("Mul", slope, power), one)), inverse)
        return t, graph.node("ReduceSum", t, last)

    r, step = one, one
    for i in range(1, _HALVINGS + 1):
        step = graph.constant((n_classes - 1) / 2**i)
        further = graph.node("Add", r, step)
        enough = graph.node("GreaterOrEqual", weights(further)[1], further)
        r = graph.node("Where", enough, further, r)
    (more, too_much), (less, too_little) = weights(r), weights(graph.node("Add", r, step))
    lacking = graph.node("Relu", graph.node("Sub", r, too_little))
    between = graph.node("Max", graph.node("Sub", too_much, too_little), lacking, smallest)
    part = graph.node("Div", lacking, between)
    t = graph.node("Add", less, graph.node("Mul", graph.node("Sub", more, less), part))
    return graph.node("Div", t, graph.node("ReduceSum", t, last))
