"""Ctrl-C while one of our programs starts: imports, in which an exception would end anywhere in a library."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn

LINES = {
    "edge-adapt": b"error: interrupted\n",
    "export-bundle": b"error: interrupted\n",
    "meta-train": b"Error: interrupted\n",
}
"""What each program says, in its own words."""
INTERRUPTED = 130


def quit_on_interrupt() -> None:
    """End the program at once on SIGINT, with one line and exit code 130; for when there is nothing to save.

    Does nothing where edge-adapt is a library of some other program, or where SIGINT has another handler already, such
    as none in a job in the background.
    """
    ours = _program() in LINES and threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _quit)


def raise_on_interrupt() -> None:
    """Undo `quit_on_interrupt`: a SIGINT raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _quit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _quit(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, LINES[_program()])
    os._exit(INTERRUPTED)


def _program() -> str:
    return Path(sys.argv[0]).name if sys.argv else ""
