"""Read a support or query set from a folder or an .npz file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ..errors import SupportError
from .archives import query_from_archive, support_from_archive
from .folders import query_from_folder, support_from_folder
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
    source = _existing(path)
    if source.is_dir():
        return support_from_folder(source, spec, max_classes, max_samples, memory_limit_bytes)
    return support_from_archive(source, spec, max_classes, max_samples)


def read_query(path: str | PathLike[str], spec: InputSpec, memory_limit_bytes: int | None = None) -> QuerySet:
    """Read samples to predict: a folder of images, of class sub-folders, or an .npz with or without labels.

    Raises:
        SupportError: as for `read_support`.
    """
    source = _existing(path)
    if source.is_dir():
        return query_from_folder(source, spec, memory_limit_bytes)
    return query_from_archive(source, spec)


def _existing(path: str | PathLike[str]) -> Path:
    """Return the path if it is a folder or an .npz file."""
    source = Path(path)
    if not source.exists():
        raise SupportError(f"{source}: no such file or folder")
    if not source.is_dir() and source.suffix != ".npz":
        raise SupportError(f"{source}: expected a folder of images or an .npz file")
    return source
