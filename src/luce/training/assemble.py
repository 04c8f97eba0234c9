"""A fitted head becomes a model file, with golden vectors that prove it computes what was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from luce import model_file
from luce.backbones import Backbone, open_session, run
from luce.card import Card
from luce.classifier import ImageClassifier
from luce.datasets import Dataset, Problem
from luce.errors import ImageError, ModelError
from luce.evaluation import Evaluation
from luce.heads import is_sparse
from luce.images import load
from luce.model_file import Golden
from luce.training.head import Head
from luce.training.options import Options

_N_GOLDEN = 3
_HEAD_TOLERANCE = 1e-5


def make_card(
    data: Dataset,
    backbone: Backbone,
    head: Head,
    evaluation: Evaluation | None,
    problems: Sequence[Problem],
    options: Options,
) -> Card:
    """What the model file says of itself.

    Args:
        data: the pictures trained on.
        backbone: what makes their features.
        head: fitted on these.
        evaluation: on held-out pictures, if any.
        problems: found in the data.
        options: how the training was asked for.
    """
    from luce import __version__

    t = head.temperature
    loss = "fenchel_young" if is_sparse(head.link) else "nll"
    training = {
        "luce_version": __version__,
        "data": data.name,
        "n_train": len(data),
        "n_train_per_class": np.bincount(data.labels, minlength=len(data.classes)).tolist(),
        "penalty": head.strength,
        "penalty_path": [list(point) for point in head.path],
        "problems": dict(Counter(problem.kind for problem in problems)),
        **options.record(),
    }
    if evaluation is not None:
        training["metrics"] = evaluation.metrics.to_dict()
    return Card(
        classes=data.classes,
        preparation=backbone.preparation,
        backbone={
            "name": backbone.name,
            "sha256": backbone.sha256,
            "licence": backbone.licence,
            "n_features": backbone.n_features,
        },
        temperature=t.value,
        calibration={
            "method": "temperature" if t.fitted else "none",
            "n_rows": t.n_rows,
            f"{loss}_before": t.loss_before if t.n_rows else None,
            f"{loss}_after": t.loss_after if t.n_rows else None,
            "note": t.note,
        },
        training=training,
        link=head.link,
    )


def assemble(
    data: Dataset,
    features: NDArray[np.generic],
    backbone: Backbone,
    head: Head,
    card: Card,
    max_pixels: int,
) -> ImageClassifier:
    """Build the model file, with golden vectors from pictures it must agree on with the features used before.

    Args:
        data: pictures to take the golden vectors from.
        features: (N, D) of these pictures.
        backbone: what made them.
        head: goes behind it.
        card: goes into the metadata.
        max_pixels: larger pictures are refused.

    Raises:
        ModelError: the model file gives other probabilities than the features did.
    """
    layer = (backbone.graph, head.weights, head.bias, card)
    plain = ImageClassifier(model_file.build(*layer, shift=head.shift), card)
    alone = open_session(head.graph(backbone.dtype))
    golden = []
    for i in np.unique(np.linspace(0, len(data) - 1, _N_GOLDEN).astype(int)):
        try:
            pixels = load(data.pictures[i], backbone.preparation, max_pixels=max_pixels)[0]
        except ImageError:  # vanished since it was read
            continue
        probabilities = plain.run(pixels[None])[1][0]
        expected = run(alone, features[i : i + 1])[1][0]
        worst = float(np.abs(probabilities - expected).max())
        if not worst <= _HEAD_TOLERANCE:
            raise ModelError(
                f"{data.identifier(int(i))}: the model gives probabilities that differ by {worst:.2g} from those "
                "it was measured with; the cached features are stale: train again with --no-cache"
            )
        golden.append(Golden(pixels, probabilities))
    return ImageClassifier(model_file.build(*layer, golden, shift=head.shift), card)
