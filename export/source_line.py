"""Which line of the user's own code something comes from."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from textwrap import shorten
from types import TracebackType

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*\n(?P<code>[^\n]*)')
_LIBRARIES = ("site-packages", "dist-packages", "<")


def line_in_trace(trace: str) -> str:
    """The innermost line of the user's code in a printed stack, as "FILE:LINE (`code`)"; "" if there is none."""
    found = [match for match in _FRAME.finditer(trace) if not _is_library(match["file"])]
    return _text(found[-1]["file"], int(found[-1]["line"]), found[-1]["code"]) if found else ""


def line_of_error(trace: TracebackType | None) -> str:
    """The innermost line of the user's code that an exception passed through, in the same form."""
    frames = [frame for frame in traceback.extract_tb(trace) if not _is_library(frame.filename)]
    own = [frame for frame in frames if Path(frame.filename).parent != Path(__file__).parent]
    return _text(own[-1].filename, own[-1].lineno or 0, own[-1].line or "") if own else ""


def _is_library(file: str) -> bool:
    return any(part in file for part in _LIBRARIES) or f"{Path(traceback.__file__).parent}" in file


def _text(file: str, line: int, code: str) -> str:
    return f"{Path(file).name}:{line} (`{shorten(code.strip(), 80)}`)"
