"""Ctrl-C held back while something must happen all or not at all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType


@contextmanager
def uninterrupted() -> Iterator[Sequence[object]]:
    """Hold back Ctrl-C, so that the updates of one step happen all or not at all.

    Yields:
        What was held back so far: empty as long as nobody asked to stop.
    """
    caught: list[tuple[int, FrameType | None]] = []
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield caught
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append((number, frame)))
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)
    if caught and callable(before):
        before(*caught[0])
