"""The errors the export part raises on purpose."""

from __future__ import annotations

from ..edge.errors import EdgeAdaptError


class ExportError(EdgeAdaptError):
    """A model or a run that cannot become a bundle; one line: what, where, and what to do. Exit code 1."""
