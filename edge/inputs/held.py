"""What reading a support set keeps in memory, counted while it grows."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ..errors import SupportError
from ..units import format_bytes

GRANULE = 16
"""Python rounds small objects up to that; a text also has a place in a list, which grows and is sorted."""
LABEL_BYTES = 8
NAME_BYTES = 200
"""Of a sample's file name, where nothing is known of it."""


@dataclass
class Held:
    """Bytes that are kept.

    Attributes:
        where: the folder or file, for errors.
        limit: most that may be kept; None: no bound.
        total: kept so far.
    """

    where: str
    limit: int | None
    total: int = 0

    def add(self, size: int) -> None:
        """Count bytes; raises SupportError above the limit."""
        self.total += size
        if self.limit is not None and self.total > self.limit:
            raise SupportError(
                f"{self.where}: the names and labels of its samples take more than {format_bytes(self.limit)}, which is"
                " what the budget leaves for them; raise the budget, or give fewer samples or shorter names"
            )

    def add_text(self, text: str) -> None:
        """Count a text that is kept in a list."""
        self.add(-(-sys.getsizeof(text) // GRANULE) * GRANULE + GRANULE)
