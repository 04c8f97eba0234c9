"""An image classifier: a model file in memory, and what it can do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from luce import model_file
from luce.backbones.extract import chunk_size
from luce.backbones.session import Session, open_session, run
from luce.card import Card
from luce.datasets import Dataset, open_dataset
from luce.errors import DataError, ImageError, ModelError
from luce.evaluation import Evaluation, evaluate_logits, join_by_name, unreadable
from luce.heads import on_logits
from luce.images import MAX_PIXELS, Source, load
from luce.parallel import map_chunks
from luce.threads import default_threads

GOLDEN_TOLERANCE = 1e-4  # between machines; on the machine that trained it the difference is 0 or one rounding


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the classifier says about one picture.

    Attributes:
        source: the path as it was given, or "" for bytes, arrays and file objects.
        class_name: the most probable class.
        probability: its probability.
        top: (class name, probability), the most probable first.
    """

    source: str
    class_name: str
    probability: float
    top: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Keys `path`, `class`, `probability` and `top`, a list of {`class`, `probability`}."""
        top = [{"class": name, "probability": p} for name, p in self.top]
        return {"path": self.source, "class": self.class_name, "probability": self.probability, "top": top}


@dataclass(frozen=True)
class ImageClassifier:
    """A trained classifier, an immutable value. `luce.train` and `luce.load` make it.

    It holds the bytes of its model file and runs them, so what was measured is what is saved and served.

    Attributes:
        data: the bytes of the model file.
        card: class names, preparation, calibration, training record.
    """

    data: bytes = field(repr=False)
    card: Card = field(compare=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the columns of `predict_proba`."""
        return self.card.classes

    @property
    def temperature(self) -> float:
        """Divides the logits; fitted after training."""
        return self.card.temperature

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is also a sequence of str, and one picture all the same
        self, sources: Source, *, top: int = 5, n_threads: int | None = None
    ) -> Prediction: ...
    @overload
    def predict(self, sources: Sequence[Source], *, top: int = 5, n_threads: int | None = None) -> list[Prediction]: ...
    def predict(
        self, sources: Source | Sequence[Source], *, top: int = 5, n_threads: int | None = None
    ) -> Prediction | list[Prediction]:
        """Classify one picture or several.

        Args:
            sources: a path, bytes, file object, uint8 array (height, width[, 3]) or PIL image; or a list of these.
            top: how many classes to list.
            n_threads: `None` for one per available core.

        Returns:
            One `Prediction`, or a list in the order of the sources.

        Raises:
            ImageError: a picture cannot be used. `predict_each` goes on past such pictures instead.
        """
        single = not isinstance(sources, list | tuple)
        many: Any = [sources] if single else sources
        results = []
        for result in self.predict_each(many, top=top, n_threads=n_threads):
            if isinstance(result, ImageError):
                raise result
            results.append(result)
        return results[0] if single else results

    def predict_each(
        self,
        sources: Iterable[Source],
        *,
        top: int = 5,
        n_threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[Prediction | ImageError]:
        """Classify any number of pictures, one result at a time and in their order; memory stays flat.

        Args:
            sources: consumed as needed.
            top: how many classes to list.
            n_threads: `None` for one per available core.
            max_pixels: larger pictures are refused.

        Yields:
            A `Prediction`, or the `ImageError` of a picture that cannot be used.
        """
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        for source, row in self._probability_rows(sources, n_threads, max_pixels):
            if isinstance(row, ImageError):
                yield row
                continue
            order = np.argsort(-row, kind="stable")[:top]
            ranked = tuple((self.classes[k], float(row[k])) for k in order)
            yield Prediction(_name(source), ranked[0][0], ranked[0][1], ranked)

    def predict_proba(self, sources: Source | Sequence[Source], *, n_threads: int | None = None) -> NDArray[np.float32]:
        """Probabilities (N, K) float32 in the order of `classes`; (K,) for a single picture.

        Args:
            sources: as for `predict`; an array (N, height, width, 3) counts as N pictures.
            n_threads: `None` for one per available core.

        Raises:
            ImageError: a picture cannot be used.
        """
        stack = isinstance(sources, np.ndarray) and sources.ndim == 4
        single = not (stack or isinstance(sources, list | tuple))
        many: Any = [sources] if single else sources
        rows: list[NDArray[np.float32]] = []
        for _, row in self._probability_rows(many, n_threads, MAX_PIXELS):
            if isinstance(row, ImageError):
                raise row
            rows.append(row)
        out = np.array(rows, np.float32).reshape(-1, len(self.classes))
        return out[0] if single else out

    def evaluate(
        self,
        data: str | os.PathLike[str] | Dataset | tuple[Any, Any],
        *,
        n_threads: int | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Evaluation:
        """Measure the classifier on pictures with known classes.

        Classes are joined by name. Pictures of a class the model does not know are left out and listed, as are
        unreadable ones. A data set with train, val and test parts is measured on its test part, else on val.

        Args:
            data: anything `luce.train` accepts.
            n_threads: `None` for one per available core.
            progress: called with (stage, done, total).

        Raises:
            DataError: nothing is left to measure.
        """
        dataset = open_dataset(data, progress=progress).held_out()
        dataset, target, problems = join_by_name(dataset, self.classes)
        logits: list[NDArray[np.float32]] = []
        readable: list[int] = []
        results = self._rows(dataset.sources, n_threads, MAX_PIXELS)
        for i, (_, row) in enumerate(results):
            if isinstance(row, ImageError):
                problems.append(unreadable(dataset, i, row))
            else:
                logits.append(row[0])
                readable.append(i)
            if progress is not None:
                progress("Classifying", i + 1, len(dataset))
        if not readable:
            raise DataError(f"{dataset.name}: no readable picture of a class this model knows")
        return evaluate_logits(
            np.array(logits, np.float64),
            target[readable],
            dataset.take(readable),
            self.classes,
            temperature=self.temperature,
            link=on_logits(self.card.link),
            problems=problems,
        )

    def verify(self) -> float:
        """Replay the golden vectors.

        Returns:
            The greatest difference between a stored probability and the one computed now.

        Raises:
            ModelError: the model does not give the probabilities that it must.
        """
        vectors = model_file.golden_vectors(self.data, self.card)
        if not vectors:
            raise ModelError("the model holds no golden vectors to replay")
        worst = 0.0
        for vector in vectors:
            probabilities = self.run(vector.pixels[None])[1][0]
            worst = float(np.maximum(worst, np.abs(probabilities - vector.probabilities).max()))  # keeps NaN
        if not worst <= GOLDEN_TOLERANCE:
            raise ModelError(
                f"a stored picture gets probabilities that differ by {worst:.2g} from those at training "
                f"(allowed: {GOLDEN_TOLERANCE:g}): this ONNX Runtime does not compute what training computed"
            )
        return worst

    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the graph on prepared pixels (N, height, width, 3): logits and probabilities (N, K) float32."""
        logits, probabilities = run(self._session, pixels)
        return logits.astype(np.float32), probabilities.astype(np.float32)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model file: the old file or the new one, never half of one.

        Raises:
            LuceError: it cannot be written; an old file is untouched.
        """
        model_file.write(path, self.data)

    @classmethod
    def from_bytes(cls, data: bytes) -> ImageClassifier:
        """The classifier in the bytes of a model file.

        Raises:
            ModelError: they are damaged, foreign or newer.
        """
        return cls(data, model_file.check(data))

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageClassifier.from_bytes, (self.data,)

    @cached_property
    def _session(self) -> Session:
        return open_session(self.data)

    def _probability_rows(
        self, sources: Iterable[Source], n_threads: int | None, max_pixels: int
    ) -> Iterator[tuple[Source, NDArray[np.float32] | ImageError]]:
        for source, row in self._rows(sources, n_threads, max_pixels):
            yield source, row if isinstance(row, ImageError) else row[1]

    def _rows(
        self, sources: Iterable[Source], n_threads: int | None, max_pixels: int
    ) -> Iterator[tuple[Source, NDArray[np.float32] | ImageError]]:
        """For each source (2, K): logits and probabilities, or its error."""
        spec, session = self.card.preparation, self._session

        def work(batch: Sequence[Source]) -> list[tuple[Source, NDArray[np.float32] | ImageError]]:
            prepared: list[NDArray[np.uint8] | ImageError] = []
            for source in batch:
                try:
                    prepared.append(load(source, spec, max_pixels=max_pixels)[0])
                except ImageError as error:
                    prepared.append(error)
            pixels = [p for p in prepared if not isinstance(p, ImageError)]
            rows = iter(np.stack(run(session, np.stack(pixels)), axis=1)) if pixels else iter(())
            return [(s, p if isinstance(p, ImageError) else next(rows)) for s, p in zip(batch, prepared, strict=True)]

        return map_chunks(sources, work, chunk=chunk_size(spec), n_threads=n_threads or default_threads())


def load_classifier(path: str | os.PathLike[str]) -> ImageClassifier:
    """Load a model file written by `luce train` or `ImageClassifier.save`.

    Args:
        path: of the `.onnx` file.

    Raises:
        ModelError: damaged, foreign, made by a newer version, or not to be read; the message says which.
    """
    return ImageClassifier(*model_file.read(path))


def _name(source: Source) -> str:
    return os.fspath(source) if isinstance(source, str | Path | os.PathLike) else ""
