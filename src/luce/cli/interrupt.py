"""Ctrl-C that cannot get lost.

Python raises KeyboardInterrupt wherever the program happens to be. Inside a callback of the garbage collector or of an
import it is printed and forgotten. So it is also remembered, and raised again when the work next reports progress.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_seen = threading.Event()


def check() -> None:
    """Raise KeyboardInterrupt if one was meant since `listening` began."""
    if _seen.is_set():
        raise KeyboardInterrupt


@contextmanager
def listening() -> Iterator[None]:
    """Remember interrupts for `check`; only the main thread gets any."""
    _seen.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.signal(signal.SIGINT, _interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    _seen.set()
    raise KeyboardInterrupt
