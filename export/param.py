"""A parameter of an operation, as the importer found it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Param:
    """A tensor that an operation reads beside its activations.

    Attributes:
        part: what it is called where the source has no name for it ("weight", "bias", "slope").
        value: in the program's layout.
        source: the module parameter or ONNX initializer it is; "" if it was computed (a folded norm, ones).
        transposed: `value` has the last two axes of the source swapped.
        learned: False for a constant: it is kept in the bundle, but no layer owns it and it has no gradient.
    """

    part: str
    value: NDArray[Any]
    source: str = ""
    transposed: bool = False
    learned: bool = True
