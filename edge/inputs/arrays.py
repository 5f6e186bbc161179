"""Arrays as samples: they fit the input spec or are refused, and are never resized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SupportError
from .answers import Answers, Array, ClassLabels, Header
from .kinds import Spec
from .samples import QuerySet, Stored, SupportSet

SAMPLES = "images"


def from_arrays(
    images: NDArray[Any],
    labels: Sequence[int] | Sequence[str] | NDArray[Any],
    spec: Spec,
    max_classes: int | None = None,
    max_samples: int | None = None,
) -> SupportSet:
    """Check arrays and make a labelled support set of them, without copying the images where possible.

    Args:
        images: uint8 (n, H, W, C), or (n, H, W) for grey; or float32 (n, C, H, W), preprocessed already. Of
            an array input: float32 (n, *shape), not preprocessed.
        labels: n integers or strings; the sorted unique values are the classes.
        spec: what the network expects.
        max_classes: outputs of the head.
        max_samples: samples the plan was made for.

    Raises:
        SupportError: naming what was expected and what was found.
    """
    given = {"labels": np.asarray(labels)}
    return support_from_arrays("arrays", images, given, spec, ClassLabels(max_classes), max_samples)


def query_from_arrays(images: NDArray[Any], spec: Spec) -> QuerySet:
    """Check an array of samples to predict; same forms and errors as `from_arrays`."""
    checked = checked_samples("arrays", images, spec)
    return QuerySet(checked, tuple(str(index) for index in range(len(checked))), None, spec)


def support_from_arrays(
    where: str,
    samples: NDArray[Any],
    given: Mapping[str, Array],
    spec: Spec,
    answers: Answers,
    max_samples: int | None,
    name: str = SAMPLES,
) -> SupportSet:
    """Check samples and what is said about them; errors begin with `where`, the file or "arrays".

    Args:
        where: for errors.
        samples: as `images` of `from_arrays`.
        given: arrays named as `answers.parts` says.
        spec: what the network expects.
        answers: what the loss expects.
        max_samples: samples the plan was made for.
        name: of the samples, for errors.
    """
    check_headers(
        where,
        (samples.shape, samples.dtype),
        {part: (array.shape, array.dtype) for part, array in given.items()},
        spec,
        answers,
        name,
    )
    check_sample_count(where, len(samples), max_samples)
    checked, class_names = answers.read(where, given)
    return SupportSet(checked_samples(where, samples, spec, name), checked, class_names, spec)


def check_headers(
    where: str, samples: Header, given: Mapping[str, Header], spec: Spec, answers: Answers, name: str
) -> None:
    """Refuse samples and answers whose types or shapes do not fit the specs or each other."""
    check_samples_header(where, samples, spec, name)
    answers.check_headers(where, samples[0][0], given)


def check_samples_header(where: str, header: Header, spec: Spec, name: str = SAMPLES) -> None:
    """Refuse an array of samples whose type or shape does not fit the spec."""
    shape, dtype = header
    if not spec.accepts(dtype, shape[1:]):
        inner = ", ".join(str(extent) for extent in shape)
        raise SupportError(f"{where}, {name}: expected {spec.expected}, got {dtype} ({inner}); {spec.advice}")
    if not shape[0]:
        raise SupportError(f"{where}, {name}: there are none")


def checked_samples(where: str, samples: NDArray[Any], spec: Spec, name: str = SAMPLES) -> Stored:
    """Check an array of samples, values included; return it as a support set keeps it."""
    check_samples_header(where, (samples.shape, samples.dtype), spec, name)
    if samples.dtype == np.uint8:
        return samples.reshape(len(samples), *spec.stored_shape)
    for index, sample in enumerate(samples):
        if not np.isfinite(sample).all():
            raise SupportError(f"{where}, {name}: sample {index} holds NaN or infinity; remove or repair it")
    return samples


def check_sample_count(where: str, samples: int, max_samples: int | None) -> None:
    """Refuse more samples than planned."""
    if max_samples is not None and samples > max_samples:
        raise SupportError(
            f"{where}: {samples} samples, but the plan is for at most {max_samples}; "
            f"plan with --samples {samples}"
        )
