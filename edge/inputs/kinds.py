"""The kinds of input a network may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ..errors import BundleError
from .array_spec import ArraySpec
from .spec import InputSpec

Spec: TypeAlias = InputSpec | ArraySpec
KINDS: Mapping[str, type[InputSpec] | type[ArraySpec]] = {spec.kind: spec for spec in (InputSpec, ArraySpec)}


def spec_from_json(data: Mapping[str, Any]) -> Spec:
    """Read a manifest's `input` object, of any kind; without a `kind` it is an image.

    Raises:
        BundleError: naming the field that is missing or wrong.
    """
    kind = data.get("kind", InputSpec.kind)
    if not isinstance(kind, str) or kind not in KINDS:
        raise BundleError(f"manifest input.kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    return KINDS[kind].from_json(data)
