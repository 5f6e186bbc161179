"""Read a support or query set from a folder or an .npz file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ..errors import SupportError
from .answers import Answers, ClassLabels
from .archives import query_from_archive, support_from_archive
from .arrays import SAMPLES
from .folders import query_from_folder, support_from_folder
from .kinds import Spec
from .samples import QuerySet, SupportSet
from .spec import InputSpec

ANY_LABELS = ClassLabels()


def read_support(
    path: str | PathLike[str],
    spec: Spec,
    answers: Answers = ANY_LABELS,
    max_samples: int | None = None,
    memory_limit_bytes: int | None = None,
) -> SupportSet:
    """Read samples and what is said about them: a folder with one sub-folder per class, or an .npz.

    An .npz holds `images` (or `inputs`, the same) and the arrays that `answers` names: `labels`, or `targets`,
    or `actions` and `advantages`. A folder can only give labels, and images only.

    Headers are read first and decide every refusal they can; then images are decoded one at a time.

    Args:
        path: folder or .npz file.
        spec: what the network expects; image files are converted to it, arrays must fit.
        answers: what the loss expects; by default labels of any number of classes.
        max_samples: samples the plan was made for.
        memory_limit_bytes: the largest price of one decode that is allowed.

    Raises:
        SupportError: in one line, naming the file or array and what to do.
    """
    source = existing(path)
    if not source.is_dir():
        return support_from_archive(source, spec, answers, max_samples)
    if not isinstance(answers, ClassLabels):
        raise SupportError(
            f"{source}: a folder names classes, but this model learns from {' and '.join(answers.parts)}; give an"
            f" .npz of {', '.join((SAMPLES, *answers.parts))}"
        )
    return support_from_folder(source, images_only(source, spec), answers, max_samples, memory_limit_bytes)


def read_query(path: str | PathLike[str], spec: Spec, memory_limit_bytes: int | None = None) -> QuerySet:
    """Read samples to predict: a folder of images, of class sub-folders, or an .npz with or without labels.

    Raises:
        SupportError: as for `read_support`.
    """
    source = existing(path)
    if source.is_dir():
        return query_from_folder(source, images_only(source, spec), memory_limit_bytes)
    return query_from_archive(source, spec)


def images_only(folder: Path, spec: Spec) -> InputSpec:
    """Return the spec if it is that of an image, which a folder can hold."""
    if not isinstance(spec, InputSpec):
        raise SupportError(
            f"{folder}: a folder of images, but this model takes {spec.expected}; give an .npz"
        )
    return spec


def existing(path: str | PathLike[str]) -> Path:
    """Return the path if it is a folder or an .npz file."""
    source = Path(path)
    if not source.exists():
        raise SupportError(f"{source}: no such file or folder")
    if not source.is_dir() and source.suffix != ".npz":
        raise SupportError(f"{source}: expected a folder of images or an .npz file")
    return source
