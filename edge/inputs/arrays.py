"""Arrays as samples: they fit the input spec or are refused, and are never resized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SupportError
from .samples import Pixels, QuerySet, SupportSet
from .spec import InputSpec


def from_arrays(
    images: NDArray[Any],
    labels: Sequence[int] | Sequence[str] | NDArray[Any],
    spec: InputSpec,
    max_classes: int | None = None,
    max_samples: int | None = None,
) -> SupportSet:
    """Check arrays and make a support set of them, without copying the images where that is possible.

    Args:
        images: uint8 (n, H, W, C), or (n, H, W) for grey; or float32 (n, C, H, W), preprocessed already.
        labels: n integers or strings; the sorted unique values are the classes.
        spec: what the network expects.
        max_classes: outputs of the head.
        max_samples: samples the plan was made for.

    Raises:
        SupportError: naming what was expected and what was found.
    """
    return support_from_arrays("arrays", images, np.asarray(labels), spec, max_classes, max_samples)


def query_from_arrays(images: NDArray[Any], spec: InputSpec) -> QuerySet:
    """Check an array of samples to predict; same forms and errors as `from_arrays`."""
    checked = checked_images("arrays", images, spec)
    return QuerySet(checked, tuple(str(index) for index in range(len(checked))), None, spec)


def support_from_arrays(
    where: str,
    images: NDArray[Any],
    labels: NDArray[Any],
    spec: InputSpec,
    max_classes: int | None,
    max_samples: int | None,
) -> SupportSet:
    """Do what `from_arrays` says; errors begin with `where`, the file or "arrays"."""
    check_array_kinds(where, images.dtype, images.shape, labels.dtype, labels.shape, spec)
    names, indices = np.unique(labels, return_inverse=True)
    check_counts(where, len(labels), len(names), max_classes, max_samples)
    class_names = tuple(str(name) for name in names)
    return SupportSet(checked_images(where, images, spec), indices.astype(np.int64), class_names, spec)


def check_array_kinds(
    where: str,
    image_dtype: np.dtype[Any],
    image_shape: tuple[int, ...],
    label_dtype: np.dtype[Any],
    label_shape: tuple[int, ...],
    spec: InputSpec,
) -> None:
    """Refuse images and labels whose types or shapes do not fit the spec or each other."""
    check_image_kind(where, image_dtype, image_shape, spec)
    if label_dtype.kind not in "iuU":
        raise SupportError(f"{where}, labels: expected integers or strings, got {label_dtype}")
    if label_shape != image_shape[:1]:
        raise SupportError(
            f"{where}, labels: expected one per image, shape {image_shape[:1]}, got {label_shape}"
        )


def check_image_kind(where: str, dtype: np.dtype[Any], shape: tuple[int, ...], spec: InputSpec) -> None:
    """Refuse an array of images that is neither uint8 pixels nor float32 inputs of the spec's shape."""
    pixels = dtype == np.uint8 and shape[1:] in (spec.pixel_shape, _grey_shape(spec))
    values = dtype == np.float32 and shape[1:] == spec.shape
    if not pixels and not values:
        raise SupportError(
            f"{where}, images: expected uint8 pixels (n, {_inner(spec.pixel_shape)}) or float32 preprocessed "
            f"values (n, {_inner(spec.shape)}), got {dtype} ({_inner(shape)}); arrays are never resized"
        )
    if not shape[0]:
        raise SupportError(f"{where}, images: there are none")


def checked_images(where: str, images: NDArray[Any], spec: InputSpec) -> Pixels:
    """Check an array of images, values included; return uint8 (n, H, W, C) or float32 (n, C, H, W)."""
    check_image_kind(where, images.dtype, images.shape, spec)
    if images.dtype == np.uint8:
        return images.reshape(len(images), *spec.pixel_shape)
    for index, sample in enumerate(images):
        if not np.isfinite(sample).all():
            raise SupportError(f"{where}, images: sample {index} holds NaN or infinity; remove or repair it")
    return images


def check_counts(
    where: str, samples: int, classes: int, max_classes: int | None, max_samples: int | None
) -> None:
    """Refuse fewer than two classes, more classes than the head has, more samples than planned."""
    if classes < 2:
        raise SupportError(f"{where}: expected samples of at least 2 classes, got {classes}")
    if max_classes is not None and classes > max_classes:
        raise SupportError(f"{where}: {classes} classes, but the model's head has {max_classes} outputs")
    if max_samples is not None and samples > max_samples:
        raise SupportError(
            f"{where}: {samples} samples, but the plan is for at most {max_samples}; "
            f"plan with --samples {samples}"
        )


def _grey_shape(spec: InputSpec) -> tuple[int, ...]:
    """Return the shape a grey image may have without its channel axis."""
    return spec.pixel_shape[:2] if spec.channels == 1 else spec.pixel_shape


def _inner(shape: tuple[int, ...]) -> str:
    return ", ".join(str(extent) for extent in shape)
