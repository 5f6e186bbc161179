"""Read a support or query set from a folder or an .npz file."""

from __future__ import annotations

from os import PathLike

from .samples import QuerySet, SupportSet
from .spec import InputSpec


def read_support(
    path: str | PathLike[str],
    spec: InputSpec,
    max_classes: int | None = None,
    max_samples: int | None = None,
    memory_limit_bytes: int | None = None,
) -> SupportSet:
    """Read labelled samples from a folder with one sub-folder per class, or an .npz of `images`, `labels`.

    Headers are read first and decide every refusal they can; then images are decoded one at a time.

    Args:
        path: folder or .npz file.
        spec: what the network expects; image files are converted to it, arrays must fit.
        max_classes: outputs of the head.
        max_samples: samples the plan was made for.
        memory_limit_bytes: the largest price of one decode that is allowed.

    Raises:
        SupportError: in one line, naming the file or array and what to do.
    """
    raise NotImplementedError


def read_query(path: str | PathLike[str], spec: InputSpec, memory_limit_bytes: int | None = None) -> QuerySet:
    """Read samples to predict: a folder of images, of class sub-folders, or an .npz with or without labels.

    Raises:
        SupportError: as for `read_support`.
    """
    raise NotImplementedError
