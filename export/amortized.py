"""What a bundle that adapts by forward passes is made from: networks, and how the head comes about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from ..edge.bundle.manifest import CNAPS, PROTOTYPES, SIMPLE_CNAPS
from ..edge.inputs import ArraySpec, InputSpec
from .capture import capture
from .converters import batch_first_attention, fold_batch_norm
from .errors import ExportError
from .forward_programs import without_classifier
from .network import Network
from .onnx_import import import_forward
from .plain import sample_shape
from .reading.file import load_onnx

if TYPE_CHECKING:
    from .plain import Values

KINDS = (PROTOTYPES, CNAPS, SIMPLE_CNAPS)
COVARIANCES = ("class", "identity")


class LearnerModules(Protocol):
    """The modules of a learner, such as `cloud.amortized.Modules`, in evaluation mode."""

    @property
    def extractor(self) -> nn.Module:
        """(n, C, H, W) -> (n, D)."""

    @property
    def films(self) -> tuple[str, ...]:
        """Names of the modules in the extractor with parameters scale, shift (C,), in order."""

    @property
    def set_encoder(self) -> nn.Module | None:
        """(n, C, H, W) -> (n, E)."""

    @property
    def film_generator(self) -> nn.Module | None:
        """(1, E) -> (1, F): of every film its scale, then its shift."""

    @property
    def head_generator(self) -> nn.Module | None:
        """Class means (n, D) -> (n, D + 1), the last column the bias."""


@dataclass(frozen=True)
class Part:
    """A captured network, and the torch module it comes from (None: an ONNX file)."""

    network: Network
    module: nn.Module | None


@dataclass(frozen=True)
class AmortizedSource:
    """Everything such a bundle is made from.

    Attributes:
        kind: "prototypes", "cnaps" or "simple-cnaps".
        name: of the bundle.
        input: shape and preprocessing of a sample.
        classes: outputs of the head.
        extractor: samples to features.
        films: names of the layers in the extractor that the device generates.
        encoder: samples to embeddings; where there are films.
        generator: mean embedding to films; likewise.
        head: class means to the head; of "cnaps".
        covariance: of "simple-cnaps": "class", or "identity" for squared distances.
        samples: support samples that plans are made for by default.
        provenance: recipe, seed, versions, meta-test accuracy.
    """

    kind: str
    name: str
    input: InputSpec | ArraySpec
    classes: int
    extractor: Part
    films: tuple[str, ...] = ()
    encoder: Part | None = None
    generator: Part | None = None
    head: Part | None = None
    covariance: str = "class"
    samples: int = 25
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ExportError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.covariance not in COVARIANCES:
            raise ExportError(
                f"covariance: expected one of {', '.join(COVARIANCES)}, got {self.covariance!r}"
            )
        for name, least in (("classes", 2), ("samples", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ExportError(f"{name}: expected an integer of at least {least}, got {value!r}")

    @property
    def parts(self) -> Mapping[str, Part]:
        """What there is beside the extractor, by the names of the bundle's files."""
        found = {"encoder": self.encoder, "film": self.generator, "head": self.head}
        return {name: part for name, part in found.items() if part is not None}

    @property
    def measures_distance(self) -> bool:
        """Whether the head has a covariance for every class."""
        return self.kind == SIMPLE_CNAPS and self.covariance == "class"


def source_of_modules(
    kind: str,
    modules: LearnerModules,
    input: InputSpec | ArraySpec,
    classes: int,
    *,
    name: str,
    covariance: str = "class",
    samples: int = 25,
    provenance: Mapping[str, Any] | None = None,
) -> AmortizedSource:
    """Capture the modules of a learner; they are not changed.

    Raises:
        ExportError: a module holds what no rule recognises, or modules do not fit together.
    """
    shape = tuple(input.shape)
    encoder = _part(modules.set_encoder, shape)
    extractor = captured(modules.extractor, shape)
    generator = _part(modules.film_generator, encoder.network.output_shape if encoder else ())
    head = _part(modules.head_generator, extractor.network.output_shape)
    notes = [*extractor.network.notes, *(encoder.network.notes if encoder else ())]
    about = {**(provenance or {}), "notes": notes}
    return AmortizedSource(
        kind,
        name,
        input,
        classes,
        extractor,
        modules.films,
        encoder,
        generator,
        head,
        covariance,
        samples,
        about,
    )


def captured(module: nn.Module, shape: tuple[int, ...]) -> Part:
    """Capture a module that is only read: a BatchNorm goes into the convolution before it where it can."""
    prepared, turned = batch_first_attention(module)
    prepared, folded = fold_batch_norm(prepared, into_conv=True)
    network = capture(prepared, shape)
    return Part(Network(network.program, network.values, network.origins, (*turned, *folded)), module)


def _part(module: nn.Module | None, shape: tuple[int, ...]) -> Part | None:
    return None if module is None else captured(module, shape)


def source_of_extractor(
    model: nn.Module | str | PathLike[str],
    classes: int,
    example: Values | None = None,
    *,
    cut_classifier: bool = False,
    samples: int = 25,
    input: InputSpec | ArraySpec | None = None,
    name: str | None = None,
) -> AmortizedSource:
    """Make prototypes of your own feature extractor; see `export_prototypes`."""
    part, shape, about = _extractor(model, example)
    spec = input or ArraySpec(shape)
    if tuple(spec.shape) != shape:
        raise ExportError(f"input: its shape is {tuple(spec.shape)}, but the samples are {shape}")
    if cut_classifier:
        part = without_last_layer(part)
    return AmortizedSource(
        PROTOTYPES,
        name or about.rpartition(" ")[2],
        spec,
        classes,
        part,
        samples=samples,
        provenance={"source": about, "notes": list(part.network.notes)},
    )


def without_last_layer(part: Part) -> Part:
    """Leave the classifier of a network away; what it was cannot be checked in torch any more."""
    return Part(without_classifier(part.network), None)


def _extractor(
    model: nn.Module | str | PathLike[str], example: Values | None
) -> tuple[Part, tuple[int, ...], str]:
    """Return a captured model, the shape of a sample, and what it is."""
    if isinstance(model, nn.Module):
        if example is None:
            raise ExportError("a torch module needs example_input, a batch (n, ...) as the module takes it")
        shape = sample_shape(example)
        return captured(model, shape), shape, f"torch module {type(model).__name__}"
    path = Path(model)
    given = None if example is None else sample_shape(example)
    network = import_forward(*load_onnx(path, given))
    shape = tuple(int(axis) for axis in network.program.tensors["images"].shape[1:])
    return Part(network, None), shape, f"ONNX file {path.name}"
