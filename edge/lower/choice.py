"""How an adaptation is run: what the budget search chooses between. Every choice computes the same update."""

from __future__ import annotations

from dataclasses import dataclass

ACCUMULATE, CACHED_SUFFIX = "accumulate", "cached suffix"
SCHEDULES = (ACCUMULATE, CACHED_SUFFIX)
STREAM = "stream"
"""Of bundles that adapt by forward passes; nothing is chosen but micro-batch and tiling."""
STORAGES = ("dense", "sparse")
TILINGS = ("maps", "norms", "convs", "lean")
MAPS, NORMS, CONVS, LEAN = TILINGS
FLOAT_BITS = 32


@dataclass(frozen=True)
class Choice:
    """One way to lower an adaptation.

    Attributes:
        micro_batch: samples per run of a body (cached suffix: of the prefix; its suffix takes all samples).
        schedule: "accumulate": micro-batch by micro-batch, mean gradients added up, one update. "cached suffix":
            what no step changes is computed once; the rest runs layer by layer over the whole support set and
            updates every parameter right after its last reader.
        storage: "dense", or "sparse" to keep only attended channels where that is smaller.
        saved_bits: 32, or 8 for maps kept for the backward pass.
        cache_bits: 32, or 16 for maps kept between prefix and suffix.
        recompute: compute the input of a convolution again from its normalised map instead of keeping both.
        tiling: "maps": every operation writes whole maps; "norms": elementwise operations, norms and pools run
            block of channels by block of channels; "convs": convolutions, too, where only such a chain reads them;
            "lean": like that, and convolutions are computed the way that needs least workspace.
    """

    micro_batch: int = 1
    schedule: str = ACCUMULATE
    storage: str = "dense"
    saved_bits: int = FLOAT_BITS
    cache_bits: int = FLOAT_BITS
    recompute: bool = False
    tiling: str = "maps"
