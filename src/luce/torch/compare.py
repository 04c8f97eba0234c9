"""Several ways to train compared: the same pictures and, for each seed, the same first weights of the network.

Each run has one thread, and as many runs as threads go side by side, each in a process of its own: that is faster than
one run on all threads, and its result does not depend on how many there are. Whatever is finished stands in the results
file; a run that was cut off goes on from its checkpoint beside that file.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from luce.calibration import fit_temperature
from luce.datasets import Dataset, open_dataset
from luce.errors import LuceError
from luce.files import write_atomically
from luce.heads import at_test_time, is_sparse, on_logits
from luce.links import Link
from luce.metrics import brier, ece, nll
from luce.torch.checkpoint import Checkpoint, identity
from luce.torch.comparison import Comparison, Run, parse_runs
from luce.torch.fit import recipe_for, threads
from luce.torch.pictures import as_pictures, held_back
from luce.torch.recipe import Recipe
from luce.torch.trainer import logits_of, new_classifier, train_network
from luce.training import Options
from luce.training.options import Progress, Say
from luce.training.ready import choose_backbone, make_ready

_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """What every run trains on and is measured on: pictures (N, H, W, C) uint8 and class ids (N,)."""

    name: str
    classes: tuple[str, ...]
    train: tuple[Tensor, Tensor]
    calibration: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def compare(
    data: str | os.PathLike[str] | Dataset | tuple[Any, Any],
    recipes: Mapping[str, Recipe | Mapping[str, Any]],
    *,
    seeds: int = 5,
    results: Path,
    options: Options | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Comparison:
    """Train each recipe with each seed and measure all on the same pictures.

    From a script, call it below `if __name__ == "__main__":`, since it starts processes that import the script.

    Args:
        data: anything `luce.train` takes; its held-out part measures.
        recipes: by name; the first one is what the others are compared with. A mapping holds fields that are given,
            as for `recipe_for`; the others suit the data.
        seeds: how many: 0, 1, …
        results: the JSON file that keeps what is finished; runs in it are not done again.
        options: how the data is split and read; `n_threads` is how many runs go side by side.
        progress: called with (stage, done, total).
        say: called with a sentence for each finished run.

    Raises:
        DataError: the data cannot be used.
        ValueError: no seeds, or no test pictures; or a recipe that does not suit the data.
        LuceError: the results file is of another comparison, or a process died.
    """
    options, progress, say = options or Options(), progress or (lambda *_: None), say or (lambda _: None)
    if seeds < 1 or not recipes:
        raise ValueError(f"compare: needs a recipe and a seed at least, got {len(recipes)} and {seeds}")
    ready = prepare(data, options, progress, say)
    n, grey = len(ready.train[0]), ready.train[0].shape[3] == 1
    whole = {
        name: recipe if isinstance(recipe, Recipe) else recipe_for(ready.classes, n, grey=grey, **recipe)
        for name, recipe in recipes.items()
    }
    for recipe in whole.values():
        at_test_time(recipe.link)  # refuses what is no distribution
    for recipe in whole.values():  # what does not suit the pictures is told before anything is trained or written
        new_classifier(recipe, ready.train[0][:2], len(ready.classes), 0)
    jobs = {
        (name, seed): Job(name, recipe, seed, _identity(recipe, ready, seed))
        for seed in range(seeds)
        for name, recipe in whole.items()
    }
    comparison = Comparison(
        ready.name,
        n,
        len(ready.test[0]),
        {name: recipe.record() for name, recipe in whole.items()},
        _finished(results, jobs),
    )
    done = {(run.variant, run.seed) for run in comparison.runs}
    left = [job for key, job in jobs.items() if key not in done]
    if done:
        say(f"{len(done)} of {len(jobs)} runs are finished already, in {results}.")
    write_atomically(results, comparison.to_json())
    for run in _runs(ready, left, results, options.threads, progress):
        comparison = replace(comparison, runs=(*comparison.runs, run))
        write_atomically(results, comparison.to_json())
        _checkpoint(results, run.identity).unlink(missing_ok=True)
        say(f"{run.variant}, seed {run.seed}: {run.accuracy:.2%} in {run.seconds:.0f} s.")
    return comparison


@dataclass(frozen=True, slots=True)
class Job:
    """A run to be done."""

    variant: str
    recipe: Recipe
    seed: int
    identity: str


def prepare(
    data: str | os.PathLike[str] | Dataset | tuple[Any, Any], options: Options, progress: Progress, say: Say
) -> Data:
    """Read and split the pictures as `luce.torch.fit.fit` does.

    Raises:
        DataError: the data cannot be used.
        ValueError: nothing to measure on.
    """
    dataset = open_dataset(data, progress=progress)
    pixels = choose_backbone(dataset, replace(options, backbone="none"), progress, say)
    ready = make_ready(dataset, pixels, options, progress, say)
    if not len(ready.to_measure):
        raise ValueError("compare: needs held-out pictures to measure on: leave --test-share above 0")
    held = torch.from_numpy(held_back(ready, options.seed))
    pictures = as_pictures(ready.train_values, pixels)
    target = torch.from_numpy(ready.to_train.labels.astype(np.int64))
    test = as_pictures(ready.test_values, pixels), torch.from_numpy(ready.to_measure.labels.astype(np.int64))
    seen, kept = (pictures[~held], target[~held]), (pictures[held], target[held])
    return Data(dataset.name, ready.to_train.classes, seen, kept, test)


def measure_run(
    data: Data, job: Job, checkpoint: Checkpoint | None = None, on_step: Callable[[int, int], None] | None = None
) -> Run:
    """Train once and measure."""
    began = time.perf_counter()
    epochs: list[int] = []
    model = train_network(
        *data.train,
        len(data.classes),
        job.recipe,
        seed=job.seed,
        validation=data.calibration if job.recipe.patience else None,
        checkpoint=checkpoint,
        on_step=on_step,
        on_epoch=lambda history: epochs.append(len(history)),
    )
    seconds = time.perf_counter() - began
    logits, known = (logits_of(model, part[0]).double().numpy() for part in (data.test, data.calibration))
    target, known_target = data.test[1].numpy(), data.calibration[1].numpy()
    served = on_logits(at_test_time(job.recipe.link)[0])
    p, (logits, known) = np.asarray(job.recipe.link.probabilities(logits)), _as_served(job.recipe.link, logits, known)
    temperature = fit_temperature(known, known_target, link=served).value
    calibrated = np.asarray(served.probabilities(logits / temperature))
    return Run(
        job.variant,
        job.seed,
        job.identity,
        accuracy=float((p.argmax(1) == target).mean()),
        nll=nll(p, target),
        brier=brier(p, target),
        ece=ece(p, target),
        temperature=temperature,
        nll_calibrated=nll(calibrated, target),
        ece_calibrated=ece(calibrated, target),
        epochs=epochs[-1],
        seconds=round(seconds, 3),
    )


def _as_served(link: Link, *logits: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """What a model file divides by its temperature, see `luce.heads`."""
    served, scale = at_test_time(link)
    for z in logits:
        yield z * scale if is_sparse(served) else np.asarray(link.log_probabilities(z))


def _identity(recipe: Recipe, data: Data, seed: int) -> str:
    with threads(1):
        return identity(recipe, *data.train, seed)


def _checkpoint(results: Path, identity: str) -> Path:
    return results.with_name(f"{results.stem}.{identity[:12]}.checkpoint")


def _finished(results: Path, jobs: Mapping[tuple[str, int], Job]) -> tuple[Run, ...]:
    """Runs of this comparison in the file, if there is one. Those of other variants or seeds are left out.

    Raises:
        LuceError: it is no comparison, or one of other data or settings.
    """
    try:
        runs = parse_runs(results.read_text())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LuceError(f"{results}: is not the file of a comparison: choose another name for the results") from error
    same = {job.identity for job in jobs.values()}
    if len(runs) > 0 and not any(run.identity in same for run in runs):
        raise LuceError(
            f"{results}: holds another comparison (other pictures, recipes or torch): choose another name, or delete it"
        )
    return tuple(run for run in runs if (run.variant, run.seed) in jobs and run.identity in same)


def _runs(data: Data, jobs: list[Job], results: Path, n_workers: int, progress: Progress) -> Iterator[Run]:
    """Runs as they end."""
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")
    stop, steps = context.Event(), context.Queue()
    pool = ProcessPoolExecutor(
        min(n_workers, len(jobs)), context, _begin_worker, (data, results, os.getpid(), stop, steps)
    )
    n = len(data.train[0])
    to_do = {job.identity: job.recipe.epochs * (n // min(job.recipe.batch_size, n)) for job in jobs}
    done = dict.fromkeys(to_do, 0)
    try:
        waiting: set[Future[Run]] = {pool.submit(_work, job) for job in jobs}
        while waiting:
            ended, waiting = wait(waiting, _POLL_SECONDS, FIRST_COMPLETED)
            while True:
                try:
                    who, at = steps.get_nowait()
                except queue.Empty:
                    break
                done[who] = at
            progress("Training, steps", sum(done.values()), sum(to_do.values()))
            for future in ended:
                yield future.result()
    except BrokenProcessPool:
        raise LuceError(
            "a process of the comparison died, perhaps for lack of memory; what is finished is kept: run it again, "
            "with fewer --threads"
        ) from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


_SHARED: dict[str, Any] = {}  # of a worker process


def _begin_worker(data: Data, results: Path, parent: int, stop: Any, steps: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and stops us
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    steps.cancel_join_thread()
    _SHARED.update(data=data, results=results, stop=stop, steps=steps)


def _leave_with(parent: int) -> None:
    """End this process when its parent was killed: nobody else would tell it."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


class _Stopped(Exception):
    """The parent wants no more of us."""


def _work(job: Job) -> Run:
    told = time.monotonic()

    def on_step(done: int, total: int) -> None:
        nonlocal told
        if _SHARED["stop"].is_set():
            raise _Stopped
        if time.monotonic() - told > _POLL_SECONDS or done == total:
            told = time.monotonic()
            _SHARED["steps"].put((job.identity, done))

    checkpoint = Checkpoint(_checkpoint(_SHARED["results"], job.identity), job.identity)
    return measure_run(_SHARED["data"], job, checkpoint, on_step)
