"""Work on many items in threads, in order, with flat memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_chunks(
    items: Iterable[Item],
    work: Callable[[Sequence[Item]], Sequence[Result]],
    *,
    chunk: int,
    n_threads: int,
) -> Iterator[Result]:
    """Apply `work` to runs of `chunk` items and yield its results in the order of the items.

    At most two runs per thread are under way or waiting to be taken, however many items there are. When the consumer
    stops early (or is interrupted), runs that have not begun are dropped.

    Args:
        items: consumed lazily, on the caller's thread.
        work: called in `n_threads` threads; it handles the errors of single items itself.
        chunk: items per call.
        n_threads: at least 1.
    """
    source = iter(items)
    waiting: deque[Future[Sequence[Result]]] = deque()
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="luce")
    try:
        while True:
            while len(waiting) < 2 * n_threads and (run := list(islice(source, chunk))):
                waiting.append(pool.submit(work, run))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
